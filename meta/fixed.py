"""Fixed softnesses, as an expert would set them by hand, and grids of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import taichi_raster as tr
from meta.method import Method
from meta.updates import UpdateRule
from taichi_raster.softness import registry

DECAY_BEGINS = 0.85
DECAY_FACTOR = 0.1
LR_POSITIONS = (0.0, DECAY_BEGINS, 1.0)
GAMMA_SHAPE = 2.0
"""Shape of the gamma distributions, which need one."""

Renderer = Callable[..., nn.Module]
"""renderer(edge), or renderer(edge, depth) where a depth softness is part of the search."""


@dataclass(frozen=True)
class FixedSoftness:
    """One configuration: scale start -> end (equal: constant; in NDC), learning rate, decay.

    `gamma` is the temperature of a softmax depth (see `tr.SoftmaxDepth`); None leaves the depth
    softness to the renderer.
    """

    distribution: str
    start: float
    end: float
    lr: float
    decay: bool
    gamma: float | None = None

    @property
    def annealed(self) -> bool:
        """Whether the scale changes."""
        return self.start != self.end

    @property
    def key(self) -> str:
        """A text that identifies the configuration in files."""
        gamma = "" if self.gamma is None else f" gamma {self.gamma!r}"
        return f"{self.distribution} {self.start!r} {self.end!r} {self.lr!r} {self.decay}{gamma}"

    @property
    def order(self) -> tuple[Any, ...]:
        """Sorts configurations."""
        return self.distribution, self.start, self.end, self.lr, self.decay, self.gamma or 0.0

    @property
    def title(self) -> str:
        """For tables: "logistic 0.16 -> 0.01, lr 0.15 decaying"."""
        scale = f"{self.start:g} -> {self.end:g}" if self.annealed else f"{self.start:g}"
        gamma = "" if self.gamma is None else f", gamma {self.gamma:g}"
        rate = f"lr {self.lr:g}{' decaying' if self.decay else ''}"
        return f"{self.distribution} {scale}{gamma}, {rate}"

    @property
    def lr_values(self) -> list[float]:
        """Learning rates at LR_POSITIONS."""
        return [self.lr, self.lr, self.lr * (DECAY_FACTOR if self.decay else 1)]

    @property
    def distribution_shape(self) -> float | None:
        """The distribution's shape; None if it has none."""
        return GAMMA_SHAPE if registry.find(self.distribution).shaped else None

    def edge(self) -> tr.EdgeSoftness:
        """The softness as a renderer takes it; its scale is a two-knot schedule."""
        scale = tr.Knots([self.start, self.end])
        return tr.Distribution(self.distribution, scale=scale, shape=self.distribution_shape)

    def depth(self) -> tr.SoftmaxDepth | None:
        """The depth softness, or None; its temperature is a two-knot schedule."""
        return None if self.gamma is None else tr.SoftmaxDepth(tr.Knots([self.gamma, self.gamma]))

    def render_by(self, renderer: Renderer) -> nn.Module:
        """The renderer of this softness."""
        depth = self.depth()
        return renderer(self.edge()) if depth is None else renderer(self.edge(), depth)

    def lr_schedule(self) -> tr.Schedule:
        """The learning rate as a schedule."""
        return tr.Knots(self.lr_values, positions=LR_POSITIONS)

    def parameters(self) -> dict[str, Tensor]:
        """Parameters of the method that `fixed_method` makes of this, by name."""
        parameters = {
            "renderer.edge.scale.log_values": _logs([self.start, self.end]),
            "lr.log_values": _logs(self.lr_values),
        }
        if self.gamma is not None:
            parameters["renderer.depth.gamma.log_values"] = _logs([self.gamma, self.gamma])
        return parameters


@dataclass(frozen=True)
class Grid:
    """Every combination; annealed scales run from each of `scales` to each lower of `ends`.

    `distributions` are any but "heaviside", which has no gradient. `gammas` are temperatures of the
    depth softmax; None leaves the depth softness to the renderer. Raises ValueError, naming what is
    empty, unknown or not positive.
    """

    distributions: tuple[str, ...] = ("logistic", "gaussian", "uniform")
    scales: tuple[float, ...] = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
    ends: tuple[float, ...] = (0.005, 0.01, 0.02)
    lrs: tuple[float, ...] = (0.03, 0.06, 0.12, 0.24)
    decays: tuple[bool, ...] = (False, True)
    gammas: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name in self.distributions:
            if name == "heaviside":
                raise ValueError("distributions: 'heaviside' has no gradient to descend")
            registry.find(name)
        for field_name in ("scales", "ends", "lrs", "gammas"):
            values = getattr(self, field_name) or ()
            if not all(math.isfinite(value) and value > 0 for value in values):
                raise ValueError(f"{field_name}: expected positive numbers, got {values}")
        for field_name in ("distributions", "scales", "lrs", "decays", "gammas"):
            if getattr(self, field_name) == ():
                raise ValueError(f"{field_name}: expected at least one value, got none")

    def configurations(self) -> list[FixedSoftness]:
        """All of them, in a fixed order."""
        pairs = [(scale, scale) for scale in self.scales]
        pairs += [(scale, end) for scale in self.scales for end in self.ends if end < scale]
        return [
            FixedSoftness(name, start, end, lr, decay, gamma)
            for name in self.distributions
            for start, end in pairs
            for lr in self.lrs
            for decay in self.decays
            for gamma in (self.gammas or (None,))
        ]


def fixed_method(
    config: FixedSoftness,
    renderer: Renderer,
    rule: UpdateRule,
    steps: int,
) -> Method:
    """The method that solves tasks with a fixed softness."""
    return Method(config.render_by(renderer), rule, config.lr_schedule(), steps)


def _logs(values: Sequence[float]) -> Tensor:
    return torch.tensor([math.log(value) for value in values], dtype=torch.float64)
