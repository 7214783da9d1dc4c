"""What an outer training is made of between two iterations: its settings, its state, its log."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from meta.checkpoint import (
    CheckpointError,
    load_checkpoint,
    require_equal,
    save_checkpoint,
    write_atomically,
)

KIND = "outer-training"


@dataclass(frozen=True)
class TrainerSettings:
    """Numbers of an outer training.

    Args:
        iterations: outer steps, >= 1.
        batch_size: instances of an outer step; step i uses batch i of the training stream.
        lr: outer learning rate (> 0), for all parameters or by name.
        lr_policy: "cosine" falls from `lr` to 0 over the iterations; "constant".
        clip: largest norm of the whole outer gradient; None for no clipping.
        average: decay in [0, 1) of the running average of iterates; 0 for none.
        validate_every: iterations between validations.
        validation_batches, validation_batch_size, validation_index: validation tasks: so many
            batches of the tuning stream, beginning at this index. The default keeps clear of the
            first batches, on which a baseline was probably chosen.
        checkpoint_every: iterations between checkpoints.
        seed: of the estimator's random directions.
        max_batch: most inner runs side by side in validation.
    """

    iterations: int = 100
    batch_size: int = 16
    lr: float | Mapping[str, float] = 0.02
    lr_policy: Literal["cosine", "constant"] = "cosine"
    clip: float | None = 1.0
    average: float = 0.9
    validate_every: int = 10
    validation_batches: int = 4
    validation_batch_size: int = 32
    validation_index: int = 1000
    checkpoint_every: int = 1
    seed: int = 0
    max_batch: int = 512

    def __post_init__(self) -> None:
        for name in (
            "iterations",
            "batch_size",
            "validate_every",
            "validation_batches",
            "validation_batch_size",
            "checkpoint_every",
            "max_batch",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        rates = self.lr.values() if isinstance(self.lr, Mapping) else [self.lr]
        if not all(math.isfinite(rate) and rate > 0 for rate in rates):
            raise ValueError(f"lr must be finite and > 0, got {self.lr}")
        if self.lr_policy not in ("cosine", "constant"):
            raise ValueError(f"lr_policy: expected 'cosine' or 'constant', got {self.lr_policy!r}")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip must be > 0 or None, got {self.clip}")
        if not 0 <= self.average < 1:
            raise ValueError(f"average must lie in [0, 1), got {self.average}")


@dataclass(frozen=True)
class Validated:
    """Parameters with their score: the mean validation loss, lower is better."""

    parameters: dict[str, Tensor]
    score: float
    iteration: int
    source: str


@dataclass(frozen=True)
class TrainingState:
    """All that an outer training knows between two iterations."""

    iteration: int
    current: dict[str, Tensor]
    average: dict[str, Tensor]
    adam: dict[str, dict[str, Tensor]]
    generator: Tensor
    best: Validated | None = None
    start_score: float = math.nan

    def save(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Write a checkpoint, atomically; `load` will insist on these `settings` (JSON)."""
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
        require_equal(path, content["settings"], settings)
        adam: dict[str, dict[str, Tensor]] = {}
        for name, value in _part(tensors, "adam/").items():
            parameter, _, entry = name.rpartition("/")
            adam.setdefault(parameter, {})[entry] = value
        best = content.get("best")
        current = _part(tensors, "current/")
        saved = {name: tuple(value.shape) for name, value in current.items()}
        if saved != dict(shapes):
            raise CheckpointError(f"{path}: it holds parameters {saved}, expected {dict(shapes)}")
        return TrainingState(
            iteration=content["iteration"],
            current=current,
            average=_part(tensors, "average/"),
            adam=adam,
            generator=tensors["generator"],
            best=None if best is None else Validated(_part(tensors, "best/"), **best),
            start_score=content["start_score"],
        )


@dataclass(frozen=True)
class TrainingResult:
    """The best validated parameters, the score of the start, and how far the training came."""

    best: Validated
    start_score: float
    iteration: int
    finished: bool
    history: list[dict[str, Any]] = field(repr=False)


class TrainingLog:
    """One JSON object a line, one line an iteration, in memory too. No file if path is None."""

    def __init__(self, path: Path | None):
        self.path = path
        self.entries: list[dict[str, Any]] = []

    def append(self, entry: dict[str, Any]) -> None:
        """Add the entry of the next iteration."""
        self.entries.append(entry)
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a") as file:
                file.write(json.dumps(entry) + "\n")

    def restore(self, iteration: int) -> None:
        """Read the file back as of `iteration`; later lines, and a torn one, are dropped."""
        if self.path is None or not self.path.is_file():
            return
        self.entries = []
        for line in self.path.read_text().splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                break
            if entry["iteration"] > iteration:
                break
            self.entries.append(entry)
        text = "".join(json.dumps(entry) + "\n" for entry in self.entries)
        write_atomically(self.path, text.encode())


def fingerprint(module: nn.Module) -> str:
    """A short digest of a module's make and of its learnable values, equal across processes."""
    digest = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", repr(module)).encode())
    for name, value in module.named_parameters():
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
