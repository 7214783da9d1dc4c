"""Make methods that start equal to a hand-tuned one, with chosen parts learnable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

import taichi_raster as tr
from meta.inner.method import Method
from meta.inner.updates import UpdateRule
from meta.search.fixed import DECAY_BEGINS, DECAY_FACTOR, FixedSoftness
from taichi_raster.softness.conorm import generator

KNOTS = (0.0, 0.2, 0.4, 0.6, 0.75, 0.85, 0.9, 0.95, 1.0)
"""Progress at which learned schedules have their knots: dense where the run is to settle."""
GAMMA_KNOTS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""The same for a depth softness's temperature."""
DEFAULT_GAMMA = 1e-2
"""Where a learned temperature starts, if the fixed softness has none."""
PROBABILISTIC_AT = {"hamacher": 1.0, "aczel_alsina": 1.0, "frank": 1.0}
"""The p at which a T-conorm is the probabilistic one, exactly."""

RendererMaker = Callable[..., nn.Module]
"""Called with an edge softness and, where these are not the family's own, depth and alpha."""


@dataclass(frozen=True)
class Learnable:
    """Which parts of a method are learned; the others stay as in the fixed softness.

    Args:
        shape: the edge softness is an `MLPSoftness` that starts as the fixed distribution (exactly
            for a logistic, by regression for the others) instead of that distribution.
        progress: its shape also depends on progress.
        scale: its scale is a schedule with learnable knots.
        lr: the inner learning rate is such a schedule.
        gamma: the temperature of the softmax over depth is such a schedule, or that of the order of
            an `OverDepth` (a hard order has none). If the fixed softness has no depth softness,
            this and `depth` start at a softmax of `DEFAULT_GAMMA`, whatever the renderer's own is.
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
    """A method that solves tasks as `start` does, with the learnable parts that `learn` names.

    Args:
        start: the fixed softness.
        renderer: as a task family's `renderer`: called as renderer(edge), with the keywords depth
            and alpha if `learn` or `start` sets them.
        rule, steps: the inner loop, as in `Method`.
        table: evaluate a learned shape by a table (`tr.tabulate`), which is faster where a pixel
            meets more than a few faces. Its weights are learned through the table.
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
    """The scale of a fixed softness as a schedule with learnable knots, exactly equal."""
    return tr.Knots([start.start * (start.end / start.start) ** u for u in knots], knots)


def lr_knots(start: FixedSoftness, knots: Sequence[float] = KNOTS) -> tr.Knots:
    """Its learning rate as such a schedule, exactly equal if `DECAY_BEGINS` is a knot."""
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
    """The T-conorm to start at; None leaves it to the renderer."""
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
    """The depth softness to start at; None leaves it to the renderer."""
    gamma = start.gamma
    if start.over and learn.depth:
        raise ValueError("depth: a network starts as a softmax, but the fixed softness has 'over'")
    if start.over and gamma is None:
        return tr.OverDepth(union="product")
    if gamma is None and not (learn.gamma or learn.depth):
        return None
    first, last = start.gamma_values or [DEFAULT_GAMMA] * 2
    knots = tr.Knots([first * (last / first) ** u for u in GAMMA_KNOTS], GAMMA_KNOTS)
    knots.requires_grad_(learn.gamma)
    if start.over:
        return tr.OverDepth(knots)
    return tr.MLPDepth(gamma=knots) if learn.depth else tr.SoftmaxDepth(knots)
