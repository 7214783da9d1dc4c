"""The faces that a thread composes at a time, in rows. On a CPU.

A row holds what the pixels of one tile see of one face: a number for each pixel and plane, in
`Scratch.rows`. Each run of tiles has rows of its own, and lists of them in `Scratch.row_lists`.
"""

from typing import Any

import taichi as ti

from taichi_raster.kernels.fragment import Face, Meeting
from taichi_raster.kernels.tile_order import TileOrder
from taichi_raster.maths.dual import raw
from taichi_raster.maths.tracing import element, let, set_to, traced
from taichi_raster.maths.variables import Lanes
from taichi_raster.runtime.layout import TILE

AREA = TILE * TILE
COVERAGE, DEPTH, WEIGHT, VALUE = range(4)  # planes of the rows
NUMBERS, INTEGERS = 2, 8  # lists with an entry for each row
FRONT, BACK = range(2)
NOWHERE = 1e30  # the depth where there is no fragment


class Rows:
    """Where a run keeps the rows that it works on, as places in `rows` and `row_lists`.

    Attributes:
        planes: where each plane begins; a row has a number for each pixel of the tile.
        far: the largest depth of each row; depths: those of a pixel's fragments.
        faces: of each row; begins, ends: the pixels that it reaches.
        seen: whether any of its fragments has a weight.
        sides: which side of its face is seen, `FRONT` or `BACK`.
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
        self.faces, self.seen, self.begins, self.ends, self.sides = lists[:5]
        self.order, self.fragments, self.places = lists[5:]


class Row:
    """The fragments of one face, a variable for each plane but the weights."""

    _data_oriented = True

    def __init__(self, planes: list[int]) -> None:
        self.lanes = {plane: Lanes(AREA) for plane in planes}


@ti.data_oriented
class RowKernels(TileOrder):
    """How faces become rows.

    Attributes:
        planes: of the rows.
    """

    planes: tuple[int, ...] = (COVERAGE, DEPTH, WEIGHT)

    @ti.func
    def measure(self, b, first_row, first_column, k, row, rows):
        """Measure all pixels of a face; it becomes a row."""
        index = self.fields.tile_order[k]
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
        self.fields.row_lists[rows.sides + row] = self.side(face)

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
                self.fields.row_lists[rows.sides + kept] = self.fields.row_lists[rows.sides + row]
                kept += 1
        return kept

    @traced
    def rows_of_run(self, slot: Any, room: Any) -> Rows:
        return Rows(slot, room, len(self.planes))

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
    def side(self, face: Face) -> Any:
        return let(ti.select(self.front(face.triangle), FRONT, BACK))

    @traced
    def note(self, m: Meeting, found: Row, lane: Any) -> None:
        f = self.weigh(m)
        found.lanes[COVERAGE].at(lane).set(ti.select(f.counts, raw(f.edge.f), 0.0))
        found.lanes[DEPTH].at(lane).set(ti.select(f.counts, self.order(m, f), NOWHERE))

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
