"""What the outer loop minimises, and the shape in which every estimator answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from meta.method import Method
from meta.protocol import TaskBatch

OuterKind: TypeAlias = Literal["soft", "sharp", "true"]


@dataclass(frozen=True)
class OuterLoss:
    """Judges the end of an inner run.

    Args:
        kind: "true": distance to the hidden solution; "sharp": error between sharp renders; "soft":
            the inner loss itself, by the renderer under training (a softness can learn to hide
            errors from it, so only the published estimators, first-order and online, may use it).
        transform: "log": log(error + floor), under which halving any error counts the same;
            "identity": the error.
        floor: error (in units of the error) below which there is nothing more to gain; > 0, used by
            "log" only.
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
    ) -> Float[Tensor, "B"]:
        """Outer loss of each instance at unknowns `params`; differentiable."""
        if self.kind == "true":
            error = task.true_error(params)
        elif self.kind == "sharp":
            error = task.image_error(params)
        else:
            error = task.loss(params, method.renderer, torch.ones((), dtype=torch.float64))
        return self.of_error(error)

    def of_error(self, error: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The transform alone."""
        return torch.log(error + self.floor) if self.transform == "log" else error


@dataclass(frozen=True)
class OuterGradient:
    """An estimate: the mean outer loss, its gradient by parameter name, and figures worth logging.

    Parameters that the estimator says nothing about are left out of `grads`.
    """

    loss: float
    grads: dict[str, Tensor]
    info: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Estimator:
    """An outer-gradient function, its name, and the kinds of outer loss that it may use.

    Call: estimator(method, task, outer, generator=..., **options) -> OuterGradient.
    """

    name: str
    outer_kinds: frozenset[OuterKind]
    function: Callable[..., OuterGradient]
    why: str

    def check(self, outer: OuterLoss) -> None:
        """Raise ValueError unless this estimator can use `outer`."""
        if outer.kind not in self.outer_kinds:
            kinds = " or ".join(sorted(self.outer_kinds))
            raise ValueError(
                f"outer: the {self.name} estimator takes an outer loss of kind {kinds}, "
                f"got {outer.kind!r}: {self.why}"
            )

    def __call__(
        self,
        method: Method,
        task: TaskBatch,
        outer: OuterLoss,
        *,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> OuterGradient:
        self.check(outer)
        if not method.learnable():
            raise ValueError("method: it has no learnable parameter, so there is no outer gradient")
        return self.function(method, task, outer, generator=generator, **options)


def estimator(
    name: str, outer_kinds: set[OuterKind], why: str
) -> Callable[[Callable[..., OuterGradient]], Estimator]:
    """Decorator that makes an `Estimator` of one function."""

    def wrap(function: Callable[..., OuterGradient]) -> Estimator:
        return Estimator(name, frozenset(outer_kinds), function, why)

    return wrap
