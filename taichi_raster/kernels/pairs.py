"""What all kernels share: where things lie, and the mathematics of one (pixel, face) pair."""

import math
from typing import Any

import taichi as ti

from taichi_raster import aggregation, geometry
from taichi_raster.layout import TILE, Dim, Limit, Variant
from taichi_raster.runtime import Runtime
from taichi_raster.scratch import Scratch
from taichi_raster.softness import mlp_kernel, registry

# Taichi deals out a CPU loop in blocks of 512 iterations, so that a loop over a few hundred long
# runs would keep one thread busy and the others idle: run r is iteration SPREAD * r instead.
SPREAD = 128


@ti.data_oriented
class PairKernels:
    """One variant's view of the scratch fields; the kernels themselves are its subclasses."""

    def __init__(self, variant: Variant, scratch: Scratch, runtime: Runtime) -> None:
        formulas = registry.find(variant.distribution)
        self.cdf: Any = formulas.cdf
        self.log_survival: Any = formulas.log_survival
        self.can_saturate = formulas.saturates_at < math.inf
        self.saturates_at = formulas.saturates_at
        self.generate: Any = aggregation.generator(variant.conorm).generate
        self.spread = SPREAD if runtime.arch == "cpu" else 1
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
        self.x_dot, self.y_dot = scratch.x_dot, scratch.y_dot

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
