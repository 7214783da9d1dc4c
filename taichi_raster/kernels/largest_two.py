"""Compositing where coverages combine by the sum of the two largest, at most 1.

With f and s the largest and the second largest of the coverages in front of a fragment, and
T = max(0, 1 - f - s) the light that they leave, the fragment weighs

    w = min(max(0, a - s), T),

which is what it adds to that sum. It adds nothing unless it is larger than s, so that most of a
pixel's fragments need not be looked at. With g what a unit of its weight is worth to the loss, its
adjoint is g minus the worth of the fragment that takes its place among the two, or that takes the
last of the light; of a fragment that takes the last of the light it is 0.
"""

from typing import Any

import taichi as ti

from taichi_raster.kernels.depth_sort import DepthSort
from taichi_raster.kernels.faint import FaintKernels
from taichi_raster.kernels.front_to_back import Composite, Pixels
from taichi_raster.kernels.front_to_back_vjp import CompositeVJP, Worth
from taichi_raster.kernels.rows import AREA, COVERAGE, NOWHERE, VALUE, WEIGHT, Rows
from taichi_raster.maths.arithmetic import minimum
from taichi_raster.maths.tracing import element, let, traced
from taichi_raster.maths.variables import Lanes
from taichi_raster.runtime.layout import Limit


class TwoPixels(Pixels):
    """What is known of the pixels of a tile.

    Attributes:
        first, second: the largest and the second largest coverage so far.
    """

    def __init__(self, planes: int) -> None:
        super().__init__(planes)
        self.first, self.second = Lanes(AREA), Lanes(AREA)


class TwoWorth(Worth):
    """The same for the adjoint.

    Attributes:
        one, two: the rows of the fragments that cover so much, counted from 1; 0 for none.
        one_weight, one_value, two_weight, two_value: theirs.
    """

    def __init__(self, planes: int) -> None:
        super().__init__(planes)
        self.first, self.second = Lanes(AREA), Lanes(AREA)
        self.one, self.two = Lanes(AREA, 0), Lanes(AREA, 0)
        self.one_weight, self.one_value = Lanes(AREA), Lanes(AREA)
        self.two_weight, self.two_value = Lanes(AREA), Lanes(AREA)


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
    """How faint fragments are dropped: all those below hidden / 4 of the sum of the two largest.

    Their weights come to at most twice that, and those of all others change by at most as much: two
    of the others that are kept hide what is dropped.
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
        faint.least.at(lane).set(let(0.25 * self.limit(Limit.HIDDEN) * total))

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
        first, second = pixels.first.at(lane).value, pixels.second.at(lane).value
        through, i = pixels.through.at(lane).value, 0
        while i < found and through > self.fields.limits[Limit.HIDDEN]:
            row = self.fields.row_lists[rows.fragments + i]
            at = row * AREA + lane
            cover = self.fields.rows[rows.planes[COVERAGE] + at]
            if cover > second:
                self.fields.rows[rows.planes[WEIGHT] + at] = ti.min(cover - second, through)
                self.fields.row_lists[rows.seen + row] = 1
                second = ti.min(first, cover)
                first = ti.max(first, cover)
                through = ti.max(1.0 - first - second, 0.0)
            i += 1
        pixels.first.at(lane).set(first)
        pixels.second.at(lane).set(second)
        pixels.through.at(lane).set(through)


@ti.data_oriented
class LargestTwoVJP(FaintKernelsOfTwo, CompositeVJP):
    """The adjoint of all inputs.

    The two largest so far may lie in rows of chunks before. What they are worth is known as soon as
    others take their places, so that their rows are carried along until then.
    """

    largest_two = True
    spare = 2 * AREA

    @traced
    def pixels_of_tile(self) -> TwoWorth:
        return TwoWorth(1 + self.channels)

    @traced
    def start(self, q: Any, lane: Any, pixels: Any) -> None:
        pixels.through.at(lane).set(1.0)
        for plane in range(1 + self.channels):
            bar = let(element(self.fields.y.grad, self.place(plane, q)))
            pixels.bars.at(plane * AREA + lane).set(bar)

    @ti.func
    def compose_pixel(self, lane, found, high, pixels, rows):
        first, second = pixels.first.at(lane).value, pixels.second.at(lane).value
        one, two = pixels.one.at(lane).value, pixels.two.at(lane).value
        one_weight, one_value = pixels.one_weight.at(lane).value, pixels.one_value.at(lane).value
        two_weight, two_value = pixels.two_weight.at(lane).value, pixels.two_value.at(lane).value
        through, i = pixels.through.at(lane).value, 0
        while i < found and through > self.fields.limits[Limit.HIDDEN]:
            row = self.fields.row_lists[rows.fragments + i]
            at = row * AREA + lane
            cover = self.fields.rows[rows.planes[COVERAGE] + at]
            if cover > second:
                value = self.fields.rows[rows.planes[VALUE] + at]
                weight = cover - second
                self.settle(two, lane, two_weight, two_value - value, rows)
                if weight > through:  # it takes the last of the light
                    self.settle(one, lane, one_weight, one_value - value, rows)
                    self.settle(row + 1, lane, through, 0.0, rows)
                    one, two, through = 0, 0, 0.0
                else:
                    if cover > first:
                        second, two = first, one
                        two_weight, two_value = one_weight, one_value
                        first, one = cover, row + 1
                        one_weight, one_value = weight, value
                    else:
                        second, two = cover, row + 1
                        two_weight, two_value = weight, value
                    through = ti.max(1.0 - first - second, 0.0)
            i += 1
        if through <= self.fields.limits[Limit.HIDDEN] or high >= NOWHERE:
            self.settle(one, lane, one_weight, one_value, rows)
            self.settle(two, lane, two_weight, two_value, rows)
            one, two = 0, 0
        pixels.first.at(lane).set(first)
        pixels.second.at(lane).set(second)
        pixels.one.at(lane).set(one)
        pixels.two.at(lane).set(two)
        pixels.one_weight.at(lane).set(one_weight)
        pixels.one_value.at(lane).set(one_value)
        pixels.two_weight.at(lane).set(two_weight)
        pixels.two_value.at(lane).set(two_value)
        pixels.through.at(lane).set(through)

    @ti.func
    def settle(self, number, lane, weight, cover_bar, rows):
        """A fragment's weight and the adjoint of its coverage are known; no fragment is 0."""
        if number > 0:
            at = (number - 1) * AREA + lane
            self.fields.rows[rows.planes[WEIGHT] + at] = weight
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
        for lane in range(AREA):
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
        for lane in range(AREA):
            for number in ti.static((pixels.one, pixels.two)):
                row = number.at(lane).value - 1
                if row >= 0:
                    number.at(lane).set(self.fields.row_lists[rows.places + row])
        return extra


@ti.data_oriented
class SortOfLargestTwo(DepthSort):
    """Lists of those fragments alone that add something, up to where they hide the rest.

    A kernel returns twice `depth` where lists are too short.
    """

    @ti.func
    def finish(self, q, found, depth, hides):
        for empty in range(ti.min(found, depth), depth):
            self.fields.layers[q * depth + empty] = -1
        return ti.select(found > depth, 2 * depth, found)

    @ti.func
    def insert(self, begin, found, depth, face, z, cover):
        """Insert a face into a pixel's list, and drop what then adds nothing; how many are found.

        It is `depth` + 1 from then on where there was no place for one.
        """
        count, larger = found, 0
        for i in range(ti.min(found, depth)):
            other_z = self.fields.layer_depths[begin + i]
            nearer = other_z < z or (other_z == z and self.fields.layers[begin + i] < face)
            if nearer and self.fields.layer_covers[begin + i] >= cover:
                larger += 1
        if larger < 2 and found >= depth:
            count = depth + 1
        elif larger < 2:
            at, before = begin + found, True
            while at > begin and before:
                other_z, other = self.fields.layer_depths[at - 1], self.fields.layers[at - 1]
                before = z < other_z or (z == other_z and face < other)
                if before:
                    self.fields.layer_depths[at], self.fields.layers[at] = other_z, other
                    self.fields.layer_covers[at] = self.fields.layer_covers[at - 1]
                    at -= 1
            self.fields.layer_depths[at], self.fields.layers[at] = z, face
            self.fields.layer_covers[at] = cover
            count = self.thin(begin, found + 1)
        return count

    @ti.func
    def thin(self, begin, found):
        """Keep those of a list that add something; how many they are."""
        first, second, through, kept = 0.0, 0.0, 1.0, 0
        for i in range(found):
            cover = self.fields.layer_covers[begin + i]
            if cover > second and through > self.fields.limits[Limit.HIDDEN]:
                self.fields.layer_depths[begin + kept] = self.fields.layer_depths[begin + i]
                self.fields.layers[begin + kept] = self.fields.layers[begin + i]
                self.fields.layer_covers[begin + kept] = cover
                second = ti.min(first, cover)
                first = ti.max(first, cover)
                through = 1.0 - first - second
                kept += 1
        return kept
