"""Find the instances of a batch whose loss, unknowns or gradient are not finite.

Instances do not influence one another, so the halves of a batch can be tried apart. That takes a
few more inner runs, and only where something has gone wrong. It works for any estimator and task.
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
    """A result without the instances in `bad`, and why they were left out; None if all are bad."""

    result: Result | None
    bad: Instances = ()
    reason: str = ""


def without_culprits(
    attempt: Callable[[Instances], Result], instances: Instances
) -> Outcome[Result]:
    """Run `attempt` on the instances for which it does not raise FloatingPointError.

    Args:
        attempt: a pure function of the instances; it resets any generator that it uses.
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
    """The instances for which `attempt` raises `error`, by halving; all if none does so alone."""
    return tuple(_culprits(attempt, instances, error)[0])


def check_estimate(name: str, estimate: OuterGradient) -> OuterGradient:
    """Return the estimate; raise FloatingPointError, naming the parameter, unless it is finite."""
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
    """The bad ones among instances that fail together, and the message of the first."""
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
