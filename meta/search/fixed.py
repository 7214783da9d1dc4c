"""Fixed softnesses, as an expert would set them by hand, and grids of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

import taichi_raster as tr
from meta.inner.method import Method
from meta.inner.updates import UpdateRule
from taichi_raster.softness.distributions import registry

DECAY_BEGINS = 0.85
DECAY_FACTOR = 0.1
LR_POSITIONS = (0.0, DECAY_BEGINS, 1.0)
GAMMA_SHAPE = 2.0
"""Shape of the gamma distributions, which need one."""

Renderer = Callable[..., nn.Module]
"""renderer(edge), or renderer(edge, depth) where a depth softness is part of the search, with
alpha=... where a T-conorm is."""


@dataclass(frozen=True)
class FixedSoftness:
    """One configuration: scale start -> end (equal: constant; in NDC), learning rate, decay.

    `gamma` is the temperature of a softmax depth (see `tr.SoftmaxDepth`), constant or annealed to
    `gamma_end`; None leaves the depth softness to the renderer. With `over` it is the temperature
    of the order of a `tr.OverDepth`, and None means a hard order. `conorm` is a T-conorm and its p;
    None leaves alpha to the renderer.
    """

    distribution: str
    start: float
    end: float
    lr: float
    decay: bool
    gamma: float | None = None
    gamma_end: float | None = None
    conorm: tuple[str, float] | None = None
    over: bool = False

    def to_json(self) -> dict[str, Any]:
        """Numbers and texts; `from_json` takes them back."""
        return asdict(self)

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> FixedSoftness:
        """The inverse of `to_json`; TypeError for other names."""
        conorm = content.get("conorm")
        return FixedSoftness(**{**content, "conorm": None if conorm is None else tuple(conorm)})

    @property
    def plain(self) -> bool:
        """Whether depth and T-conorm are as in a renderer whose edge alone is tuned."""
        return self.gamma_end is None and self.conorm is None and not self.over

    @property
    def annealed(self) -> bool:
        """Whether the scale changes."""
        return self.start != self.end

    @property
    def key(self) -> str:
        """A text that identifies the configuration in files."""
        gamma = "" if self.gamma is None else f" gamma {self.gamma!r}"
        gamma += "" if self.gamma_end is None else f" to {self.gamma_end!r}"
        gamma = f" over{gamma}" if self.over else gamma
        alpha = "" if self.conorm is None else f" {self.conorm[0]} {self.conorm[1]!r}"
        scale = f"{self.start!r} {self.end!r}"
        return f"{self.distribution} {scale} {self.lr!r} {self.decay}{gamma}{alpha}"

    @property
    def kind(self) -> tuple[Any, ...]:
        """Equal for configurations that can be solved side by side."""
        return self.distribution, self.conorm, self.over, self.gamma is None

    @property
    def order(self) -> tuple[Any, ...]:
        """Sorts configurations."""
        edge = self.distribution, self.start, self.end, self.lr, self.decay
        depth = self.over, self.gamma or 0.0, self.gamma_end or 0.0
        return *edge, *depth, self.conorm or ("", 0.0)

    @property
    def title(self) -> str:
        """For tables: "logistic 0.16 -> 0.01, lr 0.15 decaying"."""
        scale = f"{self.start:g} -> {self.end:g}" if self.annealed else f"{self.start:g}"
        gamma = "" if self.gamma is None else f", gamma {self.gamma:g}"
        gamma += "" if self.gamma_end is None else f" -> {self.gamma_end:g}"
        gamma = f", over{gamma.replace(',', '')}" if self.over else gamma
        alpha = "" if self.conorm is None else f", {self.conorm[0]} {self.conorm[1]:g}"
        rate = f"lr {self.lr:g}{' decaying' if self.decay else ''}"
        return f"{self.distribution} {scale}{gamma}{alpha}, {rate}"

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

    def depth(self) -> tr.DepthSoftness | None:
        """The depth softness, or None; its temperature is a two-knot schedule."""
        gamma = None if self.gamma is None else tr.Knots(self.gamma_values)
        if self.over:
            return tr.OverDepth(gamma, union="product")  # a soft order has no other
        return None if gamma is None else tr.SoftmaxDepth(gamma)

    @property
    def gamma_values(self) -> list[float]:
        """The temperature at the start and the end; empty if there is none."""
        if self.gamma is None:
            return []
        return [self.gamma, self.gamma if self.gamma_end is None else self.gamma_end]

    def alpha(self) -> tr.TConorm | None:
        """The T-conorm, or None; its p is constant."""
        return None if self.conorm is None else tr.TConorm(*self.conorm)

    def render_by(self, renderer: Renderer) -> nn.Module:
        """The renderer of this softness."""
        depth, alpha = self.depth(), self.alpha()
        parts = [self.edge()] if depth is None else [self.edge(), depth]
        return renderer(*parts) if alpha is None else renderer(*parts, alpha=alpha)

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
            parameters["renderer.depth.gamma.log_values"] = _logs(self.gamma_values)
        return parameters


@dataclass(frozen=True)
class Grid:
    """Every combination; annealed scales run from each of `scales` to each lower of `ends`.

    `distributions` are any but "heaviside", which has no gradient. `gammas` are temperatures of the
    depth softmax; None leaves the depth softness to the renderer. `over_gammas` are those of a
    `tr.OverDepth`, which is tried beside the softmax (instead of it, if `gammas` is empty); None
    among them is the hard order. Each temperature is tried constant, and annealed to each lower one
    of `gamma_ends`. `conorms` are T-conorms with their p; None among them leaves alpha to the
    renderer.

    Raises ValueError, naming the field that is empty, unknown or not positive.
    """

    distributions: tuple[str, ...] = ("logistic", "gaussian", "uniform")
    scales: tuple[float, ...] = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
    ends: tuple[float, ...] = (0.005, 0.01, 0.02)
    lrs: tuple[float, ...] = (0.03, 0.06, 0.12, 0.24)
    decays: tuple[bool, ...] = (False, True)
    gammas: tuple[float, ...] | None = None
    gamma_ends: tuple[float, ...] = ()
    conorms: tuple[tuple[str, float] | None, ...] = (None,)
    over_gammas: tuple[float | None, ...] = ()

    def __post_init__(self) -> None:
        for name in self.distributions:
            if name == "heaviside":
                raise ValueError("distributions: 'heaviside' has no gradient to descend")
            registry.find(name)
        for conorm in self.conorms:
            if conorm is not None:
                tr.TConorm(*conorm)  # raises ValueError for an unknown one
        for field_name in ("scales", "ends", "lrs", "gammas", "gamma_ends", "over_gammas"):
            values = [v for v in getattr(self, field_name) or () if v is not None]
            if not all(math.isfinite(value) and value > 0 for value in values):
                raise ValueError(f"{field_name}: expected positive numbers, got {tuple(values)}")
        for field_name in ("distributions", "scales", "lrs", "decays", "gammas", "conorms"):
            enough = field_name == "gammas" and self.over_gammas
            if getattr(self, field_name) == () and not enough:
                raise ValueError(f"{field_name}: expected at least one value, got none")

    def configurations(self) -> list[FixedSoftness]:
        """All of them, in a fixed order."""
        pairs = [(scale, scale) for scale in self.scales]
        pairs += [(scale, end) for scale in self.scales for end in self.ends if end < scale]
        softmax = (None,) if self.gammas is None else self.gammas
        depths = [
            (gamma, end, over)
            for over, gammas in ((False, softmax), (True, self.over_gammas))
            for gamma in gammas
            for end in (None, *self.gamma_ends)
            if end is None or (gamma is not None and end < gamma)
        ]
        return [
            FixedSoftness(name, start, end, lr, decay, gamma, gamma_end, conorm, over)
            for name in self.distributions
            for conorm in self.conorms
            for start, end in pairs
            for lr in self.lrs
            for decay in self.decays
            for gamma, gamma_end, over in depths
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


def finer_grid(config: FixedSoftness, gammas: tuple[float, ...] | None = None) -> Grid:
    """A grid around a configuration: scales and learning rates a factor of 1.5 to both sides."""
    near = (1 / 1.5, 1.0, 1.5)
    last = config.gamma_end
    if config.over:
        tuned: Any = {"gammas": (), "over_gammas": (None,)}
        if config.gamma is not None:
            tuned["over_gammas"] = tuple(config.gamma * f for f in near)
    elif config.gamma is not None and (last is not None or gammas is None):
        tuned = {"gammas": tuple(config.gamma * f for f in near)}
    else:
        tuned = {"gammas": gammas}
    return Grid(
        distributions=(config.distribution,),
        scales=tuple(config.start * f for f in near),
        ends=tuple(config.end * f for f in near) if config.annealed else (),
        lrs=tuple(config.lr * f for f in near),
        decays=(config.decay,),
        gamma_ends=() if last is None else tuple(last * f for f in near),
        conorms=(config.conorm,),
        **tuned,
    )
