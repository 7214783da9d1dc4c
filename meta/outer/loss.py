"""The outer loss: what the outer loop minimises, measured at the end of an inner run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from meta.inner.method import Method
from meta.inner.protocol import TaskBatch

OuterKind: TypeAlias = Literal["soft", "sharp", "true"]


@dataclass(frozen=True)
class OuterLoss:
    """Judges the end of an inner run.

    Args:
        kind: "true": distance to the hidden solution. "sharp": error between sharp renders. "soft":
            the inner loss itself, by the renderer under training. A softness can learn to hide
            errors from "soft", so only the published estimators, first-order and online, accept it.
        transform: "log": log(error + floor), under which halving any error counts the same.
            "identity": the error.
        floor: errors far below it count as equal; in units of the error, > 0. "log" alone uses it.

    Raises ValueError, naming the argument that is out of range.
    """

    kind: OuterKind = "true"
    transform: Literal["log", "identity"] = "log"
    floor: float = 1e-3

    def __post_init__(self) -> None:
        if self.kind not in get_args(OuterKind):
            raise ValueError(
                f"kind: expected one of {list(get_args(OuterKind))}, got {self.kind!r}"
            )
        if self.transform not in ("log", "identity"):
            raise ValueError(f"transform: expected 'log' or 'identity', got {self.transform!r}")
        if not (math.isfinite(self.floor) and self.floor > 0):
            raise ValueError(f"floor must be finite and > 0, got {self.floor}")

    def per_instance(
        self, method: Method, task: TaskBatch, params: Float[Tensor, "B ..."]
    ) -> Float[Tensor, " B"]:
        """Outer loss (B,) at unknowns `params` (B, ...); differentiable."""
        if self.kind == "true":
            error = task.true_error(params)
        elif self.kind == "sharp":
            error = task.image_error(params)
        else:
            error = task.loss(params, method.renderer, torch.ones((), dtype=torch.float64))
        return self.of_error(error)

    def of_error(self, error: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The transform of errors, elementwise."""
        return torch.log(error + self.floor) if self.transform == "log" else error
