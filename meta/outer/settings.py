"""The numbers of an outer training: its length, batches, learning rates and validations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TrainerSettings:
    """Settings of an outer training.

    Args:
        iterations: outer steps, >= 1.
        batch_size: instances of an outer step; step i uses batch i of the training stream.
        lr: outer learning rate (> 0), for all parameters or by name.
        lr_policy: "cosine" falls from `lr` to 0 over the iterations; "constant".
        clip: largest norm of the whole outer gradient; None for no clipping.
        average: decay in [0, 1) of the running average of iterates; 0 for none.
        validate_every: iterations between validations.
        validation_batches, validation_batch_size: number and size of the batches of the tuning
            stream that a validation solves.
        validation_index: the first of these batches. The default avoids the stream's beginning, on
            which a baseline was probably tuned.
        checkpoint_every: iterations between checkpoints.
        seed: of the estimator's random directions.
        max_batch: most inner runs side by side in validation.
        nonfinite: what to do about an instance whose loss, unknowns or gradient become infinite or
            NaN. It is always named. "stop": raise FloatingPointError. "skip": leave it out of
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
