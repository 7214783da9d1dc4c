"""The results of a tuning: every configuration with its figures, best first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from meta.evaluation.stats import ERROR_FLOOR
from meta.search.fixed import FixedSoftness


@dataclass(frozen=True)
class Tuned:
    """A configuration and its figures on the first `tasks` tuning tasks; `score` ranks."""

    config: FixedSoftness
    tasks: int
    score: float
    failure_rate: float
    mean: float
    median: float


@dataclass(frozen=True)
class TuningResult:
    """All configurations, those that were tried on most tasks first, best first among equals.

    `floor` was added to errors before their logarithm was taken.
    """

    ranking: list[Tuned]
    floor: float = ERROR_FLOOR

    def best(self, among: Callable[[FixedSoftness], bool]) -> Tuned:
        """The best of the configurations for which `among` holds; ValueError if there is none."""
        for entry in self.ranking:
            if among(entry.config):
                return entry
        raise ValueError("among: the grid has no such configuration")

    @property
    def best_constant(self) -> Tuned:
        """The best configuration with a constant scale."""
        return self.best(lambda config: not config.annealed)

    @property
    def best_annealed(self) -> Tuned:
        """The best configuration with an annealed scale."""
        return self.best(lambda config: config.annealed)


def ranking_markdown(result: TuningResult, count: int = 12) -> str:
    """The best `count` entries as a Markdown table."""
    lines = [
        f"| softness | tasks | mean log(error + {result.floor:g}) | failures % | mean | median |",
        "|" + " --- |" * 6,
    ]
    lines += [
        f"| {entry.config.title} | {entry.tasks} | {entry.score:.3f} | "
        f"{100 * entry.failure_rate:.1f} | {entry.mean:.4f} | {entry.median:.4f} |"
        for entry in result.ranking[:count]
    ]
    return "\n".join(lines) + "\n"


def figures(config: FixedSoftness, errors: np.ndarray, floor: float, threshold: float) -> Tuned:
    """What a configuration's errors (tasks,) come to; one above `threshold` is a failure."""
    return Tuned(
        config=config,
        tasks=len(errors),
        score=float(np.log(errors + floor).mean()),
        failure_rate=float((errors > threshold).mean()),
        mean=float(errors.mean()),
        median=float(np.median(errors)),
    )
