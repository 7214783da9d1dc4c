"""A softmax over depth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from taichi_raster.depth.base import LogWeight, LogWeightFormula, PairKernel, WeightedDepth
from taichi_raster.maths.dual import Number
from taichi_raster.runtime.layout import Slot
from taichi_raster.runtime.variant import DepthVariant
from taichi_raster.softness.archive import Entry
from taichi_raster.softness.schedule import describe
from taichi_raster.softness.serialization import Stored


@dataclass(frozen=True)
class _Formula(LogWeightFormula):
    relative: ClassVar[bool] = True

    def at(self, kernel: PairKernel, b: Any, z_norm: Number, reference: Any) -> LogWeight:
        inverse = 1.0 / kernel.parameter(b, Slot.GAMMA)
        l = (z_norm - reference) * inverse  # noqa: E741
        return LogWeight(l, inverse, -l * inverse)


class SoftmaxDepth(WeightedDepth):
    """Softmax over depth: l = z_norm / gamma (Liu et al., ICCV 2019, eq. 5).

    Args:
        gamma: temperature, positive; a number, a tensor (0-d or (B,)) or a `Schedule`. Smaller is
            sharper.
        background_z: normalised depth of the background, >= 0, so that its weight is
            exp(background_z / gamma): a number or a tensor, 0-d or (B,).

    Raises:
        ValueError: for a gamma that is not positive, or a background_z that is negative.
    """

    variant = DepthVariant("weights", _Formula())
    kind = "softmax"

    def describe(self) -> str:
        return f"softmax, gamma {describe(self.gamma)}"

    def stored(self) -> Stored:
        return self._stored("gamma")

    @classmethod
    def built(cls, entry: Entry) -> SoftmaxDepth:
        return cls(*cls._shared(entry))
