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
        Returns 0, or how many fragments the pixels may need that are not done.
        """
        needed = 0
        for run in range(runs):
            for step in range(self.dims[Dim.RUN_LENGTH]):
                b, row, column, tile = self.pixel(run * self.dims[Dim.RUN_LENGTH] + step)
                if row < self.dims[Dim.HEIGHT] and column < self.dims[Dim.WIDTH]:
                    ti.atomic_max(needed, self.collect_pixel(b, row, column, tile, depth, hides))
        return needed

    @traced
    def depth_of(self, f: Fragment) -> Any:
        return raw(f.z)

    @traced
    def coverage_of(self, f: Fragment) -> Any:
        return raw(f.edge.f)

    @ti.func
    def collect_pixel(self, b, row, column, tile, depth, hides):
        q = (b * self.dims[Dim.HEIGHT] + row) * self.dims[Dim.WIDTH] + column
        begin, found = q * depth, 0
        for k in range(self.tile_begin[tile], self.tile_begin[tile + 1]):
            face = self.tile_faces[k]
            m = self.meet(self.face(b, face), row, column)
            if m.near:
                f = self.weigh(m)
                if f.counts:
                    self.insert(begin, ti.min(found, depth), depth, face, self.depth_of(f))
                    found += 1
        front, back, through = 0.0, 0.0, 1.0
        hidden, layer = False, 0
        while layer < ti.min(found, depth) and not hidden:
            m = self.meet(self.face(b, self.layers[begin + layer]), row, column)
            a = self.coverage_of(self.weigh(m))
            if self.front(m.face.triangle):
                front += a
            else:
                back += a
            through *= 1.0 - a
            if hides == Hides.SUM:
                hidden = front >= 1.0 or back >= 1.0
            if hides == Hides.PRODUCT:
                hidden = through < self.limits[Limit.THRESHOLD]
            layer += 1
        for empty in range(layer, depth):
            self.layers[begin + empty] = -1
        return ti.select(found > depth and not hidden, found, 0)

    @ti.func
    def insert(self, begin, count, depth, face, z):
        """Into a list of `count` faces, sorted by depth, then by number; at most `depth` stay."""
        at, before = count, True
        while at > 0 and before:
            other_z, other = self.layer_depths[begin + at - 1], self.layers[begin + at - 1]
            before = z < other_z or (z == other_z and face < other)
            if before:
                if at < depth:
                    self.layer_depths[begin + at], self.layers[begin + at] = other_z, other
                at -= 1
        if at < depth:
            self.layer_depths[begin + at], self.layers[begin + at] = z, face
