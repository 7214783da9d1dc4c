"""Pixels whose fragments may overlap, on a CPU. All others are done face by face (by_face.py)."""

# mypy: disable-error-code="no-untyped-def, valid-type"

import taichi as ti

from taichi_raster.kernels.areas.hiding import SPARE
from taichi_raster.kernels.areas.layout import AREA, SIDE, Face, Seen, Size
from taichi_raster.kernels.areas.pixels import Pixels
from taichi_raster.kernels.areas.polygons import RECORD, At
from taichi_raster.kernels.areas.tiles import PARTED


@ti.data_oriented
class Crowded(Pixels):
    """Functions of a tile, and of one pixel: its number `p`, and its centre (x, y)."""

    @ti.func
    def hide_tile(self, m: ti.template(), t: ti.template(), tile, worker, leaves_range):
        """Cut apart what overlaps in a tile's pixels, and show these anew.

        `leaves_range`: 1 if some faces leave [near, far]. Returns 1 if any pixel is changed.
        """
        b, left, right, top, bottom = self.box_of(m, tile)
        crowded, unclear = 0, leaves_range
        for cell in range(AREA):
            unclear |= t.unclear[cell]
        if unclear != 0:
            for i in range(PARTED):
                t.one[i] = -1
            for row in range(top, bottom):
                for column in range(left, right):
                    cell = SIDE * (row - top) + column - left
                    if (t.unclear[cell] | leaves_range) != 0:
                        begin, end = m.starts[tile], t.counts[cell]
                        if cell > 0:
                            begin = t.counts[cell - 1]
                        p = self.number(m, b, row, column)
                        x, y = self.centre(m, column, row)
                        if self.hide(m, t, p, begin, end, worker, x, y, leaves_range):
                            crowded = 1
        return crowded

    @ti.func
    def note_lists(self, m: ti.template(), t: ti.template(), tile):
        """Write where the lists of a tile's pixels begin and end."""
        b, left, right, top, bottom = self.box_of(m, tile)
        for row in range(top, bottom):
            for column in range(left, right):
                cell = SIDE * (row - top) + column - left
                p = self.number(m, b, row, column)
                m.firsts[p] = m.starts[tile]
                if cell > 0:
                    m.firsts[p] = t.counts[cell - 1]
                m.ends[p] = t.counts[cell]

    @ti.func
    def hide(self, m: ti.template(), t: ti.template(), p, begin, end, worker, x, y, leaves_range):
        """Find what is seen of a pixel's fragments, which are measured, if some overlap.

        Returns whether some do, or a face leaves [near, far].
        """
        overlap = False
        for place in range(begin, end):
            at = m.lists[place]
            if leaves_range > 0:
                f = self.face_of(m, at)
                overlap = overlap or m.faces[Face.SIZE * f + Face.CUT] > 0
            before = begin
            while before < place and not overlap:
                overlap = self.overlap(m, t, m.lists[before], at, x, y)
                before += 1
        crowded = False
        if overlap:
            base = worker * RECORD * (m.size[Size.LONGEST] + m.size[Size.PIECES] + SPARE)
            places = worker * 2 * m.size[Size.LONGEST]
            count = end - begin
            self.sort(m, begin, count, base, places, True, x, y)
            # Those behind a full pixel do not matter.
            overlap = False
            total, lowest = 0 * x, self.huge + 0 * x
            o = 0
            while o < count and not overlap:
                k = m.order[places + o]
                if total >= self.full and m.memory[base + RECORD * k + At.LIMIT] < lowest:
                    break
                at = m.lists[begin + k]
                f = self.face_of(m, at)
                overlap = m.faces[Face.SIZE * f + Face.CUT] > 0
                area = m.seen[Seen.SIZE * at + Seen.AREA]
                if area > self.tiny:
                    before = 0
                    while before < o and not overlap:
                        other = m.lists[begin + m.order[places + before]]
                        overlap = self.overlap(m, t, other, at, x, y)
                        before += 1
                    total += area
                    w, spread = self.depth_at(m, f, x, y)
                    lowest = ti.min(lowest, ti.max(w - spread, m.faces[Face.SIZE * f + Face.W_MIN]))
                o += 1
            if overlap:
                crowded = True
                o = self.cut_apart(m, begin, count, base, places, x, y)
            changed = crowded or o < count
            while o < count:
                self.keep(m, m.lists[begin + m.order[places + o]], 0 * x, 0 * x, 0 * x, 0)
                o += 1
            if changed:
                self.show_pixel(m, p, begin, end, x, y)
        return crowded

    @ti.func
    def overlap(self, m: ti.template(), t: ti.template(), one, other, x, y):
        """Whether two fragments of a pixel may overlap."""
        first, second = m.slots[one], m.slots[other]
        first = ti.select(first < 0, -1 - first, first)
        second = ti.select(second < 0, -1 - second, second)
        found = False
        least = m.seen[Seen.SIZE * one + Seen.AREA]
        least = self.least_of(least, m.seen[Seen.SIZE * other + Seen.AREA])
        if least > self.tiny:  # noqa: SIM102 - `and` would evaluate both
            if self.pairs_meet(m, t, first, second, x, y):
                found = self.boxes_overlap(m, m.listed[first], m.listed[second], x, y)
        return found

    @ti.func
    def boxes_overlap(self, m: ti.template(), one, other, x, y):
        """Whether the bounding boxes of two faces overlap within the pixel."""
        ax, ay = self.corners(m, one)
        bx, by = self.corners(m, other)
        ax, ay, bx, by = ax - x, ay - y, bx - x, by - y
        half = 0.5 + 0 * x
        return (ti.max(ax.min(), bx.min(), -half) < ti.min(ax.max(), bx.max(), half)) and (
            ti.max(ay.min(), by.min(), -half) < ti.min(ay.max(), by.max(), half)
        )

    @ti.func
    def show_pixel(self, m: ti.template(), p, begin, end, x, y):
        """Show a pixel anew, of which something is hidden."""
        size = ti.static(self.view.channels)
        colour = ti.Vector.zero(self.real, size + 1)
        for place in range(begin, end):
            at = m.lists[place]
            if ti.static(size < 0):
                for i in ti.static(range(3)):
                    m.values[3 * at + i] = 0
            area = m.seen[Seen.SIZE * at + Seen.AREA]
            if area > 0:
                u = x + m.seen[Seen.SIZE * at + Seen.X] / area
                v = y + m.seen[Seen.SIZE * at + Seen.Y] / area
                self.show(m, colour, at, area, u, v)
        if ti.static(size >= 0):
            # Rounding may have added up to a little more than a pixel.
            colour[size] = ti.min(colour[size], 1)
            for c in ti.static(range(size + 1)):
                m.values[(size + 1) * p + c] = colour[c]

    @ti.func
    def pass_tile(self, m: ti.template(), tile, worker):
        """Pass on the adjoints of what `pass_pairs` leaves."""
        b, left, right, top, bottom = self.box_of(m, tile)
        if m.crowded[tile] > 0:
            for row in range(top, bottom):
                for column in range(left, right):
                    x, y = self.centre(m, column, row)
                    self.pass_hidden(m, self.number(m, b, row, column), worker, x, y)

    @ti.func
    def pass_hidden(self, m: ti.template(), p, worker, x, y):
        """Pass on the adjoints of a pixel's fragments that `pass_pairs` leaves."""
        begin, end = m.firsts[p], m.ends[p]
        left = False
        for place in range(begin, end):
            at = m.lists[place]
            if m.seen[Seen.SIZE * at + Seen.AREA] > 0:
                left = left or m.seen[Seen.SIZE * at + Seen.HIDING] > 0
                left = left or m.faces[Face.SIZE * self.face_of(m, at) + Face.CUT] > 0
        if left:
            base = worker * RECORD * (m.size[Size.LONGEST] + m.size[Size.PIECES] + SPARE)
            places = worker * 2 * m.size[Size.LONGEST]
            self.pass_all(m, p, begin, end, base, places, x, y)
