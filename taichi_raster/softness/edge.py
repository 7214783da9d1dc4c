"""The base class of edge softnesses, and the fixed ones: `Distribution`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from taichi_raster import checks
from taichi_raster.runtime.transforms import unwrapped
from taichi_raster.runtime.variant import EdgeVariant
from taichi_raster.softness.distributions import registry
from taichi_raster.softness.distributions.formulas import formulas_at
from taichi_raster.softness.schedule import (
    Schedule,
    Shift,
    as_progress,
    as_schedule,
    as_shift,
    describe,
)


@dataclass(frozen=True)
class EdgeState:
    """An edge softness at one progress.

    Attributes:
        scale, shape, shift: each 0-d or (B,); the scale in NDC, or NDC^2 for a squared softness.
        weights: network weights, (P,) or (B, P), or None.
        reach: distance outside a triangle, in NDC, beyond which F is at most the threshold.
    """

    scale: Tensor
    shape: Tensor
    shift: Tensor
    weights: Tensor | None
    reach: float


class EdgeSoftness(nn.Module):
    """The base class of edge softnesses: a triangle covers a pixel by F(d / scale).

    d is the signed distance of the pixel's centre to the triangle's boundary in NDC, positive
    inside. F grows from 0 to 1.

    Attributes:
        variant: the part that kernels compile.
        scale: the width in NDC, as a `Schedule`.
    """

    variant: EdgeVariant
    scale: Schedule

    def at(self, u: Tensor, threshold: float) -> EdgeState:
        """The softness at progress `u`, 0-d or (B,), with the reach for this threshold."""
        raise NotImplementedError

    def value(self, d: Tensor, progress: float | None = None) -> Tensor:
        """F at signed distances `d` in NDC, any shape; no derivatives. For plots and tests."""
        raise NotImplementedError

    def describe(self) -> str:
        """A short description: the kind, and its parameters."""
        return f"{type(self).__name__}, scale {describe(self.scale)}"


class Distribution(EdgeSoftness):
    """Softens edges by a distribution's cumulative function F (Petersen et al., CVPR 2022).

    F is evaluated at x = d / scale + shift, or at d / scale - shift for a reversed distribution.

    Args:
        name: ``"logistic"`` (SoftRas), ``"gaussian"``, ``"uniform"``, ``"cubic_hermite"``,
            ``"wigner_semicircle"``, ``"laplace"``, ``"gudermannian"``, ``"cauchy"``,
            ``"reciprocal"``, ``"gumbel_max"``, ``"gumbel_min"``, ``"exponential"``,
            ``"exponential_rev"``, ``"gamma"``, ``"gamma_rev"``, ``"levy"``, ``"levy_rev"``, or
            ``"heaviside"``: the hard decision, without gradient.
        scale: width in NDC (half the shorter image side is 1), positive: a number, a tensor (0-d
            or (B,), may require grad) or a `Schedule` of progress.
        squared: evaluate F at sign(d) d^2 / scale instead of d / scale, as SoftRas does. The
            scale is then in NDC^2.
        shape: positive, given like the scale; for the gamma distributions, which require it.
        shift: in units of scale: a number, a tensor (0-d or (B,)) or a `Schedule`.

    Raises:
        TypeError: for a parameter of another type.
        ValueError: for an unknown name (the message lists the known ones), for a scale or shape
            that is not positive, for a missing shape, or one that the distribution does not have.

    Example:
        >>> edge = Distribution("logistic", scale=Geometric(0.16, 0.01))
    """

    def __init__(
        self,
        name: str,
        scale: float | Tensor | Schedule = 0.05,
        squared: bool = False,
        shape: float | Tensor | Schedule | None = None,
        shift: float | Tensor | Schedule = 0.0,
    ) -> None:
        super().__init__()
        registry.find(name)
        self.variant = EdgeVariant(name, None, checks.flag("squared", squared))
        self.scale = as_schedule("scale", scale)
        self.shape = as_shape(name, shape)
        self.shift = as_shift("shift", shift)

    @property
    def distribution(self) -> str:
        """The distribution's name."""
        return self.variant.distribution

    @property
    def formulas(self) -> registry.DistributionFormulas:
        """The distribution's formulas; looked up, so that the module can be pickled."""
        return registry.find(self.distribution)

    @property
    def squared(self) -> bool:
        """Whether F is evaluated at sign(d) d^2 / scale."""
        return self.variant.squared

    def at(self, u: Tensor, threshold: float) -> EdgeState:
        scale, shape, shift = self.scale(u), self.shape(u), self.shift(u)
        return EdgeState(scale, shape, shift, None, self._reach(scale, shape, shift, threshold))

    def _reach(self, scale: Tensor, shape: Tensor, shift: Tensor, threshold: float) -> float:
        sign = -1 if self.formulas.mirrored else 1
        if self.formulas.shaped:
            x = max(self.formulas.reach(threshold, k) for k in _numbers(shape))
        else:
            x = self.formulas.reach(threshold)
        x += max(sign * shift for shift in _numbers(shift))
        reach = max(x, 0.0) * max(_numbers(scale))
        return math.sqrt(reach) if self.squared else reach

    def value(self, d: Tensor, progress: float | None = None) -> Tensor:
        u = as_progress(progress, 1)
        d = checks.array("d", d, torch.float64)
        sign = -1 if self.formulas.mirrored else 1
        along = d * d.abs() if self.squared else d
        scale, shift = (value(u).detach().to(d) for value in (self.scale, self.shift))
        points = along / scale + sign * shift
        shape = self.shape(u).detach() if self.formulas.shaped else None
        return formulas_at(self.distribution, points.reshape(-1), shape)[0].view(points.shape)

    def describe(self) -> str:
        squared = ", squared" if self.squared else ""
        rest = describe_shape_and_shift(self)
        return f"{self.distribution}{squared}, scale {describe(self.scale)}{rest}"

    def extra_repr(self) -> str:
        return repr(self.distribution) + (", squared" if self.squared else "")


def _numbers(values: Tensor) -> list[float]:
    """All numbers of a parameter, without derivatives."""
    found: list[float] = unwrapped(values).reshape(-1).tolist()
    return found


def as_shape(name: str, shape: float | Tensor | Schedule | None) -> Schedule:
    """The shape of the distribution `name` as a schedule; 1 if it has none.

    Raises:
        ValueError: if it is missing, not positive, or given where there is none.
    """
    if registry.find(name).shaped:
        if shape is None:
            raise ValueError(f"shape: the distribution {name!r} needs one, a positive number")
        return as_schedule("shape", shape)
    if shape is not None:
        raise ValueError(f"shape: the distribution {name!r} has no shape")
    return as_schedule("shape", 1.0)


def describe_shape_and_shift(softness: Any) -> str:
    """The shape and shift of a softness by a distribution, in a few words."""
    shape = f", shape {describe(softness.shape)}" if softness.formulas.shaped else ""
    shift = softness.shift
    none = isinstance(shift, Shift) and not bool(shift.value.detach().any())
    return shape + ("" if none else f", shift {describe(shift)}")
