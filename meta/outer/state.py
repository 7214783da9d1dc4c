"""The state of an outer training between two iterations, as a checkpoint, and its result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from meta.evaluation.stats import Comparison
from meta.outer.checkpoint import (
    CheckpointError,
    load_checkpoint,
    require_equal,
    save_checkpoint,
)

KIND = "outer-training"


@dataclass(frozen=True)
class Validated:
    """Parameters with their score: the mean validation loss, lower is better."""

    parameters: dict[str, Tensor]
    score: float
    iteration: int
    source: str


@dataclass(frozen=True)
class TrainingState:
    """The whole state of an outer training between two iterations."""

    iteration: int
    current: dict[str, Tensor]
    average: dict[str, Tensor]
    adam: dict[str, dict[str, Tensor]]
    generator: Tensor
    best: Validated | None = None
    start_score: float = math.nan

    def save(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Write a checkpoint, atomically; `load` requires equal `settings` (JSON)."""
        tensors = {f"current/{k}": v for k, v in self.current.items()}
        tensors |= {f"average/{k}": v for k, v in self.average.items()}
        for name, parts in self.adam.items():
            tensors |= {f"adam/{name}/{part}": value for part, value in parts.items()}
        tensors["generator"] = self.generator
        content: dict[str, Any] = {
            "kind": KIND,
            "settings": settings,
            "iteration": self.iteration,
            "start_score": self.start_score,
        }
        if self.best is not None:
            tensors |= {f"best/{k}": v for k, v in self.best.parameters.items()}
            content["best"] = {
                "score": self.best.score,
                "iteration": self.best.iteration,
                "source": self.best.source,
            }
        save_checkpoint(path, tensors, content)

    @staticmethod
    def load(path: Path, settings: Mapping[str, Any], shapes: Mapping[str, Any]) -> TrainingState:
        """The state in a checkpoint, for parameters of these `shapes`.

        Raises FileNotFoundError, or CheckpointError if the file is damaged or its settings or
        shapes are others.
        """
        tensors, content = load_checkpoint(path, KIND)
        missing = sorted({"settings", "iteration", "start_score"} - content.keys())
        if missing or "generator" not in tensors:
            raise CheckpointError(f"{path}: it lacks {missing or ['generator']}; start again")
        require_equal(path, content["settings"], settings)
        adam: dict[str, dict[str, Tensor]] = {}
        for name, value in _part(tensors, "adam/").items():
            parameter, _, entry = name.rpartition("/")
            adam.setdefault(parameter, {})[entry] = value
        best = content.get("best")
        parts = {"current": _part(tensors, "current/"), "average": _part(tensors, "average/")}
        if best is not None:
            parts["best"] = _part(tensors, "best/")
        for part, held in parts.items():
            saved = {name: tuple(value.shape) for name, value in held.items()}
            if saved != dict(shapes):
                raise CheckpointError(
                    f"{path}: it holds parameters ({part}) {saved}, expected {dict(shapes)}"
                )
        return TrainingState(
            iteration=content["iteration"],
            current=parts["current"],
            average=parts["average"],
            adam=adam,
            generator=tensors["generator"],
            best=None if best is None else Validated(parts["best"], **best),
            start_score=content["start_score"],
        )


@dataclass(frozen=True)
class TrainingResult:
    """The best validated parameters, the score of the start, and the iterations done.

    `confirmed` compares them with the start on fresh tasks, if a study asked for that. If they are
    not better, `best` is the start.
    """

    best: Validated
    start_score: float
    iteration: int
    finished: bool
    history: list[dict[str, Any]] = field(repr=False)
    confirmed: Comparison | None = None

    @property
    def summary(self) -> str:
        """The scores of the start and of the best in one phrase, for a log or a table."""
        return (
            f"validation {self.start_score:.3f} before, {self.best.score:.3f} after (the "
            f"{self.best.source} at outer iteration {self.best.iteration} of {self.iteration})"
        )


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
