"""Build the soft renderer of a training: its softness is fixed, learned jointly, or from a file.

* ``fixed``: a distribution whose scale is constant, anneals, or drops once (published).
* ``learned``: a network for the edge, with its scale. It is learned jointly with the reconstruction
  by the same loss, and frozen until a late part of the training (Wu et al., EGSR 2024).
* ``softening``: a frozen `taichi_raster.Softening` from a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

import taichi_raster as tr
from meta.search.fixed import GAMMA_SHAPE
from taichi_raster.softness.distributions import registry
from tasks.reconstruction.views import FAR, NEAR

SOFTRAS_SIGMA = 1e-4


@dataclass(frozen=True)
class SoftnessSettings:
    """How the renderer is softened.

    Args:
        kind: "fixed", "learned" or "softening".
        edge: the distribution; for "learned", the one that the network starts as.
        scale: in NDC (squared NDC, if squared); by default 1e-4 if squared, else 0.01.
        scale_end: the scale to anneal to; None for no annealing.
        squared: whether F takes the squared distance, as in SoftRas; only for "fixed".
        drop: factor of the scale from progress `drop_at` on, without `scale_end`.
        drop_at: progress in [0, 1]; published: a factor of 0.3 at 150 of 250 thousand steps.
        shape: shape of the gamma distributions.
        conorm, conorm_p: the T-conorm, and its parameter if it has one.
        file: file of the softening.
        unfreeze: progress in [0, 1] from which "learned" is learned.
        lr: learning rate of the softness.
        threshold: the renderer's; fragments of lower coverage are dropped. 0 is brute force: every
            pixel meets every face.

    Raises ValueError, naming the argument that is missing or out of range.
    """

    kind: Literal["fixed", "learned", "softening"] = "fixed"
    edge: str = "logistic"
    scale: float | None = None
    scale_end: float | None = None
    squared: bool = True
    drop: float = 0.3
    drop_at: float = 0.6
    shape: float | None = None
    conorm: str = "probabilistic"
    conorm_p: float | None = None
    file: Path | None = None
    unfreeze: float = 0.6
    lr: float = 1e-3
    threshold: float = 1e-6

    def __post_init__(self) -> None:
        if (self.kind == "softening") != (self.file is not None):
            raise ValueError("file: is needed for softness kind 'softening', and for it alone")
        for name in ("drop_at", "unfreeze"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: must lie in [0, 1], got {getattr(self, name)}")
        for name in ("drop", "lr"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: must be positive, got {getattr(self, name)}")
        for name in ("scale", "scale_end"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name}: must be positive, got {value}")
        if self.edge == "heaviside":
            raise ValueError("edge: 'heaviside' has no gradient to descend")
        registry.find(self.edge)

    @property
    def start(self) -> float:
        """The scale at the beginning."""
        if self.scale is not None:
            return self.scale
        return SOFTRAS_SIGMA if self.squared and self.kind == "fixed" else 0.01


class Drop(tr.Schedule):
    """A value that is multiplied by `factor` from progress `at` on."""

    def __init__(self, value: float, factor: float, at: float) -> None:
        super().__init__()
        self.value, self.factor, self.at = value, factor, at

    def forward(self, u: Tensor) -> Tensor:
        """The value at progress `u`."""
        one = torch.ones_like(u, dtype=torch.float64)
        return self.value * torch.where(u.double() >= self.at, self.factor * one, one)

    def extra_repr(self) -> str:
        """For `repr`."""
        return f"{self.value:g}, times {self.factor:g} from {self.at:g} on"


@dataclass(frozen=True)
class Softness:
    """A renderer and the learnable part of its softness.

    Attributes:
        renderer: the renderer.
        learnable: the modules to be learned, frozen at first; empty for a fixed softness.
        edge: the edge softness, for saving.
    """

    renderer: tr.SoftRasterizer
    learnable: nn.ModuleList
    edge: tr.EdgeSoftness


def build_softness(settings: SoftnessSettings, image_size: int) -> Softness:
    """The renderer of silhouettes with this softness.

    Raises:
        FileNotFoundError, ValueError: for a softening that cannot be used, or a number out of
            range; the message names the argument.
    """
    alpha = tr.TConorm(settings.conorm, settings.conorm_p)
    learnable = nn.ModuleList()
    if settings.kind == "softening":
        assert settings.file is not None
        softening = tr.load_softening(settings.file)
        edge, alpha = softening.drawn_edge, softening.alpha
    elif settings.kind == "learned":
        start = settings.start
        end = start if settings.scale_end is None else settings.scale_end
        scale: tr.Schedule = tr.Knots([start, end])
        edge = tr.MLPSoftness(scale=scale, init=settings.edge, init_shape=_shape(settings))
        learnable.append(edge)
    else:
        edge = tr.Distribution(
            settings.edge, _scale(settings), settings.squared, shape=_shape(settings)
        )
    edge.requires_grad_(False)
    shown = tr.tabulate(edge) if isinstance(edge, tr.MLPSoftness) else edge
    renderer = tr.SoftRasterizer(
        image_size, shown, tr.HardDepth(), alpha, near=NEAR, far=FAR, threshold=settings.threshold
    )
    return Softness(renderer, learnable, edge)


def _scale(settings: SoftnessSettings) -> tr.Schedule:
    if settings.scale_end is not None:
        return tr.Geometric(settings.start, settings.scale_end)
    return Drop(settings.start, settings.drop, settings.drop_at)


def _shape(settings: SoftnessSettings) -> float | None:
    if settings.shape is None and registry.find(settings.edge).shaped:
        return GAMMA_SHAPE
    return settings.shape
