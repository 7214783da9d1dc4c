"""Which faces can touch which tile of pixels: count, scan, fill. No derivative, and no overflow."""

import taichi as ti

from taichi_raster.kernels.pairs import PairKernels
from taichi_raster.layout import TILE, Dim, Limit


@ti.data_oriented
class Binning(PairKernels):
    """Lists of faces, tile after tile, in the order of the faces."""

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
