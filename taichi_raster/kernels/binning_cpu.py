"""Lists the faces that can touch each tile of pixels, face by face. No derivative.

This suits a few threads: each takes a batch item, or a band of its tiles, and enters one face after
the other into the lists of the tiles that it can touch. `BinningGPU` does the same on a GPU.
The lists are as long as they need to be.
"""

import taichi as ti

from taichi_raster.kernels.pairs import PairKernels
from taichi_raster.runtime.layout import Dim


@ti.data_oriented
class BinningCPU(PairKernels):
    """Lists of faces, tile after tile, in the order of the faces."""

    @ti.kernel
    def build(
        self, tiles: ti.i32, count: ti.i32, bands: ti.i32, length: ti.i32, room: ti.i32
    ) -> ti.i32:
        """Fill the lists, if `room` holds them.

        `count` is the number of bands in the batch, `bands` that in an item, and a thread does
        `length` of them.

        Returns how many entries there are, or -1 where that does not fit in 31 bits.
        """
        self.parallel(count, length, self.visit, (bands, False))
        total = self.sum_up(tiles)
        fits = ti.select((total >= 0) & (total <= room), count, 0)
        self.parallel(fits, length, self.visit, (bands, True))
        return total

    @ti.kernel
    def build_alone(self, tiles: ti.i32, room: ti.i32) -> ti.i32:
        """`build` where there is one band: by one thread, which need not wake others."""
        ti.loop_config(serialize=True)
        for band in range(1):
            self.visit(band, 1, False)
        total = self.sum_up(tiles)
        fits = ti.select((total >= 0) & (total <= room), 1, 0)
        ti.loop_config(serialize=True)
        for band in range(fits):
            self.visit(band, 1, True)
        return total

    @ti.func
    def visit(self, band, bands, fills: ti.template()):
        """Count the faces of a band's tiles, or, where `fills`, list them.

        A tile is counted two places behind that of its list's beginning. `sum_up` leaves the
        beginning one place behind, and filling the list moves it to the list's end: the beginning
        of the next.
        """
        b, first, last, across = self.place_of(band, bands)
        base = b * self.dims[Dim.TILES] + (1 if ti.static(fills) else 2)
        if ti.static(not fills):
            for tile in range(first * across, last * across):
                self.fields.tile_begin[base + tile] = 0
        self.hold(b)
        for face in range(self.dims[Dim.FACES]):
            top, bottom, left, right = self.tiles(self.face(b, face))
            for y in range(ti.max(top, first), ti.min(bottom, last)):
                for tile in range(base + y * across + left, base + y * across + right):
                    at = self.fields.tile_begin[tile]
                    if ti.static(fills):
                        self.fields.tile_faces[at] = face
                    self.fields.tile_begin[tile] = at + 1
        self.release()

    @ti.func
    def sum_up(self, tiles):
        """Turn counts into beginnings, one place behind, where `fill` moves them to the ends."""
        total = ti.cast(0, ti.i64)
        ti.loop_config(serialize=True)
        for tile in range(tiles):
            n = self.fields.tile_begin[tile + 2]
            self.fields.tile_begin[tile + 1] = ti.cast(total, ti.i32)
            total += n
        self.fields.tile_begin[0] = 0
        return ti.select(total < ti.cast(2**31 - 1, ti.i64), ti.cast(total, ti.i32), -1)

    @ti.func
    def place_of(self, band, bands):
        """(batch item, first row of tiles, the one after the last, tiles in a row) of a band."""
        b = band // bands
        across = self.dims[Dim.TILES_X]
        down = self.dims[Dim.TILES] // across
        in_item = band - b * bands
        return b, down * in_item // bands, down * (in_item + 1) // bands, across
