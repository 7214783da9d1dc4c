"""Which faces touch which pixels, exactly: the lists that the other kernels work on. No derivative.

Faces are prepared once (`Face`), listed by tiles, and then by pixels. A face that is wholly behind
one that covers the whole pixel is not listed. On a CPU a thread takes a tile and goes face by face;
on a GPU it takes a pixel.
"""

# mypy: disable-error-code="no-untyped-def, valid-type"

from typing import Any

import taichi as ti

from taichi_raster.kernels.areas.layout import FLOATS, INTS, Arrays, Face, Size, View
from taichi_raster.maths.tracing import traced
from taichi_raster.runtime.device import Runtime


@ti.data_oriented
class Footprints:
    """The base of all kernels for exact areas.

    Attributes:
        on_cpu: whether a thread goes through tiles rather than pixels.
        tie: by which part of its w a face that shows its front comes before others.
        tiny, full: areas that do not count, and that count as a whole pixel.
        near: by how much polygons may overlap and still count as apart, in pixels.
        values: how many numbers the attributes of a face are.
        atomic: whether threads share a tile: on a GPU, unless sums are taken in a fixed order.
    """

    def __init__(self, view: View, runtime: Runtime) -> None:
        self.view = view
        self.values = 3 * max(view.channels, 0)
        self.on_cpu = runtime.arch == "cpu"
        self.atomic = not (self.on_cpu or runtime.deterministic)
        double = runtime.precision == "f64"
        self.real: Any = runtime.ti_float
        self.tie = 1e-11 if double else 4e-6
        self.tiny = 1e-14 if double else 1e-8
        self.full = 1 - (1e-12 if double else 2e-6)
        self.near = 1e-12 if double else 1e-6
        self.least = 1e-30  # instead of a difference of zero
        self.huge = 1e30

    @traced
    def arrays(self, **arrays: Any) -> Arrays:
        """A kernel's arrays, to hand to its functions."""
        return Arrays(**arrays)

    @traced
    def parts(self, ints: Any, floats: Any, size: Any, **arrays: Any) -> Arrays:
        """The same on a CPU, where most arrays are parts of two."""
        return Arrays.of_parts(ints, floats, size, **arrays)

    # --- faces ------------------------------------------------------------------------------------

    @ti.kernel
    def prepare(self, vertices: FLOATS, faces: FLOATS, boxes: INTS, size: INTS, limits: FLOATS):
        """Each face's record, and the pixels that its bounding box touches; on a GPU."""
        m = self.arrays(vertices=vertices, faces=faces, boxes=boxes, size=size, limits=limits)
        for f in range(size[Size.BATCH] * size[Size.FACES]):
            self.prepare_face(m, f)

    @ti.func
    def prepare_face(self, m: ti.template(), f):
        """Write a face's record, and the pixels that its bounding box touches: none if no pixel can
        see the face, which then has no record."""
        height, width = m.size[Size.HEIGHT], m.size[Size.WIDTH]
        half = 0.5 * ti.cast(ti.min(height, width), self.real)
        x = ti.Vector.zero(self.real, 3)
        y = ti.Vector.zero(self.real, 3)
        seen = True
        for i in ti.static(range(3)):
            x[i] = m.vertices[9 * f + 3 * i] * half + 0.5 * ti.cast(width, self.real)
            y[i] = m.vertices[9 * f + 3 * i + 1] * half + 0.5 * ti.cast(height, self.real)
            seen = seen and m.vertices[9 * f + 3 * i + 2] > 0
        ex, ey, dx, dy = x[1] - x[0], y[1] - y[0], x[2] - x[0], y[2] - y[0]
        area = ex * dy - ey * dx
        front = area < 0 if ti.static(self.view.clockwise) else area > 0
        seen = seen and (front if ti.static(self.view.cull) else area != 0)
        left, right, top, bottom = 0, 0, 0, 0
        if seen:
            w = ti.Vector.zero(self.real, 3)
            for i in ti.static(range(3)):
                z = m.vertices[9 * f + 3 * i + 2]
                w[i] = -z if ti.static(self.view.orthographic) else 1 / z
            near, far = m.limits[0], m.limits[1]
            nearest = -near if ti.static(self.view.orthographic) else 1 / near
            farthest = -far if ti.static(self.view.orthographic) else 1 / far
            low, high = w.min(), w.max()
            if low <= nearest and high >= farthest:
                at = Face.SIZE * f
                for i in ti.static(range(3)):
                    m.faces[at + Face.X + 2 * i] = x[i]
                    m.faces[at + Face.X + 2 * i + 1] = y[i]
                    m.faces[at + Face.W + i] = w[i]
                inverse = 1 / area
                m.faces[at + Face.SLOPE_X] = ((w[1] - w[0]) * dy - (w[2] - w[0]) * ey) * inverse
                m.faces[at + Face.SLOPE_Y] = ((w[2] - w[0]) * ex - (w[1] - w[0]) * dx) * inverse
                bonus = self.tie * ti.max(ti.abs(low), ti.abs(high)) if front else 0 * area
                m.faces[at + Face.ORDER] = bonus
                m.faces[at + Face.SIGN] = ti.select(area > 0, 1, -1)
                m.faces[at + Face.CUT] = ti.select(high > nearest or low < farthest, 1, 0)
                m.faces[at + Face.W_MIN] = low + bonus
                m.faces[at + Face.W_MAX] = high + bonus
                # Rows count from the top. A box that only touches a pixel's edge does not reach it.
                h = ti.cast(height, self.real)
                left = self.whole(ti.floor(x.min()), width)
                right = self.whole(ti.ceil(x.max()), width)
                top = self.whole(ti.floor(h - y.max()), height)
                bottom = self.whole(ti.ceil(h - y.min()), height)
        m.boxes[4 * f] = left
        m.boxes[4 * f + 1] = right
        m.boxes[4 * f + 2] = top
        m.boxes[4 * f + 3] = bottom

    @ti.func
    def whole(self, value, most):
        """`value` as an integer in [0, most]."""
        return ti.cast(ti.min(ti.max(value, 0), ti.cast(most, self.real)), ti.i32)

    # --- pixels -----------------------------------------------------------------------------------

    @ti.kernel
    def count_pixels(
        self,
        faces: FLOATS,
        boxes: INTS,
        begins: INTS,
        listed: INTS,
        covered: FLOATS,
        counts: INTS,
        size: INTS,
    ):
        """Count each pixel's fragments; on a GPU."""
        m = self.arrays(
            faces=faces,
            boxes=boxes,
            begins=begins,
            listed=listed,
            covered=covered,
            counts=counts,
            size=size,
        )
        for p in range(size[Size.BATCH] * size[Size.HEIGHT] * size[Size.WIDTH]):
            covered[p] = -self.huge
            counts[p] = 0
            self.meet(m, p, 0)
            self.meet(m, p, 1)

    @ti.func
    def box_of(self, m: ti.template(), tile):
        """(batch item, left, right, top, bottom) of a tile's pixels."""
        b = tile // m.size[Size.TILES]
        rest = tile - b * m.size[Size.TILES]
        side = m.size[Size.TILE]
        row = rest // m.size[Size.TILES_X]
        column = rest - row * m.size[Size.TILES_X]
        right = ti.min((column + 1) * side, m.size[Size.WIDTH])
        bottom = ti.min((row + 1) * side, m.size[Size.HEIGHT])
        return b, column * side, right, row * side, bottom

    @ti.func
    def number(self, m: ti.template(), b, row, column):
        """A pixel's number in the batch."""
        return (b * m.size[Size.HEIGHT] + row) * m.size[Size.WIDTH] + column

    @ti.func
    def pixel_of(self, m: ti.template(), at):
        """(row, column, tile) of a GPU thread's pixel; the row is -1 outside the image.

        The first pixels of all tiles come first, then the second ones, and so on.
        """
        tiles = m.size[Size.BATCH] * m.size[Size.TILES]
        within = at // tiles
        tile = at - within * tiles
        _b, left, right, top, bottom = self.box_of(m, tile)
        row = top + within // m.size[Size.TILE]
        column = left + within % m.size[Size.TILE]
        if row >= bottom or column >= right:
            row = -1
        return row, column, tile

    @ti.func
    def depth_at(self, m: ti.template(), f, x, y):
        """(w with `ORDER` at a pixel's centre, by how much it can differ within the pixel)."""
        at = Face.SIZE * f
        slope_x, slope_y = m.faces[at + Face.SLOPE_X], m.faces[at + Face.SLOPE_Y]
        w = m.faces[at + Face.W] + m.faces[at + Face.ORDER]
        w += slope_x * (x - m.faces[at]) + slope_y * (y - m.faces[at + 1])
        return (w, 0.5 * (ti.abs(slope_x) + ti.abs(slope_y)))

    @ti.func
    def meet(self, m: ti.template(), p, step: ti.template()):
        """Go through the faces of a pixel's tile; `step` is that of `enter`."""
        row, column, tile = self.pixel_at(m, p)
        x = ti.cast(column, self.real) + 0.5
        y = ti.cast(m.size[Size.HEIGHT] - row, self.real) - 0.5
        for pair in range(m.begins[tile], m.begins[tile + 1]):
            f = m.listed[pair]
            if (
                column >= m.boxes[4 * f]
                and column < m.boxes[4 * f + 1]
                and (row >= m.boxes[4 * f + 2])
                and (row < m.boxes[4 * f + 3])
            ):
                edges, reach, low, high = self.outline(m, f)
                self.enter(m, f, pair, p, x, y, edges, reach, low, high, step)

    @ti.func
    def pixel_at(self, m: ti.template(), p):
        """(row, column, tile) of a pixel."""
        pixels = m.size[Size.HEIGHT] * m.size[Size.WIDTH]
        b = p // pixels
        rest = p - b * pixels
        row = rest // m.size[Size.WIDTH]
        column = rest - row * m.size[Size.WIDTH]
        side = m.size[Size.TILE]
        tile = b * m.size[Size.TILES] + row // side * m.size[Size.TILES_X] + column // side
        return row, column, tile

    @ti.func
    def outline(self, m: ti.template(), f):
        """(edges, reach, least w, largest w) of a face.

        `edges` has three rows (x, y, dx, dy), counter-clockwise. `reach` is by how much an edge's
        cross product can change within half a pixel. The last two numbers are of w with `ORDER`.
        """
        at = Face.SIZE * f
        sign = m.faces[at + Face.SIGN]
        edges = ti.Matrix.zero(self.real, 3, 4)
        reach = ti.Vector.zero(self.real, 3)
        for i in ti.static(range(3)):
            x0, y0 = m.faces[at + 2 * i], m.faces[at + 2 * i + 1]
            dx = sign * (m.faces[at + 2 * ((i + 1) % 3)] - x0)
            dy = sign * (m.faces[at + 2 * ((i + 1) % 3) + 1] - y0)
            edges[i, 0] = x0
            edges[i, 1] = y0
            edges[i, 2] = dx
            edges[i, 3] = dy
            reach[i] = 0.5 * (ti.abs(dx) + ti.abs(dy))
        return edges, reach, m.faces[at + Face.W_MIN], m.faces[at + Face.W_MAX]

    @ti.func
    def enter(
        self, m: ti.template(), f, pair, p, x, y, edges, reach, low, high, step: ti.template()
    ):
        """What is done with a face and a pixel.

        Step 0: if the face covers the pixel, note its least w there. Step 1: count it, unless it is
        wholly behind a face that covers the pixel. Step 2: list it; as -1 - pair if it covers it.
        """
        touches, covers = True, True
        for i in ti.static(range(3)):
            value = edges[i, 2] * (y - edges[i, 1]) - edges[i, 3] * (x - edges[i, 0])
            touches = touches and value > -reach[i]
            covers = covers and value >= reach[i]
        at = Face.SIZE * f
        covers = covers and m.faces[at + Face.CUT] == 0
        if covers if ti.static(step == 0) else touches:
            w, spread = self.depth_at(m, f, x, y)
            if ti.static(step == 0):
                m.covered[p] = ti.max(m.covered[p], ti.max(w - spread, low))
            elif ti.min(w + spread, high) >= m.covered[p]:
                if ti.static(step == 1):
                    m.counts[p] = m.counts[p] + 1
                else:
                    m.slots[m.counts[p]] = -1 - pair if covers else pair
                    m.counts[p] = m.counts[p] + 1
