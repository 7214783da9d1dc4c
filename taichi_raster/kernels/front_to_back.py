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
from taichi_raster.kernels.pairs import PairKernels
from taichi_raster.maths.dual import raw
from taichi_raster.maths.tracing import element, let, set_to, traced
from taichi_raster.maths.variables import Lanes
from taichi_raster.runtime.layout import SHIFT, TILE, Dim, Limit

AREA = TILE * TILE
CHUNK = 256  # faces that are measured before they are composed
COVERAGE, DEPTH, WEIGHT, VALUE = range(4)  # planes of the rows
NUMBERS, INTEGERS = 2, 5  # lists with an entry for each row
NOWHERE = 1e30  # the depth where there is no fragment


class Rows:
    """Where a run keeps the rows that it works on, as places in `rows` and `row_lists`.

    Attributes:
        planes: where each plane begins; a row has a number for each pixel of the tile.
        far: the largest depth of each row; depths: those of a pixel's fragments.
        faces: of each row; seen: whether any of its fragments has a weight.
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
        self.faces, self.seen, self.order, self.fragments, self.places = lists


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


@ti.data_oriented
class FrontToBack(PairKernels):
    """What the forward pass and its adjoint share.

    Attributes:
        planes: of the rows.
    """

    in_order = True
    planes: tuple[int, ...] = (COVERAGE, DEPTH, WEIGHT)

    # --- the order of the faces -------------------------------------------------------------------

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
        """Sort the faces of each tile; `entry_begin` has the rank of each, then the face of each
        rank."""
        self.parallel(tiles, length, self.sort_tile, ())

    @ti.func
    def sort_tile(self, tile):
        first, last = self.fields.tile_begin[tile], self.fields.tile_begin[tile + 1]
        ranks = tile // self.dims[Dim.TILES] * self.dims[Dim.FACES]
        faces = ranks + self.dims[Dim.BATCH] * self.dims[Dim.FACES]
        for k in range(first, last):
            self.fields.tile_faces[k] = self.fields.entry_begin[ranks + self.fields.tile_faces[k]]
        gap = 1
        while gap < (last - first) // 3:
            gap = 3 * gap + 1
        while gap > 0:  # Shell's sort
            for i in range(first + gap, last):
                rank, at, before = self.fields.tile_faces[i], i, True
                while at >= first + gap and before:
                    other = self.fields.tile_faces[at - gap]
                    before = rank < other
                    if before:
                        self.fields.tile_faces[at] = other
                        at -= gap
                self.fields.tile_faces[at] = rank
            gap //= 3
        for k in range(first, last):
            self.fields.tile_faces[k] = self.fields.entry_begin[faces + self.fields.tile_faces[k]]

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
        light = k < last
        while light:
            count = ti.min(CHUNK, ti.min(room - kept, last - k))
            if count > 0:
                for i in range(count):
                    self.measure(b, first_row, first_column, k + i, kept + i, pixels, rows)
                k += count
                count += kept
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
    def measure(self, b, first_row, first_column, k, row, pixels, rows):
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
        self.value_lanes(face, first_row, first_column, begin, end, found, pixels)
        for lane in range(AREA):
            self.put(found, lane, row * AREA + lane, rows)
        self.fields.rows[rows.far + row] = self.farthest(face)
        self.fields.row_lists[rows.faces + row] = index
        self.fields.row_lists[rows.order + row] = row
        self.fields.row_lists[rows.seen + row] = 0

    @ti.func
    def value_lanes(self, face, first_row, first_column, begin, end, found, pixels):
        """Measure what else is asked of a face's pixels."""

    @ti.func
    def compose(self, count, low, high, pixels, rows):
        """Give each pixel's fragments between two depths their weights; is there light left?"""
        light = False
        for lane in range(AREA):
            if pixels.through.at(lane).value > self.fields.limits[Limit.HIDDEN]:
                found = self.sort_pixel(lane, count, low, high, rows)
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
            if self.fields.rows[rows.far + row] >= high:
                for lane in range(AREA):
                    self.move(row * AREA + lane, kept * AREA + lane, rows)
                self.fields.rows[rows.far + kept] = self.fields.rows[rows.far + row]
                self.fields.row_lists[rows.faces + kept] = self.fields.row_lists[rows.faces + row]
                self.fields.row_lists[rows.order + kept] = kept
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
    def start(self, q: Any, lane: Any, pixels: Pixels) -> None:
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
        return Row([plane for plane in self.planes if plane != WEIGHT])

    @traced
    def clear(self, found: Row, lane: Any) -> None:
        found.lanes[DEPTH].at(lane).set(NOWHERE)

    @traced
    def farthest(self, face: Face) -> Any:
        return self.depth_bounds(face)[1]

    @traced
    def note(self, m: Meeting, found: Row, lane: Any) -> None:
        f = self.weigh(m)
        found.lanes[COVERAGE].at(lane).set(raw(f.edge.f))
        found.lanes[DEPTH].at(lane).set(ti.select(f.counts, self.order(m, f), NOWHERE))

    @traced
    def put(self, found: Row, lane: Any, at: Any, rows: Rows) -> None:
        for plane in self.planes:
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
                begin, end = self.lanes_of_tile(face, first_row, first_column)
                for lane in range(begin, end):
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
