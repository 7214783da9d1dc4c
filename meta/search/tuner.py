"""Tune fixed softnesses as a careful expert would: by a grid, on the tuning stream.

A fixed softness is a distribution whose scale is constant or annealed (geometrically, from a start
to an end), with a learning rate that is constant or falls tenfold over the last 15% of the run and,
where asked, a temperature of the depth softmax (`meta.search.fixed`). Successive halving thins the
grid: all configurations are tried on a few tasks, the better ones on more. Constant and annealed
ones are thinned separately, so that both classes get the same care. A cache file holds every
result, so that an interrupted tuning can be resumed.

Configurations are ranked by the mean of log(error + floor), which is what the outer loop minimises
too; failure rate, mean and median of the error are recorded beside it. Under `torchrun` the
configurations are spread over processes (see `meta.outer.distributed`), with the same result.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from meta.console import progress_bar
from meta.evaluation.evaluate import candidate_errors
from meta.evaluation.stats import ERROR_FLOOR, FAILURE_THRESHOLD
from meta.inner.protocol import TaskBatch, TaskFamily
from meta.inner.updates import UpdateRule
from meta.outer.checkpoint import CheckpointError, describe, load_json, require_equal, save_json
from meta.outer.distributed import World, world
from meta.search.fixed import FixedSoftness, Grid, Renderer, fixed_method
from meta.search.ranking import Tuned, TuningResult, figures

logger = logging.getLogger(__name__)

KIND = "baseline-tuning"


@dataclass(frozen=True)
class Rung:
    """A round of halving: the best `keep` of each class (None: all), on `batches` task batches."""

    batches: int
    keep: int | None = None


@dataclass
class BaselineTuner:
    """Tunes fixed softnesses on a family.

    Args:
        family: tasks; configurations are compared on batches 0, 1, ... of its tuning stream. Its
            `error_floor` and `failure_threshold` are used where it has them, else those of
            `meta.evaluation.stats`.
        renderer: makes a renderer of an edge softness, and of a depth softness too if the grid has
            `gammas`, e.g. `Shape2D.renderer`.
        rule, steps: the inner loop, as in `Method`.
        grid: the configurations.
        rungs: rounds of halving, each on at least as many batches as the one before.
        batch_size: tasks in a batch.
        max_batch: most inner runs side by side.
        cache: JSON file of results; None keeps them in memory only.
        resume: use the results in `cache`, if it exists; False overwrites them.

    A configuration under which some task of a batch becomes infinite or NaN counts as infinitely
    wrong on that batch, and is logged.
    """

    family: TaskFamily
    renderer: Renderer
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
        self._world: World = world()
        self._floor = float(getattr(self.family, "error_floor", ERROR_FLOOR))
        self._threshold = float(getattr(self.family, "failure_threshold", FAILURE_THRESHOLD))
        self._errors: dict[str, dict[str, list[float]]] = self._world.from_main(self._known)

    def run(self, console: Console | None = None, quiet: bool = False) -> TuningResult:
        """Tune; Ctrl-C or a kill loses at most one batched solve (of each process)."""
        alive = self.grid.configurations()
        solved = dict.fromkeys(alive, 0)  # batches: what a cache holds beyond them does not count
        with progress_bar(console, quiet or not self._world.is_main) as bar:
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
        return TuningResult(self._ranked(solved), self._floor)

    def _solve(
        self, configs: Sequence[FixedSoftness], batch: int, done: Callable[[int], None]
    ) -> None:
        """Solve one task batch with every configuration that has not done so yet."""
        todo = [c for c in configs if str(batch) not in self._errors.get(c.key, {})]
        done((len(configs) - len(todo)) * self.batch_size)
        if not todo:
            return
        task = self.family.sample(self.batch_size, "tune", batch)
        plans = [self._chunks(todo, rank) for rank in range(self._world.size)]
        for turn in range(max(len(plan) for plan in plans)):
            ours = plans[self._world.rank][turn : turn + 1]
            found: dict[str, list[float]] = {}
            failed: Exception | None = None
            try:
                for chunk in ours:
                    found = self._solve_chunk(chunk, task, batch)
            except Exception as error:  # noqa: BLE001 - raised below, on every rank
                failed = error
            self._world.raise_any(failed)
            for rows in self._world.gather(found):
                for key, row in rows.items():
                    self._errors.setdefault(key, {})[str(batch)] = row
                done(len(rows) * self.batch_size)
            self._save()

    def _chunks(self, configs: Sequence[FixedSoftness], rank: int) -> list[list[FixedSoftness]]:
        """A rank's share of the configurations, in groups that are solved by one unroll each."""
        begin, end = (r * len(configs) // self._world.size for r in (rank, rank + 1))
        share = configs[begin:end]
        per_solve = max(1, self.max_batch // self.batch_size)
        chunks = []
        for kind in dict.fromkeys(config.kind for config in share):
            ours = [config for config in share if config.kind == kind]
            chunks += [ours[i : i + per_solve] for i in range(0, len(ours), per_solve)]
        return chunks

    def _solve_chunk(
        self, chunk: list[FixedSoftness], task: TaskBatch, batch: int
    ) -> dict[str, list[float]]:
        """Errors of configurations of one kind on each task, by key."""
        method = fixed_method(chunk[0], self.renderer, self.rule, self.steps)
        candidates = [config.parameters() for config in chunk]
        try:
            errors = candidate_errors(method, candidates, task, self.max_batch)
            if not np.isfinite(errors).all():
                raise FloatingPointError("an error at the end is not finite")
        except FloatingPointError as error:
            if len(chunk) == 1:
                logger.warning("%s diverges on tuning batch %d: %s", chunk[0].title, batch, error)
                return {chunk[0].key: [math.inf] * task.batch_size}
            middle = len(chunk) // 2
            first = self._solve_chunk(chunk[:middle], task, batch)
            return first | self._solve_chunk(chunk[middle:], task, batch)
        return {config.key: row.tolist() for config, row in zip(chunk, errors, strict=True)}

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
            entries.append(figures(config, errors, self._floor, self._threshold))
        return sorted(entries, key=lambda entry: (-entry.tasks, entry.score, entry.config.order))

    def _known(self) -> dict[str, dict[str, list[float]]]:
        """Errors by configuration and batch, from the cache."""
        if self.cache is None or not self.resume or not self.cache.is_file():
            return {}
        content = load_json(self.cache, KIND)
        require_equal(self.cache, content.get("settings") or {}, self._settings())
        if not isinstance(content.get("errors"), dict):
            raise CheckpointError(f"{self.cache} holds no errors; delete it and start again")
        return content["errors"]

    def _settings(self) -> dict[str, Any]:
        """What the results depend on; the grid and the rungs may change between runs."""
        return {
            "family": describe(self.family),
            "rule": describe(self.rule),
            "steps": self.steps,
            "batch_size": self.batch_size,
        }

    def _save(self) -> None:
        if self.cache is not None and self._world.is_main:
            content = {"kind": KIND, "settings": self._settings(), "errors": self._errors}
            save_json(self.cache, content)


def tuning_runs(grid: Grid, rungs: Sequence[Rung], batch_size: int) -> int:
    """The number of inner runs that a tuning takes."""
    constant = [config for config in grid.configurations() if not config.annealed]
    classes = [len(constant), len(grid.configurations()) - len(constant)]
    runs, before = 0, 0
    for rung in rungs:
        if rung.keep is not None:
            classes = [min(count, rung.keep) for count in classes]
        runs += sum(classes) * (rung.batches - before) * batch_size
        before = rung.batches
    return runs
