"""Which faces can touch which tile of pixels: count, scan, fill. No derivative, and no overflow."""

from typing import Any

import taichi as ti

from taichi_raster.kernels.pairs import PairKernels
from taichi_raster.layout import TILE, Dim, Limit
from taichi_raster.numbers import let, raw, traced


@ti.data_oriented
class Binning(PairKernels):
    """Lists of faces, tile after tile, in the order of the faces."""

    @traced
    def reaches(self, b: Any, face: Any, tile_in_image: Any) -> Any:
        """Whether a face can count in a tile: its bounding box, widened by the reach, meets it."""
        ty = let(tile_in_image // self.dim(Dim.TILES_X))
        tx = let(tile_in_image - ty * self.dim(Dim.TILES_X))
        first = self.point(ty * TILE, tx * TILE).each(raw)
        last = self.point(ty * TILE + TILE - 1, tx * TILE + TILE - 1).each(raw)
        corners, corner_z = self.triangle(self.face_index(b, face))
        reach = self.limit(Limit.REACH)
        low, high = (
            [let(extreme(*(raw(c[j]) for c in corners))) for j in range(2)]
            for extreme in (ti.min, ti.max)
        )
        hit = (low[0] - reach <= last[0]) & (high[0] + reach >= first[0])
        hit = hit & ((low[1] - reach <= first[1]) & (high[1] + reach >= last[1]))
        return let(hit & self.drawn(corners, corner_z))

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
