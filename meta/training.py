"""What an outer training is made of between two iterations: its settings, its state, its log."""

from __future__ import annotations

import hashlib
import json
import math
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
from meta.stats import Comparison

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
        nonfinite: what to do about an instance whose loss, unknowns or gradient become infinite or
            NaN; it is named either way. "stop": raise FloatingPointError. "skip": leave it out of
            the estimate (the task needs a method `select`), count it in the log, and stop only if
            more than half of a batch is like that; in a validation it counts with the loss of its
            start.
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
    nonfinite: Literal["stop", "skip"] = "stop"

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
        if self.nonfinite not in ("stop", "skip"):
            raise ValueError(f"nonfinite: expected 'stop' or 'skip', got {self.nonfinite!r}")


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
    """The best validated parameters, the score of the start, and how far the training came.

    `confirmed` compares them with the start on fresh tasks, where a study asked for that; the best
    is the start itself then if they were not better.
    """

    best: Validated
    start_score: float
    iteration: int
    finished: bool
    history: list[dict[str, Any]] = field(repr=False)
    confirmed: Comparison | None = None


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


class Board:
    """Numbers of the log for TensorBoard, in a folder; nothing if `folder` is None."""

    def __init__(self, folder: Path | None, iteration: int = 0):
        self._writer: Any = None
        if folder is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "tensorboard: the package is missing; pip install 'taichi-raster[tensorboard]', or "
                "train with tensorboard=False (the log has the same numbers)"
            ) from error
        self._writer = SummaryWriter(str(folder), purge_step=iteration + 1)

    def append(self, entry: Mapping[str, Any]) -> None:
        """Show the numbers of a log entry, those of its parts as "part/name"."""
        if self._writer is None:
            return
        flat = {k: v for k, v in entry.items() if isinstance(v, int | float)}
        for part, values in entry.items():
            if isinstance(values, Mapping):
                flat |= {f"{part}/{name}": value for name, value in values.items()}
        for name, value in flat.items():
            if name != "iteration":
                self._writer.add_scalar(name, value, entry["iteration"])
        self._writer.flush()

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()


@contextmanager
def sigterm_as_exit() -> Iterator[Callable[[], None]]:
    """SIGTERM raises SystemExit(143) meanwhile, so that what is under way can still be saved.

    Calling what the context gives makes it ignore SIGTERM from there on: while saving on the way
    out. Only in the main thread, where alone signals are received; elsewhere it does nothing.
    """
    held = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield held.set
        return

    def stop(number: int, frame: object) -> None:
        if not held.is_set():
            raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield held.set
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def fingerprint(module: nn.Module) -> str:
    """A short digest of a module's make and of its learnable values, equal across processes."""
    found = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", repr(module)).encode())
    for name, value in module.named_parameters():
        found.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """A short digest of tensors."""
    found = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        found.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def digest(text: str) -> str:
    """A short digest of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
