"""Sorts the faces of each tile by the least depth that they have anywhere. On a CPU."""

from typing import Any

import taichi as ti

from taichi_raster.kernels.fragment import Face
from taichi_raster.kernels.pairs import PairKernels
from taichi_raster.maths.dual import raw
from taichi_raster.maths.tracing import let, traced
from taichi_raster.runtime.layout import Dim


@ti.data_oriented
class TileOrder(PairKernels):
    """Bounds of each face's depths, and tile lists sorted by them."""

    in_order = True

    @ti.kernel
    def bound_depths(self, faces: ti.i32, length: ti.i32):
        """Write the least depth of each face in the whole batch."""
        self.parallel(faces, length, self.bound_depth, ())

    @ti.func
    def bound_depth(self, at):
        b = at // self.dims[Dim.FACES]
        self.fields.layer_depths[at] = self.nearest(b, at - b * self.dims[Dim.FACES])

    @ti.kernel
    def sort_tiles(self, tiles: ti.i32, length: ti.i32):
        """Write each tile's faces to `tile_order`, sorted.

        `entry_begin` has the rank of each face, then the face of each rank.
        """
        self.parallel(tiles, length, self.sort_tile, ())

    @ti.func
    def sort_tile(self, tile):
        first, last = self.fields.tile_begin[tile], self.fields.tile_begin[tile + 1]
        ranks = tile // self.dims[Dim.TILES] * self.dims[Dim.FACES]
        faces = ranks + self.dims[Dim.BATCH] * self.dims[Dim.FACES]
        for k in range(first, last):
            self.fields.tile_order[k] = self.fields.entry_begin[ranks + self.fields.tile_faces[k]]
        gap = 1
        while gap < (last - first) // 3:
            gap = 3 * gap + 1
        while gap > 0:  # Shell's sort
            for i in range(first + gap, last):
                rank, at, before = self.fields.tile_order[i], i, True
                while at >= first + gap and before:
                    other = self.fields.tile_order[at - gap]
                    before = rank < other
                    if before:
                        self.fields.tile_order[at] = other
                        at -= gap
                self.fields.tile_order[at] = rank
            gap //= 3
        for k in range(first, last):
            self.fields.tile_order[k] = self.fields.entry_begin[faces + self.fields.tile_order[k]]

    @ti.kernel
    def sort_few(self, faces: ti.i32, tiles: ti.i32):
        """Write each tile's faces to `tile_order`, sorted; by one thread, in one launch.

        Where there are few, it takes less time than to wake other threads.
        """
        ti.loop_config(serialize=True)
        for at in range(faces):
            self.bound_depth(at)
        ti.loop_config(serialize=True)
        for tile in range(tiles):
            self.sort_tile_by_depth(tile)

    @ti.func
    def sort_tile_by_depth(self, tile):
        """Insert one face after the other; of equally near ones the lower index comes first."""
        base = tile // self.dims[Dim.TILES] * self.dims[Dim.FACES]
        first, last = self.fields.tile_begin[tile], self.fields.tile_begin[tile + 1]
        for k in range(first, last):
            face, at, before = self.fields.tile_faces[k], k, True
            depth = self.fields.layer_depths[base + face]
            while at > first and before:
                other = self.fields.tile_order[at - 1]
                before = depth < self.fields.layer_depths[base + other]
                if before:
                    self.fields.tile_order[at] = other
                    at -= 1
            self.fields.tile_order[at] = face

    @ti.func
    def nearest(self, b, index):
        """No fragment of a face has less depth than this."""
        near, _far = self.depth_bounds(self.face(b, index))
        return near

    @traced
    def depth_bounds(self, face: Face) -> tuple[Any, Any]:
        """Bounds of `PairKernels.order`, with its shifts and with rounding."""
        z = face.triangle.z.each(raw)
        near, far = let(ti.min(*z)), let(ti.max(*z))
        size = 1.0 + ti.sqrt(ti.max(*(raw(e.dot(e)) for e in face.triangle.edges)))
        steep = let(ti.max(*face.slopes) * size)
        if not self.variant.orthographic:
            steep = let(steep * far * far)
        error = let(20.0 * self.rounding * (steep + ti.abs(far)))
        return let(near - error), let(far + error)
