"""From the adjoints of what is seen to those of corners, depths and attributes.

The derivative is the boundary integral (Reynolds' transport theorem): where an edge moves outwards
by v, the integral of a function over the part grows by that of the function times v along the edge.
Each edge of a piece lies on a line that is known by its label, so that its motion is known. It does
not matter where pieces were cut apart: the two sides cancel.
"""

# mypy: disable-error-code="no-untyped-def, valid-type"

import taichi as ti

from taichi_raster.kernels.areas.hiding import Hiding
from taichi_raster.kernels.areas.layout import Face, Label, Pair
from taichi_raster.kernels.areas.polygons import At


@ti.data_oriented
class Adjoints(Hiding):
    """Functions that add to `Pair` records and to the adjoints of attributes."""

    @ti.func
    def barycentric(self, m: ti.template(), f, x, y):
        """(coordinates, their slopes in x, in y) at a point."""
        at = Face.SIZE * f
        x0, y0 = m.faces[at], m.faces[at + 1]
        ex, ey = m.faces[at + 2] - x0, m.faces[at + 3] - y0
        dx, dy = m.faces[at + 4] - x0, m.faces[at + 5] - y0
        inverse = 1 / (ex * dy - ey * dx)
        in_x = ti.Vector([(ey - dy) * inverse, dy * inverse, -ey * inverse])
        in_y = ti.Vector([(dx - ex) * inverse, -dx * inverse, ex * inverse])
        second = in_x[1] * (x - x0) + in_y[1] * (y - y0)
        third = in_x[2] * (x - x0) + in_y[2] * (y - y0)
        return ti.Vector([1 - second - third, second, third]), in_x, in_y

    @ti.func
    def mixing(self, m: ti.template(), f, x, y):
        """The weights of a face's corners at a point; at least 0 and 1 in all."""
        share, _in_x, _in_y = self.barycentric(m, f, x, y)
        share = ti.max(share, 0)
        if ti.static(self.view.perspective and (not self.view.orthographic)):
            for i in ti.static(range(3)):
                share[i] *= m.faces[Face.SIZE * f + Face.W + i]
        return share / share.sum()

    @ti.func
    def inner(self, m: ti.template(), p, at, area, x_mean, y_mean, x, y):
        """Pass on the adjoint of what is seen of a fragment, as if the part did not change.

        Returns (value at the part's centroid, slopes in x and y) of the function whose integral's
        adjoint the edges pass on.
        """
        pair = m.slots[at]
        pair = ti.select(pair < 0, -1 - pair, pair)
        f = m.listed[pair]
        share, in_x, in_y = self.barycentric(m, f, x + x_mean, y + y_mean)
        mixed = share
        if ti.static(self.view.perspective and (not self.view.orthographic)):
            for i in ti.static(range(3)):
                mixed[i] = share[i] * m.faces[Face.SIZE * f + Face.W + i]
        whole = mixed.sum()
        mixed = mixed / whole
        adjoint = ti.Vector.zero(self.real, 3)
        if ti.static(self.view.channels < 0):
            for i in ti.static(range(3)):
                adjoint[i] = m.values[3 * at + i]
        else:
            size = ti.static(self.view.channels)
            into = 3 * size * pair
            corner = 3 * size * f
            of = (size + 1) * p
            alpha = m.values[of + size]
            for i in ti.static(range(3)):
                adjoint[i] = alpha
            for c in ti.static(range(size)):
                g = m.values[of + c]
                for i in ti.static(range(3)):
                    adjoint[i] += g * m.attributes[corner + i * size + c]
                    self.add(m.colours, into + i * size + c, area * mixed[i] * g)
        mean, slope_x, slope_y = 0 * x, 0 * x, 0 * x
        for i in ti.static(range(3)):
            mean += adjoint[i] * mixed[i]
        into = Pair.SIZE * pair
        for i in ti.static(range(3)):
            change = adjoint[i] - mean
            if ti.static(self.view.perspective and (not self.view.orthographic)):
                change /= whole
                self.add(m.pairs, into + Pair.W + i, area * change * share[i])
                change *= m.faces[Face.SIZE * f + Face.W + i]
            slope_x += change * in_x[i]
            slope_y += change * in_y[i]
        for i in ti.static(range(3)):
            self.add(m.pairs, into + 2 * i, -area * share[i] * slope_x)
            self.add(m.pairs, into + 2 * i + 1, -area * share[i] * slope_y)
        return mean, slope_x, slope_y

    @ti.func
    def pass_on(self, m: ti.template(), begin, record, f, k, x, y, constant, slope_x, slope_y):
        """The boundary integral: each edge of a piece of face `f` moves its line."""
        count = ti.cast(m.memory[record], ti.i32)
        first = record + At.FIRST
        for i in range(count):
            label = ti.cast(m.memory[first + 3 * i + 2], ti.i32)
            if label != Label.BORDER:
                ax, ay = m.memory[first + 3 * i], m.memory[first + 3 * i + 1]
                following = first + 3 * ti.select(i + 1 < count, i + 1, 0)
                bx, by = m.memory[following], m.memory[following + 1]
                at_a = constant + slope_x * ax + slope_y * ay
                at_b = constant + slope_x * bx + slope_y * by
                j = label // Label.EACH
                which = label - Label.EACH * j
                pair = m.slots[self.entry(m, begin + j)]
                pair = ti.select(pair < 0, -1 - pair, pair)
                mover = m.listed[pair]
                if which < 3:
                    self.move_edge(
                        m, mover, pair, which, ax + x, ay + y, bx + x, by + y, at_a, at_b
                    )
                else:
                    # The outward normal, as long as the edge.
                    across, up = by - ay, ax - bx
                    sx = m.faces[Face.SIZE * mover + Face.SLOPE_X]
                    sy = m.faces[Face.SIZE * mover + Face.SLOPE_Y]
                    if which == Label.EQUAL:
                        sx -= m.faces[Face.SIZE * f + Face.SLOPE_X]
                        sy -= m.faces[Face.SIZE * f + Face.SLOPE_Y]
                    steepness = sx * across + sy * up
                    if steepness != 0:
                        gain = -(across * across + up * up) / steepness
                        self.move_depth(
                            m, mover, pair, ax + x, ay + y, bx + x, by + y, gain * at_a, gain * at_b
                        )
                        if which == Label.EQUAL:
                            own = m.slots[self.entry(m, begin + k)]
                            own = ti.select(own < 0, -1 - own, own)
                            self.move_depth(
                                m,
                                f,
                                own,
                                ax + x,
                                ay + y,
                                bx + x,
                                by + y,
                                -gain * at_a,
                                -gain * at_b,
                            )

    @ti.func
    def pass_edges(self, m: ti.template(), f, pair, x, y, constant, slope_x, slope_y):
        """`pass_on` for a face that nothing hides, and that is within [near, far]."""
        at = Face.SIZE * f
        sign = m.faces[at + Face.SIGN]
        into = Pair.SIZE * pair
        for i in ti.static(range(3)):
            j = ti.static((i + 1) % 3)
            x0, y0 = m.faces[at + 2 * i] - x, m.faces[at + 2 * i + 1] - y
            x1, y1 = m.faces[at + 2 * j] - x, m.faces[at + 2 * j + 1] - y
            value, reach = self.across(x0, y0, x1, y1)
            if ti.abs(value) < reach:
                _low, a, b, _high = self.within(x0, y0, x1, y1, False)
                dx, dy = x1 - x0, y1 - y0
                at_a = constant + slope_x * (x0 + a * dx) + slope_y * (y0 + a * dy)
                at_b = constant + slope_x * (x0 + b * dx) + slope_y * (y0 + b * dy)
                second = self.product(a, b, at_a, at_b)
                first = 0.5 * (at_a + at_b) - second
                across, up = sign * (b - a) * dy, -sign * (b - a) * dx
                self.add(m.pairs, into + 2 * i, first * across)
                self.add(m.pairs, into + 2 * i + 1, first * up)
                self.add(m.pairs, into + 2 * j, second * across)
                self.add(m.pairs, into + 2 * j + 1, second * up)

    @ti.func
    def move_edge(self, m: ti.template(), f, pair, edge, ax, ay, bx, by, at_a, at_b):
        """Pass on to an edge's ends the integral, from a to b, of a linear function."""
        start = 2 * edge
        end = 2 * ti.select(edge == 2, 0, edge + 1)
        at = Face.SIZE * f
        x0, y0 = m.faces[at + start], m.faces[at + start + 1]
        dx, dy = m.faces[at + end] - x0, m.faces[at + end + 1] - y0
        inverse = 1 / (dx * dx + dy * dy)
        t_a = ((ax - x0) * dx + (ay - y0) * dy) * inverse
        t_b = ((bx - x0) * dx + (by - y0) * dy) * inverse
        whole = 0.5 * (at_a + at_b)
        second = self.product(t_a, t_b, at_a, at_b)
        across, up = by - ay, ax - bx
        into = Pair.SIZE * pair
        self.add(m.pairs, into + start, (whole - second) * across)
        self.add(m.pairs, into + start + 1, (whole - second) * up)
        self.add(m.pairs, into + end, second * across)
        self.add(m.pairs, into + end + 1, second * up)

    @ti.func
    def move_depth(self, m: ti.template(), f, pair, ax, ay, bx, by, at_a, at_b):
        """Pass on the integral, from a to b, of a linear function times the change of w there."""
        share_a, _x, _y = self.barycentric(m, f, ax, ay)
        share_b, _u, _v = self.barycentric(m, f, bx, by)
        into = Pair.SIZE * pair
        slope_x = m.faces[Face.SIZE * f + Face.SLOPE_X]
        slope_y = m.faces[Face.SIZE * f + Face.SLOPE_Y]
        for i in ti.static(range(3)):
            value = self.product(share_a[i], share_b[i], at_a, at_b)
            self.add(m.pairs, into + Pair.W + i, value)
            self.add(m.pairs, into + 2 * i, -value * slope_x)
            self.add(m.pairs, into + 2 * i + 1, -value * slope_y)

    @ti.func
    def product(self, u_a, u_b, v_a, v_b):
        """The mean, from a to b, of the product of two linear functions."""
        return (2 * (u_a * v_a + u_b * v_b) + u_a * v_b + u_b * v_a) / 6

    @ti.func
    def add(self, values: ti.template(), at, value):
        """Add to an element of a pair."""
        if ti.static(self.atomic):
            ti.atomic_add(values[at], value)
        else:
            values[at] = values[at] + value
