"""Where learning starts: a method that equals a hand-tuned one, with everything learnable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

import taichi_raster as tr
from meta.baselines import DECAY_BEGINS, DECAY_FACTOR, FixedSoftness
from meta.method import Method
from meta.updates import UpdateRule

KNOTS = (0.0, 0.2, 0.4, 0.6, 0.75, 0.85, 0.9, 0.95, 1.0)
"""Progress at which learned schedules have their knots: dense where the run is to settle."""


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
    renderer: Callable[[tr.EdgeSoftness], nn.Module],
    rule: UpdateRule,
    steps: int,
    **options: Any,
) -> Method:
    """Shape, scale and learning rate are learned.

    The shape begins as that of `start`: exactly for a logistic, by regression for the others.
    `options` are those of `tr.MLPSoftness`.
    """
    edge = tr.MLPSoftness(init=start.distribution, scale=scale_knots(start), **options)
    return Method(renderer(edge), rule, lr_knots(start), steps)


def learnable_schedules(
    start: FixedSoftness,
    renderer: Callable[[tr.EdgeSoftness], nn.Module],
    rule: UpdateRule,
    steps: int,
) -> Method:
    """Scale and learning rate are learned; the distribution of `start` stays."""
    edge = tr.Distribution(start.distribution, scale=scale_knots(start))
    return Method(renderer(edge), rule, lr_knots(start), steps)
