"""Fragments of one face within one tile, several at a time: measured, coloured, and their adjoints.

There are no branches here, so that LLVM works on all lanes at once. `ti.min` and `ti.max` would be
branches, too: they look for NaN.
"""

# mypy: disable-error-code="no-untyped-def, valid-type"

import taichi as ti

from taichi_raster.kernels.areas.layout import LANES, Face, Size, Spot
from taichi_raster.kernels.areas.tiles import Tiles


@ti.data_oriented
class Lanes(Tiles):
    """Functions of one lane. (`x_tile`, `y_tile`) is the tile's first centre.

    LLVM works on several lanes only where all arrays are the thread's own.
    """

    @ti.func
    def corners(self, m: ti.template(), f):
        """(x, y) of a face's corners."""
        at = Face.SIZE * f
        x = ti.Vector([m.faces[at], m.faces[at + 2], m.faces[at + 4]])
        return x, ti.Vector([m.faces[at + 1], m.faces[at + 3], m.faces[at + 5]])

    @ti.func
    def slopes(self, xs, ys):
        """(1 / dx, 1 / dy) of each edge."""
        across, up = 0 * xs, 0 * xs
        for i in ti.static(range(3)):
            j = ti.static((i + 1) % 3)
            across[i] = 1 / self.not_zero(xs[j] - xs[i])
            up[i] = 1 / self.not_zero(ys[j] - ys[i])
        return across, up

    @ti.func
    def constants(self, m: ti.template(), f):
        """What all fragments of a face need of it.

        Returns its sign, its corners' x and y, the slopes of its edges, the barycentric slopes in x
        and y, w or 1 for each corner, and the attributes of the corners.
        """
        sign = m.faces[Face.SIZE * f + Face.SIGN]
        xs, ys = self.corners(m, f)
        across, up = self.slopes(xs, ys)
        _share, in_x, in_y = self.barycentric(m, f, xs[0], ys[0])
        w = ti.Vector.one(self.real, 3)
        if ti.static(self.view.perspective and (not self.view.orthographic)):
            for i in ti.static(range(3)):
                w[i] = m.faces[Face.SIZE * f + Face.W + i]
        return sign, xs, ys, across, up, in_x, in_y, w, self.colours_of(m, f)

    @ti.func
    def colours_of(self, m: ti.template(), f):
        """The attributes of a face's corners, as a matrix."""
        found = ti.Matrix.zero(self.real, 3, max(self.view.channels, 1))
        for i in ti.static(range(3)):
            for c in ti.static(range(self.view.channels)):
                found[i, c] = m.attributes[(3 * f + i) * self.view.channels + c]
        return found

    # --- forward ----------------------------------------------------------------------------------

    @ti.func
    def measure_fragments(
        self, m: ti.template(), t: ti.template(), pair, begin, end, corner, x_tile, y_tile
    ):
        """Measure a face's fragments `begin` to before `end`, and add their colours to pixels.

        `corner` is the number of the tile's first pixel.
        """
        f = m.listed[pair]
        pitch = m.size[Size.WIDTH]
        sign, xs, ys, across, up, in_x, in_y, w, shown = self.constants(m, f)
        at = begin
        while at < end:
            count = ti.min(LANES, end - at)
            for lane in range(count):
                t.spot[lane] = m.spots[at + lane]
            if count > 2:
                for lane in range(LANES):
                    self.measure_lane(
                        t, lane, x_tile, y_tile, sign, xs, ys, across, up, in_x, in_y, w, shown
                    )
            else:
                for lane in range(count):
                    self.measure_lane(
                        t, lane, x_tile, y_tile, sign, xs, ys, across, up, in_x, in_y, w, shown
                    )
            for lane in range(count):
                spot = t.spot[lane]
                row, column = (spot >> Spot.ROW) & Spot.COLUMN, spot & Spot.COLUMN
                p = corner + pitch * row + column
                self.write_lane(m, t, lane, at + lane, p)
            at += count

    @ti.func
    def write_lane(self, m: ti.template(), t: ti.template(), lane, at, p):
        """Write a fragment's `Seen`, and add its colour to its pixel, number `p`."""
        size = ti.static(self.view.channels)
        area = t.area[lane]
        self.keep(m, at, area, t.x[lane], t.y[lane], 0)
        if ti.static(size < 0):
            for i in ti.static(range(3)):
                m.values[3 * at + i] = t.shown[i][lane]
        else:
            into = (size + 1) * p
            for c in ti.static(range(size)):
                m.values[into + c] = m.values[into + c] + t.shown[c][lane]
            # Rounding may have added up to a little more than a pixel.
            alpha = m.values[into + size] + self.most(area, 0 * area)
            m.values[into + size] = self.least_of(alpha, 1 + 0 * area)

    @ti.func
    def measure_lane(
        self, t: ti.template(), lane, x_tile, y_tile, sign, xs, ys, across, up, in_x, in_y, w, shown
    ):  # fmt: skip
        """A fragment's `Seen`, if nothing hides it, and its colour."""
        size = ti.static(self.view.channels)
        spot = t.spot[lane]
        x = x_tile + ti.cast(spot & Spot.COLUMN, self.real)
        y = y_tile - ti.cast((spot >> Spot.ROW) & Spot.COLUMN, self.real)
        area, x_sum, y_sum = 0 * x, 0 * x, 0 * x
        for i in ti.static(range(3)):
            j = ti.static((i + 1) % 3)
            d, e, g = self.along_edge(xs[i] - x, ys[i] - y, xs[j] - x, ys[j] - y, across[i], up[i])
            area += d
            x_sum += e
            y_sum += g
        covers = (spot >> Spot.COVERS) > 0
        area = ti.select(covers, 1 + 0 * x, sign * area)
        x_sum = ti.select(covers, 0 * x, sign * x_sum)
        y_sum = ti.select(covers, 0 * x, sign * y_sum)
        t.area[lane] = area
        t.x[lane] = x_sum
        t.y[lane] = y_sum
        seen = area > 0
        inverse = 1 / ti.select(seen, area, 1 + 0 * x)
        u = x + x_sum * inverse - xs[0]
        v = y + y_sum * inverse - ys[0]
        second = in_x[1] * u + in_y[1] * v
        third = in_x[2] * u + in_y[2] * v
        zero = 0 * x
        first = self.most(1 - second - third, zero) * w[0]
        second = self.most(second, zero) * w[1]
        third = self.most(third, zero) * w[2]
        factor = ti.select(seen, area, zero) / (first + second + third)
        first, second, third = first * factor, second * factor, third * factor
        if ti.static(size < 0):
            t.shown[0][lane] = first
            t.shown[1][lane] = second
            t.shown[2][lane] = third
        else:
            for c in ti.static(range(size)):
                t.shown[c][lane] = first * shown[0, c] + second * shown[1, c] + third * shown[2, c]

    @ti.func
    def along_edge(self, x0, y0, x1, y1, across, up):
        """Integrals of x dy, x^2 / 2 dy and x y dy along an edge, x and y clamped to the pixel.

        By Green's theorem, their sums over a face's edges are its area within the pixel, and the
        integrals of x and y. `across` and `up` are 1 / dx and 1 / dy of the edge.
        """
        start, end = self.clamp(y0), self.clamp(y1)
        low, high = self.least_of(start, end), self.most(start, end)
        run = (x1 - x0) * up
        x_start, x_end = x0 + (start - y0) * run, x1 + (end - y1) * run
        u, v = self.clamp(x_start), self.clamp(x_end)
        climb = (y1 - y0) * across
        enter = self.least_of(self.most(start + (u - x_start) * climb, low), high)
        leave = self.least_of(self.most(end + (v - x_end) * climb, low), high)
        before, within, after = enter - start, leave - enter, end - leave
        uu, vv, uv = u * u, v * v, u + v
        area = u * before + 0.5 * uv * within + v * after
        x_sum = 0.5 * (uu * before + vv * after) + (uu + vv + u * v) * within * (1 / 6)
        y_sum = 0.5 * (u * (start + enter) * before + v * (leave + end) * after)
        y_sum += (u * (enter + enter + leave) + v * (enter + leave + leave)) * within * (1 / 6)
        return area, x_sum, y_sum

    # --- backward ---------------------------------------------------------------------------------

    @ti.func
    def take_adjoint(self, m: ti.template(), t: ti.template(), lane, at, p):
        """Fetch the adjoint of a fragment, or of the picture at its pixel, number `p`."""
        size = ti.static(self.view.channels)
        if ti.static(size < 0):
            for i in ti.static(range(3)):
                t.given[i][lane] = m.values[3 * at + i]
        else:
            for c in ti.static(range(size + 1)):
                t.given[c][lane] = m.values[(size + 1) * p + c]

    @ti.func
    def pass_lane(
        self, t: ti.template(), lane, sees, x, y, area, x_mean, y_mean, bordered: ti.template(),
        has_edges, sign, xs, ys, across, up, in_x, in_y, w, shown
    ):  # fmt: skip
        """Add to the sums what the adjoint of one pixel gives.

        Nothing unless it `sees` the face. Where `bordered`, the face's edges pass on their part,
        if the fragment `has_edges`.
        """
        size = ti.static(self.view.channels)
        zero = 0 * x
        area = ti.select(sees, area, zero)
        u = ti.select(sees, x + x_mean - xs[0], zero)
        v = ti.select(sees, y + y_mean - ys[0], zero)
        second = in_x[1] * u + in_y[1] * v
        third = in_x[2] * u + in_y[2] * v
        share = ti.Vector([1 - second - third, second, third])
        mixed = share * w
        over = 1 / (mixed[0] + mixed[1] + mixed[2])
        mixed = mixed * over
        adjoint = ti.Vector.zero(self.real, 3)
        if ti.static(size < 0):
            for i in ti.static(range(3)):
                adjoint[i] = ti.select(sees, t.given[i][lane], zero)
        else:
            for c in ti.static(range(size)):
                g = ti.select(sees, t.given[c][lane], zero)
                for i in ti.static(range(3)):
                    adjoint[i] += g * shown[i, c]
                    t.to_shown[i][c][lane] = t.to_shown[i][c][lane] + area * mixed[i] * g
        mean = adjoint[0] * mixed[0] + adjoint[1] * mixed[1] + adjoint[2] * mixed[2]
        slope_x, slope_y = zero, zero
        for i in ti.static(range(3)):
            change = (adjoint[i] - mean) * over
            if ti.static(self.view.perspective and (not self.view.orthographic)):
                t.to_w[i][lane] = t.to_w[i][lane] + area * change * share[i]
            slope_x += change * w[i] * in_x[i]
            slope_y += change * w[i] * in_y[i]
        to_x, to_y = -area * slope_x * share, -area * slope_y * share
        if ti.static(bordered):
            constant = mean - slope_x * x_mean - slope_y * y_mean
            if ti.static(size >= 0):
                constant += ti.select(sees, t.given[max(size, 0)][lane], zero)
            for i in ti.static(range(3)):
                j = ti.static((i + 1) % 3)
                ax, ay = xs[i] - x, ys[i] - y
                dx, dy = xs[j] - xs[i], ys[j] - ys[i]
                _low, s, e, _high = self.within_line(ax, ay, across[i], up[i], False)
                # An edge along the pixel's border counts for neither of the pixels beside it.
                reach = 0.5 * (self.most(dx, -dx) + self.most(dy, -dy))
                beside = dy * ax - dx * ay
                crosses = self.most(beside, -beside) < reach
                length = ti.select(sees and has_edges and crosses, sign * (e - s), zero)
                at_s = constant + slope_x * (ax + s * dx) + slope_y * (ay + s * dy)
                at_e = at_s + (e - s) * (slope_x * dx + slope_y * dy)
                later = self.product(s, e, at_s, at_e)
                former = 0.5 * (at_s + at_e) - later
                right, down = length * dy, -length * dx
                to_x[i] += former * right
                to_y[i] += former * down
                to_x[j] += later * right
                to_y[j] += later * down
        for i in ti.static(range(3)):
            t.to_x[i][lane] = t.to_x[i][lane] + to_x[i]
            t.to_y[i][lane] = t.to_y[i][lane] + to_y[i]
