"""The outer loop: Adam on a method's parameters along an estimated outer gradient.

Training starts wherever the method stands (best: at a well-tuned baseline), validates both the
iterate and the running average of iterates on the tuning stream, and keeps the best that it saw,
the start included. Every iteration can be the last: the state is in one checkpoint file, from which
a run goes on as if it had never stopped, to the bit when the renderer is deterministic.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from meta.checkpoint import describe
from meta.console import progress_bar
from meta.evaluate import candidate_errors
from meta.method import Method
from meta.outer import Estimator, OuterGradient, OuterLoss
from meta.protocol import TaskFamily
from meta.training import (
    TrainerSettings,
    TrainingLog,
    TrainingResult,
    TrainingState,
    Validated,
    fingerprint,
)


class OuterTrainer:
    """Train a method's parameters on a family of tasks.

    Args:
        method: the method; `run` leaves it at the best validated parameters.
        family: tasks of streams "train" (to learn from) and "tune" (to validate on).
        outer: the outer loss. An estimator that cannot use it is refused.
        estimator: one of `meta.estimators`, or any `meta.outer.Estimator`.
        options: options of the estimator, by name.
        settings: see `TrainerSettings`.
        folder: where "checkpoint.safetensors" and "log.jsonl" are written; None writes nothing.
        resume: go on from the checkpoint in `folder`; otherwise one that is there is deleted.
        validation: how the validation scores an end; OuterLoss("true") by default.

    Raises:
        ValueError: unknown or unusable arguments, among them an estimator with the wrong outer
            loss. `CheckpointError` (a ValueError) for a damaged or mismatched checkpoint.
        FileNotFoundError: to resume without a checkpoint.
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
        resume: bool = False,
        validation: OuterLoss | None = None,
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
        self._rates = self._rate_by_name()
        self._state = self._initial_state()
        self._settings = self._all_settings()
        self._log = TrainingLog(None if self.folder is None else self.log_path)
        if resume:
            self._restore()
        elif self.folder is not None:
            self.checkpoint_path.unlink(missing_ok=True)
            self.log_path.unlink(missing_ok=True)

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

        The budget only stops a run: it changes no number, and the run can be resumed. Ctrl-C writes
        a checkpoint of the last whole iteration and is raised again.
        """
        begin = time.monotonic()
        total = self.settings.iterations
        generator = torch.Generator()
        generator.set_state(self._state.generator)
        self.method.load(self._state.current)
        optimiser = self._optimiser()
        try:
            with progress_bar(console, quiet) as bar:
                if self._state.best is None:
                    self._state = self._validate(self._state)[0]
                line = bar.add_task(
                    description, total=total, completed=self.iteration, note=self._note()
                )
                while self.iteration < total:
                    if time_budget is not None and time.monotonic() - begin > time_budget:
                        break
                    self._step(optimiser, generator)
                    bar.update(line, completed=self.iteration, note=self._note())
        except KeyboardInterrupt:
            self.save()
            raise
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
        """Write the checkpoint (if there is a folder), atomically."""
        if self.folder is not None:
            self._state.save(self.checkpoint_path, self._settings)

    def _step(self, optimiser: torch.optim.Adam, generator: torch.Generator) -> None:
        """One outer iteration; the state changes in one assignment at its end."""
        begin = time.monotonic()
        state, settings = self._state, self.settings
        task = self.family.sample(settings.batch_size, "train", state.iteration)
        estimate = self.estimator(
            self.method, task, self.outer, generator=generator, **self.options
        )
        factor = self._rate_factor(state.iteration)
        for group in optimiser.param_groups:
            group["lr"] = self._rates[group["name"]] * factor
        norm = self._apply(estimate, optimiser)
        current = self.method.parameter_dict()
        keep = settings.average
        state = replace(
            state,
            iteration=state.iteration + 1,
            current=current,
            average={k: keep * v + (1 - keep) * current[k] for k, v in state.average.items()},
            adam=self._adam_state(optimiser),
            generator=generator.get_state(),
        )
        entry: dict[str, Any] = {
            "iteration": state.iteration,
            "loss": estimate.loss,
            "grad_norm": norm,
            "lr_factor": factor,
            **estimate.info,
        }
        if state.iteration % settings.validate_every == 0 or state.iteration == settings.iterations:
            state, entry["validation"] = self._validate(state)
        entry["seconds"] = time.monotonic() - begin
        self._log.append(entry)
        self._state = state
        if state.iteration % settings.checkpoint_every == 0:
            self.save()

    def _apply(self, estimate: OuterGradient, optimiser: torch.optim.Adam) -> float:
        """Set, check and clip the gradients, and step; returns their norm before clipping."""
        optimiser.zero_grad(set_to_none=True)
        used = []
        for name, parameter in self.method.learnable().items():
            if name not in estimate.grads:
                continue
            gradient = estimate.grads[name]
            if not bool(torch.isfinite(gradient).all()):
                raise FloatingPointError(
                    f"outer iteration {self.iteration}: the {self.estimator.name} gradient of "
                    f"{name} is not finite; shorten the inner loop or lower its learning rate"
                )
            parameter.grad = gradient.to(parameter).clone()
            used.append(parameter)
        limit = math.inf if self.settings.clip is None else self.settings.clip
        norm = torch.nn.utils.clip_grad_norm_(used, limit)
        optimiser.step()
        return norm.item()

    def _validate(self, state: TrainingState) -> tuple[TrainingState, dict[str, float]]:
        """Score the iterate and the average on the same tasks; keep the best."""
        candidates = {"iterate": state.current}
        if state.iteration > 0 and self.settings.average > 0:
            candidates["average"] = state.average
        scores = self._scores(list(candidates.values()))
        best = state.best
        for (source, parameters), score in zip(candidates.items(), scores, strict=True):
            if best is None or score < best.score:
                best = Validated(parameters, score, state.iteration, source)
        start_score = scores[0] if state.iteration == 0 else state.start_score
        report = dict(zip(candidates, scores, strict=True))
        return replace(state, best=best, start_score=start_score), report

    def _scores(self, candidates: list[dict[str, Tensor]]) -> list[float]:
        settings = self.settings
        losses = []
        for index in range(settings.validation_batches):
            task = self.family.sample(
                settings.validation_batch_size, "tune", settings.validation_index + index
            )
            errors = candidate_errors(
                self.method,
                candidates,
                task,
                settings.max_batch,
                lambda repeated, unknowns: self.validation.per_instance(
                    self.method, repeated, unknowns
                ),
            )
            losses.append(errors.astype(float).mean(axis=1))
        return [float(score) for score in sum(losses) / len(losses)]

    def _initial_state(self) -> TrainingState:
        start = self.method.parameter_dict()
        generator = torch.Generator()
        generator.manual_seed(self.settings.seed)
        return TrainingState(
            iteration=0, current=start, average=start, adam={}, generator=generator.get_state()
        )

    def _optimiser(self) -> torch.optim.Adam:
        groups = [
            {"params": [parameter], "name": name, "lr": self._rates[name]}
            for name, parameter in self.method.learnable().items()
        ]
        optimiser = torch.optim.Adam(groups)
        for name, parameter in self.method.learnable().items():
            if name in self._state.adam:
                optimiser.state[parameter] = {
                    part: value.clone() for part, value in self._state.adam[name].items()
                }
        return optimiser

    def _adam_state(self, optimiser: torch.optim.Adam) -> dict[str, dict[str, Tensor]]:
        return {
            name: {part: value.clone() for part, value in optimiser.state[parameter].items()}
            for name, parameter in self.method.learnable().items()
            if parameter in optimiser.state
        }

    def _rate_by_name(self) -> dict[str, float]:
        names = list(self.method.learnable())
        if not names:
            raise ValueError("method: it has no learnable parameter, so there is nothing to train")
        if not isinstance(self.settings.lr, Mapping):
            return dict.fromkeys(names, float(self.settings.lr))
        if self.settings.lr.keys() != set(names):
            raise ValueError(
                f"lr: expected a value for each of {names}, got {sorted(self.settings.lr)}"
            )
        return dict(self.settings.lr)

    def _rate_factor(self, iteration: int) -> float:
        if self.settings.lr_policy == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * iteration / self.settings.iterations))

    def _restore(self) -> None:
        shapes = {name: tuple(value.shape) for name, value in self.method.learnable().items()}
        self._state = TrainingState.load(self.checkpoint_path, self._settings, shapes)
        self._log.restore(self._state.iteration)

    def _all_settings(self) -> dict[str, Any]:
        """Everything on which the numbers of a run depend, except the code."""
        settings = asdict(self.settings)
        for harmless in ("checkpoint_every", "max_batch"):
            del settings[harmless]
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
