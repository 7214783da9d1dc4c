"""Each pair's directional derivative, added to the tangents of the pixel's sums.

The value is the Jacobian-vector product. Seeded with an adjoint v of the sums' tangents, the
reverse pass gives the derivative of v . J(x) x_dot with respect to x: the second derivatives.
"""

import taichi as ti

from taichi_raster import geometry
from taichi_raster.arithmetic import frozen, with_slope
from taichi_raster.kernels.pairs import PairKernels
from taichi_raster.layout import Dim
from taichi_raster.softness import mlp_kernel


@ti.data_oriented
class Tangent(PairKernels):
    """The tangent of `Accumulate`, from closed forms."""

    @ti.kernel
    def accumulate_dot(self, runs: ti.i32):
        for run in range(runs):
            for step in range(self.dims[Dim.RUN_LENGTH]):
                b, row, column, tile = self.pixel(run * self.dims[Dim.RUN_LENGTH] + step)
                if row < self.dims[Dim.HEIGHT] and column < self.dims[Dim.WIDTH]:
                    for k in range(self.tile_begin[tile], self.tile_begin[tile + 1]):
                        self.add_pair_dot(b, row, column, self.tile_faces[k])

    @ti.func
    def add_pair_dot(self, b, row, column, face):
        q = (b * self.dims[Dim.HEIGHT] + row) * self.dims[Dim.WIDTH] + column
        p = self.point(row, column)
        at = self.corner_at(b, face, 0)
        v0, v1, v2, corner_z = self.corners(self.vertices, at)
        v0_dot, v1_dot, v2_dot, corner_z_dot = self.corners(self.x_dot, at)
        s0, s1, s2 = geometry.still(v0), geometry.still(v1), geometry.still(v2)
        edge, inside, on_line, side, t_choice = geometry.choose(p, s0, s1, s2, self.flatness)
        a, c = geometry.ends(edge, v0, v1, v2)
        a_dot, c_dot = geometry.ends(edge, v0_dot, v1_dot, v2_dot)
        t = geometry.along(p, a, c, t_choice, on_line)
        n = geometry.direction(p, a, c, t, on_line, side)
        d = n.dot(p - (1.0 - t) * a - t * c)
        d_dot = -n.dot((1.0 - t) * a_dot + t * c_dot)
        scale = self.parameters[self.scale_at(b)]
        x = d / scale
        u, u_dot = self.softness_dot(b, x, (d_dot - x * self.x_dot[self.scale_at(b)]) / scale)
        f0, f1, f2 = self.cdf(frozen(u))
        w, w_dot = geometry.nearest_weights_dot(
            p, v0, v1, v2, a, c, v0_dot, v1_dot, v2_dot, a_dot, c_dot,
            edge, inside, on_line, t, n, d,
        )  # fmt: skip
        share = w / corner_z
        share_dot = (w_dot - share * corner_z_dot) / corner_z
        z = 1.0 / share.sum()
        z_dot = -z * z * share_dot.sum()
        if self.counts(f0, d, z):
            to = q * ti.static(self.sums)
            _g0, g1, g2 = self.generated(frozen(u), f0, f1, f2)
            self.y_dot[to] += with_slope(g1, g2, u) * u_dot
            if ti.static(self.perspective):
                w, w_dot = share * z, share_dot * z + share * z_dot
            f, f_dot = with_slope(f0, f1, u), with_slope(f1, f2, u) * u_dot
            self.add_colour_dot(b, face, q, to, w, w_dot, z, z_dot, f, f_dot)

    @ti.func
    def softness_dot(self, b, x, x_dot):
        """`softness` and its directional derivative."""
        u, u_dot = x, x_dot
        if ti.static(self.learned):
            u, u_dot = mlp_kernel.logit_dot(
                self.network, self.parameters, self.x_dot, self.weights_at(b), x, x_dot
            )
        return u, u_dot

    @ti.func
    def add_colour_dot(self, b, face, q, to, w, w_dot, z, z_dot, f, f_dot):
        if ti.static(self.hard):
            if face == self.nearest[q]:
                for c in ti.static(range(self.channels)):
                    value = self.attribute(self.attributes, b, face, c)
                    value_dot = self.attribute(self.x_dot, b, face, c)
                    self.y_dot[to + 2 + c] += w_dot.dot(value) + w.dot(value_dot)
        else:
            gamma = self.parameters[self.gamma_at(b)]
            l = self.z_norm(z) / gamma  # noqa: E741 - as in the text
            l_dot = -(z_dot / self.depth_range() + l * self.x_dot[self.gamma_at(b)]) / gamma
            psi = ti.exp(l - self.offset[q])
            weight, weight_dot = f * psi, (f_dot + f * l_dot) * psi
            self.y_dot[to + 1] += weight_dot
            for c in ti.static(range(self.channels)):
                value = self.attribute(self.attributes, b, face, c)
                moved = weight_dot * w + weight * w_dot
                value_dot = self.attribute(self.x_dot, b, face, c)
                self.y_dot[to + 2 + c] += moved.dot(value) + weight * w.dot(value_dot)
