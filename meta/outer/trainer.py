"""The outer loop: Adam on a method's parameters along an estimated outer gradient.

Training starts at the method's own parameters, best those of a well-tuned baseline. It validates
the iterate and the running average of iterates on the tuning stream, and keeps the best of all, the
start included. The state is one checkpoint file. A resumed run gives the same numbers as one that
never stopped, to the bit if the renderer is deterministic.

Under `torchrun` the batches are spread over processes (see `meta.outer.distributed`). All ranks
hold the same state, and rank 0 writes the files.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from torch import Tensor

from meta.console import progress_bar
from meta.inner.method import Method
from meta.inner.protocol import TaskFamily
from meta.outer.adam import OuterAdam, rate_by_name, rate_factor
from meta.outer.checkpoint import checksum, describe, digest, fingerprint
from meta.outer.distributed import WorkerLost, world
from meta.outer.estimator import Estimator
from meta.outer.interrupt import sigterm_as_exit
from meta.outer.log import Board, TrainingLog
from meta.outer.loss import OuterLoss
from meta.outer.settings import TrainerSettings
from meta.outer.sharding import Batch, spread_estimate, spread_scores
from meta.outer.state import TrainingResult, TrainingState, Validated


class OuterTrainer:
    """Train a method's parameters on a family of tasks.

    Args:
        method: the method; `run` leaves it at the best validated parameters.
        family: tasks of streams "train" (to learn from) and "tune" (to validate on).
        outer: the outer loss. An estimator that cannot use it is refused.
        estimator: one of `meta.estimators`, or any `meta.Estimator`.
        options: options of the estimator, by name.
        settings: see `TrainerSettings`.
        folder: where "checkpoint.safetensors" and "log.jsonl" are written; None writes nothing.
        resume: True resumes from the checkpoint in `folder`; "auto" does so if there is one. False
            deletes it.
        validation: the outer loss that scores validations; OuterLoss("true") by default.
        tensorboard: also write the log's numbers to `folder`/tensorboard.

    Raises:
        ValueError: unknown or unusable arguments, among them an estimator with the wrong outer
            loss. `CheckpointError` (a ValueError) for a damaged or mismatched checkpoint.
        FileNotFoundError: to resume without a checkpoint.
        ImportError: `tensorboard` without that package.
    """

    def __init__(
        self,
        method: Method,
        family: TaskFamily,
        outer: OuterLoss,
        estimator: Estimator,
        options: Mapping[str, Any] | None = None,
        settings: TrainerSettings | None = None,
        folder: Path | str | None = None,
        resume: bool | Literal["auto"] = False,
        validation: OuterLoss | None = None,
        tensorboard: bool = False,
    ):
        estimator.check(outer)
        self.method = method
        self.family = family
        self.outer = outer
        self.estimator = estimator
        self.options = dict(options or {})
        self.settings = settings or TrainerSettings()
        self.validation = validation or OuterLoss("true")
        self.folder = None if folder is None else Path(folder)
        self._world = world()
        self._world.shard(self.settings.batch_size)
        self._world.shard(self.settings.validation_batch_size, "validation_batch_size")
        self._rates = rate_by_name(method, self.settings.lr)
        self._state = self._initial_state()
        self._settings = self._all_settings()
        self._world.require_equal("settings and starting methods", digest(repr(self._settings)))
        writes = self.folder is not None and self._world.is_main
        self._log = TrainingLog(self.log_path if writes else None)
        if resume not in (True, False, "auto"):
            raise ValueError(f"resume: expected True, False or 'auto', got {resume!r}")
        self._begin(resume)
        self._board = Board(self._board_folder(tensorboard), self.iteration)

    @property
    def checkpoint_path(self) -> Path:
        """The checkpoint's place; ValueError if the trainer has no folder."""
        return self._folder() / "checkpoint.safetensors"

    @property
    def log_path(self) -> Path:
        """The log's place: one JSON object a line, one line an iteration."""
        return self._folder() / "log.jsonl"

    @property
    def iteration(self) -> int:
        """Outer iterations done."""
        return self._state.iteration

    def run(
        self,
        time_budget: float | None = None,
        console: Console | None = None,
        quiet: bool = False,
        description: str = "outer training",
    ) -> TrainingResult:
        """Train to the end, or until `time_budget` seconds are over, checked between iterations.

        The budget only stops a run: it changes no number, and the run can be resumed. After Ctrl-C,
        SIGTERM, the loss of another process or numbers that are not finite (FloatingPointError), a
        checkpoint of the last whole iteration is written before the exception is raised.
        """
        begin = time.monotonic()
        total = self.settings.iterations
        generator = torch.Generator()
        generator.set_state(self._state.generator)
        self.method.load(self._state.current)
        optimiser = OuterAdam(self.method, self._rates, self._state.adam)

        def over() -> bool:
            return time_budget is not None and time.monotonic() - begin > time_budget

        with sigterm_as_exit() as ignore_sigterm:
            try:
                with progress_bar(console, quiet or not self._world.is_main) as bar:
                    if self._state.best is None:
                        self._state = self._validate(self._state)[0]
                    line = bar.add_task(
                        description, total=total, completed=self.iteration, note=self._note()
                    )
                    while self.iteration < total:
                        if time_budget is not None and self._world.from_main(over):
                            break
                        self._step(optimiser, generator)
                        bar.update(line, completed=self.iteration, note=self._note())
            except (KeyboardInterrupt, SystemExit, FloatingPointError, WorkerLost):
                ignore_sigterm()
                self.save()
                raise
            finally:
                self._board.close()
        self.save()
        best = self._state.best
        assert best is not None
        self.method.load(best.parameters)
        return TrainingResult(
            best=best,
            start_score=self._state.start_score,
            iteration=self.iteration,
            finished=self.iteration >= total,
            history=list(self._log.entries),
        )

    def save(self) -> None:
        """Write the checkpoint (if there is a folder, and by rank 0), atomically."""
        if self.folder is not None and self._world.is_main:
            self._state.save(self.checkpoint_path, self._settings)

    def _step(self, optimiser: OuterAdam, generator: torch.Generator) -> None:
        """One outer iteration; the state changes in one assignment at its end."""
        begin = time.monotonic()
        state, settings = self._state, self.settings
        batch = Batch(
            self.family, "train", state.iteration, settings.batch_size, settings.nonfinite
        )
        try:
            estimate, skipped = spread_estimate(
                self._world, batch, self.estimator, self.method, self.outer, generator, self.options
            )
        except FloatingPointError as error:
            raise FloatingPointError(f"outer iteration {state.iteration}: {error}") from error
        factor = rate_factor(settings, state.iteration)
        norm = optimiser.step(estimate.grads, factor, settings.clip)
        current = self.method.parameter_dict()
        keep = settings.average
        state = replace(
            state,
            iteration=state.iteration + 1,
            current=current,
            average={k: keep * v + (1 - keep) * current[k] for k, v in state.average.items()},
            adam=optimiser.state(),
            generator=generator.get_state(),
        )
        entry: dict[str, Any] = {
            "iteration": state.iteration,
            "loss": estimate.loss,
            "grad_norm": norm,
            "lr_factor": factor,
            **estimate.info,
        }
        if skipped:
            entry |= {"skipped": len(skipped), "skipped_instances": list(skipped)}
        if state.iteration % settings.validate_every == 0 or state.iteration == settings.iterations:
            state, entry["validation"] = self._validate(state)
        entry["seconds"] = time.monotonic() - begin
        self._log.append(entry)
        self._board.append(entry)
        self._state = state
        if state.iteration % settings.checkpoint_every == 0:
            self.save()

    def _validate(self, state: TrainingState) -> tuple[TrainingState, dict[str, float]]:
        """Score the iterate and the average on the same tasks; keep the best."""
        self._world.require_equal("parameters", checksum(state.current))
        candidates = {"iterate": state.current}
        if state.iteration > 0 and self.settings.average > 0:
            candidates["average"] = state.average
        scores, unsolved = self._scores(list(candidates.values()), state.iteration)
        best = state.best
        for (source, parameters), score in zip(candidates.items(), scores, strict=True):
            if best is None or score < best.score:
                best = Validated(parameters, score, state.iteration, source)
        start_score = scores[0] if state.iteration == 0 else state.start_score
        report: dict[str, float] = dict(zip(candidates, scores, strict=True))
        if unsolved:
            report["unsolved"] = unsolved
        return replace(state, best=best, start_score=start_score), report

    def _scores(
        self, candidates: list[dict[str, Tensor]], iteration: int
    ) -> tuple[list[float], int]:
        settings = self.settings
        batches = [
            Batch(
                self.family,
                "tune",
                settings.validation_index + index,
                settings.validation_batch_size,
                settings.nonfinite,
            )
            for index in range(settings.validation_batches)
        ]
        try:
            return spread_scores(
                self._world, batches, self.method, candidates, self.validation, settings.max_batch
            )
        except FloatingPointError as error:
            raise FloatingPointError(
                f"validation at outer iteration {iteration}: {error}"
            ) from error

    def _initial_state(self) -> TrainingState:
        start = self.method.parameter_dict()
        generator = torch.Generator()
        generator.manual_seed(self.settings.seed)
        return TrainingState(
            iteration=0, current=start, average=start, adam={}, generator=generator.get_state()
        )

    def _begin(self, resume: bool | Literal["auto"]) -> None:
        """Rank 0 reads the checkpoint, or deletes an old one; all ranks start from its state."""
        shapes = {name: tuple(value.shape) for name, value in self.method.learnable().items()}

        def look() -> TrainingState | None:
            if resume is True or (resume == "auto" and self.checkpoint_path.is_file()):
                return TrainingState.load(self.checkpoint_path, self._settings, shapes)
            if self.folder is not None:
                self.checkpoint_path.unlink(missing_ok=True)
                self.log_path.unlink(missing_ok=True)
            return None

        found = self._world.from_main(look)
        if found is not None:
            self._state = found
            self._log.restore(found.iteration)

    def _board_folder(self, wanted: bool) -> Path | None:
        folder = self._folder() / "tensorboard" if wanted else None
        return folder if self._world.is_main else None

    def _all_settings(self) -> dict[str, Any]:
        """Everything on which the numbers of a run depend, except the code."""
        settings = asdict(self.settings)
        for harmless in ("checkpoint_every", "max_batch"):
            del settings[harmless]
        if settings["nonfinite"] == "stop":  # as checkpoints had it before there was a choice
            del settings["nonfinite"]
        return {
            **settings,
            "family": describe(self.family),
            "outer": asdict(self.outer),
            "validation": asdict(self.validation),
            "estimator": self.estimator.name,
            "options": {k: v for k, v in self.options.items() if k != "max_batch"},
            "rule": describe(self.method.rule),
            "steps": self.method.steps,
            "method": fingerprint(self.method),
        }

    def _note(self) -> str:
        best = self._state.best
        if best is None:
            return ""
        return f"validation {best.score:.3f} (start {self._state.start_score:.3f})"

    def _folder(self) -> Path:
        if self.folder is None:
            raise ValueError("folder: this trainer was made without one and writes no files")
        return self.folder
