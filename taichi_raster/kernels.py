"""The kernels: bin, select, accumulate, and accumulate's tangent. One set exists per `Variant`.

* `bin` lists for each tile of pixels the faces that can reach it (no derivative).
* `select` finds per pixel what must not be differentiated: the largest log-weight, the number of
  saturated fragments, the nearest face (no derivative).
* `accumulate` adds each (pixel, face) pair's term to the pixel's sums. Taichi differentiates it:
  its reverse pass is the vector-Jacobian product.
* `accumulate_dot` adds each term's directional derivative. Its reverse pass gives the second
  derivatives: seeded with an adjoint v of the sums' tangents, the adjoint of the primal inputs is
  the derivative of v . J(x) x_dot.
"""

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
        self.saturates_at = min(formulas.saturates_at, 1e30)
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
    def attribute_at(self, b, face, i):
        corner = (b * self.dims[Dim.FACES] + face) * 3 + i
        return self.dims[Dim.AT_ATTRIBUTES] + corner * ti.static(self.channels)

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
    def z_norm(self, z):
        near, far = self.limits[Limit.NEAR], self.limits[Limit.FAR]
        return (far - z) / (far - near)

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
        v0, v1, v2 = self.xy(self.x, at), self.xy(self.x, at + 3), self.xy(self.x, at + 6)
        low, high = ti.min(v0, v1, v2), ti.max(v0, v1, v2)
        near = ti.min(self.x[at + 2], self.x[at + 5], self.x[at + 8])
        far = ti.max(self.x[at + 2], self.x[at + 5], self.x[at + 8])
        reach = self.limits[Limit.REACH]
        hit = low[0] - reach <= last[0] and high[0] + reach >= first[0]
        hit = hit and low[1] - reach <= first[1] and high[1] + reach >= last[1]
        hit = hit and near > 0.0 and near <= self.limits[Limit.FAR]
        hit = hit and far >= self.limits[Limit.NEAR]
        if ti.static(self.cull):
            hit = hit and geometry.cross(v1 - v0, v2 - v0) > 0.0
        return hit

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
    def depth_at(self, w, at, source: ti.template()):
        """Perspective-correct depth: 1/z is linear in the image."""
        return 1.0 / (w[0] / source[at + 2] + w[1] / source[at + 5] + w[2] / source[at + 8])

    @ti.kernel
    def select(self, runs: ti.i32):
        for run in range(runs):
            for step in range(self.dims[Dim.RUN_LENGTH]):
                b, row, column, tile = self.pixel(run * self.dims[Dim.RUN_LENGTH] + step)
                if row < self.dims[Dim.HEIGHT] and column < self.dims[Dim.WIDTH]:
                    self.select_pixel(b, row, column, tile)

    @ti.func
    def select_pixel(self, b, row, column, tile):
        q = (b * self.dims[Dim.HEIGHT] + row) * self.dims[Dim.WIDTH] + column
        p = self.point(row, column)
        scale = self.x[self.scale_at(b)]
        gamma = self.x[self.gamma_at(b)]
        # On entry `offset` holds the background's log-weight.
        largest, saturated, nearest, nearest_z = self.offset[q], 0, -1, 0.0 * scale
        for k in range(self.tile_begin[tile], self.tile_begin[tile + 1]):
            face = self.tile_faces[k]
            at = self.corner_at(b, face, 0)
            v0, v1, v2 = self.xy(self.x, at), self.xy(self.x, at + 3), self.xy(self.x, at + 6)
            edge, inside, on_line, side, t = geometry.choose(p, v0, v1, v2, self.flatness)
            from_, to = geometry.ends(edge, v0, v1, v2)
            n = geometry.direction(p, from_, to, t, on_line, side)
            d = n.dot(p - (1.0 - t) * from_ - t * to)
            w = geometry.place(edge, t)
            if inside:
                w = geometry.barycentric(p, v0, v1, v2)
            z = self.depth_at(w, at, self.x)
            u = self.softness(b, d / scale)
            f, _1, _2 = self.cdf(u)
            if self.counts(f, d, z):
                if u >= ti.static(self.saturates_at):
                    saturated += 1
                if ti.static(not self.hard):
                    largest = ti.max(largest, self.z_norm(z) / gamma)
                if inside and (nearest < 0 or z < nearest_z):
                    nearest, nearest_z = face, z
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
                at = self.corner_at(b, face, 0)
                v0, v1, v2 = self.xy(self.x, at), self.xy(self.x, at + 3), self.xy(self.x, at + 6)
                edge, inside, on_line, side, t = geometry.choose(p, v0, v1, v2, self.flatness)
                from_, to = geometry.ends(edge, v0, v1, v2)
                n = geometry.direction(p, from_, to, t, on_line, side)
                u = n.dot(p - (1.0 - t) * from_ - t * to) / scale
                w = geometry.place(edge, t)
                if inside:
                    w = geometry.barycentric(p, v0, v1, v2)
                z = self.depth_at(w, at, self.x)
                a, _1, _2 = self.cdf(u)
                later = z > last_z or (z == last_z and face > last_face)
                first = best < 0 or z < best_z
                if self.counts(a, 0.0, z) and later and first:
                    turn = ti.select(geometry.cross(v1 - v0, v2 - v0) >= 0.0, 1, 0)
                    best, best_z, best_a, best_turn = face, z, a, turn
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
        at = self.corner_at(b, face, 0)
        v0 = self.xy(self.vertices, at)
        v1 = self.xy(self.vertices, at + 3)
        v2 = self.xy(self.vertices, at + 6)
        s0, s1, s2 = geometry.still(v0), geometry.still(v1), geometry.still(v2)
        edge, inside, on_line, side, t = geometry.choose(p, s0, s1, s2, self.flatness)
        start, end = geometry.ends(edge, s0, s1, s2)
        n = geometry.direction(p, start, end, t, on_line, side)
        first, second = at + 3 * edge, at + 3 * ((edge + 1) % 3)
        a, c = self.xy(self.vertices, first), self.xy(self.vertices, second)
        d = n.dot(p - (1.0 - t) * a - t * c)
        u = self.softness(b, d / self.parameters[self.scale_at(b)])
        f0, f1, f2 = self.cdf(frozen(u))
        w = geometry.nearest_weights(p, v0, v1, v2, a, c, edge, inside, on_line, t)
        z = self.depth_at(w, at, self.vertices)
        if self.counts(f0, d, z):
            f = with_slope(f0, f1, u)
            to = q * ti.static(self.sums)
            if u < ti.static(self.saturates_at):
                l0, l1, l2 = self.log_survival(frozen(u))
                g0, g1, _g2 = self.generate(f0, f1, f2, l0, l1, l2)
                self.y[to] += with_slope(g0, g1, u)
            self.add_colour(b, face, q, to, w, z, at, f)

    @ti.func
    def add_colour(self, b, face, q, to, w, z, at, f):
        """Add the fragment's weight and weighted attributes."""
        if ti.static(self.hard):
            if face == self.nearest[q]:
                self.y[to + 1] += 1.0
                for c in ti.static(range(self.channels)):
                    self.y[to + 2 + c] += self.attribute(b, face, w, z, at, c)
        else:
            l = self.z_norm(z) / self.parameters[self.gamma_at(b)]  # noqa: E741 - as in the text
            weight = f * ti.exp(l - self.offset[q])
            self.y[to + 1] += weight
            for c in ti.static(range(self.channels)):
                self.y[to + 2 + c] += weight * self.attribute(b, face, w, z, at, c)

    @ti.func
    def attribute(self, b, face, w, z, at, c):
        """Channel c of the attributes at barycentric coordinates w."""
        from_ = self.attribute_at(b, face, 0) + c
        total = 0.0 * z
        for i in ti.static(range(3)):
            share = w[i]
            if ti.static(self.perspective):
                share = w[i] * z / self.vertices[at + 3 * i + 2]
            total += share * self.attributes[from_ + i * self.channels]
        return total

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
        v0 = self.xy(self.vertices, at)
        v1 = self.xy(self.vertices, at + 3)
        v2 = self.xy(self.vertices, at + 6)
        s0, s1, s2 = geometry.still(v0), geometry.still(v1), geometry.still(v2)
        edge, inside, on_line, side, t_choice = geometry.choose(p, s0, s1, s2, self.flatness)
        first, second = at + 3 * edge, at + 3 * ((edge + 1) % 3)
        a, c = self.xy(self.vertices, first), self.xy(self.vertices, second)
        a_dot, c_dot = self.xy(self.x_dot, first), self.xy(self.x_dot, second)
        t = geometry.along(p, a, c, t_choice, on_line)
        n = geometry.direction(p, a, c, t, on_line, side)
        d = n.dot(p - (1.0 - t) * a - t * c)
        d_dot = -n.dot((1.0 - t) * a_dot + t * c_dot)

        scale = self.parameters[self.scale_at(b)]
        x = d / scale
        x_dot = (d_dot - x * self.x_dot[self.scale_at(b)]) / scale
        u, u_dot = x, x_dot
        if ti.static(self.learned):
            u, u_dot = mlp_kernel.logit_dot(
                self.network, self.parameters, self.x_dot, self.weights_at(b), x, x_dot
            )
        f0, f1, f2 = self.cdf(frozen(u))
        w, w_dot = geometry.nearest_weights_dot(
            p, v0, v1, v2, a, c, a_dot, c_dot,
            self.xy(self.x_dot, at), self.xy(self.x_dot, at + 3), self.xy(self.x_dot, at + 6),
            edge, inside, on_line, t, n, d,
        )  # fmt: skip
        z = self.depth_at(w, at, self.vertices)
        if self.counts(f0, d, z):
            f = with_slope(f0, f1, u)
            f_dot = with_slope(f1, f2, u) * u_dot
            to = q * ti.static(self.sums)
            if u < ti.static(self.saturates_at):
                l0, l1, l2 = self.log_survival(frozen(u))
                _g0, g1, g2 = self.generate(f0, f1, f2, l0, l1, l2)
                self.y_dot[to] += with_slope(g1, g2, u) * u_dot
            z_dot = self.depth_dot(w, w_dot, z, at)
            self.add_colour_dot(b, face, q, to, w, w_dot, z, z_dot, at, f, f_dot)

    @ti.func
    def depth_dot(self, w, w_dot, z, at):
        """From 1/z = sum_i w_i / z_i."""
        total = 0.0 * z
        for i in ti.static(range(3)):
            z_i = self.vertices[at + 3 * i + 2]
            total += (w_dot[i] - w[i] * self.x_dot[at + 3 * i + 2] / z_i) / z_i
        return -z * z * total

    @ti.func
    def add_colour_dot(self, b, face, q, to, w, w_dot, z, z_dot, at, f, f_dot):
        if ti.static(self.hard):
            if face == self.nearest[q]:
                for c in ti.static(range(self.channels)):
                    _value, dot = self.attribute_dot(b, face, w, w_dot, z, z_dot, at, c)
                    self.y_dot[to + 2 + c] += dot
        else:
            gamma = self.parameters[self.gamma_at(b)]
            l = self.z_norm(z) / gamma  # noqa: E741 - as in the text
            depth_range = self.limits[Limit.FAR] - self.limits[Limit.NEAR]
            l_dot = -(z_dot / depth_range + l * self.x_dot[self.gamma_at(b)]) / gamma
            psi = ti.exp(l - self.offset[q])
            weight, weight_dot = f * psi, (f_dot + f * l_dot) * psi
            self.y_dot[to + 1] += weight_dot
            for c in ti.static(range(self.channels)):
                value, dot = self.attribute_dot(b, face, w, w_dot, z, z_dot, at, c)
                self.y_dot[to + 2 + c] += weight_dot * value + weight * dot

    @ti.func
    def attribute_dot(self, b, face, w, w_dot, z, z_dot, at, c):
        """(value, directional derivative) of one channel."""
        from_ = self.attribute_at(b, face, 0) + c
        total, total_dot = 0.0 * z, 0.0 * z
        for i in ti.static(range(3)):
            share, share_dot = w[i], w_dot[i]
            if ti.static(self.perspective):
                z_i = self.vertices[at + 3 * i + 2]
                z_i_dot = self.x_dot[at + 3 * i + 2]
                share = w[i] * z / z_i
                share_dot = (w_dot[i] * z + w[i] * z_dot - share * z_i_dot) / z_i
            here = from_ + i * self.channels
            total += share * self.attributes[here]
            total_dot += share_dot * self.attributes[here] + share * self.x_dot[here]
        return total, total_dot
