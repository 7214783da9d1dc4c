"""Softmax over depth, as in SoftRas."""

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
    """Mixes fragments by a softmax over depth (Liu et al., ICCV 2019, eq. 5).

    The log-weight is l = z_norm / gamma, with z_norm = (far - z) / (far - near).

    Args:
        gamma: temperature in units of the depth range, positive: a number, a tensor (0-d or (B,))
            or a `Schedule`. Smaller is sharper.
        background_z: normalised depth of the background, >= 0: a number or a tensor, 0-d or (B,).
            The background's weight is exp(background_z / gamma).

    Raises:
        TypeError: for a gamma or background_z of another type.
        ValueError: for a gamma that is not positive, or a background_z that is negative.

    Example:
        >>> depth = SoftmaxDepth(gamma=Geometric(0.1, 0.01))
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
