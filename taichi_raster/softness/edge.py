"""What the renderer asks of an edge softness, and the fixed ones: `Distribution`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from taichi_raster.schedule import Schedule, as_progress, as_schedule
from taichi_raster.softness import registry
from taichi_raster.softness.formulas import formulas_at
from taichi_raster.softness.mlp_kernel import Architecture


@dataclass(frozen=True)
class EdgeState:
    """An edge softness at one progress.

    Attributes:
        scale: 0-d or (B,), in NDC.
        weights: network weights (P,) or (B, P), or None.
        reach: scales outside a triangle beyond which F is at most the threshold asked for.
    """

    scale: Tensor
    weights: Tensor | None
    reach: float


class EdgeSoftness(nn.Module):
    """F(d / scale): how much of a pixel at signed distance d (positive inside) a triangle covers.

    Attributes:
        distribution: registered name that the kernels evaluate.
        network: the architecture of the network in front of it, or None.
    """

    distribution: str
    network: Architecture | None
    scale: Schedule

    def at(self, u: Tensor, threshold: float) -> EdgeState:
        """The softness at progress `u`, 0-d or (B,)."""
        raise NotImplementedError

    def value(self, d: Tensor, progress: float | None = None) -> Tensor:
        """F at signed distances `d` in NDC, any shape; no derivatives. For plots and tests."""
        raise NotImplementedError


class Distribution(EdgeSoftness):
    """The cumulative distribution function of a named distribution.

    Args:
        name: ``"logistic"`` (SoftRas), ``"gaussian"`` or ``"uniform"``.
        scale: width in NDC (half the shorter image side is 1), positive: a number, a tensor (0-d
            or (B,), may require grad) or a `Schedule` of progress.

    Raises:
        ValueError: for an unknown name (the message lists the known ones) or a scale that is not
            positive.

    Example:
        >>> edge = Distribution("logistic", scale=Geometric(0.16, 0.01))
    """

    network = None

    def __init__(self, name: str, scale: float | Tensor | Schedule = 0.05) -> None:
        super().__init__()
        self.distribution = registry.find(name).name
        self.scale = as_schedule("scale", scale)

    def at(self, u: Tensor, threshold: float) -> EdgeState:
        return EdgeState(self.scale(u), None, registry.find(self.distribution).reach(threshold))

    def value(self, d: Tensor, progress: float | None = None) -> Tensor:
        scale = self.scale(as_progress(progress, 1)).detach()
        points = torch.as_tensor(d, dtype=torch.float64) / scale
        return formulas_at(self.distribution, points.reshape(-1))[0].view(points.shape)

    def extra_repr(self) -> str:
        return repr(self.distribution)
