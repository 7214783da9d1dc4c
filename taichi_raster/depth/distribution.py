"""Depth softness by a distribution of the normalised depth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from taichi_raster.depth.base import (
    DepthState,
    LogWeight,
    LogWeightFormula,
    PairKernel,
    WeightedDepth,
)
from taichi_raster.maths.dual import Number
from taichi_raster.runtime.layout import Slot
from taichi_raster.runtime.variant import DepthVariant
from taichi_raster.softness.archive import Entry
from taichi_raster.softness.distributions import registry
from taichi_raster.softness.distributions.lifted import lifted
from taichi_raster.softness.distributions.log_cdf import log_cdf
from taichi_raster.softness.edge import as_shape, describe_shape_and_shift
from taichi_raster.softness.schedule import Schedule, as_shift, describe
from taichi_raster.softness.serialization import Stored, built_schedule


@dataclass(frozen=True)
class _Formula(LogWeightFormula):
    name: str = ""

    @property
    def looped(self) -> bool:
        return registry.find(self.name).shaped

    def at(self, kernel: PairKernel, b: Any, z_norm: Number, reference: Any) -> LogWeight:
        formulas = registry.find(self.name)
        sign = -1.0 if formulas.mirrored else 1.0
        inverse = 1.0 / kernel.parameter(b, Slot.GAMMA)
        scaled = z_norm * inverse
        x = scaled + kernel.parameter(b, Slot.DEPTH_SHIFT) * sign
        k = kernel.parameter(b, Slot.DEPTH_SHAPE) if formulas.shaped else None
        l, by_x, by_k = lifted(formulas.log_cdf, x, k, kernel.autodiff)  # noqa: E741
        return LogWeight(l, by_x * inverse, -by_x * scaled * inverse, by_k, by_x * sign)


class DistributionDepth(WeightedDepth):
    """Weighs fragments by a distribution over depth (Wu et al., EGSR 2024).

    The log-weight is l = log F(z_norm / gamma + shift). The normalised depth z_norm is 1 at the
    near plane and 0 at the far one. A shift of about -1 / (2 gamma) puts the middle of the
    distribution into the middle of the depth range.

    Args:
        name: of the distribution, as for `Distribution`; not ``"heaviside"``.
        gamma: its scale, in units of the depth range; otherwise as for `SoftmaxDepth`.
        background_z: as for `SoftmaxDepth`.
        shape, shift: as for `Distribution`.

    Raises:
        ValueError: as `SoftmaxDepth` and `Distribution`, and for ``"heaviside"``.

    Example:
        >>> depth = DistributionDepth("cauchy", gamma=0.1, shift=-5.0)
    """

    kind = "distribution"

    def __init__(
        self,
        name: str,
        gamma: float | Tensor | Schedule = 1e-2,
        background_z: float | Tensor = 2e-3,
        shape: float | Tensor | Schedule | None = None,
        shift: float | Tensor | Schedule = 0.0,
    ) -> None:
        super().__init__(gamma, background_z)
        registry.find(name)
        if name == "heaviside":
            raise ValueError("name: 'heaviside' cannot order depths; use HardDepth")
        self.variant = DepthVariant("weights", _Formula(name=name))
        self.shape = as_shape(name, shape)
        self.shift = as_shift("shift", shift)

    @property
    def formulas(self) -> registry.DistributionFormulas:
        """The distribution's formulas; looked up, so that the module can be pickled."""
        assert isinstance(self.variant.log_weight, _Formula)
        return registry.find(self.variant.log_weight.name)

    def at(self, u: Tensor) -> DepthState:
        return DepthState(self.gamma(u), self.shape(u), self.shift(u), self.background_z)

    def background(self, state: DepthState, batch: int) -> Tensor:
        sign = -1 if self.formulas.mirrored else 1
        x = state.background_z.double() / state.gamma.double() + sign * state.shift.double()
        shape = state.shape.double() if self.formulas.shaped else None
        return log_cdf(self.formulas.name, x.expand(batch), shape)

    def describe(self) -> str:
        rest = describe_shape_and_shift(self)
        return f"{self.formulas.name}, gamma {describe(self.gamma)}{rest}"

    def stored(self) -> Stored:
        shape = ["shape"] if self.formulas.shaped else []
        return self._stored("gamma", "shift", *shape, name=self.formulas.name)

    @classmethod
    def built(cls, entry: Entry) -> DistributionDepth:
        name = entry.get("name", str)
        shape = built_schedule(entry, "shape") if registry.find(name).shaped else None
        shift = built_schedule(entry, "shift", signed=True)
        return cls(name, *cls._shared(entry), shape, shift)
