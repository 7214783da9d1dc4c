"""Where the adjoints of a pair's inputs go.

Face by face, one thread owns a face's inputs and keeps their adjoints in local variables, one for
each pixel that it works on at a time; pixel by pixel, they are added atomically where they belong.
Faces share texels, which are always atomic.
With tangents, it is the adjoints' tangents that go: the second derivatives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import taichi as ti

from taichi_raster.kernels.pairs import size_of
from taichi_raster.layout import Dim, Part, Slot
from taichi_raster.numbers import Lanes, Number
from taichi_raster.tracing import element, let

if TYPE_CHECKING:
    from taichi_raster.kernels.fragment import Face
    from taichi_raster.kernels.pairs import PairKernels


LANES = 16  # pixels that are worked on together


class Sink:
    """Collects adjoints of batch item `b`, face number `at` of the whole batch."""

    _data_oriented = True

    def __init__(self, kernels: PairKernels, face: Face) -> None:
        self.kernels, self.b, self.at = kernels, face.b, face.at

    def add(self, part: int, base: Any, offset: int, number: Any) -> None:
        """Take the adjoint of element ``base + offset`` of a part."""
        raise NotImplementedError

    def vertex(self, i: int, j: int, number: Any) -> None:
        self.add(Part.VERTICES, (self.at, 9), 3 * i + j, number)

    def corner(self, i: int, c: int, number: Any) -> None:
        channels = self.kernels.variant.corners
        self.add(Part.CORNERS, (self.at, 3 * channels), i * channels + c, number)

    def uv(self, i: int, j: int, number: Any) -> None:
        self.add(Part.UV, (self.at, 6), 2 * i + j, number)

    def parameter(self, slot: int, number: Any) -> None:
        self.add(Part.PARAMETERS, (self.b, Slot.COUNT), slot, number)

    def texel(self, index: Any, number: Any) -> None:
        amount = self.amount(Part.TEXELS, number)
        if amount is not None:
            self.into(Part.TEXELS, index, amount)

    def amount(self, part: int, number: Any) -> Any:
        """What to add for an adjoint, or None for nothing."""
        if not self.kernels.moves[part]:
            return None
        if not isinstance(number, Number):
            return None if self.kernels.tangents else number
        return number.d if self.kernels.tangents else number.v

    def into(self, part: int, index: Any, amount: Any) -> None:
        into(self.kernels, part, index, amount)


class PixelSink(Sink):
    """Adds at once."""

    def add(self, part: int, base: tuple[Any, int], offset: int, number: Any) -> None:
        amount = self.amount(part, number)
        if amount is not None:
            self.into(part, base[0] * base[1] + offset, amount)


class FaceSums:
    """A face's adjoints, until `flush`."""

    _data_oriented = True

    def __init__(self, kernels: PairKernels, face: Face) -> None:
        self.kernels, self.face = kernels, face
        b, at = face.b, face.at
        self.owners = {
            Part.VERTICES: (at, 9),
            Part.CORNERS: (at, 3 * kernels.variant.corners),
            Part.UV: (at, 6 if kernels.variant.texture in ("clamp", "repeat") else 0),
            Part.EDGE_WEIGHTS: (b, size_of(kernels.variant.edge.network)),
            Part.DEPTH_WEIGHTS: (b, size_of(kernels.variant.depth.network)),
            Part.PARAMETERS: (b, Slot.COUNT),
        }
        self.sums = {
            (part, offset): Lanes(LANES)
            for part, (_owner, size) in self.owners.items()
            if kernels.moves[part]
            for offset in range(size)
        }

    def fold(self, lane: Any) -> None:
        """Add one lane to lane 0."""
        for lanes in self.sums.values():
            lanes.at(0).add(lanes.at(lane).value)

    def flush(self) -> None:
        """Add lane 0 where it belongs."""
        for (part, offset), lanes in self.sums.items():
            owner, size = self.owners[part]
            into(self.kernels, part, owner * size + offset, lanes.at(0).value)


class FaceSink(Sink):
    """Adds to one lane of a face's sums, where the pixel counts."""

    def __init__(self, sums: FaceSums, lane: Any, counts: Any) -> None:
        super().__init__(sums.kernels, sums.face)
        self.sums, self.lane, self.counts = sums.sums, lane, counts

    def add(self, part: int, base: tuple[Any, int], offset: int, number: Any) -> None:
        amount = self.amount(part, number)
        if amount is not None:
            self.sums[part, offset].at(self.lane).add(ti.select(self.counts, amount, 0.0))

    def into(self, part: int, index: Any, amount: Any) -> None:
        super().into(part, index, ti.select(self.counts, amount, 0.0))


def into(kernels: PairKernels, part: int, index: Any, amount: Any) -> None:
    """Add to the adjoint of an element of a part of x, atomically."""
    place = element(kernels.x.grad, let(kernels.dim(Dim.PARTS + part) + index))
    place += amount
