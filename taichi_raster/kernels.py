"""The kernels: bin, select, accumulate, and accumulate's tangent. One set exists per `Variant`.

* `bin` lists for each tile of pixels the faces that can reach it (no derivative).
* `render` computes the sums of each pixel, and finds what must not be differentiated: the offset of
  the log-weights, the number of saturated fragments, the nearest face (no derivative).
* `accumulate` adds each (pixel, face) pair's term to the pixel's sums. Taichi differentiates it:
  its reverse pass is the vector-Jacobian product.
* `pull` is the same product from closed forms, face by face, without atomics: faster where threads
  are few. The reverse of `accumulate` is its oracle.
* `accumulate_dot` adds each term's directional derivative. Its reverse pass gives the second
  derivatives: seeded with an adjoint v of the sums' tangents, the adjoint of the primal inputs is
  the derivative of v . J(x) x_dot.
"""

import math
from typing import Any

import taichi as ti

from taichi_raster import aggregation, geometry
from taichi_raster.arithmetic import frozen, with_slope
from taichi_raster.layout import TILE, Dim, Limit, Variant
from taichi_raster.runtime import Runtime
from taichi_raster.scratch import Scratch
from taichi_raster.softness import mlp_kernel, registry

_NOTHING = -3.0e38


@ti.data_oriented
class Kernels:
    """The compiled kernels of one variant, over the given scratch fields."""

    def __init__(self, variant: Variant, scratch: Scratch, runtime: Runtime) -> None:
        formulas = registry.find(variant.distribution)
        self.cdf: Any = formulas.cdf
        self.log_survival: Any = formulas.log_survival
        self.can_saturate = formulas.saturates_at < math.inf
        self.saturates_at = formulas.saturates_at
        self.generate: Any = aggregation.generator(variant.conorm).generate
        self.network = variant.network
        self.learned = variant.network is not None
        self.weights_size = variant.network.size if variant.network else 0
        self.hard = variant.depth == "hard"
        self.channels = variant.channels
        self.sums = variant.channels + 2
        self.perspective = variant.perspective
        self.cull = variant.cull
        self.flatness = 1e-6 if runtime.precision == "f32" else 1e-12
        self.dims, self.limits = scratch.dims, scratch.limits
        self.x, self.y = scratch.x, scratch.y
        self.tile_begin, self.tile_faces = scratch.tile_begin, scratch.tile_faces
        self.offset, self.saturated = scratch.offset, scratch.saturated
        self.nearest = scratch.nearest
        self.layers = scratch.layers
        self.moves = variant.moves
        vertices, attributes, parameters = variant.moves
        self.vertices = scratch.x if vertices else scratch.x_still
        self.attributes = scratch.x if attributes else scratch.x_still
        self.parameters = scratch.x if parameters else scratch.x_still
        self.x_dot = getattr(scratch, "x_dot", None)
        self.y_dot = getattr(scratch, "y_dot", None)

    # Where things lie ---------------------------------------------------------------------------

    @ti.func
    def corner_at(self, b, face, i):
        return ((b * self.dims[Dim.FACES] + face) * 3 + i) * 3

    @ti.func
    def xy(self, source: ti.template(), at):
        return ti.Vector([source[at], source[at + 1]])

    @ti.func
    def corners(self, source: ti.template(), at):
        """A triangle's three corners in the image, and their depths."""
        z = ti.Vector([source[at + 2], source[at + 5], source[at + 8]])
        return self.xy(source, at), self.xy(source, at + 3), self.xy(source, at + 6), z

    @ti.func
    def attribute(self, source: ti.template(), b, face, c):
        """Channel c at the three corners."""
        first = (b * self.dims[Dim.FACES] + face) * ti.static(3 * self.channels)
        at = self.dims[Dim.AT_ATTRIBUTES] + first + c
        return ti.Vector([source[at + i * self.channels] for i in ti.static(range(3))])

    @ti.func
    def weights_at(self, b):
        return self.dims[Dim.AT_WEIGHTS] + b * ti.static(self.weights_size)

    @ti.func
    def scale_at(self, b):
        return self.dims[Dim.AT_SCALE] + b

    @ti.func
    def gamma_at(self, b):
        return self.dims[Dim.AT_GAMMA] + b

    @ti.func
    def pixel(self, slot):
        """(batch item, row, column, tile) of a slot: tile after tile, row by row within each."""
        tile = slot // (TILE * TILE)
        b = tile // self.dims[Dim.TILES]
        in_image = tile - b * self.dims[Dim.TILES]
        in_tile = slot - tile * (TILE * TILE)
        ty = in_image // self.dims[Dim.TILES_X]
        tx = in_image - ty * self.dims[Dim.TILES_X]
        return b, ty * TILE + in_tile // TILE, tx * TILE + in_tile % TILE, tile

    @ti.func
    def point(self, row, column):
        """The pixel's centre in NDC."""
        width, height = self.dims[Dim.WIDTH], self.dims[Dim.HEIGHT]
        short = ti.cast(ti.min(width, height), self.limits.dtype)
        px = ti.cast(2 * column + 1 - width, self.limits.dtype) / short
        py = ti.cast(height - 2 * row - 1, self.limits.dtype) / short
        return ti.Vector([px, py])

    @ti.func
    def depth_range(self):
        return self.limits[Limit.FAR] - self.limits[Limit.NEAR]

    @ti.func
    def z_norm(self, z):
        return (self.limits[Limit.FAR] - z) / self.depth_range()

    @ti.func
    def counts(self, f, d, z):
        """Whether a fragment takes part."""
        in_range = z >= self.limits[Limit.NEAR] and z <= self.limits[Limit.FAR]
        return f > self.limits[Limit.THRESHOLD] and d >= -self.limits[Limit.CUTOFF] and in_range

    # Binning --------------------------------------------------------------------------------------

    @ti.func
    def reaches(self, b, face, tile_in_image):
        """Whether a face can count in a tile: its bounding box, widened by the reach, meets it."""
        ty = tile_in_image // self.dims[Dim.TILES_X]
        tx = tile_in_image - ty * self.dims[Dim.TILES_X]
        first = self.point(ty * TILE, tx * TILE)
        last = self.point(ty * TILE + TILE - 1, tx * TILE + TILE - 1)
        at = self.corner_at(b, face, 0)
        v0, v1, v2, corner_z = self.corners(self.x, at)
        low, high = ti.min(v0, v1, v2), ti.max(v0, v1, v2)
        reach = self.limits[Limit.REACH]
        hit = low[0] - reach <= last[0] and high[0] + reach >= first[0]
        hit = hit and low[1] - reach <= first[1] and high[1] + reach >= last[1]
        return hit and self.drawn(v0, v1, v2, corner_z)

    @ti.kernel
    def count(self, tiles: ti.i32):
        for tile in range(tiles):
            b = tile // self.dims[Dim.TILES]
            n = 0
            for face in range(self.dims[Dim.FACES]):
                if self.reaches(b, face, tile - b * self.dims[Dim.TILES]):
                    n += 1
            self.tile_begin[tile + 1] = n

    @ti.kernel
    def scan(self, tiles: ti.i32) -> ti.i32:
        """Turn counts into beginnings; the total, or -1 where it does not fit in 31 bits."""
        total = ti.cast(0, ti.i64)
        ti.loop_config(serialize=True)
        for tile in range(tiles):
            total += self.tile_begin[tile + 1]
            self.tile_begin[tile + 1] = ti.cast(total, ti.i32)
        self.tile_begin[0] = 0
        return ti.select(total < ti.cast(2**31 - 1, ti.i64), ti.cast(total, ti.i32), -1)

    @ti.kernel
    def fill(self, tiles: ti.i32):
        for tile in range(tiles):
            b = tile // self.dims[Dim.TILES]
            at = self.tile_begin[tile]
            for face in range(self.dims[Dim.FACES]):
                if self.reaches(b, face, tile - b * self.dims[Dim.TILES]):
                    self.tile_faces[at] = face
                    at += 1

    # Fragments ------------------------------------------------------------------------------------

    @ti.func
    def softness(self, b, x):
        """The logit, or x itself, at which the distribution is evaluated."""
        u = x
        if ti.static(self.learned):
            u = mlp_kernel.logit(self.network, self.parameters, self.weights_at(b), x)
        return u

    @ti.func
    def generated(self, u, f0, f1, f2):
        """G, G', G'' of the T-conorm's generator; zero where the fragment is saturated."""
        l0, l1, l2 = self.log_survival(u)
        g0, g1, g2 = self.generate(f0, f1, f2, l0, l1, l2)
        if ti.static(self.can_saturate):
            adds = u < self.saturates_at
            g0, g1, g2 = (
                ti.select(adds, g0, 0.0),
                ti.select(adds, g1, 0.0),
                ti.select(adds, g2, 0.0),
            )
        return g0, g1, g2

    @ti.func
    def foot(self, v0, v1, v2, p):
        """The signed distance of a pair, and what was chosen on the way to it."""
        edge, inside, on_line, side, t = geometry.choose(p, v0, v1, v2, self.flatness)
        a, c = geometry.ends(edge, v0, v1, v2)
        n = geometry.direction(p, a, c, t, on_line, side)
        return n.dot(p - (1.0 - t) * a - t * c), inside, edge, on_line, t, n

    @ti.func
    def surface(self, v0, v1, v2, corner_z, p, inside, edge, on_line, t):
        """Barycentric coordinates w, w / z, and depth of the triangle's point nearest to p."""
        a, c = geometry.ends(edge, v0, v1, v2)
        w = geometry.nearest_weights(p, v0, v1, v2, a, c, edge, inside, on_line, t)
        share = w / corner_z
        return w, share, 1.0 / share.sum()

    @ti.kernel
    def render(self, runs: ti.i32):
        for run in range(runs):
            for step in range(self.dims[Dim.RUN_LENGTH]):
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

    @ti.kernel
    def collect(self, runs: ti.i32, depth: ti.i32) -> ti.i32:
        """List each pixel's visible fragments, nearest first, for the sharp reference.

        Coverage is a ramp one pixel wide (a uniform softness). A pixel is done when the front faces
        or the back faces among its fragments cover it. Returns how many pixels would need more
        than `depth` fragments.
        """
        unfinished = 0
        for run in range(runs):
            for step in range(self.dims[Dim.RUN_LENGTH]):
                b, row, column, tile = self.pixel(run * self.dims[Dim.RUN_LENGTH] + step)
                if row < self.dims[Dim.HEIGHT] and column < self.dims[Dim.WIDTH]:
                    unfinished += self.collect_pixel(b, row, column, tile, depth)
        return unfinished

    @ti.func
    def collect_pixel(self, b, row, column, tile, depth):
        q = (b * self.dims[Dim.HEIGHT] + row) * self.dims[Dim.WIDTH] + column
        p = self.point(row, column)
        scale = self.x[self.scale_at(b)]
        front, back = 0.0 * scale, 0.0 * scale
        last_z, last_face, more = -1.0 + 0.0 * scale, -1, 1
        layer = 0
        while layer <= depth and more == 1:
            best, best_z, best_a, best_turn = -1, 0.0 * scale, 0.0 * scale, 0
            for k in range(self.tile_begin[tile], self.tile_begin[tile + 1]):
                face = self.tile_faces[k]
                v0, v1, v2, corner_z = self.corners(self.x, self.corner_at(b, face, 0))
                d, inside, edge, on_line, t, _n = self.foot(v0, v1, v2, p)
                if d >= -self.limits[Limit.REACH]:
                    _w, _s, z = self.surface(v0, v1, v2, corner_z, p, inside, edge, on_line, t)
                    a, _1, _2 = self.cdf(d / scale)
                    later = z > last_z or (z == last_z and face > last_face)
                    if self.counts(a, d, z) and later and (best < 0 or z < best_z):
                        turn = geometry.cross(v1 - v0, v2 - v0) >= 0.0
                        best, best_z, best_a, best_turn = face, z, a, ti.cast(turn, ti.i32)
            if best < 0 or front >= 1.0 or back >= 1.0:
                more = 0
            elif layer < depth:
                self.layers[q * depth + layer] = best
                last_z, last_face = best_z, best
                front += ti.select(best_turn == 1, best_a, 0.0)
                back += ti.select(best_turn == 1, 0.0, best_a)
            layer += 1
        for empty in range(ti.max(layer - 1, 0), depth):
            if more == 0:
                self.layers[q * depth + empty] = -1
        return more

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

    # The vector-Jacobian product, face by face -----------------------------------------------------

    @ti.kernel
    def pull(self, runs: ti.i32, run_length: ti.i32):
        for run in range(runs):
            for step in range(run_length):
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
    def drawn(self, v0, v1, v2, corner_z):
        """Whether a face is drawn at all, wherever it lies in the image."""
        near = ti.min(corner_z[0], corner_z[1], corner_z[2])
        far = ti.max(corner_z[0], corner_z[1], corner_z[2])
        shown = near > 0.0 and near <= self.limits[Limit.FAR] and far >= self.limits[Limit.NEAR]
        if ti.static(self.cull):
            shown = shown and geometry.cross(v1 - v0, v2 - v0) > 0.0
        return shown

    @ti.func
    def window(self, v0, v1, v2):
        """(top, bottom, left, right): rows and columns that a face can reach, ends excluded."""
        width, height = self.dims[Dim.WIDTH], self.dims[Dim.HEIGHT]
        short = ti.cast(ti.min(width, height), self.limits.dtype)
        reach = self.limits[Limit.REACH]
        low, high = ti.min(v0, v1, v2) - reach, ti.max(v0, v1, v2) + reach
        # The column of x is (x * short + width - 1) / 2; clamped before the cast, which may overflow.
        left = ti.math.clamp(low[0] * short + width - 1, 0.0, 2.0 * width) * 0.5
        right = ti.math.clamp(high[0] * short + width - 1, -2.0, 2.0 * width - 2) * 0.5
        top = ti.math.clamp(height - 1 - high[1] * short, 0.0, 2.0 * height) * 0.5
        bottom = ti.math.clamp(height - 1 - low[1] * short, -2.0, 2.0 * height - 2) * 0.5
        return (
            ti.max(ti.floor(top, ti.i32) - 1, 0), ti.min(ti.ceil(bottom, ti.i32) + 2, height),
            ti.max(ti.floor(left, ti.i32) - 1, 0), ti.min(ti.ceil(right, ti.i32) + 2, width),
        )  # fmt: skip

    # The tangent ----------------------------------------------------------------------------------

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
