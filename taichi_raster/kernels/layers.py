"""The fragments that a pixel sees, in order of depth. No derivative."""

from typing import Any

import taichi as ti

from taichi_raster.kernels.fragment import Fragment
from taichi_raster.kernels.pairs import PairKernels
from taichi_raster.layout import Dim, Hides, Limit
from taichi_raster.numbers import raw
from taichi_raster.tracing import traced


@ti.data_oriented
class Layers(PairKernels):
    """Lists of faces for each pixel, nearest first."""

    @ti.kernel
    def collect(self, runs: ti.i32, depth: ti.i32, hides: ti.i32) -> ti.i32:
        """List each pixel's visible fragments, nearest first.

        A pixel is done when no more count, or when what is listed hides the rest (see `Hides`).
        Returns how many pixels would need more than `depth` fragments.
        """
        unfinished = 0
        for run in range(runs):
            for step in range(self.dims[Dim.RUN_LENGTH]):
                b, row, column, tile = self.pixel(run * self.dims[Dim.RUN_LENGTH] + step)
                if row < self.dims[Dim.HEIGHT] and column < self.dims[Dim.WIDTH]:
                    unfinished += self.collect_pixel(b, row, column, tile, depth, hides)
        return unfinished

    @traced
    def depth_of(self, f: Fragment) -> Any:
        return raw(f.z)

    @traced
    def coverage_of(self, f: Fragment) -> Any:
        return raw(f.edge.f)

    @ti.func
    def collect_pixel(self, b, row, column, tile, depth, hides):
        q = (b * self.dims[Dim.HEIGHT] + row) * self.dims[Dim.WIDTH] + column
        front, back, through = 0.0, 0.0, 1.0
        last_z, last_face, more = -1.0, -1, 1
        layer = 0
        while layer <= depth and more == 1:
            best, best_z, best_a, best_turn = -1, 0.0, 0.0, 0
            for k in range(self.tile_begin[tile], self.tile_begin[tile + 1]):
                face = self.tile_faces[k]
                m = self.meet(self.face(b, face), row, column)
                if m.near:
                    f = self.weigh(m)
                    if f.counts:
                        z = self.depth_of(f)
                        later = z > last_z or (z == last_z and face > last_face)
                        if later and (best < 0 or z < best_z):
                            best, best_z, best_a = face, z, self.coverage_of(f)
                            best_turn = ti.cast(self.front(m.face.triangle), ti.i32)
            hidden = hides == Hides.SUM and (front >= 1.0 or back >= 1.0)
            if hides == Hides.PRODUCT:
                hidden = through < self.limits[Limit.THRESHOLD]
            if best < 0 or hidden:
                more = 0
            elif layer < depth:
                self.layers[q * depth + layer] = best
                last_z, last_face = best_z, best
                front += ti.select(best_turn == 1, best_a, 0.0)
                back += ti.select(best_turn == 1, 0.0, best_a)
                through *= 1.0 - best_a
            layer += 1
        for empty in range(ti.max(layer - 1, 0), depth):
            if more == 0:
                self.layers[q * depth + empty] = -1
        return more
