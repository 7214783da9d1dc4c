"""Which instances of a batch bring about a loss, an unknown or a gradient that is not finite.

Instances do not influence one another, so halves of a batch can be tried apart: a few more inner
runs, and only when something has gone wrong. This works for any estimator and any task.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from meta.outer.estimator import OuterGradient

Result = TypeVar("Result")
Instances = tuple[int, ...]


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """A result without the instances in `bad`, and why these were left out; None if all are bad."""

    result: Result | None
    bad: Instances = ()
    reason: str = ""


def without_culprits(
    attempt: Callable[[Instances], Result], instances: Instances
) -> Outcome[Result]:
    """`attempt` on as many of the instances as it does not raise FloatingPointError for.

    Args:
        attempt: a pure function of the instances (a generator has to be set back by itself).
    """
    bad: list[int] = []
    reason = ""
    while len(bad) < len(instances):
        good = tuple(i for i in instances if i not in bad)
        try:
            return Outcome(attempt(good), tuple(bad), reason)
        except FloatingPointError as error:
            found, why = _culprits(attempt, good, error)
            bad, reason = sorted([*bad, *found]), reason or why
    return Outcome(None, tuple(bad), reason)


def culprits(
    attempt: Callable[[Instances], object], instances: Instances, error: FloatingPointError
) -> Instances:
    """The instances that `attempt` raises `error` for, by halving; all, if none does so alone."""
    return tuple(_culprits(attempt, instances, error)[0])


def check_estimate(name: str, estimate: OuterGradient) -> OuterGradient:
    """The estimate itself; FloatingPointError, naming the parameter, unless it is finite."""
    for parameter, gradient in estimate.grads.items():
        if not bool(torch.isfinite(gradient).all()):
            raise FloatingPointError(
                f"the {name} gradient of {parameter} is not finite; shorten the inner loop or "
                "lower its learning rate"
            )
    if not math.isfinite(estimate.loss):
        raise FloatingPointError(f"the outer loss of the {name} estimate is {estimate.loss}")
    return estimate


def _culprits(
    attempt: Callable[[Instances], object], instances: Instances, error: FloatingPointError
) -> tuple[list[int], str]:
    """The bad among instances that fail together, and what is said about the first."""
    if len(instances) == 1:  # copies of this one alone: their numbers would mislead
        return list(instances), re.sub(r" of instance [\d, .]*\(\d+ of \d+\)", "", str(error))
    middle = len(instances) // 2
    bad: list[int] = []
    reason = ""
    for half in (instances[:middle], instances[middle:]):
        try:
            attempt(half)
        except FloatingPointError as of_half:
            found, why = _culprits(attempt, half, of_half)
            bad, reason = bad + found, reason or why
    return (bad, reason) if bad else (list(instances), str(error))
