"""Where the adjoints of a pair's inputs go.

Face by face, one thread owns a face's inputs and keeps their adjoints in local variables; pixel by
pixel, they are added atomically where they belong. Faces share texels, which are always atomic.
With tangents, it is the adjoints' tangents that go: the second derivatives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taichi_raster.architecture import Architecture
from taichi_raster.layout import Dim, Part, Slot
from taichi_raster.numbers import Local, Number, element, let

if TYPE_CHECKING:
    from taichi_raster.kernels.pairs import PairKernels


class Sink:
    """Collects adjoints of batch item `b`, face number `at` of the whole batch."""

    _data_oriented = True

    def __init__(self, kernels: PairKernels, b: Any, at: Any) -> None:
        self.kernels, self.b, self.at = kernels, b, at

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
        at = let(self.kernels.dim(Dim.PARTS + part) + index)
        place = element(self.kernels.x.grad, at)
        place += amount


class PixelSink(Sink):
    """Adds at once."""

    def add(self, part: int, base: tuple[Any, int], offset: int, number: Any) -> None:
        amount = self.amount(part, number)
        if amount is not None:
            self.into(part, base[0] * base[1] + offset, amount)


class FaceSink(Sink):
    """Adds up in local variables, until `flush`."""

    def __init__(self, kernels: PairKernels, b: Any, at: Any) -> None:
        super().__init__(kernels, b, at)
        self.owners = {
            Part.VERTICES: (at, 9),
            Part.CORNERS: (at, 3 * kernels.variant.corners),
            Part.UV: (at, 6 if kernels.variant.texture in ("clamp", "repeat") else 0),
            Part.EDGE_WEIGHTS: (b, _size(kernels.variant.edge.network)),
            Part.DEPTH_WEIGHTS: (b, _size(kernels.variant.depth.network)),
            Part.PARAMETERS: (b, Slot.COUNT),
        }
        self.sums = {
            (part, offset): Local()
            for part, (_owner, size) in self.owners.items()
            if kernels.moves[part]
            for offset in range(size)
        }

    def add(self, part: int, base: tuple[Any, int], offset: int, number: Any) -> None:
        amount = self.amount(part, number)
        if amount is not None:
            self.sums[part, offset].add(amount)

    def flush(self) -> None:
        for (part, offset), total in self.sums.items():
            owner, size = self.owners[part]
            self.into(part, owner * size + offset, total.expression)


def _size(network: Architecture | None) -> int:
    return 0 if network is None else network.size
