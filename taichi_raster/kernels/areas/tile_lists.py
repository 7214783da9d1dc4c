"""Which faces are in which tile, on a CPU. No derivative."""

# mypy: disable-error-code="no-untyped-def, valid-type"

import taichi as ti

from taichi_raster.kernels.areas.footprints import Footprints
from taichi_raster.kernels.areas.layout import FLOATS, INTS, Size, Spot
from taichi_raster.kernels.memory import SPREAD


@ti.data_oriented
class TileLists(Footprints):
    """Kernels before any pixel is looked at; and the lists of faces that they make."""

    @ti.kernel
    def prepare_few(
        self, vertices: FLOATS, ints: INTS, floats: FLOATS, limits: FLOATS, size: INTS
    ) -> ti.i32:
        """`prepare_many` by one thread: for a few faces it takes less time than waking others."""
        total = ti.cast(0, ti.i64)
        if size[Size.FACES] > 0:
            m = self.parts(ints, floats, size, vertices=vertices, limits=limits)
            for tile in range(size[Size.BATCH] * size[Size.TILES]):
                m.begins[tile + 2] = 0
            for b in range(size[Size.BATCH]):
                for f in range(b * size[Size.FACES], (b + 1) * size[Size.FACES]):
                    self.prepare_face(m, f)
                    m.first_places[f] = ti.cast(total, ti.i32)
                    total += self.count_tiles(m, b, f)
            m.first_places[size[Size.BATCH] * size[Size.FACES]] = ti.cast(total, ti.i32)
            self.begin_lists(m)
            if total <= size[Size.PAIRS]:
                for b in range(size[Size.BATCH]):
                    self.list_band(m, b, 1, True)
        return ti.select(total < ti.cast(2**31 - 1, ti.i64), ti.cast(total, ti.i32), -1)

    @ti.kernel
    def prepare_many(
        self,
        vertices: FLOATS,
        ints: INTS,
        floats: FLOATS,
        limits: FLOATS,
        size: INTS,
        bands: ti.i32,
    ) -> ti.i32:
        """Prepare all faces, and list each tile's faces in their order, if there is room.

        `bands` are the parts of an image that threads take. Returns how many entries there are, or
        -1 where that does not fit in 31 bits.
        """
        for f in range(size[Size.BATCH] * size[Size.FACES]):
            m = self.parts(ints, floats, size, vertices=vertices, limits=limits)
            self.prepare_face(m, f)
        for band in range(size[Size.BATCH] * bands * SPREAD):
            if band & (SPREAD - 1) == 0:
                m = self.parts(ints, floats, size)
                self.list_band(m, band // SPREAD, bands, False)
        total = ti.cast(0, ti.i64)
        if size[Size.FACES] > 0:
            m = self.parts(ints, floats, size)
            total = self.begin_lists(m)
            if total <= size[Size.PAIRS]:
                at = 0
                for f in range(size[Size.BATCH] * size[Size.FACES]):
                    m.first_places[f] = at
                    left, right, top, bottom = self.tiles_of(m, f)
                    at += (right - left) * (bottom - top)
                m.first_places[size[Size.BATCH] * size[Size.FACES]] = at
        fits = ti.select(total <= size[Size.PAIRS], size[Size.BATCH] * bands * SPREAD, 0)
        for band in range(fits):
            if band & (SPREAD - 1) == 0:
                m = self.parts(ints, floats, size)
                self.list_band(m, band // SPREAD, bands, True)
        return ti.select(total < ti.cast(2**31 - 1, ti.i64), ti.cast(total, ti.i32), -1)

    @ti.func
    def list_band(self, m: ti.template(), band, bands, fills: ti.template()):
        """Count the faces of a band's tiles two places on, or list them, which moves the count."""
        b = band // bands
        across = m.size[Size.TILES_X]
        down = m.size[Size.TILES] // across
        first = down * (band - b * bands) // bands
        last = down * (band - b * bands + 1) // bands
        base = b * m.size[Size.TILES] + (1 if ti.static(fills) else 2)
        if ti.static(not fills):
            for tile in range(first * across, last * across):
                m.begins[base + tile] = 0
        for f in range(b * m.size[Size.FACES], (b + 1) * m.size[Size.FACES]):
            left, right, top, bottom = self.tiles_of(m, f)
            for row in range(ti.max(top, first), ti.min(bottom, last)):
                for column in range(left, right):
                    tile = base + row * across + column
                    at = m.begins[tile]
                    if ti.static(fills):
                        m.listed[at] = f
                        place = (row - top) * (right - left) + column - left
                        m.places[m.first_places[f] + place] = at
                    m.begins[tile] = at + 1

    @ti.func
    def count_tiles(self, m: ti.template(), b, f):
        """Count a face in its tiles two places on; returns how many they are."""
        left, right, top, bottom = self.tiles_of(m, f)
        for row in range(top, bottom):
            for column in range(left, right):
                tile = b * m.size[Size.TILES] + row * m.size[Size.TILES_X] + column
                m.begins[tile + 2] = m.begins[tile + 2] + 1
        return (right - left) * (bottom - top)

    @ti.func
    def tiles_of(self, m: ti.template(), f):
        """(left, right, top, bottom) of the tiles that a face's bounding box touches."""
        left, right = m.boxes[4 * f], m.boxes[4 * f + 1]
        top, bottom = m.boxes[4 * f + 2], m.boxes[4 * f + 3]
        if left < right and top < bottom:
            left, right = left >> Spot.ROW, ((right - 1) >> Spot.ROW) + 1
            top, bottom = top >> Spot.ROW, ((bottom - 1) >> Spot.ROW) + 1
        else:
            right, bottom = left, top
        return left, right, top, bottom

    @ti.func
    def begin_lists(self, m: ti.template()):
        """Turn the tiles' counts into beginnings, and clear the tally; returns the sum."""
        total = ti.cast(0, ti.i64)
        for tile in range(m.size[Size.BATCH] * m.size[Size.TILES]):
            count = m.begins[tile + 2]
            m.begins[tile + 1] = ti.cast(total, ti.i32)
            total += count
        m.begins[0] = 0
        for i in ti.static(range(3)):
            m.tally[i] = 0
        return total

    @ti.func
    def first_of(self, m: ti.template(), worker):
        """The first tile of a worker."""
        tiles = ti.cast(m.size[Size.BATCH] * m.size[Size.TILES], ti.i64)
        return ti.cast(tiles * worker // m.size[Size.WORKERS], ti.i32)

    @ti.func
    def has_faces(self, m: ti.template(), tile):
        """Whether a tile's pixels are worth a visit. With a texture, all of them are listed."""
        found = m.begins[tile] < m.begins[tile + 1]
        if ti.static(self.view.channels < 0):
            found = True
        return found
