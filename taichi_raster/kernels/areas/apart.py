"""Whether faces overlap anywhere. Most of a pixel's faces are neighbours, which do not."""

# mypy: disable-error-code="no-untyped-def, valid-type"

import taichi as ti

from taichi_raster.kernels.areas.lanes import Lanes
from taichi_raster.kernels.areas.layout import Face
from taichi_raster.kernels.areas.tiles import PARTED


@ti.data_oriented
class Apart(Lanes):
    """Functions of two pairs of a tile and a face; (x, y) is a point in the tile."""

    @ti.func
    def note_pair(self, m: ti.template(), t: ti.template(), cell, pair, x, y):
        """Note that a pixel has a fragment of a pair, and whether that may overlap others."""
        first, second = t.first[cell], t.second[cell]
        if first < 0:
            t.first[cell] = pair
        elif t.unclear[cell] == 0:
            unclear = t.third[cell] > 0  # only three are compared here
            if not unclear:
                unclear = self.pairs_meet(m, t, first, pair, x, y)
            if second < 0:
                t.second[cell] = pair
            else:
                t.third[cell] = 1
                if not unclear:
                    unclear = self.pairs_meet(m, t, second, pair, x, y)
            t.unclear[cell] = ti.select(unclear, 1, 0)

    @ti.func
    def pairs_meet(self, m: ti.template(), t: ti.template(), first, second, x, y):
        """Whether no edge of two faces has the other face on its outer side."""
        found = False
        key = (first * 31 + second) & (PARTED - 1)
        if t.one[key] != first or t.other[key] != second:
            found = self.triangles_meet(m, m.listed[first], m.listed[second], x, y)
            if not found:
                t.one[key] = first
                t.other[key] = second
        return found

    @ti.func
    def triangles_meet(self, m: ti.template(), one, other, x, y):
        """Whether no edge of two faces has the other face on its outer side."""
        ax, ay = self.corners(m, one)
        bx, by = self.corners(m, other)
        ax, ay, bx, by = ax - x, ay - y, bx - x, by - y
        found = not self.triangles_parted(ax, ay, bx, by, m.faces[Face.SIZE * one + Face.SIGN])
        if found:
            sign = m.faces[Face.SIZE * other + Face.SIGN]
            found = not self.triangles_parted(bx, by, ax, ay, sign)
        return found

    @ti.func
    def triangles_parted(self, ax, ay, bx, by, sign):
        """Whether an edge of the first triangle has the second on its outer side."""
        found = False
        for i in ti.static(range(3)):
            j = ti.static((i + 1) % 3)
            dx, dy = sign * (ax[j] - ax[i]), sign * (ay[j] - ay[i])
            most = -self.huge + 0 * dx
            for k in ti.static(range(3)):
                most = self.most(most, dx * (by[k] - ay[i]) - dy * (bx[k] - ax[i]))
            found = found or most <= self.near * (ti.abs(dx) + ti.abs(dy))
        return found
