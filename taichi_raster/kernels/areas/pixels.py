"""What one pixel sees of its fragments, and the adjoints of that.

Most fragments overlap no other. Those are measured edge by edge, and not cut at all.
"""

# mypy: disable-error-code="no-untyped-def, valid-type"

import taichi as ti

from taichi_raster.kernels.areas.by_face import ByFace
from taichi_raster.kernels.areas.hiding import SPARE
from taichi_raster.kernels.areas.layout import Face, Seen, Size
from taichi_raster.kernels.areas.polygons import RECORD, At


@ti.data_oriented
class Pixels(ByFace):
    """Functions of a pixel: its number `p`, and its centre (x, y)."""

    @ti.func
    def see(self, m: ti.template(), b, row, column, worker, adjoint: ti.template()):
        """One pixel. Where `adjoint`, `found` holds the adjoints, otherwise it is written."""
        p = self.number(m, b, row, column)
        begin, end = m.firsts[p], m.ends[p]
        x = ti.cast(column, self.real) + 0.5
        y = ti.cast(m.size[Size.HEIGHT] - row, self.real) - 0.5
        zero = 0 * x
        count = end - begin
        base = worker * RECORD * (m.size[Size.LONGEST] + m.size[Size.PIECES] + SPARE)
        places = worker * 2 * m.size[Size.LONGEST]
        alone = False
        if count == 1:
            alone = m.slots[begin] < 0
        colour = ti.Vector.zero(self.real, self.view.channels + 1)
        if alone:
            if ti.static(adjoint):
                self.inner(m, p, begin, zero + 1, zero, zero, x, y)
            else:
                self.show(m, colour, begin, zero + 1, x, y)
        elif count > 0:
            if ti.static(adjoint):
                self.pass_all(m, p, begin, end, base, places, x, y)
            else:
                self.look(m, begin, end, base, places, x, y)
                for at in range(begin, end):
                    area = m.seen[Seen.SIZE * at + Seen.AREA]
                    if area > 0:
                        u = x + m.seen[Seen.SIZE * at + Seen.X] / area
                        v = y + m.seen[Seen.SIZE * at + Seen.Y] / area
                        self.show(m, colour, at, area, u, v)
                    elif ti.static(self.view.channels < 0):
                        for i in ti.static(range(3)):
                            self.write(m, 3 * at + i, 0 * x)
        if ti.static(not adjoint and self.view.channels >= 0):
            # Rounding may have added up to a little more than a pixel.
            colour[self.view.channels] = ti.min(colour[self.view.channels], 1)
            for c in ti.static(range(self.view.channels + 1)):
                self.write(m, (self.view.channels + 1) * p + c, colour[c])

    @ti.func
    def write(self, m: ti.template(), at, value):
        """Write an element of the result, which was cleared before; on a GPU.

        It is added: Vulkan clears an array that a launch only writes to, and there are several
        launches.
        """
        m.values[at] = m.values[at] + value

    @ti.func
    def show(self, m: ti.template(), colour: ti.template(), at, area, x, y):
        """Add a fragment to its pixel's colour, or write what its corners have a share in."""
        f = self.face_of(m, at)
        share = area * self.mixing(m, f, x, y)
        if ti.static(self.view.channels < 0):
            for i in ti.static(range(3)):
                self.write(m, 3 * at + i, share[i])
        else:
            corner = 3 * self.view.channels * f
            for c in ti.static(range(self.view.channels)):
                for i in ti.static(range(3)):
                    colour[c] += share[i] * m.attributes[corner + i * self.view.channels + c]
            colour[self.view.channels] += area

    @ti.func
    def look(self, m: ti.template(), begin, end, base, places, x, y):
        """Find what is seen of each of a pixel's fragments.

        As long as none overlaps another, all of each is seen, until they fill the pixel and what
        follows is behind them. Where some overlap, each is cut by those in front of it.
        """
        count = end - begin
        self.sort(m, begin, count, base, places, True, x, y)
        total, lowest = 0 * x, self.huge + 0 * x
        overlap, o = False, 0
        while o < count and not overlap:
            k = m.order[places + o]
            record = base + RECORD * k
            if total >= self.full and m.memory[record + At.LIMIT] < lowest:
                break
            f = self.face_of(m, begin + k)
            overlap = m.faces[Face.SIZE * f + Face.CUT] > 0
            self.measure(m, f, record, x, y)
            area = m.memory[record + At.AREA]
            if area > self.tiny:
                for before in range(o):
                    if not overlap:
                        other = base + RECORD * m.order[places + before]
                        overlap = self.boxes_meet(m, record, other)
                        if overlap:
                            overlap = not self.parted(m, other, record)
                        if overlap:
                            overlap = not self.parted(m, record, other)
                total += area
                lowest = ti.min(lowest, m.memory[record + At.W_MIN])
            self.keep(m, begin + k, area, m.memory[record + At.X], m.memory[record + At.Y], 0)
            o += 1
        if overlap:
            o = self.cut_apart(m, begin, count, base, places, x, y)
        while o < count:
            self.keep(m, begin + m.order[places + o], 0 * x, 0 * x, 0 * x, 0)
            o += 1

    @ti.func
    def cut_apart(self, m: ti.template(), begin, count, base, places, x, y):
        """Cut each of a pixel's fragments, which are sorted, by those in front of it.

        Returns how many are done: those that follow are behind a full pixel.
        """
        o = 0
        total, lowest = 0 * x, self.huge + 0 * x
        while o < count:
            k = m.order[places + o]
            record = base + RECORD * k
            if total >= self.full and m.memory[record + At.LIMIT] < lowest:
                break
            hiding = self.hidden_by(m, begin, count, k, base, places, x, y)
            area, x_sum, y_sum = m.memory[record + At.AREA], 0 * x, 0 * x
            if area > self.tiny:
                if hiding == 0:
                    x_sum, y_sum = m.memory[record + At.X], m.memory[record + At.Y]
                else:
                    area, x_sum, y_sum = self.pieces(
                        m, begin, hiding, k, base, places, x, y, x_sum, x_sum, x_sum, False
                    )
                total += area
                if area > 0:
                    lowest = ti.min(lowest, m.memory[record + At.W_MIN])
            self.keep(m, self.entry(m, begin + k), area, x_sum, y_sum, hiding)
            o += 1
        return o

    @ti.func
    def pass_all(self, m: ti.template(), p, begin, end, base, places, x, y):
        """Pass on the adjoints of a pixel with several fragments, or with edges."""
        count = end - begin
        some_hidden = False
        for place in range(begin, end):
            at = self.entry(m, place)
            some_hidden = some_hidden or m.seen[Seen.SIZE * at + Seen.HIDING] > 0
        self.sort(m, begin, count, base, places, some_hidden, x, y)
        for k in range(count):
            at = self.entry(m, begin + k)
            area = m.seen[Seen.SIZE * at + Seen.AREA]
            if ti.static(self.on_cpu):
                hidden = m.seen[Seen.SIZE * at + Seen.HIDING] > 0
                if not hidden and m.faces[Face.SIZE * self.face_of(m, at) + Face.CUT] == 0:
                    area = 0 * area  # that is done face by face
            if area > 0:
                u, v = (
                    m.seen[Seen.SIZE * at + Seen.X] / area,
                    m.seen[Seen.SIZE * at + Seen.Y] / area,
                )
                mean, slope_x, slope_y = self.inner(m, p, at, area, u, v, x, y)
                if mean != 0 or slope_x != 0 or slope_y != 0:
                    constant = mean - slope_x * u - slope_y * v
                    hidden = m.seen[Seen.SIZE * at + Seen.HIDING] > 0
                    in_pieces = True
                    if ti.static(not self.on_cpu):
                        f = self.face_of(m, at)
                        in_pieces = hidden or m.faces[Face.SIZE * f + Face.CUT] > 0
                        if not in_pieces:
                            pair = m.slots[at]
                            pair = ti.select(pair < 0, -1 - pair, pair)
                            self.pass_edges(m, f, pair, x, y, constant, slope_x, slope_y)
                    if in_pieces:
                        others = ti.select(hidden, count, 0)
                        hiding = self.hidden_by(m, begin, others, k, base, places, x, y)
                        _area, _x_sum, _y_sum = self.pieces(
                            m,
                            begin,
                            hiding,
                            k,
                            base,
                            places,
                            x,
                            y,
                            constant,
                            slope_x,
                            slope_y,
                            True,
                        )
