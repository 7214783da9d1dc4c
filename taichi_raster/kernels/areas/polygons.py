"""Convex polygons in scratch memory: cut by a line, measured. All within one pixel.

A polygon is a record of `RECORD` numbers in a flat array. Its corners go counter-clockwise,
relative to the pixel's centre, in pixels, y up. Each edge has a label that says which line it lies
on (see `Label`), so that its motion is known.
"""

# mypy: disable-error-code="no-untyped-def, valid-type"

import taichi as ti

from taichi_raster.kernels.areas.layout import Label

CORNERS = 16
"""Room for corners: a triangle within a pixel has 7, and each cut adds at most one."""


class At:
    """Where a record holds what."""

    COUNT = 0  # corners
    W_MIN = 1  # least and largest w on the polygon
    W_MAX = 2
    LEFT = 3  # its bounding box
    RIGHT = 4
    BOTTOM = 5
    TOP = 6
    AREA = 7
    X = 8  # integrals of x and y
    Y = 9
    LIMIT = 10  # the most that w can be
    NEXT = 11  # the next face to hide it
    TRIANGLE = 12  # the whole face, before it is cut: x and y of each corner
    FIRST = 18  # x, y and the label of the edge that begins there, for each corner


RECORD = At.FIRST + 3 * CORNERS


@ti.func
def put(memory: ti.template(), record, i, x, y, label):
    """Write corner `i`, if there is room."""
    if i < CORNERS:
        at = record + At.FIRST + 3 * i
        memory[at] = x
        memory[at + 1] = y
        memory[at + 2] = label


@ti.func
def copy(memory: ti.template(), source, target):
    """Copy a polygon's corners and `NEXT`."""
    count = ti.cast(memory[source], ti.i32)
    memory[target] = memory[source]
    memory[target + At.NEXT] = memory[source + At.NEXT]
    for i in range(3 * count):
        memory[target + At.FIRST + i] = memory[source + At.FIRST + i]


@ti.func
def split(memory: ti.template(), source, inside, outside, a, b, c, label, both: ti.template()):
    """Split a polygon by the line a x + b y + c = 0: the part where that is positive, and the rest.

    The edges along the line get `label`. The rest is written only where `both`.
    """
    count = ti.cast(memory[source], ti.i32)
    n_in, n_out = 0, 0
    if count > 0:
        first = source + At.FIRST
        x, y, l = memory[first], memory[first + 1], memory[first + 2]  # noqa: E741
        x_first, y_first, l_first = x, y, l
        d = a * x + b * y + c
        d_first = d
        for i in range(count):
            x_next, y_next, l_next, d_next = x_first, y_first, l_first, d_first
            if i + 1 < count:
                at = first + 3 * (i + 1)
                x_next, y_next, l_next = memory[at], memory[at + 1], memory[at + 2]
                d_next = a * x_next + b * y_next + c
            if d > 0:
                put(memory, inside, n_in, x, y, l)
                n_in += 1
            elif ti.static(both):
                put(memory, outside, n_out, x, y, l)
                n_out += 1
            if (d > 0) != (d_next > 0):
                t = d / (d - d_next)
                x_cut, y_cut = x + t * (x_next - x), y + t * (y_next - y)
                put(memory, inside, n_in, x_cut, y_cut, ti.select(d > 0, label, l))
                n_in += 1
                if ti.static(both):
                    put(memory, outside, n_out, x_cut, y_cut, ti.select(d > 0, l, label))
                    n_out += 1
            x, y, l, d = x_next, y_next, l_next, d_next  # noqa: E741
    memory[inside] = ti.min(n_in, CORNERS)
    if ti.static(both):
        memory[outside] = ti.min(n_out, CORNERS)


@ti.func
def moments(memory: ti.template(), record):
    """(area, integral of x, integral of y)."""
    count = ti.cast(memory[record], ti.i32)
    area = memory[record] * 0
    x_sum, y_sum = area, area
    last = record + At.FIRST + 3 * (count - 1)
    if count > 2:
        x, y = memory[last], memory[last + 1]
        for i in range(count):
            at = record + At.FIRST + 3 * i
            x_next, y_next = memory[at], memory[at + 1]
            cross = x * y_next - x_next * y
            area += cross
            x_sum += cross * (x + x_next)
            y_sum += cross * (y + y_next)
            x, y = x_next, y_next
    return 0.5 * area, x_sum / 6, y_sum / 6


@ti.func
def halve(memory: ti.template(), record, behind):
    """Cut a polygon in two; the second half goes to `behind`."""
    count = ti.cast(memory[record], ti.i32)
    middle = count // 2
    first = record + At.FIRST
    memory[behind + At.NEXT] = memory[record + At.NEXT]
    for i in range(middle, count):
        at = first + 3 * i
        put(memory, behind, i - middle, memory[at], memory[at + 1], memory[at + 2])
    put(memory, behind, count - middle, memory[first], memory[first + 1], Label.BORDER)
    memory[behind] = count - middle + 1
    memory[first + 3 * middle + 2] = Label.BORDER
    memory[record] = middle + 1
