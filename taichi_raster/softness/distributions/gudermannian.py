"""The hyperbolic secant distribution: F(x) = 2 / pi atan(exp(x)), f = sech(x) / pi."""

import math

import taichi as ti

from taichi_raster.maths.elementary import atan2, exp, log, log1p
from taichi_raster.softness.distributions.registry import DistributionFormulas, register
from taichi_raster.softness.distributions.tails import reflected

_TWO_OVER_PI = 2 / math.pi


@ti.func
def _atan_ratio(e):
    """atan(e) / e for e in [0, 1], and 1 at 0."""
    some = e > 1e-4
    away = ti.select(some, e, 1.0)
    return ti.select(some, atan2(away, 1.0 + 0.0 * e) / away, 1.0 - e * e / 3.0)


@ti.func
def cdf(x):
    e = exp(-ti.abs(x))
    tail = _TWO_OVER_PI * e * _atan_ratio(e)
    f = _TWO_OVER_PI * e / (1.0 + e * e)
    tanh = ti.select(x >= 0.0, 1.0, -1.0) * (1.0 - e * e) / (1.0 + e * e)
    return ti.select(x >= 0.0, 1.0 - tail, tail), f, -tanh * f


@ti.func
def log_survival(x):
    e = exp(-ti.abs(x))
    ratio = _atan_ratio(e)
    tail = _TWO_OVER_PI * e * ratio
    secant = 1.0 / (1.0 + e * e)
    hazard = secant * ti.select(x >= 0.0, 1.0 / ratio, _TWO_OVER_PI * e / (1.0 - tail))
    value = ti.select(x >= 0.0, log(_TWO_OVER_PI * ratio) - x, log1p(-tail))
    tanh = ti.select(x >= 0.0, 1.0, -1.0) * (1.0 - e * e) * secant
    return value, -hazard, hazard * (tanh - hazard)


def reach(threshold: float) -> float:
    return math.inf if threshold <= 0 else -math.log(math.tan(math.pi / 2 * threshold))


GUDERMANNIAN = register(
    DistributionFormulas(
        "gudermannian",
        cdf,
        reflected(log_survival),
        log_survival,
        reach=reach,
        saturates_at=math.inf,
        source="Petersen et al., CVPR 2022, table 1",
    )
)
