"""Kernels that add up something over the fragments of each pixel, tile by tile.

On a CPU a thread takes a tile. For each of the tile's faces it visits all pixels of the rows that
the face reaches. The innermost loop is over neighbouring pixels and has no branch, so that LLVM
vectorises it. On a GPU a thread takes a pixel.
"""

from typing import Any

import taichi as ti

from taichi_raster.kernels.fragment import Meeting
from taichi_raster.kernels.memory import TEXELS
from taichi_raster.kernels.pairs import PairKernels
from taichi_raster.maths.tracing import traced
from taichi_raster.runtime.layout import TILE, Dim


@ti.data_oriented
class TileKernels(PairKernels):
    """A subclass adds up in the variables that its `tile_sums` or `pixel_sums` makes."""

    @traced
    def tile_sums(self) -> Any:
        """Variables for all pixels of a tile; their `at(lane)` gives one pixel's."""
        raise NotImplementedError

    @traced
    def pixel_sums(self) -> Any:
        """Variables for one pixel."""
        raise NotImplementedError

    @traced
    def start(self, sums: Any) -> None:
        """Set a pixel's variables, zero before, to what they start from."""

    @traced
    def add(self, m: Meeting, sums: Any) -> None:
        """Add a pair to its pixel's sums; without effect where the pair does not count."""
        raise NotImplementedError

    @traced
    def finish(self, b: Any, q: Any, sums: Any) -> None:
        """Write a pixel's sums."""
        raise NotImplementedError

    @ti.kernel
    def run_tiles(
        self, tiles: ti.i32, length: ti.i32, texels: TEXELS, tangents: TEXELS, adjoints: TEXELS
    ):
        self.bind(texels, tangents, adjoints)
        self.parallel(tiles, length, self.run_tile, ())

    @ti.func
    def run_tile(self, tile):
        b, first_row, first_column = self.tile_at(tile)
        self.hold(b)
        sums = self.tile_sums()
        for lane in range(TILE * TILE):
            self.start(sums.at(lane))
        for k in range(self.fields.tile_begin[tile], self.fields.tile_begin[tile + 1]):
            face = self.face(b, self.fields.tile_faces[k])
            begin, end = self.lanes_of_tile(face, first_row, first_column)
            for lane in range(begin, end):
                m = self.meet_in_tile(face, first_row, first_column, lane)
                if ti.static(self.loops):
                    if m.near:
                        self.add(m, sums.at(lane))
                else:
                    self.add(m, sums.at(lane))
        for row in range(first_row, ti.min(first_row + TILE, self.dims[Dim.HEIGHT])):
            for i in range(ti.min(TILE, self.dims[Dim.WIDTH] - first_column)):
                lane = (row - first_row) * TILE + i
                self.finish(b, self.pixel_index(b, row, first_column + i), sums.at(lane))
        self.release()

    @ti.kernel
    def run_pixels(self, slots: ti.i32, texels: TEXELS, tangents: TEXELS, adjoints: TEXELS):
        self.bind(texels, tangents, adjoints)
        self.parallel_pixels(slots, self.run_pixel, ())

    @ti.func
    def run_pixel(self, b, row, column, tile):
        sums = self.pixel_sums()
        self.start(sums)
        for k in range(self.fields.tile_begin[tile], self.fields.tile_begin[tile + 1]):
            m = self.meet(self.face(b, self.fields.tile_faces[k]), row, column)
            if m.near:
                self.add(m, sums)
        self.finish(b, self.pixel_index(b, row, column), sums)
