"""What the viewer's controls say about a method, and the renderer and update rule made of it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

import taichi_raster as tr
from meta.inner.updates import SGD, Adam, ImageSteps, Momentum, UpdateRule
from meta.search.fixed import DECAY_FACTOR, GAMMA_SHAPE, LR_POSITIONS
from taichi_raster.softness.conorm import generator
from taichi_raster.softness.distributions import registry
from viewer.families import Family

OPTIMISERS: dict[str, UpdateRule] = {
    "adam": Adam(),
    "momentum": Momentum(),
    "sgd": SGD(),
    "image steps": ImageSteps(Adam(betas=tr.ImageSteps.BETAS)),
}
UNTUNED = "untuned"
"""The softness that `tr.untuned_softening` chooses for the problem at hand, with its steps."""
CONORMS = (
    "probabilistic",
    "einstein",
    "hamacher",
    "frank",
    "yager",
    "aczel_alsina",
    "dombi",
    "schweizer_sklar",
    "max",
    "hard",
)


@dataclass(frozen=True)
class MethodSettings:
    """A method, as the controls show it.

    Attributes:
        softness: a distribution's name, or that of a learned softness.
        scale, scale_end: at the first and the last step, in NDC, annealed at a constant ratio; None
            where a learned softness keeps its own.
        gamma: temperature of the softmax over depth; None for a learned one's own, or the family's.
        conorm: T-conorm; None likewise. p: size of its parameter, where it has one.
        lr: learning rate; None for a learned one's own. decay: a tenth of it in the end.
    """

    softness: str = "gaussian"
    scale: float | None = 0.08
    scale_end: float | None = 0.02
    gamma: float | None = 0.01
    conorm: str | None = "probabilistic"
    p: float = 2.0
    lr: float | None = 0.06
    decay: bool = True
    optimiser: str = "adam"

    @property
    def signed_p(self) -> float | None:
        """The T-conorm's parameter; None where it has none."""
        domain = None if self.conorm is None else generator(self.conorm).domain
        return None if domain is None else -self.p if domain[0] == "negative" else self.p

    @property
    def title(self) -> str:
        """A short text for pictures: "gaussian 0.08 > 0.02"."""
        name = self.softness.removesuffix(".safetensors")
        if self.scale is None or self.scale_end is None:
            return name
        end = "" if self.scale == self.scale_end else f" > {self.scale_end:.3g}"
        return f"{name} {self.scale:.3g}{end}"


@dataclass(frozen=True)
class Learned:
    """Learned parts; None where the file does not have them."""

    edge: tr.EdgeSoftness
    depth: tr.DepthSoftness | None = None
    alpha: tr.TConorm | None = None
    lr: nn.Module | None = None
    sharp_from: float | None = None


@dataclass(frozen=True)
class Library:
    """All softnesses by name: every distribution, then those learned.

    `Library.of(files)` reads the files at once, and raises what `tr.load_softening` does.
    """

    learned: Mapping[str, Learned] = field(default_factory=dict)

    @classmethod
    def of(cls, files: tuple[Path, ...] = ()) -> Library:
        found = {
            f"pretrained {name}": _parts(tr.pretrained(name)) for name in tr.pretrained_names()
        }
        for path in files:
            found[path.name] = _read(path)
        return cls(found)

    @property
    def names(self) -> tuple[str, ...]:
        return (*registry.known(), *self.learned, UNTUNED)

    def choose(self, settings: MethodSettings, name: str, family: Family) -> dict[str, Any]:
        """Changes to `settings` that make `name` its softness.

        A learned one brings what it was learned with; a distribution fills what that left open.
        """
        if name == UNTUNED:
            own = ("scale", "scale_end", "gamma", "conorm", "lr")
            return {"softness": name, "optimiser": "image steps", **dict.fromkeys(own)}
        if name in self.learned:
            parts = self.learned[name]
            gone: dict[str, Any] = dict(softness=name, scale=None, scale_end=None)
            gone |= {} if parts.depth is None else {"gamma": None}
            gone |= {} if parts.alpha is None else {"conorm": None}
            return gone | ({} if parts.lr is None else {"lr": None})
        if name not in registry.known():
            raise ValueError(f"softness: unknown {name!r}; known: {', '.join(self.names)}")
        defaults = {"conorm": "probabilistic", **family.start}
        open_ = ("scale", "scale_end", "gamma", "conorm", "lr")
        fills = {key: defaults[key] for key in open_ if getattr(settings, key) is None}
        if settings.softness == UNTUNED:  # its steps are no one else's
            fills["optimiser"] = "adam"
        return {"softness": name, **fills}

    def parts(self, settings: MethodSettings, task: Any) -> Learned | None:
        """What comes with the softness, for a batch of one task; None for a distribution."""
        if settings.softness == UNTUNED:
            return _untuned(task)
        return self.learned.get(settings.softness)

    def renderer(
        self, settings: MethodSettings, family: Any, learned: Learned | None
    ) -> tr.SoftRasterizer:
        """The soft renderer of a task family, with the `parts` of its softness."""
        scale = None
        if settings.scale is not None and settings.scale_end is not None:
            scale = tr.Geometric(settings.scale, settings.scale_end)
        if learned is None:
            shape = GAMMA_SHAPE if registry.find(settings.softness).shaped else None
            edge: tr.EdgeSoftness = tr.Distribution(
                settings.softness, scale=0.05 if scale is None else scale, shape=shape
            )
        else:
            edge = copy.deepcopy(learned.edge)
            if scale is not None:
                network = edge.edge if isinstance(edge, tr.TabulatedSoftness) else edge
                network.scale = scale
        depth = None if learned is None else learned.depth
        if settings.gamma is not None:
            depth = tr.SoftmaxDepth(settings.gamma)
        alpha = None if learned is None else learned.alpha
        if settings.conorm is not None:
            alpha = tr.TConorm(settings.conorm, settings.signed_p)
        made: tr.SoftRasterizer = family.renderer(edge, depth, alpha)
        made.sharp_from = None if learned is None else learned.sharp_from
        return made.requires_grad_(False)

    def rate(self, settings: MethodSettings, family: Family, learned: Learned | None) -> nn.Module:
        """The learning rate as a schedule."""
        if settings.lr is None and learned is not None and learned.lr is not None:
            return learned.lr
        lr = family.start["lr"] if settings.lr is None else settings.lr
        values = [lr, lr, lr * (DECAY_FACTOR if settings.decay else 1.0)]
        return tr.Knots(values, positions=LR_POSITIONS).requires_grad_(False)


def _read(path: Path) -> Learned:
    """A learned softening or edge softness from a file."""
    try:
        return _parts(tr.load_softening(path))
    except ValueError as error:
        try:
            return Learned(tr.load_softness(path).requires_grad_(False))
        except ValueError:
            raise error from None


@torch.no_grad()
def _untuned(task: Any) -> Learned:
    """What `tr.untuned_softening` chooses by the outlines of the start and of the target."""
    drawn, target = task.outlines(task.start())
    chosen = tr.untuned_softening(drawn, target, len(drawn), getattr(task, "backs", False))
    ends = (chosen.edge.scale(torch.tensor(u, dtype=torch.float64)) for u in (0.0, 1.0))
    scale = tr.Geometric(*map(float, ends))  # one for all pictures of the one problem
    assert chosen.lr is not None  # it follows the scale
    chosen.edge.scale = chosen.lr.scale = scale
    return _parts(chosen.requires_grad_(False))


def _parts(softening: tr.Softening) -> Learned:
    s = softening
    return Learned(s.drawn_edge, s.depth, s.alpha, s.lr, s.sharp_from)
