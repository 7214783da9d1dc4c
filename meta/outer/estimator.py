"""The interface of outer-gradient estimators: what they take and what they return."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from meta.inner.method import Method
from meta.inner.protocol import TaskBatch
from meta.outer.loss import OuterKind, OuterLoss


@dataclass(frozen=True)
class Estimator:
    """An outer-gradient function, its name, and the kinds of outer loss that it accepts.

    It is called as ``estimator(method, task, outer, generator=..., **options)`` and returns an
    `OuterGradient`. `why` completes the error for other kinds of outer loss.
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

    def takes(self, keyword: str) -> bool:
        """Whether the function has an option of this name."""
        return keyword in inspect.signature(self.function).parameters

    def __call__(
        self,
        method: Method,
        task: TaskBatch,
        outer: OuterLoss,
        *,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> OuterGradient:
        """The gradient that the function estimates, after `check`.

        Raises:
            ValueError: for an outer loss of another kind, or a method with nothing to learn.
        """
        self.check(outer)
        if not method.learnable():
            raise ValueError("method: it has no learnable parameter, so there is no outer gradient")
        return self.function(method, task, outer, generator=generator, **options)


def estimator(
    name: str, outer_kinds: set[OuterKind], why: str
) -> Callable[[Callable[..., OuterGradient]], Estimator]:
    """Decorator that turns a function into an `Estimator` that accepts `outer_kinds`."""

    def wrap(function: Callable[..., OuterGradient]) -> Estimator:
        return Estimator(name, frozenset(outer_kinds), function, why)

    return wrap


@dataclass(frozen=True)
class OuterGradient:
    """An estimate: the mean outer loss, its gradient by parameter name, and figures for the log.

    `grads` leaves out parameters that the estimator has no gradient for.
    """

    loss: float
    grads: dict[str, Tensor]
    info: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ShareGradient(OuterGradient):
    """An estimate from a part of a batch, with what gives the figures of the whole batch.

    Attributes:
        parts: tensors; their mean over shares, weighted by instances, is that of the whole.
        figures: figures(parts, grads, instances) -> `info`, of the whole batch.
    """

    parts: dict[str, Tensor] = field(default_factory=dict)
    figures: Callable[[dict[str, Tensor], dict[str, Tensor], int], dict[str, float]] | None = None


@dataclass(frozen=True)
class Shard:
    """Which instances of a batch a process solves: their indices among the `total`."""

    instances: tuple[int, ...]
    total: int

    def of(self, task: TaskBatch) -> TaskBatch:
        """The part of the whole batch `task` that has these instances.

        Raises TypeError if the task would need a method `select` and has none.
        """
        if self.instances == tuple(range(self.total)):
            return task
        if not hasattr(task, "select"):
            raise TypeError(
                f"task: {type(task).__name__} has no method select(instances: list[int]), which "
                "solving a part of a batch needs (several processes, or nonfinite='skip')"
            )
        return task.select(list(self.instances))
