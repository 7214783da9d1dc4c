"""A tile's fragments, face by face: listed, measured, coloured, and their adjoints; on a CPU.

What a face needs for all its pixels in a tile is loaded once. Only what faces do to one another
goes pixel by pixel (pixels.py): it changes what is seen of those fragments that overlap.
"""

# mypy: disable-error-code="no-untyped-def, valid-type"

import taichi as ti

from taichi_raster.kernels.areas.apart import Apart
from taichi_raster.kernels.areas.layout import (
    LANES,
    SIDE,
    Face,
    Owned,
    Pair,
    Seen,
    Size,
    Span,
    Spot,
)
from taichi_raster.kernels.areas.tiles import COMPARED


@ti.data_oriented
class ByFace(Apart):
    """Passes over a tile's pairs with faces."""

    @ti.func
    def list_fragments(self, m: ti.template(), t: ti.template(), tile):
        """List a tile's fragments, and measure and show each without the others.

        `t.counts` has where each pixel's list begins; it becomes where that ends. Fragments are in
        the order of their pairs, and end at `marks`. Writes `slots`, `spots`, `Seen` and, for each
        row of a pair, `Owned` in place of its `Span`. Faces that leave [near, far] are not
        measured, and not shown. Returns 1 if there are such, otherwise 0.
        """
        b, x_first, _x_last, y_first, _y_last = self.box_of(m, tile)
        x_tile, y_tile = self.centre(m, x_first, y_first)
        corner = self.number(m, b, y_first, x_first)
        at = m.starts[tile]
        leaves_range = 0
        first_pair, many = m.begins[tile], m.begins[tile + 1] - m.begins[tile]
        if many <= COMPARED:
            self.compare_faces(m, t, first_pair, many, x_tile, y_tile)
        for pair in range(first_pair, first_pair + many):
            f = m.listed[pair]
            left, top, bottom = self.bounds_of(m, pair)
            x, y = x_tile + ti.cast(left, self.real), y_tile - ti.cast(top, self.real)
            w, spread = self.depth_at(m, f, x, y)
            w += spread
            high = m.faces[Face.SIZE * f + Face.W_MAX]
            slope = m.faces[Face.SIZE * f + Face.SLOPE_X]
            down = m.faces[Face.SIZE * f + Face.SLOPE_Y]
            begin = at
            first_run, last_run = SIDE, 0
            own, meets = 1 << ((pair - first_pair) & 31), -1
            if many <= COMPARED:
                meets = t.meets[pair - first_pair]
            for row in range(bottom - top):
                rows = SIDE * pair + top + row
                span = m.rows[rows]
                full = (span >> Span.FULL) & Span.MASK
                empty = (span >> Span.EMPTY) & Span.MASK
                cell = SIDE * (top + row) + left
                here = w - down * ti.cast(row, self.real)
                owned, first, last = 0, 0, 0
                for i in range(span & Span.MASK, (span >> Span.LAST) & Span.MASK):
                    owner = t.owners[cell + i]
                    if owner == pair:
                        last = left + i
                        first = ti.select(owned == 0, last, first)
                        owned |= 1 << last
                    elif owner < 0:
                        near = self.least_of(here + slope * ti.cast(i, self.real), high)
                        if near >= t.covered[cell + i]:
                            covers = i >= full and i < empty
                            place = t.counts[cell + i]
                            t.counts[cell + i] = place + 1
                            m.lists[place] = at
                            present = t.present[cell + i]
                            t.present[cell + i] = present | own
                            t.unclear[cell + i] = t.unclear[cell + i] | (present & meets)
                            m.slots[at] = ti.select(covers, -1 - pair, pair)
                            m.spots[at] = cell + i + (ti.select(covers, 1, 0) << Spot.COVERS)
                            at += 1
                m.rows[rows] = owned + (first << Owned.FIRST) + (last << Owned.LAST)
                if owned != 0:
                    first_run = ti.min(first_run, top + row)
                    last_run = top + row + 1
            m.marks[pair] = at
            m.runs[pair] = first_run + (last_run << Owned.FIRST)
            if first_run < last_run:
                self.show_runs(m, pair, first_run, last_run, corner, x_tile, y_tile)
            if m.faces[Face.SIZE * f + Face.CUT] > 0:
                leaves_range = ti.select(at > begin, 1, leaves_range)
                for fragment in range(begin, at):
                    self.keep(m, fragment, 1 + 0 * x, 0 * x, 0 * x, 0)
            elif at > begin:
                self.measure_fragments(m, t, pair, begin, at, corner, x_tile, y_tile)
        return leaves_range

    @ti.func
    def show_runs(self, m: ti.template(), pair, first_run, last_run, corner, x_tile, y_tile):
        """Write the colours of the pixels that a face owns: ratios of two linear functions.

        `corner` is the number of the tile's first pixel.
        """
        size = ti.static(self.view.channels)
        if ti.static(size >= 0):
            f = m.listed[pair]
            y = y_tile - ti.cast(first_run, self.real)
            share, in_x, in_y = self.unmixed(m, f, x_tile, y)
            width = m.size[Size.WIDTH]
            shown = self.colours_of(m, f)
            for row in range(first_run, last_run):
                runs = m.rows[SIDE * pair + row]
                owned = runs & ((1 << SIDE) - 1)
                whole, slope = share.sum(), in_x.sum()
                colour = share @ shown
                change = in_x @ shown
                p = corner + width * row
                if owned != 0:
                    for i in range(
                        (runs >> Owned.FIRST) & Owned.MASK, ((runs >> Owned.LAST) & Owned.MASK) + 1
                    ):
                        if (owned >> i) & 1 != 0:
                            s = ti.cast(i, self.real)
                            factor = 1 + 0 * s
                            if ti.static(self.view.perspective and (not self.view.orthographic)):
                                factor = 1 / (whole + slope * s)
                            into = (size + 1) * (p + i)
                            for c in ti.static(range(size)):
                                m.values[into + c] = (colour[c] + change[c] * s) * factor
                            m.values[into + size] = factor * 0 + 1
                share -= in_y

    @ti.func
    def unmixed(self, m: ti.template(), f, x, y):
        """What each corner has a share in, up to a factor: (at a point, slopes in x and in y)."""
        share, in_x, in_y = self.barycentric(m, f, x, y)
        if ti.static(self.view.perspective and (not self.view.orthographic)):
            for i in ti.static(range(3)):
                w = m.faces[Face.SIZE * f + Face.W + i]
                share[i] *= w
                in_x[i] *= w
                in_y[i] *= w
        return share, in_x, in_y

    @ti.func
    def pass_pairs(self, m: ti.template(), t: ti.template(), tile):
        """Write to the pairs what the adjoints give where nothing of the face is hidden."""
        size = ti.static(self.view.channels)
        b, x_first, x_last, y_first, _y_last = self.box_of(m, tile)
        x_tile, y_tile = self.centre(m, x_first, y_first)
        corner = self.number(m, b, y_first, x_first)
        begin = m.starts[tile]
        for pair in range(m.begins[tile], m.begins[tile + 1]):
            end = m.marks[pair]
            f = m.listed[pair]
            first_run = m.runs[pair] & ((1 << Owned.FIRST) - 1)
            last_run = m.runs[pair] >> Owned.FIRST
            count = end - begin
            if m.faces[Face.SIZE * f + Face.CUT] > 0:
                count = 0
            for i in ti.static(range(3)):
                for lane in range(LANES):
                    t.to_x[i][lane] = 0
                    t.to_y[i][lane] = 0
                    t.to_w[i][lane] = 0
                    for c in ti.static(range(size)):
                        t.to_shown[i][c][lane] = 0
            if count > 0 or last_run > first_run:
                self.pass_pair(
                    m, t, pair, begin, count, first_run, last_run, corner, x_last - x_first, x_tile,
                    y_tile
                )  # fmt: skip
            into = Pair.SIZE * pair
            for i in ti.static(range(3)):
                m.pairs[into + 2 * i] = self.lanes_sum(t.to_x[i])
                m.pairs[into + 2 * i + 1] = self.lanes_sum(t.to_y[i])
                m.pairs[into + Pair.W + i] = self.lanes_sum(t.to_w[i])
                for c in ti.static(range(size)):
                    total = self.lanes_sum(t.to_shown[i][c])
                    m.colours[3 * size * pair + i * size + c] = total
            begin = end

    @ti.func
    def lanes_sum(self, values: ti.template()):
        """The sum over all lanes, by halves, which LLVM adds at once; it changes `values`."""
        for lane in range(LANES // 2):
            values[lane] = values[lane] + values[lane + LANES // 2]
        total = ti.cast(0, self.real)
        for lane in ti.static(range(LANES // 2)):
            total += values[lane]
        return total

    @ti.func
    def pass_pair(
        self, m: ti.template(), t: ti.template(), pair, begin, count, first_run, last_run, corner,
        width, x_tile, y_tile
    ):  # fmt: skip
        """One pair's fragments, `count` from `begin` on, and its runs.

        `corner` is the number of the tile's first pixel, and `width` how many are in a row.
        """
        f = m.listed[pair]
        pitch = m.size[Size.WIDTH]
        sign, xs, ys, across, up, in_x, in_y, w, shown = self.constants(m, f)
        at = begin
        while at < begin + count:
            many = ti.min(LANES, begin + count - at)
            for lane in range(many):
                spot = m.spots[at + lane]
                row, column = (spot >> Spot.ROW) & Spot.COLUMN, spot & Spot.COLUMN
                p = corner + pitch * row + column
                self.take_adjoint(m, t, lane, at + lane, p)
                seen = Seen.SIZE * (at + lane)
                area = m.seen[seen + Seen.AREA]
                t.spot[lane] = spot
                t.area[lane] = ti.select(m.seen[seen + Seen.HIDING] == 0, area, 0 * area)
                t.x[lane] = m.seen[seen + Seen.X]
                t.y[lane] = m.seen[seen + Seen.Y]
            if many > 2:
                for lane in range(LANES):
                    self.pass_fragment(
                        t, lane, many, x_tile, y_tile, sign, xs, ys, across, up, in_x, in_y, w,
                        shown
                    )  # fmt: skip
            else:
                for lane in range(many):
                    self.pass_fragment(
                        t, lane, many, x_tile, y_tile, sign, xs, ys, across, up, in_x, in_y, w,
                        shown
                    )  # fmt: skip
            at += many
        if ti.static(self.view.channels >= 0):
            for row in range(first_run, last_run):
                runs = m.rows[SIDE * pair + row]
                p = corner + pitch * row
                y = y_tile - ti.cast(row, self.real)
                for half in range(SIDE // LANES):
                    owned = (runs >> (LANES * half)) & ((1 << LANES) - 1)
                    if owned != 0:
                        start = LANES * half
                        many = ti.min(LANES, width - start)
                        for lane in range(many):
                            self.take_adjoint(m, t, lane, 0, p + start + lane)
                        for lane in range(LANES):
                            x = x_tile + ti.cast(start + lane, self.real)
                            self.pass_lane(
                                t, lane, (owned >> lane) & 1 != 0, x, y, 1 + 0 * x, 0 * x, 0 * x,
                                False, False, sign, xs, ys, across, up, in_x, in_y, w, shown
                            )  # fmt: skip

    @ti.func
    def pass_fragment(
        self, t: ti.template(), lane, count, x_tile, y_tile, sign, xs, ys, across, up, in_x, in_y,
        w, shown
    ):  # fmt: skip
        """A fragment, if `lane` is less than `count`."""
        spot, area = t.spot[lane], t.area[lane]
        x = x_tile + ti.cast(spot & Spot.COLUMN, self.real)
        y = y_tile - ti.cast((spot >> Spot.ROW) & Spot.COLUMN, self.real)
        sees = lane < count and area > 0
        inverse = 1 / ti.select(sees, area, 1 + 0 * x)
        x_mean = ti.select(sees, t.x[lane] * inverse, 0 * x)
        y_mean = ti.select(sees, t.y[lane] * inverse, 0 * x)
        self.pass_lane(
            t, lane, sees, x, y, area, x_mean, y_mean, True, (spot >> Spot.COVERS) == 0, sign, xs,
            ys, across, up, in_x, in_y, w, shown
        )  # fmt: skip
