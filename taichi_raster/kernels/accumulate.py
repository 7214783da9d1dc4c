"""Each (pixel, face) pair's terms, added to the pixel's sums: what Taichi differentiates.

Its reverse pass is the vector-Jacobian product. Nothing is assigned in a branch, and what must not
be differentiated is frozen first: autodiff would keep the one on a stack and follow the other.
"""

import taichi as ti

from taichi_raster import geometry
from taichi_raster.arithmetic import frozen, with_slope
from taichi_raster.kernels.pairs import PairKernels
from taichi_raster.layout import Dim


@ti.data_oriented
class Accumulate(PairKernels):
    """The differentiable sums; their values come from `Forward`, which is faster."""

    @ti.kernel
    def accumulate(self, runs: ti.i32):
        for run in range(runs):
            for step in range(self.dims[Dim.RUN_LENGTH]):
                b, row, column, tile = self.pixel(run * self.dims[Dim.RUN_LENGTH] + step)
                if row < self.dims[Dim.HEIGHT] and column < self.dims[Dim.WIDTH]:
                    for k in range(self.tile_begin[tile], self.tile_begin[tile + 1]):
                        self.add_pair(b, row, column, self.tile_faces[k])

    @ti.func
    def add_pair(self, b, row, column, face):
        q = (b * self.dims[Dim.HEIGHT] + row) * self.dims[Dim.WIDTH] + column
        p = self.point(row, column)
        v0, v1, v2, corner_z = self.corners(self.vertices, self.corner_at(b, face, 0))
        s0, s1, s2 = geometry.still(v0), geometry.still(v1), geometry.still(v2)
        edge, inside, on_line, side, t = geometry.choose(p, s0, s1, s2, self.flatness)
        start, end = geometry.ends(edge, s0, s1, s2)
        n = geometry.direction(p, start, end, t, on_line, side)
        a, c = geometry.ends(edge, v0, v1, v2)
        d = n.dot(p - (1.0 - t) * a - t * c)
        u = self.softness(b, d / self.parameters[self.scale_at(b)])
        f0, f1, f2 = self.cdf(frozen(u))
        w = geometry.nearest_weights(p, v0, v1, v2, a, c, edge, inside, on_line, t)
        share = w / corner_z
        z = 1.0 / share.sum()
        if self.counts(f0, d, z):
            to = q * ti.static(self.sums)
            g0, g1, _g2 = self.generated(frozen(u), f0, f1, f2)
            self.y[to] += with_slope(g0, g1, u)
            if ti.static(self.perspective):
                w = share * z
            self.add_colour(b, face, q, to, w, z, with_slope(f0, f1, u))

    @ti.func
    def add_colour(self, b, face, q, to, w, z, f):
        """Add the fragment's weight and weighted attributes."""
        if ti.static(self.hard):
            if face == self.nearest[q]:
                self.y[to + 1] += 1.0
                for c in ti.static(range(self.channels)):
                    self.y[to + 2 + c] += w.dot(self.attribute(self.attributes, b, face, c))
        else:
            l = self.z_norm(z) / self.parameters[self.gamma_at(b)]  # noqa: E741 - as in the text
            weight = f * ti.exp(l - self.offset[q])
            self.y[to + 1] += weight
            for c in ti.static(range(self.channels)):
                value = w.dot(self.attribute(self.attributes, b, face, c))
                self.y[to + 2 + c] += weight * value
