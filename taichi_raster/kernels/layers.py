"""The fragments that a pixel of the sharp reference sees. No derivative."""

from typing import Any

import taichi as ti

from taichi_raster.kernels.fragment import Fragment
from taichi_raster.kernels.pairs import PairKernels
from taichi_raster.layout import Dim
from taichi_raster.numbers import raw
from taichi_raster.tracing import traced


@ti.data_oriented
class Layers(PairKernels):
    """Lists of faces for each pixel, nearest first."""

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

    @traced
    def depth_of(self, f: Fragment) -> Any:
        return raw(f.z)

    @traced
    def coverage_of(self, f: Fragment) -> Any:
        return raw(f.edge.f)

    @ti.func
    def collect_pixel(self, b, row, column, tile, depth):
        q = (b * self.dims[Dim.HEIGHT] + row) * self.dims[Dim.WIDTH] + column
        front, back = 0.0, 0.0
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
