"""What a careful expert would use: fixed softnesses, tuned by grid on the tuning stream.

A fixed softness is a distribution whose scale is constant or annealed (geometrically, from a start
to an end), with a learning rate that is constant or falls tenfold over the last 15% of the run. The
grid is thinned by successive halving, separately for the constant and the annealed, so that both
classes get the same care: all configurations on a few tasks, the better ones on more. Whatever has
been solved is kept in a file, so that an interrupted tuning goes on where it was.

Configurations are ranked by the mean of log(error + 1e-3), which is what the outer loop minimises
too; failure rate, mean and median of the error are recorded beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

import taichi_raster as tr
from meta.checkpoint import describe, load_json, require_equal, save_json
from meta.console import progress_bar
from meta.evaluate import candidate_errors
from meta.method import Method
from meta.protocol import TaskFamily
from meta.stats import ERROR_FLOOR, FAILURE_THRESHOLD
from meta.updates import UpdateRule

KIND = "baseline-tuning"
DECAY_BEGINS = 0.85
DECAY_FACTOR = 0.1
LR_POSITIONS = (0.0, DECAY_BEGINS, 1.0)


@dataclass(frozen=True, order=True)
class FixedSoftness:
    """One configuration: scale start -> end (equal: constant; in NDC), learning rate, decay."""

    distribution: str
    start: float
    end: float
    lr: float
    decay: bool

    @property
    def annealed(self) -> bool:
        """Whether the scale changes."""
        return self.start != self.end

    @property
    def key(self) -> str:
        """A text that identifies the configuration in files."""
        return f"{self.distribution} {self.start!r} {self.end!r} {self.lr!r} {self.decay}"

    @property
    def title(self) -> str:
        """For tables: "logistic 0.16 -> 0.01, lr 0.15 decaying"."""
        scale = f"{self.start:g} -> {self.end:g}" if self.annealed else f"{self.start:g}"
        return f"{self.distribution} {scale}, lr {self.lr:g}{' decaying' if self.decay else ''}"

    @property
    def lr_values(self) -> list[float]:
        """Learning rates at LR_POSITIONS."""
        return [self.lr, self.lr, self.lr * (DECAY_FACTOR if self.decay else 1)]

    def edge(self) -> tr.EdgeSoftness:
        """The softness as a renderer takes it; its scale is a two-knot schedule."""
        return tr.Distribution(self.distribution, scale=tr.Knots([self.start, self.end]))

    def lr_schedule(self) -> tr.Schedule:
        """The learning rate as a schedule."""
        return tr.Knots(self.lr_values, positions=LR_POSITIONS)

    def parameters(self) -> dict[str, Tensor]:
        """Parameters of a `Method` made of `edge()` and `lr_schedule()`, by name."""
        return {
            "renderer.edge.scale.log_values": _logs([self.start, self.end]),
            "lr.log_values": _logs(self.lr_values),
        }


@dataclass(frozen=True)
class Grid:
    """Every combination; annealed scales run from each of `scales` to each lower of `ends`."""

    distributions: tuple[str, ...] = ("logistic", "gaussian", "uniform")
    scales: tuple[float, ...] = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
    ends: tuple[float, ...] = (0.005, 0.01, 0.02)
    lrs: tuple[float, ...] = (0.03, 0.06, 0.12, 0.24)
    decays: tuple[bool, ...] = (False, True)

    def configurations(self) -> list[FixedSoftness]:
        """All of them, in a fixed order."""
        pairs = [(scale, scale) for scale in self.scales]
        pairs += [(scale, end) for scale in self.scales for end in self.ends if end < scale]
        return [
            FixedSoftness(name, start, end, lr, decay)
            for name in self.distributions
            for start, end in pairs
            for lr in self.lrs
            for decay in self.decays
        ]


@dataclass(frozen=True)
class Rung:
    """A round of halving: the best `keep` of each class (None: all), on `batches` task batches."""

    batches: int
    keep: int | None = None


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
    """All configurations, those that were tried on most tasks first, best first among equals."""

    ranking: list[Tuned]

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


@dataclass
class BaselineTuner:
    """Tunes fixed softnesses on a family.

    Args:
        family: tasks; configurations are compared on batches 0, 1, ... of its tuning stream.
        renderer: makes a renderer of an edge softness, e.g. `Shape2D.renderer`.
        rule, steps: the inner loop, as in `Method`.
        grid: the configurations.
        rungs: rounds of halving, each on at least as many batches as the one before.
        batch_size: tasks in a batch.
        max_batch: most inner runs side by side.
        cache: JSON file of results; None keeps them in memory only.
        resume: use the results in `cache`, if it exists; otherwise they are thrown away.
    """

    family: TaskFamily
    renderer: Callable[[tr.EdgeSoftness], nn.Module]
    rule: UpdateRule
    steps: int
    grid: Grid = field(default_factory=Grid)
    rungs: Sequence[Rung] = (Rung(1), Rung(4, 36), Rung(16, 6))
    batch_size: int = 16
    max_batch: int = 512
    cache: Path | None = None
    resume: bool = False

    def __post_init__(self) -> None:
        if not self.rungs or self.rungs[0].keep is not None:
            raise ValueError("rungs: the first must try all configurations (keep=None)")
        counts = [rung.batches for rung in self.rungs]
        if counts != sorted(counts) or counts[0] < 1:
            raise ValueError(f"rungs: batches must be >= 1 and not fall, got {counts}")
        self._errors: dict[str, dict[str, list[float]]] = {}
        if self.cache is not None and self.resume and self.cache.is_file():
            content = load_json(self.cache, KIND)
            require_equal(self.cache, content["settings"], self._settings())
            self._errors = content["errors"]

    def run(self, console: Console | None = None, quiet: bool = False) -> TuningResult:
        """Tune; Ctrl-C or a kill loses at most one batched solve."""
        alive = self.grid.configurations()
        solved = dict.fromkeys(alive, 0)  # batches: what a cache holds beyond them does not count
        with progress_bar(console, quiet) as bar:
            for number, rung in enumerate(self.rungs):
                if rung.keep is not None:
                    alive = self._survivors(solved, alive, rung.keep)
                line = bar.add_task(
                    f"tuning fixed softnesses, round {number + 1} of {len(self.rungs)}",
                    total=len(alive) * rung.batches * self.batch_size,
                    note=f"{len(alive)} softnesses",
                )
                for batch in range(rung.batches):
                    self._solve(alive, batch, partial(bar.advance, line))
                solved |= dict.fromkeys(alive, rung.batches)
        return TuningResult(self._ranked(solved))

    def _solve(
        self, configs: Sequence[FixedSoftness], batch: int, done: Callable[[int], None]
    ) -> None:
        """Solve one task batch with every configuration that has not done so yet."""
        task = self.family.sample(self.batch_size, "tune", batch)
        for name in self.grid.distributions:
            ours = [config for config in configs if config.distribution == name]
            todo = [c for c in ours if str(batch) not in self._errors.get(c.key, {})]
            done((len(ours) - len(todo)) * self.batch_size)
            if not todo:
                continue
            method = fixed_method(todo[0], self.renderer, self.rule, self.steps)
            per_solve = max(1, self.max_batch // self.batch_size)
            for begin in range(0, len(todo), per_solve):
                chunk = todo[begin : begin + per_solve]
                candidates = [config.parameters() for config in chunk]
                errors = candidate_errors(method, candidates, task, self.max_batch, done=done)
                for config, row in zip(chunk, errors, strict=True):
                    self._errors.setdefault(config.key, {})[str(batch)] = row.tolist()
                self._save()

    def _survivors(
        self, solved: dict[FixedSoftness, int], alive: list[FixedSoftness], keep: int
    ) -> list[FixedSoftness]:
        """The best `keep` of each class among those alive."""
        ranked = [entry.config for entry in self._ranked({c: solved[c] for c in alive})]
        constant = [config for config in ranked if not config.annealed][:keep]
        annealed = [config for config in ranked if config.annealed][:keep]
        return constant + annealed

    def _ranked(self, solved: dict[FixedSoftness, int]) -> list[Tuned]:
        entries = []
        for config, batches in solved.items():
            by_batch = self._errors[config.key]
            errors = np.concatenate([by_batch[str(batch)] for batch in range(batches)])
            entries.append(_figures(config, errors))
        return sorted(entries, key=lambda entry: (-entry.tasks, entry.score, entry.config))

    def _settings(self) -> dict[str, Any]:
        """What the results depend on; the grid and the rungs may change between runs."""
        return {
            "family": describe(self.family),
            "rule": describe(self.rule),
            "steps": self.steps,
            "batch_size": self.batch_size,
        }

    def _save(self) -> None:
        if self.cache is not None:
            content = {"kind": KIND, "settings": self._settings(), "errors": self._errors}
            save_json(self.cache, content)


def fixed_method(
    config: FixedSoftness,
    renderer: Callable[[tr.EdgeSoftness], nn.Module],
    rule: UpdateRule,
    steps: int,
) -> Method:
    """The method that solves tasks with a fixed softness."""
    return Method(renderer(config.edge()), rule, config.lr_schedule(), steps)


def tuning_runs(grid: Grid, rungs: Sequence[Rung], batch_size: int) -> int:
    """How many inner runs a tuning takes."""
    constant = [config for config in grid.configurations() if not config.annealed]
    classes = [len(constant), len(grid.configurations()) - len(constant)]
    runs, before = 0, 0
    for rung in rungs:
        if rung.keep is not None:
            classes = [min(count, rung.keep) for count in classes]
        runs += sum(classes) * (rung.batches - before) * batch_size
        before = rung.batches
    return runs


def ranking_markdown(result: TuningResult, count: int = 12) -> str:
    """The best `count` entries as a Markdown table."""
    lines = [
        "| softness | tasks | mean log(error + 0.001) | failures % | mean | median |",
        "|" + " --- |" * 6,
    ]
    for entry in result.ranking[:count]:
        lines.append(
            f"| {entry.config.title} | {entry.tasks} | {entry.score:.3f} | "
            f"{100 * entry.failure_rate:.1f} | {entry.mean:.4f} | {entry.median:.4f} |"
        )
    return "\n".join(lines) + "\n"


def _figures(config: FixedSoftness, errors: np.ndarray) -> Tuned:
    return Tuned(
        config=config,
        tasks=len(errors),
        score=float(np.log(errors + ERROR_FLOOR).mean()),
        failure_rate=float((errors > FAILURE_THRESHOLD).mean()),
        mean=float(errors.mean()),
        median=float(np.median(errors)),
    )


def _logs(values: Sequence[float]) -> Tensor:
    return torch.tensor([math.log(value) for value in values], dtype=torch.float64)
