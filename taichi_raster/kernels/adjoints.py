"""Where the adjoints of a pair's inputs go.

Face by face, one thread owns a face's inputs. It keeps their adjoints in local variables, one for
each pixel that it works on at a time. Faces share parameters and weights, whose adjoints a thread
sums for its run of faces. Pixel by pixel, adjoints are added atomically in place, as those of
texels always are; but a thread sums those of parameters and weights for all of its pairs, and adds
them once. With tangents, the adjoints' tangents are added: the second derivatives.
"""

from __future__ import annotations

import itertools
from functools import reduce
from operator import or_
from typing import Any

import taichi as ti

from taichi_raster.kernels.fragment import Face
from taichi_raster.kernels.memory import Memory, size_of
from taichi_raster.maths.dual import Number
from taichi_raster.maths.tracing import element, let, set_to, traced
from taichi_raster.maths.variables import Lanes, Local
from taichi_raster.runtime.layout import Dim, Part, Slot
from taichi_raster.runtime.variant import Table


class Adjoints:
    """Collects adjoints of batch item `b`, face number `at` of the whole batch."""

    _data_oriented = True

    def __init__(self, memory: Memory, face: Face) -> None:
        self.memory, self.b, self.at = memory, face.b, face.at

    def add(self, part: int, base: Any, offset: int, number: Any) -> None:
        """Take the adjoint of element ``base + offset`` of a part."""
        raise NotImplementedError

    def vertex(self, i: int, j: int, number: Any) -> None:
        self.add(Part.VERTICES, (self.at, 9), 3 * i + j, number)

    def corner(self, i: int, c: int, number: Any) -> None:
        channels = self.memory.variant.corners
        self.add(Part.CORNERS, (self.at, 3 * channels), i * channels + c, number)

    def uv(self, i: int, j: int, number: Any) -> None:
        self.add(Part.UV, (self.at, 6), 2 * i + j, number)

    def parameter(self, slot: int, number: Any) -> None:
        self.add(Part.PARAMETERS, (self.b, Slot.COUNT), slot, number)

    def texel(self, index: Any, number: Any) -> None:
        amount = self.amount(Part.TEXELS, number)
        if amount is not None:
            self.into(Part.TEXELS, index, amount)

    def knots(self, first: Any, numbers: list[Number]) -> None:
        """Take the adjoints of a table's weights, from number `first` on."""
        raise NotImplementedError

    def amount(self, part: int, number: Any) -> Any:
        """What to add for an adjoint, or None for nothing."""
        if not self.memory.moves[part]:
            return None
        if not isinstance(number, Number):
            return None if self.memory.tangents else number
        return number.d if self.memory.tangents else number.v

    def into(self, part: int, index: Any, amount: Any) -> None:
        into(self.memory, part, index, amount)


class SharedSums:
    """A thread's sums of the adjoints of parameters and weights, which all pairs share."""

    _data_oriented = True

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        network, depth_network = memory.variant.edge.network, memory.variant.depth.network
        self.sizes = {
            Part.EDGE_WEIGHTS: size_of(network),
            Part.DEPTH_WEIGHTS: size_of(depth_network),
            Part.PARAMETERS: Slot.COUNT,
        }
        self.sums = {
            (part, offset): Local()
            for part, size in self.sizes.items()
            for offset in range(size if memory.moves[part] else 0)
        }
        self.used: list[tuple[int, int]] = []

    def add(self, part: int, offset: int, amount: Any) -> None:
        if (part, offset) not in self.used:
            self.used.append((part, offset))
        self.sums[part, offset].add(amount)

    @traced
    def touched(self) -> Any:
        """Whether any of those that the code so far adds to is not zero."""
        found = [self.sums[place].value != 0.0 for place in self.used]
        return let(reduce(or_, found)) if found else False

    @traced
    def flush(self, b: Any) -> None:
        """Add them to the adjoints of batch item b, and start anew."""
        for part, offset in self.used:
            local = self.sums[part, offset]
            into(self.memory, part, b * self.sizes[part] + offset, local.value)
            local.set(0.0)


class PixelAdjoints(Adjoints):
    """Adds each adjoint in place, atomically; those that all pairs share go into `sums`."""

    def __init__(self, memory: Memory, face: Face, sums: SharedSums) -> None:
        super().__init__(memory, face)
        self.sums = sums

    def add(self, part: int, base: tuple[Any, int], offset: int, number: Any) -> None:
        amount = self.amount(part, number)
        if amount is None:
            return
        if part in self.sums.sizes:
            self.sums.add(part, offset, amount)
        else:
            self.into(part, base[0] * base[1] + offset, amount)

    def knots(self, first: Any, numbers: list[Number]) -> None:
        base = let(self.b * self.memory.variant.edge.network.size + first)  # type: ignore[union-attr]
        for i, number in enumerate(numbers):
            self.into(Part.EDGE_WEIGHTS, base + i, self.amount(Part.EDGE_WEIGHTS, number))


class FaceAdjoints:
    """A face's adjoints, until `flush`.

    Those of a table's cells are kept lane by lane, because several lanes may belong to one cell.
    `scatter` adds them to the sums of the thread's run of faces.
    """

    _data_oriented = True

    def __init__(self, memory: Memory, face: Face, run: Any) -> None:
        self.memory, self.face = memory, face
        network = memory.variant.edge.network
        if isinstance(network, Table) and memory.moves[Part.EDGE_WEIGHTS]:
            self.first = Lanes(memory.lanes, 0)
            self.amounts = [Lanes(memory.lanes) for _ in range(4)]
        sizes = memory.shared_sizes
        starts = list(itertools.accumulate(sizes.values(), initial=0))
        self.base = let(run * starts[-1])
        self.starts = dict(zip(sizes, starts, strict=False))
        sizes = {
            Part.VERTICES: 9,
            Part.CORNERS: 3 * memory.variant.corners,
            Part.UV: 6 if memory.variant.texture in ("clamp", "repeat") else 0,
            **sizes,
            Part.EDGE_WEIGHTS: size_of(network),
        }
        self.sizes = {part: size for part, size in sizes.items() if memory.moves[part]}
        self.sums = {
            (part, offset): Lanes(memory.lanes)
            for part, size in self.sizes.items()
            for offset in range(size)
        }

    @traced
    def scatter(self, lane: Any) -> None:
        """Add one lane's adjoints of cells to the run's."""
        for i, amounts in enumerate(self.amounts):
            self.share(self.first.at(lane).value + i, amounts.at(lane).value)

    @traced
    def empty(self, lane: Any) -> None:
        """Set one lane's adjoints of cells to zero."""
        for amounts in self.amounts:
            amounts.at(lane).set(0.0)

    @traced
    def fold(self, lane: Any) -> None:
        """Add one lane to lane 0."""
        for lanes in self.sums.values():
            lanes.at(0).add(lanes.at(lane).value)

    @traced
    def flush(self) -> None:
        """Write lane 0 in place: no other thread adds to the face's own inputs."""
        for (part, offset), lanes in self.sums.items():
            if part in self.starts:
                self.share(self.starts[part] + offset, lanes.at(0).value)
            else:
                at = self.face.at * self.sizes[part] + offset
                place = place_of_adjoint(self.memory, part, at)
                amount = lanes.at(0).value
                # A GPU does a band of rows in each launch.
                set_to(place, amount if self.memory.on_cpu else place + amount)

    def share(self, at: Any, amount: Any) -> None:
        """Add to one of the sums of the run."""
        place = element(self.memory.fields.partials, let(self.base + at))
        set_to(place, place + amount)


class LaneAdjoints(Adjoints):
    """Adds to one lane of a face's sums, where the pixel counts."""

    def __init__(self, sums: FaceAdjoints, lane: Any, counts: Any) -> None:
        super().__init__(sums.memory, sums.face)
        self.face_sums, self.sums = sums, sums.sums
        self.lane, self.counts = lane, counts

    def add(self, part: int, base: tuple[Any, int], offset: int, number: Any) -> None:
        amount = self.amount(part, number)
        if amount is not None:
            self.sums[part, offset].at(self.lane).add(ti.select(self.counts, amount, 0.0))

    def knots(self, first: Any, numbers: list[Number]) -> None:
        self.face_sums.first.at(self.lane).set(first)
        for amounts, number in zip(self.face_sums.amounts, numbers, strict=True):
            amount = self.amount(Part.EDGE_WEIGHTS, number)
            amount = 0.0 if amount is None else amount
            amounts.at(self.lane).set(ti.select(self.counts, amount, 0.0))

    def into(self, part: int, index: Any, amount: Any) -> None:
        super().into(part, index, ti.select(self.counts, amount, 0.0))


def into(memory: Memory, part: int, index: Any, amount: Any) -> None:
    """Add to the adjoint of an element of a part of x, atomically."""
    place = place_of_adjoint(memory, part, index)
    place += amount


def place_of_adjoint(memory: Memory, part: int, index: Any) -> Any:
    if part == Part.TEXELS and memory.texture is not None:
        return element(memory.texture[2], index)
    return element(memory.fields.x.grad, let(memory.dim(Dim.PARTS + part) + index))
