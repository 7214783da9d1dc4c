"""Compositing where coverages combine by the sum of the two largest, at most 1.

Fronts and backs have sums of their own, and what they cover together is the larger one, U. For at
a silhouette a front and a back share an edge, and cover the same. With U' what is covered in front
of a fragment, it weighs U - U'. So it adds nothing unless it is larger than the second of those of
its side, and most of a pixel's fragments need not be looked at.

Let g be what a unit of its weight is worth to the loss. The loss is the sum of U (g - g_next) over
all fragments that add something, with 0 behind the last. So the two that U is the sum of are worth
g - g_next more, each time. Where U is 1 but their sum is larger, they get nothing.
"""

from typing import Any

import taichi as ti

from taichi_raster.kernels.faint import FaintKernels
from taichi_raster.kernels.front_to_back import Composite, Pixels
from taichi_raster.kernels.front_to_back_vjp import CompositeVJP, Worth
from taichi_raster.kernels.rows import AREA, COVERAGE, FRONT, NOWHERE, VALUE, WEIGHT, Rows
from taichi_raster.maths.arithmetic import minimum
from taichi_raster.maths.tracing import element, let, traced
from taichi_raster.maths.variables import Lanes
from taichi_raster.runtime.layout import Limit

FAINTEST = 1e-30  # of one that counts, though it adds nothing itself: its coverage has an adjoint
SIDES = 2 * AREA  # a number for each pixel of a tile and each side: side * AREA + lane


class TwoPixels(Pixels):
    """What is known of the pixels of a tile.

    Attributes:
        first, second: the largest and the second largest coverage so far, of each side.
        covered: U, what all cover so far.
    """

    def __init__(self, planes: int) -> None:
        super().__init__(planes)
        self.first, self.second = Lanes(SIDES), Lanes(SIDES)
        self.covered = Lanes(AREA)


class TwoWorth(Worth):
    """The same for the adjoint.

    Attributes:
        one, two: the rows of the fragments that cover so much, counted from 1; 0 for none.
        one_weight, one_bar, two_weight, two_bar: their weights, and the adjoints of their coverages
            so far.
        side, value: of the fragment that added something last: the side, and what a unit of its
            weight is worth; -1 and 0 where there is none.
    """

    def __init__(self, planes: int) -> None:
        super().__init__(planes)
        self.first, self.second = Lanes(SIDES), Lanes(SIDES)
        self.covered = Lanes(AREA)
        self.one, self.two = Lanes(SIDES, 0), Lanes(SIDES, 0)
        self.one_weight, self.one_bar = Lanes(SIDES), Lanes(SIDES)
        self.two_weight, self.two_bar = Lanes(SIDES), Lanes(SIDES)
        self.side, self.value = Lanes(AREA, 0), Lanes(AREA)


class FaintOfTwo:
    """Which fragments of a pixel are dropped, in a chunk of rows.

    Attributes:
        first, second: the largest coverages.
        least: what a coverage has to be.
    """

    _data_oriented = True

    def __init__(self) -> None:
        self.first, self.second, self.least = Lanes(AREA), Lanes(AREA), Lanes(AREA)


@ti.data_oriented
class FaintKernelsOfTwo(FaintKernels):
    """How faint fragments are dropped: all those below hidden / 16 of the sum of the two largest.

    That is at most hidden / 8 of what fragments cover, as the two may show different sides. Those
    of a side then weigh at most twice that, and the weights of all others change by at most as
    much: two of the others that are kept hide what is dropped.
    """

    @traced
    def faint_pixels(self) -> Any:
        return FaintOfTwo()

    @traced
    def add_up(self, faint: Any, at: Any, lane: Any, rows: Rows) -> None:
        cover = let(self.number(COVERAGE, at, rows))
        first, second = faint.first.at(lane), faint.second.at(lane)
        largest = let(first.value)
        larger = let(cover > largest)
        rest = let(ti.select(larger, largest, cover))
        second.set(ti.select(rest > second.value, rest, second.value))
        first.set(ti.select(larger, cover, largest))

    @traced
    def set_unit(self, faint: Any, lane: Any) -> None:
        total = minimum(faint.first.at(lane).value + faint.second.at(lane).value, 1.0)
        faint.least.at(lane).set(let(0.0625 * self.limit(Limit.HIDDEN) * total))

    @traced
    def tally(self, faint: Any, at: Any, lane: Any, rows: Rows) -> None:
        """Sums are not needed: what is dropped weighs no more than two of its fragments."""

    @traced
    def set_least(self, faint: Any, lane: Any) -> None:
        """It is known already."""


@ti.data_oriented
class LargestTwo(FaintKernelsOfTwo, Composite):
    """The sums of weights, and of weights times attributes, of each pixel."""

    largest_two = True

    @traced
    def pixels_of_tile(self) -> TwoPixels:
        return TwoPixels(1 + self.channels)

    @ti.func
    def compose_pixel(self, lane, found, high, pixels, rows):
        covered, i = pixels.covered.at(lane).value, 0
        while i < found and 1.0 - covered > self.fields.limits[Limit.HIDDEN]:
            row = self.fields.row_lists[rows.fragments + i]
            place = self.fields.row_lists[rows.sides + row] * AREA + lane
            cover = self.fields.rows[rows.planes[COVERAGE] + row * AREA + lane]
            if cover > pixels.second.at(place).value:
                first = pixels.first.at(place).value
                total = ti.min(first + cover, 1.0)
                pixels.second.at(place).set(ti.min(first, cover))
                pixels.first.at(place).set(ti.max(first, cover))
                if total > covered:
                    weight = total - covered
                    self.fields.rows[rows.planes[WEIGHT] + row * AREA + lane] = weight
                    self.fields.row_lists[rows.seen + row] = 1
                    covered = total
            i += 1
        pixels.covered.at(lane).set(covered)
        pixels.through.at(lane).set(1.0 - covered)


@ti.data_oriented
class LargestTwoVJP(FaintKernelsOfTwo, CompositeVJP):
    """The adjoint of all inputs.

    The two largest so far may lie in rows of chunks before. What they are worth is known as soon as
    others take their places, so that their rows are carried along until then.
    """

    largest_two = True
    spare = 2 * SIDES

    @traced
    def pixels_of_tile(self) -> TwoWorth:
        return TwoWorth(1 + self.channels)

    @traced
    def start(self, q: Any, lane: Any, pixels: Any) -> None:
        pixels.through.at(lane).set(1.0)
        pixels.side.at(lane).set(-1)
        for plane in range(1 + self.channels):
            bar = let(element(self.fields.y.grad, self.place(plane, q)))
            pixels.bars.at(plane * AREA + lane).set(bar)

    @ti.func
    def compose_pixel(self, lane, found, high, pixels, rows):
        covered, i = pixels.covered.at(lane).value, 0
        while i < found and 1.0 - covered > self.fields.limits[Limit.HIDDEN]:
            row = self.fields.row_lists[rows.fragments + i]
            side = self.fields.row_lists[rows.sides + row]
            place = side * AREA + lane
            cover = self.fields.rows[rows.planes[COVERAGE] + row * AREA + lane]
            if cover > pixels.second.at(place).value:
                value = self.fields.rows[rows.planes[VALUE] + row * AREA + lane]
                total, weight = pixels.first.at(place).value + cover, 0.0
                if total > covered:
                    weight = ti.min(total, 1.0) - covered
                    covered = ti.min(total, 1.0)
                    self.reward(lane, value, pixels)
                    pixels.side.at(lane).set(side)
                    pixels.value.at(lane).set(value)
                if total > 1.0:  # it takes the last of the light
                    self.settle(row + 1, lane, weight, 0.0, rows)
                    pixels.side.at(lane).set(-1)
                else:
                    self.settle(
                        pixels.two.at(place).value,
                        lane,
                        pixels.two_weight.at(place).value,
                        pixels.two_bar.at(place).value,
                        rows,
                    )
                    self.enter(row + 1, place, cover, weight, pixels)
            i += 1
        if 1.0 - covered <= self.fields.limits[Limit.HIDDEN] or high >= NOWHERE:
            self.reward(lane, 0.0, pixels)
            for side in ti.static(range(2)):
                place = side * AREA + lane
                for number, share, bar in ti.static(
                    (
                        (pixels.one, pixels.one_weight, pixels.one_bar),
                        (pixels.two, pixels.two_weight, pixels.two_bar),
                    )
                ):
                    self.settle(
                        number.at(place).value,
                        lane,
                        share.at(place).value,
                        bar.at(place).value,
                        rows,
                    )
                    number.at(place).set(0)
        pixels.covered.at(lane).set(covered)
        pixels.through.at(lane).set(1.0 - covered)

    @ti.func
    def reward(self, lane, value, pixels):
        """Let the two that cover most have what the last one is worth more than the next."""
        side = pixels.side.at(lane).value
        if side >= FRONT:
            more = pixels.value.at(lane).value - value
            place = side * AREA + lane
            pixels.one_bar.at(place).set(pixels.one_bar.at(place).value + more)
            pixels.two_bar.at(place).set(pixels.two_bar.at(place).value + more)

    @ti.func
    def enter(self, number, place, cover, weight, pixels):
        """Let a fragment be one of the two largest of its side, instead of the second."""
        first = pixels.first.at(place).value
        if cover > first:
            pixels.second.at(place).set(first)
            pixels.two.at(place).set(pixels.one.at(place).value)
            pixels.two_weight.at(place).set(pixels.one_weight.at(place).value)
            pixels.two_bar.at(place).set(pixels.one_bar.at(place).value)
            pixels.first.at(place).set(cover)
            pixels.one.at(place).set(number)
            pixels.one_weight.at(place).set(weight)
            pixels.one_bar.at(place).set(0.0)
        else:
            pixels.second.at(place).set(cover)
            pixels.two.at(place).set(number)
            pixels.two_weight.at(place).set(weight)
            pixels.two_bar.at(place).set(0.0)

    @ti.func
    def settle(self, number, lane, weight, cover_bar, rows):
        """A fragment's weight and the adjoint of its coverage are known; no fragment is 0."""
        if number > 0:
            at = (number - 1) * AREA + lane
            self.fields.rows[rows.planes[WEIGHT] + at] = ti.max(weight, FAINTEST)
            self.fields.rows[rows.planes[VALUE] + at] = cover_bar
            self.fields.row_lists[rows.seen + number - 1] = 1

    @ti.func
    def carry(self, b, count, high, pixels, rows):
        """Have `keep` keep the rows of each pixel's two; how many it would not keep otherwise."""
        for row in range(count):
            if self.fields.rows[rows.far + row] >= NOWHERE:  # carried until here
                face = self.face(b, self.fields.row_lists[rows.faces + row])
                self.fields.rows[rows.far + row] = self.farthest(face)
        extra, kept = 0, 0
        for lane in range(SIDES):
            for number in ti.static((pixels.one, pixels.two)):
                row = number.at(lane).value - 1
                if row >= 0:
                    if self.fields.rows[rows.far + row] < high:
                        extra += 1
                    self.fields.rows[rows.far + row] = NOWHERE
        for row in range(count):  # where they are going to be
            reached = self.fields.row_lists[rows.ends + row] > 0
            if reached and self.fields.rows[rows.far + row] >= high:
                kept += 1
                self.fields.row_lists[rows.places + row] = kept
        for lane in range(SIDES):
            for number in ti.static((pixels.one, pixels.two)):
                row = number.at(lane).value - 1
                if row >= 0:
                    number.at(lane).set(self.fields.row_lists[rows.places + row])
        return extra
