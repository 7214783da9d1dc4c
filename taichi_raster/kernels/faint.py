"""Fragments too faint to be worth composing. On a CPU.

Where softnesses reach far, most of the fragments that a pixel sees are very faint. In each chunk of
faces, a pixel's faintest fragments are dropped, as long as their coverages add up to at most

    hidden / 2 * min(1, the sum of all coverages).

Let T be the light that is left before a chunk, and s the sum. Behind it no more than T exp(-s) is
left, and min(1, s) <= (1 - exp(-s)) / (1 - 1/e). So what is dropped would weigh less than 0.8
hidden in all, of a total weight of 1. It is less by the same factor where the total is less.
"""

from typing import Any

import taichi as ti

from taichi_raster.kernels.rows import AREA, COVERAGE, DEPTH, NOWHERE, Row, RowKernels, Rows
from taichi_raster.maths.arithmetic import minimum
from taichi_raster.maths.tracing import let, set_to, traced
from taichi_raster.maths.variables import Lanes
from taichi_raster.runtime.layout import TILE, Limit

TALLIES = 6  # thresholds that are tried


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
class FaintKernels(RowKernels):
    """How faint fragments are dropped."""

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
