"""The sums of each pixel, in one pass over its fragments. No derivative."""

import taichi as ti

from taichi_raster.kernels.pairs import PairKernels
from taichi_raster.layout import Dim, Limit


@ti.data_oriented
class Forward(PairKernels):
    """Also finds what must not be differentiated: the offset of the log-weights, the number of
    saturated fragments, and the nearest face."""

    @ti.kernel
    def render(self, slots: ti.i32):
        for slot in range(slots):
            run = slot // self.spread
            mine = ti.select(slot == run * self.spread, self.dims[Dim.RUN_LENGTH], 0)
            for step in range(mine):
                b, row, column, tile = self.pixel(run * self.dims[Dim.RUN_LENGTH] + step)
                if row < self.dims[Dim.HEIGHT] and column < self.dims[Dim.WIDTH]:
                    self.render_pixel(b, row, column, tile)

    @ti.func
    def render_pixel(self, b, row, column, tile):
        """Sum over the pixel's fragments, weights relative to the largest so far."""
        q = (b * self.dims[Dim.HEIGHT] + row) * self.dims[Dim.WIDTH] + column
        p = self.point(row, column)
        scale = self.x[self.scale_at(b)]
        gamma = self.x[self.gamma_at(b)]
        background = self.offset[q]  # on entry, the background's log-weight
        largest, total, weight = background, 0.0 * scale, 0.0 * scale
        colour = ti.Vector([0.0 * scale for _ in ti.static(range(self.channels))])
        saturated, nearest, nearest_z = 0, -1, 0.0 * scale
        for k in range(self.tile_begin[tile], self.tile_begin[tile + 1]):
            face = self.tile_faces[k]
            v0, v1, v2, corner_z = self.corners(self.x, self.corner_at(b, face, 0))
            d, inside, edge, on_line, t, _n = self.foot(v0, v1, v2, p)
            if d >= -self.limits[Limit.REACH]:
                u = self.softness(b, d / scale)
                f0, f1, f2 = self.cdf(u)
                w, share, z = self.surface(v0, v1, v2, corner_z, p, inside, edge, on_line, t)
                if self.counts(f0, d, z):
                    g0, _g1, _g2 = self.generated(u, f0, f1, f2)
                    total += g0
                    if ti.static(self.can_saturate):
                        saturated += ti.cast(u >= self.saturates_at, ti.i32)
                    if ti.static(self.perspective):
                        w = share * z
                    if ti.static(self.hard):
                        if inside and (nearest < 0 or z < nearest_z):
                            nearest, nearest_z, weight = face, z, 1.0
                            for c in ti.static(range(self.channels)):
                                colour[c] = w.dot(self.attribute(self.x, b, face, c))
                    else:
                        l = self.z_norm(z) / gamma  # noqa: E741 - as in the text
                        if l > largest:
                            shrink = ti.exp(largest - l)
                            weight *= shrink
                            colour *= shrink
                            largest = l
                        part = f0 * ti.exp(l - largest)
                        weight += part
                        for c in ti.static(range(self.channels)):
                            colour[c] += part * w.dot(self.attribute(self.x, b, face, c))
        if ti.static(not self.hard):
            # Any offset common to all log-weights cancels: take the one that makes their sum 1.
            norm = ti.max(weight + ti.exp(background - largest), 1e-30)
            weight /= norm
            colour /= norm
            largest += ti.log(norm)
        to = q * self.sums
        self.y[to] = total
        self.y[to + 1] = weight
        for c in ti.static(range(self.channels)):
            self.y[to + 2 + c] = colour[c]
        self.offset[q] = largest
        self.saturated[q] = saturated
        self.nearest[q] = nearest
