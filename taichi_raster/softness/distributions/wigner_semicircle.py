"""Wigner's semicircle on [-1, 1]: f = 2 / pi sqrt(1 - x^2).

With x = -cos(a), F = (2 a - sin(2 a)) / (2 pi). The slope of f is infinite at -1 and 1.
"""

import math

import taichi as ti

from taichi_raster.maths.arithmetic import clamp, maximum, minimum, polynomial
from taichi_raster.maths.elementary import atan2
from taichi_raster.softness.distributions.registry import DistributionFormulas, register
from taichi_raster.softness.distributions.tails import from_tails

# (t - sin t) / t^3 as a series in t^2.
_SERIES = tuple((-1) ** n / math.factorial(2 * n + 3) for n in reversed(range(15)))


@ti.func
def _rise(low, high):
    """F, from 1 + x and 1 - x, both in [0, 2]."""
    lower, upper = minimum(low, high), maximum(low, high)
    t = 4.0 * atan2(ti.sqrt(lower), ti.sqrt(upper))  # at most pi
    tail = t * t * t * polynomial(t * t, _SERIES) / (2.0 * math.pi)
    return ti.select(low <= high, tail, 1.0 - tail)


@ti.func
def _tails(x):
    low, high = clamp(1.0 + x, 0.0, 2.0), clamp(1.0 - x, 0.0, 2.0)
    root = ti.sqrt(low * high)
    inside = root > 0.0
    f1 = ti.select(inside, -(2.0 / math.pi) * x / ti.select(inside, root, 1.0), 0.0)
    return _rise(low, high), _rise(high, low), (2.0 / math.pi) * root, f1


def reach(threshold: float) -> float:
    if threshold <= 0:
        return 1.0
    from scipy.optimize import brentq  # here, as SciPy takes a while to import

    t = brentq(lambda t: t - math.sin(t) - 2 * math.pi * threshold, 0.0, 2 * math.pi, xtol=1e-14)
    return math.cos(t / 2)


WIGNER_SEMICIRCLE = register(
    DistributionFormulas(
        "wigner_semicircle",
        *from_tails(_tails),
        reach=reach,
        saturates_at=1.0,
        source="Petersen et al., CVPR 2022, table 1",
    )
)
