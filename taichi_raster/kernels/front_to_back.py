"""Alpha compositing of each pixel's fragments, front to back, without lists of them. On a CPU.

A thread takes a tile, whose faces are sorted by the least depth that they have anywhere. It takes a
chunk of them at a time, and measures all pixels of a face together: that is a row. Then it sorts
each pixel's fragments of these rows, and composes those in front of all faces still to come. Rows
that reach farther back stay for the next chunk. A tile is done when no pixel has more than `hidden`
of its light left: faces behind are not looked at.

Neighbouring pixels see the faces in nearly the same order. So each starts from its neighbour's, and
sorting by insertion takes little more than a look at each.
"""

from typing import Any

import taichi as ti

from taichi_raster.kernels.faint import FaintKernels
from taichi_raster.kernels.fragment import Meeting
from taichi_raster.kernels.memory import TEXELS
from taichi_raster.kernels.rows import AREA, COVERAGE, DEPTH, NOWHERE, WEIGHT, Rows
from taichi_raster.maths.dual import raw
from taichi_raster.maths.tracing import element, let, set_to, traced
from taichi_raster.maths.variables import Lanes
from taichi_raster.runtime.layout import SHIFT, TILE, Dim, Limit

CHUNK = 256  # faces that are measured before they are composed
MANY = 128  # faces of a tile, from which on faint fragments are dropped


class Pixels:
    """What is known of the pixels of a tile.

    Attributes:
        through: how much light is left; 0 beyond the image.
        sums: of weights, and of weights times attributes.
    """

    _data_oriented = True

    def __init__(self, planes: int) -> None:
        self.through = Lanes(AREA)
        self.sums = [Lanes(AREA) for _ in range(planes)]


@ti.data_oriented
class FrontToBack(FaintKernels):
    """What the forward pass and its adjoint share.

    Attributes:
        largest_two: whether coverages combine by `OverDepth`'s "largest_two", not by its "product".
        spare: rows that a run has for those that `carry` keeps.
    """

    largest_two = False
    spare = 0

    @ti.kernel
    def run(
        self,
        runs: ti.i32,
        begin: ti.i32,
        per_item: ti.i32,
        tiles: ti.i32,
        room: ti.i32,
        inputs: ti.i32,
        texels: TEXELS,
        tangents: TEXELS,
        adjoints: TEXELS,
    ) -> ti.i32:
        """Do `runs` runs from number `begin` on, each of so many tiles of an item.

        `inputs` is how many elements x has: each of an item's runs has adjoints of its own for it.

        Returns:
            How many rows a run needs, if `room` for so many is too little; else 0.
        """
        self.bind(texels, tangents, adjoints)
        needed = 0
        self.parallel(runs, 1, self.run_tiles, (begin, per_item, tiles, room, inputs, needed))
        return needed

    @ti.func
    def run_tiles(self, slot, begin, per_item, tiles, room, inputs, needed: ti.template()):
        run = begin + slot
        b = run // per_item
        first = (run - b * per_item) * tiles
        rows = self.rows_of_run(slot, room)
        most = 0
        for tile in range(first, ti.min(first + tiles, self.dims[Dim.TILES])):
            base = (run - b * per_item) * inputs
            found = self.run_tile(b * self.dims[Dim.TILES] + tile, run, base, rows, room)
            most = ti.max(most, found)
        ti.atomic_max(needed, most)

    @ti.func
    def run_tile(self, tile, run, base, rows, room):
        b, first_row, first_column = self.tile_at(tile)
        self.hold(b)
        pixels = self.pixels_of_tile()
        for lane in range(AREA):
            row, column = first_row + (lane >> SHIFT), first_column + (lane & (TILE - 1))
            if row < self.dims[Dim.HEIGHT] and column < self.dims[Dim.WIDTH]:
                self.start(self.pixel_index(b, row, column), lane, pixels)
        k, last = self.fields.tile_begin[tile], self.fields.tile_begin[tile + 1]
        low, kept, carried, needed = -NOWHERE, 0, 0, 0
        light, many = k < last, last - k > MANY
        while light:
            # Without those that are carried, so that the adjoint takes the forward pass's chunks.
            free = room - self.spare - (kept - carried)
            count = ti.min(CHUNK, ti.min(free, last - k))
            if count > 0:
                for i in range(count):
                    self.measure(b, first_row, first_column, k + i, kept + i, rows)
                k += count
                begin, count = kept, kept + count
                if many and self.fields.limits[Limit.HIDDEN] > 0.0:
                    self.drop_faint(begin, count, rows)
                self.value(b, first_row, first_column, begin, count, pixels, rows)
                high = NOWHERE
                if k < last:
                    high = self.nearest(b, self.fields.tile_order[k])
                light = self.compose(count, low, high, pixels, rows) and k < last
                self.use(b, first_row, first_column, count, run, base, pixels, rows)
                if ti.static(self.spare > 0):
                    carried = self.carry(b, count, high, pixels, rows)
                kept = self.keep(count, high, rows)
                low = high
            else:
                needed, light = 2 * room, False
        for lane in range(AREA):
            row, column = first_row + (lane >> SHIFT), first_column + (lane & (TILE - 1))
            if row < self.dims[Dim.HEIGHT] and column < self.dims[Dim.WIDTH]:
                self.finish(self.pixel_index(b, row, column), lane, pixels)
        self.release()
        return needed

    @ti.func
    def value(self, b, first_row, first_column, begin, count, pixels, rows):
        """Measure what else is asked of the rows from `begin` on."""

    @ti.func
    def compose(self, count, low, high, pixels, rows):
        """Give each pixel's fragments between two depths their weights; is there light left?"""
        light, reach = False, 0
        for row in range(count):
            if self.fields.row_lists[rows.ends + row] > 0:
                self.fields.row_lists[rows.order + reach] = row
                reach += 1
        for lane in range(AREA):
            if pixels.through.at(lane).value > self.fields.limits[Limit.HIDDEN]:
                found = self.sort_pixel(lane, reach, low, high, pixels, rows)
                self.compose_pixel(lane, found, high, pixels, rows)
                if pixels.through.at(lane).value > self.fields.limits[Limit.HIDDEN]:
                    light = True
        return light

    @ti.func
    def sort_pixel(self, lane, count, low, high, pixels, rows):
        """List a pixel's fragments between two depths, nearest first; returns how many."""
        found, moved = 0, False
        for i in range(count):
            row = self.fields.row_lists[rows.order + i]
            z = self.fields.rows[rows.planes[DEPTH] + row * AREA + lane]
            listed = low <= z and z < high
            if ti.static(self.largest_two):
                cover = self.fields.rows[rows.planes[COVERAGE] + row * AREA + lane]
                side = self.fields.row_lists[rows.sides + row]
                listed = listed and cover > pixels.second.at(side * AREA + lane).value
            if listed:
                at, before = found, True
                while at > 0 and before:
                    other_z = self.fields.rows[rows.depths + at - 1]
                    other = self.fields.row_lists[rows.fragments + at - 1]
                    before = z < other_z
                    if z == other_z:
                        before = (
                            self.fields.row_lists[rows.faces + row]
                            < self.fields.row_lists[rows.faces + other]
                        )
                    if before:
                        self.fields.rows[rows.depths + at] = other_z
                        self.fields.row_lists[rows.fragments + at] = other
                        at -= 1
                        moved = True
                self.fields.rows[rows.depths + at] = z
                self.fields.row_lists[rows.fragments + at] = row
                self.fields.row_lists[rows.places + found] = i
                found += 1
        if moved:
            for i in range(found):
                place = self.fields.row_lists[rows.places + i]
                self.fields.row_lists[rows.order + place] = self.fields.row_lists[
                    rows.fragments + i
                ]
        return found

    def compose_pixel(self, lane: Any, found: Any, high: Any, pixels: Pixels, rows: Rows) -> None:
        """Give the listed fragments of a pixel their weights; a `ti.func`."""
        raise NotImplementedError

    def carry(self, b: Any, count: Any, high: Any, pixels: Any, rows: Rows) -> Any:
        """Have `keep` keep rows that are still needed; how many it would not keep; a `ti.func`."""
        raise NotImplementedError

    def use(
        self,
        b: Any,
        first_row: Any,
        first_column: Any,
        count: Any,
        run: Any,
        base: Any,
        pixels: Any,
        rows: Any,
    ) -> None:
        """Do something with the rows that have weights; a `ti.func`."""
        raise NotImplementedError

    @traced
    def start(self, q: Any, lane: Any, pixels: Any) -> None:
        pixels.through.at(lane).set(1.0)

    @traced
    def finish(self, q: Any, lane: Any, pixels: Pixels) -> None:
        """Write what is known of a pixel."""

    @traced
    def pixels_of_tile(self) -> Pixels:
        return Pixels(1 + self.channels)


@ti.data_oriented
class Composite(FrontToBack):
    """The sums of weights, and of weights times attributes, of each pixel."""

    @ti.func
    def compose_pixel(self, lane, found, high, pixels, rows):
        through, i = pixels.through.at(lane).value, 0
        while i < found and through > self.fields.limits[Limit.HIDDEN]:
            row = self.fields.row_lists[rows.fragments + i]
            cover = self.fields.rows[rows.planes[COVERAGE] + row * AREA + lane]
            self.fields.rows[rows.planes[WEIGHT] + row * AREA + lane] = through * cover
            self.fields.row_lists[rows.seen + row] = 1
            through *= 1.0 - cover
            i += 1
        pixels.through.at(lane).set(through)

    @ti.func
    def use(self, b, first_row, first_column, count, run, base, pixels, rows):
        for row in range(count):
            if self.fields.row_lists[rows.seen + row] != 0:
                face = self.face(b, self.fields.row_lists[rows.faces + row])
                begin = self.fields.row_lists[rows.begins + row]
                for lane in range(begin, self.fields.row_lists[rows.ends + row]):
                    m = self.meet_in_tile(face, first_row, first_column, lane)
                    self.add(m, row * AREA + lane, lane, pixels, rows)

    @traced
    def add(self, m: Meeting, at: Any, lane: Any, pixels: Pixels, rows: Rows) -> None:
        weight = let(self.number(WEIGHT, at, rows))
        seen = let(weight > 0.0)
        pixels.sums[0].at(lane).add(weight)
        shown = self.colours(m, self.weigh(m).mixing)
        for variable, colour in zip(pixels.sums[1:], shown, strict=True):
            variable.at(lane).add(ti.select(seen, weight * raw(colour), 0.0))

    @traced
    def finish(self, q: Any, lane: Any, pixels: Pixels) -> None:
        for plane, variable in enumerate(pixels.sums):
            set_to(element(self.fields.y, self.place(plane, q)), variable.at(lane).value)
