"""Where learning starts: a method that equals a hand-tuned one, with chosen parts learnable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

import taichi_raster as tr
from meta.inner.method import Method
from meta.inner.updates import UpdateRule
from meta.search.fixed import DECAY_BEGINS, DECAY_FACTOR, FixedSoftness
from taichi_raster.aggregation import generator

KNOTS = (0.0, 0.2, 0.4, 0.6, 0.75, 0.85, 0.9, 0.95, 1.0)
"""Progress at which learned schedules have their knots: dense where the run is to settle."""
GAMMA_KNOTS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""The same for a depth softness's temperature."""
DEFAULT_GAMMA = 1e-2
"""Where a learned temperature starts, if the fixed softness does not say."""
PROBABILISTIC_AT = {"hamacher": 1.0, "aczel_alsina": 1.0, "frank": 1.0}
"""The p at which a T-conorm is the probabilistic one, exactly."""

RendererMaker = Callable[..., nn.Module]
"""Called with an edge softness and, where these are learned, depth=... and alpha=...."""


@dataclass(frozen=True)
class Learnable:
    """What is learned, one switch each; everything else stays as in the fixed softness.

    Args:
        shape: the edge softness is an `MLPSoftness` that starts as the fixed distribution (exactly
            for a logistic, by regression for the others) instead of that distribution.
        progress: and its shape depends on progress.
        scale: its scale is a schedule with learnable knots.
        lr: and so is the inner learning rate.
        gamma: and the temperature of the softmax over depth, or of the order of an `OverDepth`
            (nothing, where that is hard). Where the fixed softness says nothing of depth, this and
            `depth` start at a softmax of `DEFAULT_GAMMA`, whatever the renderer's own depth is.
        depth: the depth softness is an `MLPDepth`, which starts as the softmax; not for `over`.
        conorm: name of a T-conorm whose p is learned: the fixed softness's own, or, where that
            leaves alpha to the renderer, one that can start as the probabilistic one ("hamacher",
            "aczel_alsina", "frank"); None for that of the fixed softness as it is.

    Raises ValueError for a dependence on progress without a shape, and for an unknown T-conorm or
    one without a positive p.
    """

    shape: bool = True
    progress: bool = False
    scale: bool = True
    lr: bool = True
    gamma: bool = False
    depth: bool = False
    conorm: str | None = None

    def __post_init__(self) -> None:
        if self.progress and not self.shape:
            raise ValueError("progress: only a learned shape can depend on it; set shape=True")
        if self.conorm is not None:
            domain = generator(self.conorm).domain
            if domain is None or domain[0] == "negative":  # p is learned in its logarithm
                raise ValueError(f"conorm: the T-conorm {self.conorm!r} has no positive p to learn")


def learnable_method(
    start: FixedSoftness,
    renderer: RendererMaker,
    rule: UpdateRule,
    steps: int,
    learn: Learnable | None = None,
    table: bool = False,
    **options: Any,
) -> Method:
    """A method that solves tasks as `start` does, and has the parameters that `learn` names.

    Args:
        table: evaluate a learned shape by a table of its knots (`tr.tabulate`), which is faster
            where a pixel meets more than a few faces; its weights are learned through the table.
        renderer: as a task family's `renderer`: called as renderer(edge), with depth and alpha as
            keywords where `learn` or `start` has something to say about them.
        options: those of `tr.MLPSoftness`, for a learned shape.
    """
    learn = learn or Learnable()
    parts: dict[str, nn.Module] = {}
    depth = _depth(start, learn)
    if depth is not None:
        parts["depth"] = depth
    alpha = _alpha(start, learn)
    if alpha is not None:
        parts["alpha"] = alpha
    lr = lr_knots(start)
    lr.requires_grad_(learn.lr)
    edge = _edge(start, learn, options)
    if table and learn.shape:
        edge = tr.tabulate(edge, octaves=8, subdivision=3)
    return Method(renderer(edge, **parts), rule, lr, steps)


def scale_knots(start: FixedSoftness, knots: Sequence[float] = KNOTS) -> tr.Knots:
    """The scale of a fixed softness, exactly, as a schedule with learnable knots."""
    return tr.Knots([start.start * (start.end / start.start) ** u for u in knots], knots)


def lr_knots(start: FixedSoftness, knots: Sequence[float] = KNOTS) -> tr.Knots:
    """Its learning rate as such a schedule: exactly, if the place where decay begins is a knot."""
    fall = DECAY_FACTOR if start.decay else 1.0
    fraction = [max(0.0, (u - DECAY_BEGINS) / (1 - DECAY_BEGINS)) for u in knots]
    return tr.Knots([start.lr * fall**f for f in fraction], knots)


def learnable_shape(
    start: FixedSoftness,
    renderer: RendererMaker,
    rule: UpdateRule,
    steps: int,
    **options: Any,
) -> Method:
    """Shape, scale and learning rate are learned; `options` are those of `tr.MLPSoftness`."""
    return learnable_method(start, renderer, rule, steps, Learnable(), **options)


def learnable_schedules(
    start: FixedSoftness, renderer: RendererMaker, rule: UpdateRule, steps: int
) -> Method:
    """Scale and learning rate are learned; the distribution of `start` stays."""
    return learnable_method(start, renderer, rule, steps, Learnable(shape=False))


def _edge(start: FixedSoftness, learn: Learnable, options: dict[str, Any]) -> tr.EdgeSoftness:
    scale = scale_knots(start)
    scale.requires_grad_(learn.scale)
    name, shape = start.distribution, start.distribution_shape
    if not learn.shape:
        return tr.Distribution(name, scale=scale, shape=shape)
    return tr.MLPSoftness(
        init=name, scale=scale, progress=learn.progress, init_shape=shape, **options
    )


def _alpha(start: FixedSoftness, learn: Learnable) -> tr.TConorm | None:
    """None leaves it to the renderer."""
    if learn.conorm is None:
        return start.alpha()
    if start.conorm is not None and start.conorm[0] == learn.conorm:
        p = start.conorm[1]
    elif start.conorm is None and learn.conorm in PROBABILISTIC_AT:
        p = PROBABILISTIC_AT[learn.conorm]
    else:
        fixed = "the probabilistic T-conorm" if start.conorm is None else repr(start.conorm[0])
        raise ValueError(
            f"conorm: {learn.conorm!r} cannot start as {fixed}, which the fixed softness has"
        )
    # One knot: a positive number that is learned in its logarithm.
    return tr.TConorm(learn.conorm, tr.Knots([p]))


def _depth(start: FixedSoftness, learn: Learnable) -> tr.DepthSoftness | None:
    """None leaves it to the renderer."""
    gamma = start.gamma
    if start.over and learn.depth:
        raise ValueError("depth: a network starts as a softmax, but the fixed softness has 'over'")
    if start.over and gamma is None:
        return tr.OverDepth()
    if gamma is None and not (learn.gamma or learn.depth):
        return None
    first, last = start.gamma_values or [DEFAULT_GAMMA] * 2
    knots = tr.Knots([first * (last / first) ** u for u in GAMMA_KNOTS], GAMMA_KNOTS)
    knots.requires_grad_(learn.gamma)
    if start.over:
        return tr.OverDepth(knots)
    return tr.MLPDepth(gamma=knots) if learn.depth else tr.SoftmaxDepth(knots)
