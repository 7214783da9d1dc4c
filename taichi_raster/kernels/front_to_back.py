"""Alpha compositing of each pixel's fragments, front to back, without lists of them. On a CPU.

A thread takes a tile, whose faces are sorted by the least depth that they have anywhere. It takes a
chunk of them at a time. It measures all pixels of a face together: that is a row. Then it sorts
each pixel's fragments of these rows, and composes those in front of all faces still to come. Rows
that reach farther back stay for the next chunk. A tile is done when no pixel has more than `hidden`
of its light left: faces behind are not looked at.

Neighbouring pixels see the faces in nearly the same order. So each starts from its neighbour's, and
sorting by insertion takes little more than a look at each.
"""

from typing import Any

import taichi as ti

from taichi_raster.kernels.fragment import Face, Meeting
from taichi_raster.kernels.memory import TEXELS
from taichi_raster.kernels.tile_order import TileOrder
from taichi_raster.maths.arithmetic import minimum
from taichi_raster.maths.dual import raw
from taichi_raster.maths.tracing import element, let, set_to, traced
from taichi_raster.maths.variables import Lanes
from taichi_raster.runtime.layout import SHIFT, TILE, Dim, Limit

AREA = TILE * TILE
CHUNK = 256  # faces that are measured before they are composed
MANY = 128  # faces of a tile, from which on faint fragments are dropped
TALLIES = 6
COVERAGE, DEPTH, WEIGHT, VALUE = range(4)  # planes of the rows
NUMBERS, INTEGERS = 2, 7  # lists with an entry for each row
NOWHERE = 1e30  # the depth where there is no fragment


class Rows:
    """Where a run keeps the rows that it works on, as places in `rows` and `row_lists`.

    Attributes:
        planes: where each plane begins; a row has a number for each pixel of the tile.
        far: the largest depth of each row; depths: those of a pixel's fragments.
        faces: of each row; begins, ends: the pixels that it reaches.
        seen: whether any of its fragments has a weight.
        order: all rows, as the last pixel had them.
        fragments: a pixel's, as rows, nearest first; places: where in `order` they were.
    """

    _data_oriented = True

    def __init__(self, slot: Any, room: Any, planes: int) -> None:
        size = let(room * AREA)
        start = let(slot * (size * planes + room * NUMBERS))
        self.planes = [let(start + size * i) for i in range(planes)]
        self.far, self.depths = (let(start + size * planes + room * i) for i in range(NUMBERS))
        start = let(slot * (room * INTEGERS))
        lists = [let(start + room * i) for i in range(INTEGERS)]
        self.faces, self.seen, self.begins, self.ends = lists[:4]
        self.order, self.fragments, self.places = lists[4:]


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


class Row:
    """The fragments of one face, a variable for each plane but the weights."""

    _data_oriented = True

    def __init__(self, planes: list[int]) -> None:
        self.lanes = {plane: Lanes(AREA) for plane in planes}


class Faint:
    """Which fragments of a pixel are dropped, in a chunk of rows.

    Attributes:
        total: the sum of coverages, and then what may be dropped of it.
        sums: of those below a half, a quarter, ... of that.
        least: what a coverage has to be.
    """

    _data_oriented = True

    def __init__(self) -> None:
        self.total, self.least = Lanes(AREA), Lanes(AREA)
        self.sums = [Lanes(AREA) for _ in range(TALLIES)]


@ti.data_oriented
class FrontToBack(TileOrder):
    """What the forward pass and its adjoint share.

    Attributes:
        planes: of the rows.
    """

    planes: tuple[int, ...] = (COVERAGE, DEPTH, WEIGHT)

    # --- tiles ------------------------------------------------------------------------------------

    @ti.kernel
    def run(
        self,
        runs: ti.i32,
        begin: ti.i32,
        per_item: ti.i32,
        tiles: ti.i32,
        room: ti.i32,
        texels: TEXELS,
        tangents: TEXELS,
        adjoints: TEXELS,
    ) -> ti.i32:
        """Do `runs` runs from number `begin` on, each of so many tiles of an item.

        Returns:
            How many rows a run needs, if `room` for so many is too little; else 0.
        """
        self.bind(texels, tangents, adjoints)
        needed = 0
        self.parallel(runs, 1, self.run_tiles, (begin, per_item, tiles, room, needed))
        return needed

    @ti.func
    def run_tiles(self, slot, begin, per_item, tiles, room, needed: ti.template()):
        run = begin + slot
        b = run // per_item
        first = (run - b * per_item) * tiles
        rows = self.rows_of_run(slot, room)
        most = 0
        for tile in range(first, ti.min(first + tiles, self.dims[Dim.TILES])):
            found = self.run_tile(b * self.dims[Dim.TILES] + tile, run, rows, room)
            most = ti.max(most, found)
        ti.atomic_max(needed, most)

    @ti.func
    def run_tile(self, tile, run, rows, room):
        b, first_row, first_column = self.tile_at(tile)
        self.hold(b)
        pixels = self.pixels_of_tile()
        for lane in range(AREA):
            row, column = first_row + (lane >> SHIFT), first_column + (lane & (TILE - 1))
            if row < self.dims[Dim.HEIGHT] and column < self.dims[Dim.WIDTH]:
                self.start(self.pixel_index(b, row, column), lane, pixels)
        k, last = self.fields.tile_begin[tile], self.fields.tile_begin[tile + 1]
        low, kept, needed = -NOWHERE, 0, 0
        light, many = k < last, last - k > MANY
        while light:
            count = ti.min(CHUNK, ti.min(room - kept, last - k))
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
                    high = self.nearest(b, self.fields.tile_faces[k])
                light = self.compose(count, low, high, pixels, rows) and k < last
                self.use(b, first_row, first_column, count, run, pixels, rows)
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

    # --- rows -------------------------------------------------------------------------------------

    @ti.func
    def measure(self, b, first_row, first_column, k, row, rows):
        """Measure all pixels of a face; it becomes a row."""
        index = self.fields.tile_faces[k]
        face = self.face(b, index)
        begin, end = self.lanes_of_tile(face, first_row, first_column)
        found = self.empty_row()
        for lane in range(AREA):
            self.clear(found, lane)
        for lane in range(begin, end):
            m = self.meet_in_tile(face, first_row, first_column, lane)
            if ti.static(self.loops):
                if m.near:
                    self.note(m, found, lane)
            else:
                self.note(m, found, lane)
        for lane in range(AREA):
            self.put(found, lane, row * AREA + lane, rows)
        self.fields.row_lists[rows.begins + row] = begin
        self.fields.row_lists[rows.ends + row] = end
        self.fields.rows[rows.far + row] = self.farthest(face)
        self.fields.row_lists[rows.faces + row] = index
        self.fields.row_lists[rows.seen + row] = 0

    @ti.func
    def drop_faint(self, begin, count, rows):
        """Drop each pixel's faintest fragments of the rows from `begin` on.

        Their coverages add up to at most hidden / 2 times min(1, the sum of all).
        """
        faint = self.faint_pixels()
        for row in range(begin, count):
            for lane in range(AREA):
                self.add_up(faint, row * AREA + lane, lane, rows)
        for lane in range(AREA):
            self.set_unit(faint, lane)
        for row in range(begin, count):
            for lane in range(AREA):
                self.tally(faint, row * AREA + lane, lane, rows)
        for lane in range(AREA):
            self.set_least(faint, lane)
        for row in range(begin, count):
            found = self.empty_row()
            for lane in range(AREA):
                self.drop(faint, found, row * AREA + lane, lane, rows)
            first, last = AREA, 0
            for lane in range(AREA):
                if self.put_depth(found, lane, row * AREA + lane, rows):
                    first = ti.min(first, lane // TILE * TILE)
                    last = lane // TILE * TILE + TILE
            self.fields.row_lists[rows.begins + row] = ti.min(first, last)
            self.fields.row_lists[rows.ends + row] = last

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
                found = self.sort_pixel(lane, reach, low, high, rows)
                self.compose_pixel(lane, found, high, pixels, rows)
                if pixels.through.at(lane).value > self.fields.limits[Limit.HIDDEN]:
                    light = True
        return light

    @ti.func
    def sort_pixel(self, lane, count, low, high, rows):
        """List a pixel's fragments between two depths, nearest first; returns how many."""
        found, moved = 0, False
        for i in range(count):
            row = self.fields.row_lists[rows.order + i]
            z = self.fields.rows[rows.planes[DEPTH] + row * AREA + lane]
            if low <= z and z < high:
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

    @ti.func
    def keep(self, count, high, rows):
        """Keep the rows that reach behind a depth; how many they are."""
        kept = 0
        for row in range(count):
            end = self.fields.row_lists[rows.ends + row]
            if end > 0 and self.fields.rows[rows.far + row] >= high:
                for lane in range(AREA):
                    self.move(row * AREA + lane, kept * AREA + lane, rows)
                self.fields.rows[rows.far + kept] = self.fields.rows[rows.far + row]
                self.fields.row_lists[rows.faces + kept] = self.fields.row_lists[rows.faces + row]
                self.fields.row_lists[rows.begins + kept] = self.fields.row_lists[rows.begins + row]
                self.fields.row_lists[rows.ends + kept] = end
                self.fields.row_lists[rows.seen + kept] = 0
                kept += 1
        return kept

    def compose_pixel(self, lane: Any, found: Any, high: Any, pixels: Pixels, rows: Rows) -> None:
        """Give the listed fragments of a pixel their weights; a `ti.func`."""
        raise NotImplementedError

    def use(
        self,
        b: Any,
        first_row: Any,
        first_column: Any,
        count: Any,
        run: Any,
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
    def rows_of_run(self, slot: Any, room: Any) -> Rows:
        return Rows(slot, room, len(self.planes))

    @traced
    def pixels_of_tile(self) -> Pixels:
        return Pixels(1 + self.channels)

    @traced
    def empty_row(self) -> Row:
        return Row([COVERAGE, DEPTH])

    @traced
    def clear(self, found: Row, lane: Any) -> None:
        found.lanes[DEPTH].at(lane).set(NOWHERE)

    @traced
    def farthest(self, face: Face) -> Any:
        return self.depth_bounds(face)[1]

    @traced
    def note(self, m: Meeting, found: Row, lane: Any) -> None:
        f = self.weigh(m)
        found.lanes[COVERAGE].at(lane).set(ti.select(f.counts, raw(f.edge.f), 0.0))
        found.lanes[DEPTH].at(lane).set(ti.select(f.counts, self.order(m, f), NOWHERE))

    @traced
    def faint_pixels(self) -> Faint:
        return Faint()

    @traced
    def add_up(self, faint: Faint, at: Any, lane: Any, rows: Rows) -> None:
        faint.total.at(lane).add(let(self.number(COVERAGE, at, rows)))

    @traced
    def set_unit(self, faint: Faint, lane: Any) -> None:
        total = minimum(faint.total.at(lane).value, 1.0)
        faint.total.at(lane).set(let(0.5 * self.limit(Limit.HIDDEN) * total))

    @traced
    def tally(self, faint: Faint, at: Any, lane: Any, rows: Rows) -> None:
        cover, most = let(self.number(COVERAGE, at, rows)), faint.total.at(lane).value
        for i, sums in enumerate(faint.sums):
            sums.at(lane).add(ti.select(cover < most * 0.5 ** (i + 1), cover, 0.0))

    @traced
    def set_least(self, faint: Faint, lane: Any) -> None:
        most, least = faint.total.at(lane).value, 0.0
        for i in reversed(range(TALLIES)):
            few = faint.sums[i].at(lane).value <= most
            least = let(ti.select(few, most * 0.5 ** (i + 1), least))
        faint.least.at(lane).set(least)

    @traced
    def drop(self, faint: Faint, found: Row, at: Any, lane: Any, rows: Rows) -> None:
        stays = self.number(COVERAGE, at, rows) >= faint.least.at(lane).value
        z = let(self.number(DEPTH, at, rows))
        found.lanes[DEPTH].at(lane).set(ti.select(stays, z, NOWHERE))

    @traced
    def put_depth(self, found: Row, lane: Any, at: Any, rows: Rows) -> Any:
        z = found.lanes[DEPTH].at(lane).value
        set_to(self.number(DEPTH, at, rows), z)
        return let(z < NOWHERE)

    @traced
    def put(self, found: Row, lane: Any, at: Any, rows: Rows) -> None:
        for plane in (COVERAGE, DEPTH, WEIGHT):
            value = 0.0 if plane == WEIGHT else found.lanes[plane].at(lane).value
            set_to(self.number(plane, at, rows), value)

    @traced
    def move(self, source: Any, target: Any, rows: Rows) -> None:
        for plane in self.planes:
            value = 0.0 if plane == WEIGHT else let(self.number(plane, source, rows))
            set_to(self.number(plane, target, rows), value)

    @traced
    def number(self, plane: int, at: Any, rows: Rows) -> Any:
        """A number of a plane: row * AREA + lane."""
        return element(self.fields.rows, let(rows.planes[plane] + at))


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
    def use(self, b, first_row, first_column, count, run, pixels, rows):
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
