"""The registry of distributions; each has a file of its own in this folder.

A distribution is three formulas with their derivatives, as Taichi functions of the scaled signed
distance x = d / scale + shift (positive inside):

* ``cdf(x)`` gives F, F', F''; F is the coverage of a pixel at x;
* ``log_cdf(x)`` gives the same for log F, and ``log_survival(x)`` for L = log(1 - F), in forms that
  stay accurate where F is 0 or 1 to rounding.

A distribution with a shape k takes (x, k) and gives six values: the function, its first and second
derivatives in x, its derivative in k, the mixed derivative, and the second one in k.

The derivatives are closed forms, so that they are exact however the values are approximated. Every
formula must be finite for every x. Where F is 0, log F is `LOG_ZERO` with zero derivatives. Where F
is 1, so is log(1 - F). The kernels use neither. Formulas are evaluated on every pair, so they have
no branches: `ti.select` evaluates both sides, and both must be finite.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DistributionFormulas:
    """One entry of the registry.

    Attributes:
        name: the distribution's name.
        cdf, log_cdf, log_survival: the formulas, see this module's docstring.
        reach: ``threshold -> r``, or ``(threshold, k) -> r`` with a shape: F(x) is at most
            ``threshold`` where x <= -r; r may be negative or infinite.
        saturates_at: from this x on, F is 1 exactly; infinity if it never is.
        source: a publication that uses it as a softness.
        shaped: whether it has a shape.
        mirrored: whether the shift is subtracted (the reversed distributions).
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
    """Add a distribution; ValueError if the name is taken."""
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
