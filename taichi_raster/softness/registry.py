"""The list of known distributions; each has a file of its own in this folder.

A distribution is two formulas with their slopes, as Taichi functions of the scaled signed distance
x = d / scale (positive inside):

* ``cdf(x)`` gives F, F', F'': the coverage of a pixel at x;
* ``log_survival(x)`` gives L, L', L'' of L = log(1 - F), in a form that stays accurate where F is 1
  to rounding, which 1 - F does not.

The slopes are closed forms, so that derivatives are exact however the values were approximated.
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
        cdf: ``x -> (F, F', F'')``, a Taichi function.
        log_survival: ``x -> (L, L', L'')`` with L = log(1 - F), a Taichi function.
        reach: ``threshold -> x``: beyond this many scales outside, F is at most ``threshold``.
        saturates_at: from this x on, F is 1 exactly (infinity where it never is).
        source: where it was used as a softness.
    """

    name: str
    cdf: Callable[..., Any]
    log_survival: Callable[..., Any]
    reach: Callable[[float], float]
    saturates_at: float
    source: str
    shaped: bool = False
    mirrored: bool = False
    log_cdf: Callable[..., Any] | None = None


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
