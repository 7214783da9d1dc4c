"""The vector-Jacobian product from closed forms, face by face and without atomics.

Faster than the reverse pass of `Accumulate`, its oracle, where threads are few.
"""

import taichi as ti

from taichi_raster import geometry
from taichi_raster.kernels.pairs import PairKernels
from taichi_raster.layout import Dim, Limit
from taichi_raster.softness import mlp_kernel


@ti.data_oriented
class Pull(PairKernels):
    """The adjoint of vertices, attributes, scale and gamma; not of network weights."""

    @ti.kernel
    def pull(self, slots: ti.i32, run_length: ti.i32):
        for slot in range(slots):
            run = slot // self.spread
            for step in range(ti.select(slot == run * self.spread, run_length, 0)):
                i = run * run_length + step
                b = i // self.dims[Dim.FACES]
                self.pull_face(b, i - b * self.dims[Dim.FACES])

    @ti.func
    def pull_face(self, b, face):
        """Write the adjoint of a face's inputs: one thread has the face to itself."""
        at = self.corner_at(b, face, 0)
        v0, v1, v2, corner_z = self.corners(self.x, at)
        scale, gamma = self.x[self.scale_at(b)], self.x[self.gamma_at(b)]
        zero = 0.0 * scale
        v_bar = ti.Matrix([[zero for _ in ti.static(range(3))] for _ in ti.static(range(3))])
        a_bar = ti.Matrix(
            [[zero for _ in ti.static(range(self.channels))] for _ in ti.static(range(3))]
        )
        scale_bar, gamma_bar = zero, zero
        top, bottom, left, right = self.window(v0, v1, v2)
        if self.drawn(v0, v1, v2, corner_z):
            for row in range(top, bottom):
                for column in range(left, right):
                    p = self.point(row, column)
                    d, inside, edge, on_line, t, n = self.foot(v0, v1, v2, p)
                    if d >= -self.limits[Limit.REACH]:
                        w, share, z = self.surface(
                            v0, v1, v2, corner_z, p, inside, edge, on_line, t
                        )
                        x = d / scale
                        u, slope = self.softness_slope(b, x)
                        f0, f1, f2 = self.cdf(u)
                        if self.counts(f0, d, z):
                            q = (b * self.dims[Dim.HEIGHT] + row) * self.dims[Dim.WIDTH] + column
                            to = q * self.sums
                            _g0, g1, _g2 = self.generated(u, f0, f1, f2)
                            m = w
                            if ti.static(self.perspective):
                                m = share * z
                            u_bar, l_bar, weight = self.y.grad[to] * g1, zero, zero
                            if ti.static(self.hard):
                                weight = ti.select(self.nearest[q] == face, 1.0, 0.0)
                            else:
                                l = self.z_norm(z) / gamma  # noqa: E741 - as in the text
                                psi = ti.exp(l - self.offset[q])
                                weight = f0 * psi
                                along = self.y.grad[to + 1]
                                for c in ti.static(range(self.channels)):
                                    values = self.attribute(self.x, b, face, c)
                                    along += self.y.grad[to + 2 + c] * m.dot(values)
                                u_bar += along * psi * f1
                                l_bar = along * weight
                                gamma_bar -= l_bar * l / gamma
                            m_bar = ti.Vector([zero, zero, zero])
                            for c in ti.static(range(self.channels)):
                                c_bar = weight * self.y.grad[to + 2 + c]
                                m_bar += c_bar * self.attribute(self.x, b, face, c)
                                for i in ti.static(range(3)):
                                    a_bar[i, c] += c_bar * m[i]
                            x_bar = u_bar * slope
                            scale_bar -= x_bar * x / scale
                            # Depth and barycentric coordinates.
                            z_bar = -l_bar / (self.depth_range() * gamma)
                            w_bar = m_bar
                            share_bar = ti.Vector([zero, zero, zero])
                            if ti.static(self.perspective):
                                z_bar += m_bar.dot(share)
                                share_bar = m_bar * z
                                w_bar *= 0.0
                            share_bar -= z * z * z_bar
                            w_bar += share_bar / corner_z
                            for i in ti.static(range(3)):
                                v_bar[i, 2] -= share_bar[i] * share[i] / corner_z[i]
                            moves = geometry.pull_weights(
                                v0, v1, v2, w, w_bar, edge, inside, on_line, t, n, d, x_bar / scale
                            )
                            for i in ti.static(range(3)):
                                v_bar[i, 0] += moves[i, 0]
                                v_bar[i, 1] += moves[i, 1]
        for i in ti.static(range(3)):
            for j in ti.static(range(3)):
                self.x.grad[at + 3 * i + j] = v_bar[i, j]
        if ti.static(self.moves[1]):
            first = (
                self.dims[Dim.AT_ATTRIBUTES] + (b * self.dims[Dim.FACES] + face) * 3 * self.channels
            )
            for i in ti.static(range(3)):
                for c in ti.static(range(self.channels)):
                    self.x.grad[first + i * self.channels + c] = a_bar[i, c]
        if ti.static(self.moves[2]):
            self.x.grad[self.scale_at(b)] += scale_bar
            self.x.grad[self.gamma_at(b)] += gamma_bar

    @ti.func
    def softness_slope(self, b, x):
        """u and du/dx."""
        u, slope = x, 1.0 + 0.0 * x
        if ti.static(self.learned):
            u, slope = mlp_kernel.logit_slope(self.network, self.x, self.weights_at(b), x)
        return u, slope

    @ti.func
    def window(self, v0, v1, v2):
        """(top, bottom, left, right): rows and columns that a face can reach, ends excluded."""
        width, height = self.dims[Dim.WIDTH], self.dims[Dim.HEIGHT]
        short = ti.cast(ti.min(width, height), self.limits.dtype)
        reach = self.limits[Limit.REACH]
        low, high = ti.min(v0, v1, v2) - reach, ti.max(v0, v1, v2) + reach
        # The column of x is (x * short + width - 1) / 2; clamped, since the cast may overflow.
        left = ti.math.clamp(low[0] * short + width - 1, 0.0, 2.0 * width) * 0.5
        right = ti.math.clamp(high[0] * short + width - 1, -2.0, 2.0 * width - 2) * 0.5
        top = ti.math.clamp(height - 1 - high[1] * short, 0.0, 2.0 * height) * 0.5
        bottom = ti.math.clamp(height - 1 - low[1] * short, -2.0, 2.0 * height - 2) * 0.5
        return (
            ti.max(ti.floor(top, ti.i32) - 1, 0), ti.min(ti.ceil(bottom, ti.i32) + 2, height),
            ti.max(ti.floor(left, ti.i32) - 1, 0), ti.min(ti.ceil(right, ti.i32) + 2, width),
        )  # fmt: skip
