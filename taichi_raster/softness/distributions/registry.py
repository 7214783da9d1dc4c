"""The list of known distributions; each has a file of its own in this folder.

A distribution is three formulas with their slopes, as Taichi functions of the scaled signed
distance x = d / scale + shift (positive inside):

* ``cdf(x)`` gives F, F', F'': the coverage of a pixel at x;
* ``log_cdf(x)`` gives the same of log F, and ``log_survival(x)`` of L = log(1 - F), in forms that
  stay accurate where F is 0 or 1 to rounding.

Those with a shape k take (x, k) and give six values: the function, its first and second derivative
in x, its derivative in k, the mixed one, and the second one in k.

The slopes are closed forms, so that derivatives are exact however the values were approximated.
Every formula is finite for every x: where F is 0, log F is `LOG_ZERO` with slopes 0, and where F is
1 so is log(1 - F); the kernels use neither. They are evaluated on every pair, so they are free of
branches: `ti.select` takes both sides, and both must be finite.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DistributionFormulas:
    """One entry of the registry.

    Attributes:
        name: what users call it.
        cdf, log_cdf, log_survival: see above.
        reach: ``threshold -> r``, or ``(threshold, k) -> r`` with a shape: F(x) is at most
            ``threshold`` where x <= -r; r may be negative or infinite.
        saturates_at: from this x on, F is 1 exactly (infinity where it never is).
        source: where it was used as a softness.
        shaped: whether it has a shape.
        mirrored: whether a shift counts negatively (the reversed distributions).
    """

    name: str
    cdf: Callable[..., Any]
    log_cdf: Callable[..., Any]
    log_survival: Callable[..., Any]
    reach: Callable[..., float]
    saturates_at: float
    source: str
    shaped: bool = False
    mirrored: bool = False


LOG_ZERO = -1e30

_REGISTRY: dict[str, DistributionFormulas] = {}


def register(formulas: DistributionFormulas) -> DistributionFormulas:
    """Add a distribution; a name can be taken only once."""
    if formulas.name in _REGISTRY:
        raise ValueError(f"name: a distribution called {formulas.name!r} exists already")
    _REGISTRY[formulas.name] = formulas
    return formulas


def known() -> list[str]:
    """The names of all registered distributions, sorted."""
    return sorted(_REGISTRY)


def find(name: str) -> DistributionFormulas:
    """The distribution called `name`.

    Raises:
        ValueError: if there is none; the message lists the known ones.
    """
    if name not in _REGISTRY:
        raise ValueError(f"name: unknown distribution {name!r}; known: {', '.join(known())}")
    return _REGISTRY[name]
