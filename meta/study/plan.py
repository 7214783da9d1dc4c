"""The plan of a study: the problems to compare methods on, the tuning and the learning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import taichi_raster as tr
from meta.estimators import es_gradient
from meta.inner.method import Method
from meta.inner.protocol import StudyFamily
from meta.inner.updates import UpdateRule
from meta.outer.estimator import Estimator
from meta.outer.loss import OuterLoss
from meta.outer.settings import TrainerSettings
from meta.search.fixed import Grid
from meta.search.learnable import Learnable
from meta.search.tuner import Rung

CONSTANT, ANNEALED = "best constant", "best annealed"
WIDER = "best annealed, wider search"
LEARNED, ABLATION = "learned", "learned schedules, logistic shape"

_NEEDED = ("sample", "renderer", "failure_threshold", "error_floor", "error_name")


@dataclass(frozen=True)
class Problem:
    """Tasks that methods are compared on.

    Args:
        title: for tables.
        family: the tasks; any class that meets `StudyFamily`.
        steps: inner steps.
        count: unseen instances.
        batch_size: in which they are drawn and solved.
        scale: factor of the edge softness's scale, for every method alike. Use 1/4 where shapes are
            a quarter as large as those that it was tuned or learned on.

    Raises TypeError, naming what the family lacks.
    """

    title: str
    family: StudyFamily
    steps: int
    count: int = 128
    batch_size: int = 64
    scale: float = 1.0

    def __post_init__(self) -> None:
        missing = [name for name in _NEEDED if not hasattr(self.family, name)]
        if missing:
            raise TypeError(
                f"family: {type(self.family).__name__} lacks {', '.join(missing)}, which a study "
                "needs; see meta.StudyFamily"
            )


@dataclass(frozen=True)
class Training:
    """What is learned, and how.

    Args:
        learn: what is learnable; the ablation learns its schedules alone.
        settings, estimator, options, outer: as in `OuterTrainer`.
        rates: outer learning rates by the last word of a parameter's name ("weights",
            "log_values", ...).
        sigmas: the same for the perturbations of an estimator that has them; None leaves them out.
        table: whether a learned shape is evaluated by a table (see `learnable_method`).
        shape_options: options of `tr.MLPSoftness`.
        confirm: number of fresh tuning tasks on which the learned method must be better than its
            start, or the start is kept: the 95% interval of the ratio of their errors must lie
            below 1. It guards against the best of many iterates on few validation tasks being
            merely the luckiest. 0 keeps the best validated.

    Raises ValueError for a negative `confirm`.
    """

    learn: Learnable = field(default_factory=Learnable)
    settings: TrainerSettings = field(default_factory=TrainerSettings)
    estimator: Estimator = es_gradient
    options: Mapping[str, Any] = field(default_factory=dict)
    outer: OuterLoss = field(default_factory=OuterLoss)
    rates: Mapping[str, float] = field(
        default_factory=lambda: {"weights": 0.03, "progress_weights": 0.03, "log_values": 0.06}
    )
    sigmas: Mapping[str, float] | None = field(
        default_factory=lambda: {"weights": 0.08, "progress_weights": 0.08, "log_values": 0.15}
    )
    table: bool = True
    shape_options: Mapping[str, Any] = field(default_factory=dict)
    confirm: int = 0

    def __post_init__(self) -> None:
        if self.confirm < 0:
            raise ValueError(f"confirm must be >= 0, got {self.confirm}")


@dataclass(frozen=True)
class Study:
    """Everything that a study's numbers depend on.

    Args:
        name: the study's name, in messages.
        problem: the problem to learn on; its unseen tasks are of the stream "test".
        rule: the inner update rule.
        units: units of the unknowns that the rule moves, for the softening's card.
        transfers: further problems to judge on, by name.
        grid, rungs, tuning_batch: as in `BaselineTuner`.
        slow_grid: a smaller grid for distributions whose kernels are many times slower. Its best of
            each class skips from the first round to the last.
        wider_grid: grid of the wider search; None for none. Learning then starts at the best of all
            annealed configurations.
        finer: whether the best of each class is tuned again on a finer grid around it.
        gammas: temperatures of that finer grid; None if depth plays no part.
        training: how the softness is learned.
        max_batch: most inner runs side by side (memory).
    """

    name: str
    problem: Problem
    rule: UpdateRule
    units: str = ""
    transfers: Mapping[str, Problem] = field(default_factory=dict)
    grid: Grid = field(default_factory=Grid)
    rungs: Sequence[Rung] = (Rung(1), Rung(4, 36), Rung(16, 6))
    tuning_batch: int = 16
    slow_grid: Grid | None = None
    wider_grid: Grid | None = None
    finer: bool = True
    gammas: tuple[float, ...] | None = None
    training: Training = field(default_factory=Training)
    max_batch: int = 512


def soft_renderer(method: Method) -> tr.SoftRasterizer:
    """The renderer of a study's method, which some `StudyFamily.renderer` has made."""
    return cast(tr.SoftRasterizer, method.renderer)
