"""A tile's fragments, face by face: measured, coloured, and their adjoints; on a CPU.

What a face needs for all its pixels in a tile is loaded once, and its adjoints stay in registers.
Only what faces do to one another goes pixel by pixel (visibility.py): it changes what is seen of
those fragments that overlap.
"""

# mypy: disable-error-code="no-untyped-def, valid-type"

import taichi as ti

from taichi_raster.kernels.areas.layout import Face, Pair, Seen, Size
from taichi_raster.kernels.areas.runs import Runs

SHIFT = 8
"""A fragment's place in its tile is row << SHIFT | column."""


@ti.data_oriented
class ByFace(Runs):
    """Passes over a tile's pairs with faces."""

    @ti.func
    def list_fragments(self, m: ti.template(), tile):
        """Enter a tile's fragments into their pixels' lists, and measure each without the others.

        `counts` has where each pixel's list begins; it becomes where that ends. Writes `slots`,
        `Seen`, and for each face in turn its `entries` (fragments) and `spots` (their pixels),
        which end at `marks`. Faces that leave [near, far] are not measured.
        """
        b, x_first, x_last, y_first, y_last = self.box_of(m, tile)
        entry = m.starts[tile]
        for pair in range(m.begins[tile], m.begins[tile + 1]):
            f = m.listed[pair]
            left, right = ti.max(m.boxes[4 * f], x_first), ti.min(m.boxes[4 * f + 1], x_last)
            top, bottom = ti.max(m.boxes[4 * f + 2], y_first), ti.min(m.boxes[4 * f + 3], y_last)
            if right > left and bottom > top:
                edges, reach, _low, high = self.outline(m, f)
                sign = m.faces[Face.SIZE * f + Face.SIGN]
                cut = m.faces[Face.SIZE * f + Face.CUT] > 0
                slope = m.faces[Face.SIZE * f + Face.SLOPE_X]
                across = ti.Vector.zero(self.real, 3)
                up = ti.Vector.zero(self.real, 3)
                for i in ti.static(range(3)):
                    across[i] = 1 / self.not_zero(sign * edges[i, 2])
                    up[i] = 1 / self.not_zero(sign * edges[i, 3])
                x_left = ti.cast(left, self.real) + 0.5
                for row in range(top, bottom):
                    y = ti.cast(m.size[Size.HEIGHT] - row, self.real) - 0.5
                    p = self.number(m, b, row, left)
                    first, last, full, empty = self.span(edges, reach, x_left, y, right - left)
                    w, spread = self.depth_at(m, f, x_left, y)
                    if cut:
                        empty = full
                    spot = ((row - y_first) << SHIFT) + left - x_first
                    for i in range(first, last):
                        here = w + slope * ti.cast(i, self.real) + spread
                        if m.owners[p + i] < 0 and ti.min(here, high) >= m.covered[p + i]:
                            at = m.counts[p + i]
                            m.counts[p + i] = at + 1
                            m.entries[entry] = at
                            m.spots[entry] = spot + i
                            entry += 1
                            area, x_sum, y_sum = 1 + 0 * y, 0 * y, 0 * y
                            slot = -1 - pair
                            if i < full or i >= empty:
                                slot = pair
                                if not cut:
                                    x = x_left + ti.cast(i, self.real)
                                    area, x_sum, y_sum = self.measured(
                                        edges, reach, across, up, sign, x, y
                                    )
                            m.slots[at] = slot
                            self.keep(m, at, area, x_sum, y_sum, 0)
            m.marks[pair] = entry

    @ti.func
    def measured(self, edges, reach, across, up, sign, x, y):
        """(area, integrals of x and y) of a face within a pixel; see `measure`."""
        inside = 0
        x0, y0, dx, dy = 0 * x, 0 * x, 0 * x, 0 * x
        one_across, one_up = 0 * x, 0 * x
        for i in ti.static(range(3)):
            u, v = edges[i, 0] - x, edges[i, 1] - y
            outer = edges[i, 3] * u - edges[i, 2] * v < reach[i]
            if outer:
                x0, y0 = u, v
                dx, dy = self.not_zero(sign * edges[i, 2]), self.not_zero(sign * edges[i, 3])
                one_across, one_up = across[i], up[i]
            else:
                inside += 1
        area, x_sum, y_sum = 0 * x, 0 * x, 0 * x
        if inside == 2:
            area, x_sum, y_sum = self.along_line(x0, y0, dx, dy, one_across, one_up, True)
            area += sign * 0.5
            x_sum -= ti.select(dy > -self.least, 0.125, -0.125)
        else:
            for i in ti.static(range(3)):
                u, v = edges[i, 0] - x, edges[i, 1] - y
                right, climb = self.not_zero(sign * edges[i, 2]), self.not_zero(sign * edges[i, 3])
                d, e, g = self.along_line(u, v, right, climb, across[i], up[i], False)
                area += d
                x_sum += e
                y_sum += g
        return sign * area, sign * x_sum, sign * y_sum

    @ti.func
    def seen_overlap(self, m: ti.template(), one, other, x, y):
        """Whether two faces' triangles may overlap within the pixel."""
        a, b = Face.SIZE * one, Face.SIZE * other
        half = 0.5 + 0 * x
        ax = ti.Vector([m.faces[a] - x, m.faces[a + 2] - x, m.faces[a + 4] - x])
        ay = ti.Vector([m.faces[a + 1] - y, m.faces[a + 3] - y, m.faces[a + 5] - y])
        bx = ti.Vector([m.faces[b] - x, m.faces[b + 2] - x, m.faces[b + 4] - x])
        by = ti.Vector([m.faces[b + 1] - y, m.faces[b + 3] - y, m.faces[b + 5] - y])
        found = not self.triangles_parted(ax, ay, bx, by, m.faces[a + Face.SIGN])
        if found:
            found = not self.triangles_parted(bx, by, ax, ay, m.faces[b + Face.SIGN])
        if found:
            found = (
                ti.max(ax.min(), bx.min(), -half) < ti.min(ax.max(), bx.max(), half)
            ) and ti.max(ay.min(), by.min(), -half) < ti.min(ay.max(), by.max(), half)
        return found

    @ti.func
    def triangles_parted(self, ax, ay, bx, by, sign):
        """Whether an edge of the first triangle has the second on its outer side."""
        found = False
        for i in ti.static(range(3)):
            j = ti.static((i + 1) % 3)
            dx, dy = sign * (ax[j] - ax[i]), sign * (ay[j] - ay[i])
            most = ti.max(
                dx * (by[0] - ay[i]) - dy * (bx[0] - ax[i]),
                dx * (by[1] - ay[i]) - dy * (bx[1] - ax[i]),
                dx * (by[2] - ay[i]) - dy * (bx[2] - ax[i]),
            )
            found = found or most <= self.near * (ti.abs(dx) + ti.abs(dy))
        return found

    @ti.func
    def constants(self, m: ti.template(), f):
        """(first corner, barycentric slopes in x and y, w or 1 for each corner) of a face."""
        x0, y0 = m.faces[Face.SIZE * f], m.faces[Face.SIZE * f + 1]
        _share, in_x, in_y = self.barycentric(m, f, x0, y0)
        w = ti.Vector.one(self.real, 3)
        if ti.static(self.view.perspective and (not self.view.orthographic)):
            for i in ti.static(range(3)):
                w[i] = m.faces[Face.SIZE * f + Face.W + i]
        return x0, y0, in_x, in_y, w

    @ti.func
    def colours_of(self, m: ti.template(), f):
        """The attributes of a face's corners, as a matrix."""
        found = ti.Matrix.zero(self.real, 3, max(self.view.channels, 1))
        for i in ti.static(range(3)):
            for c in ti.static(range(self.view.channels)):
                found[i, c] = m.attributes[(3 * f + i) * self.view.channels + c]
        return found

    @ti.func
    def show_fragments(self, m: ti.template(), tile):
        """Add what is seen of each fragment to its pixel; or write what corners have a share in."""
        size = ti.static(self.view.channels)
        b, left, _right, top, _bottom = self.box_of(m, tile)
        begin = m.starts[tile]
        for pair in range(m.begins[tile], m.begins[tile + 1]):
            end = m.marks[pair]
            if end > begin:
                f = m.listed[pair]
                x0, y0, in_x, in_y, w = self.constants(m, f)
                shown = self.colours_of(m, f)
                for entry in range(begin, end):
                    at, spot = m.entries[entry], m.spots[entry]
                    area = m.seen[Seen.SIZE * at + Seen.AREA]
                    if area > 0:
                        row, column = top + (spot >> SHIFT), left + (spot & ((1 << SHIFT) - 1))
                        p = self.number(m, b, row, column)
                        x = ti.cast(column, self.real) + 0.5
                        y = ti.cast(m.size[Size.HEIGHT] - row, self.real) - 0.5
                        inverse = 1 / area
                        x += m.seen[Seen.SIZE * at + Seen.X] * inverse - x0
                        y += m.seen[Seen.SIZE * at + Seen.Y] * inverse - y0
                        second = in_x[1] * x + in_y[1] * y
                        third = in_x[2] * x + in_y[2] * y
                        share = ti.Vector(
                            [
                                ti.max(1 - second - third, 0) * w[0],
                                ti.max(second, 0) * w[1],
                                ti.max(third, 0) * w[2],
                            ]
                        )
                        share = share * (area / share.sum())
                        if ti.static(size < 0):
                            for i in ti.static(range(3)):
                                m.values[3 * at + i] = share[i]
                        else:
                            into = (size + 1) * p
                            for c in ti.static(range(size)):
                                m.values[into + c] = (
                                    m.values[into + c]
                                    + share[0] * shown[0, c]
                                    + share[1] * shown[1, c]
                                    + share[2] * shown[2, c]
                                )
                            # Rounding may have added up to a little more than a pixel.
                            m.values[into + size] = ti.min(m.values[into + size] + area, 1)
            begin = end

    @ti.func
    def pass_fragments(self, m: ti.template(), tile):
        """Add to the pairs what the adjoints give of fragments of which nothing is hidden."""
        size = ti.static(self.view.channels)
        b, left, _right, top, _bottom = self.box_of(m, tile)
        begin = m.starts[tile]
        for pair in range(m.begins[tile], m.begins[tile + 1]):
            end = m.marks[pair]
            f = m.listed[pair]
            if end > begin and m.faces[Face.SIZE * f + Face.CUT] == 0:
                x0, y0, in_x, in_y, w = self.constants(m, f)
                edges, reach, _low, _high = self.outline(m, f)
                sign = m.faces[Face.SIZE * f + Face.SIGN]
                shown = self.colours_of(m, f)
                across = ti.Vector.zero(self.real, 3)
                up = ti.Vector.zero(self.real, 3)
                for i in ti.static(range(3)):
                    across[i] = 1 / self.not_zero(sign * edges[i, 2])
                    up[i] = 1 / self.not_zero(sign * edges[i, 3])
                to_x = ti.Vector.zero(self.real, 3)
                to_y = ti.Vector.zero(self.real, 3)
                to_w = ti.Vector.zero(self.real, 3)
                to_shown = ti.Matrix.zero(self.real, 3, max(size, 1))
                for entry in range(begin, end):
                    at, spot = m.entries[entry], m.spots[entry]
                    area = m.seen[Seen.SIZE * at + Seen.AREA]
                    if area > 0 and m.seen[Seen.SIZE * at + Seen.HIDING] == 0:
                        row, column = top + (spot >> SHIFT), left + (spot & ((1 << SHIFT) - 1))
                        x = ti.cast(column, self.real) + 0.5
                        y = ti.cast(m.size[Size.HEIGHT] - row, self.real) - 0.5
                        inverse = 1 / area
                        x_mean = m.seen[Seen.SIZE * at + Seen.X] * inverse
                        y_mean = m.seen[Seen.SIZE * at + Seen.Y] * inverse
                        u, v = x + x_mean - x0, y + y_mean - y0
                        second = in_x[1] * u + in_y[1] * v
                        third = in_x[2] * u + in_y[2] * v
                        share = ti.Vector([1 - second - third, second, third])
                        mixed = share * w
                        over = 1 / mixed.sum()
                        mixed = mixed * over
                        adjoint = ti.Vector.zero(self.real, 3)
                        if ti.static(size < 0):
                            for i in ti.static(range(3)):
                                adjoint[i] = m.values[3 * at + i]
                        else:
                            of = (size + 1) * self.number(m, b, row, column)
                            for i in ti.static(range(3)):
                                adjoint[i] = m.values[of + size]
                            for c in ti.static(range(size)):
                                g = m.values[of + c]
                                for i in ti.static(range(3)):
                                    adjoint[i] += g * shown[i, c]
                                    to_shown[i, c] += area * mixed[i] * g
                        mean = adjoint.dot(mixed)
                        slope_x, slope_y = 0 * x, 0 * x
                        for i in ti.static(range(3)):
                            change = (adjoint[i] - mean) * over
                            to_w[i] += area * change * share[i]
                            slope_x += change * w[i] * in_x[i]
                            slope_y += change * w[i] * in_y[i]
                        for i in ti.static(range(3)):
                            to_x[i] -= area * share[i] * slope_x
                            to_y[i] -= area * share[i] * slope_y
                        if m.slots[at] >= 0:
                            constant = mean - slope_x * x_mean - slope_y * y_mean
                            for i in ti.static(range(3)):
                                j = ti.static((i + 1) % 3)
                                dx, dy = sign * edges[i, 2], sign * edges[i, 3]
                                ax, ay = edges[i, 0] - x, edges[i, 1] - y
                                if ti.abs(dy * ax - dx * ay) < reach[i]:
                                    _l, s, e, _h = self.within_line(ax, ay, across[i], up[i], False)
                                    at_s = constant + slope_x * (ax + s * dx)
                                    at_s += slope_y * (ay + s * dy)
                                    at_e = at_s + (e - s) * (slope_x * dx + slope_y * dy)
                                    later = self.product(s, e, at_s, at_e)
                                    former = 0.5 * (at_s + at_e) - later
                                    right, down = sign * (e - s) * dy, -sign * (e - s) * dx
                                    to_x[i] += former * right
                                    to_y[i] += former * down
                                    to_x[j] += later * right
                                    to_y[j] += later * down
                into = Pair.SIZE * pair
                for i in ti.static(range(3)):
                    self.add(m.pairs, into + 2 * i, to_x[i])
                    self.add(m.pairs, into + 2 * i + 1, to_y[i])
                    if ti.static(self.view.perspective and (not self.view.orthographic)):
                        self.add(m.pairs, into + Pair.W + i, to_w[i])
                    for c in ti.static(range(size)):
                        self.add(m.colours, 3 * size * pair + i * size + c, to_shown[i, c])
            begin = end
