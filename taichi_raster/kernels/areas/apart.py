"""Whether faces overlap anywhere. Most of a pixel's faces are neighbours, which do not."""

# mypy: disable-error-code="no-untyped-def, valid-type"

import taichi as ti

from taichi_raster.kernels.areas.lanes import Lanes
from taichi_raster.kernels.areas.layout import LANES, Face
from taichi_raster.kernels.areas.tiles import PARTED


@ti.data_oriented
class Apart(Lanes):
    """Functions of two pairs of a tile and a face; (x, y) is a point in the tile."""

    @ti.func
    def compare_faces(self, m: ti.template(), t: ti.template(), begin, many, x, y):
        """Find which of a tile's faces, the pairs from `begin` on, may overlap which others.

        There are no branches in the inner loop, so that LLVM works on several faces at once.
        """
        for k in range(many):
            f = m.listed[begin + k]
            xs, ys = self.corners(m, f)
            turned = m.faces[Face.SIZE * f + Face.SIGN] < 0
            for i in ti.static(range(3)):
                t.corner_x[i][k] = ti.select(turned, xs[(3 - i) % 3], xs[i]) - x
                t.corner_y[i][k] = ti.select(turned, ys[(3 - i) % 3], ys[i]) - y
            t.meets[k] = 0
        for k in range(1, many):
            ax = ti.Vector([t.corner_x[i][k] for i in ti.static(range(3))])
            ay = ti.Vector([t.corner_y[i][k] for i in ti.static(range(3))])
            own, found = 1 << (k & 31), 0
            for block in range((k + LANES - 1) // LANES):
                for lane in range(LANES):
                    o = LANES * block + lane
                    bx = ti.Vector([t.corner_x[i][o] for i in ti.static(range(3))])
                    by = ti.Vector([t.corner_y[i][o] for i in ti.static(range(3))])
                    gaps = self.gaps(ax, ay, bx, by) + self.gaps(bx, by, ax, ay)
                    meet = gaps == 0 and o < k
                    found |= ti.select(meet, 1 << (o & 31), 0)
                    t.meets[o] = t.meets[o] | ti.select(meet, own, 0)
            t.meets[k] = found

    @ti.func
    def gaps(self, ax, ay, bx, by):
        """How many edges of a counter-clockwise triangle have another on their outer side."""
        found = 0
        for i in ti.static(range(3)):
            j = ti.static((i + 1) % 3)
            dx, dy = ax[j] - ax[i], ay[j] - ay[i]
            most = dx * (by[0] - ay[i]) - dy * (bx[0] - ax[i])
            for k in ti.static(range(1, 3)):
                most = self.most(most, dx * (by[k] - ay[i]) - dy * (bx[k] - ax[i]))
            reach = self.near * (self.most(dx, -dx) + self.most(dy, -dy))
            found += ti.select(most <= reach, 1, 0)
        return found

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
