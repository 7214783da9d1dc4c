"""The Gumbel distribution of a maximum, F(x) = exp(-exp(-x)), and its mirror image of a minimum."""

import math

import taichi as ti

from taichi_raster.maths.arithmetic import maximum, minimum, polynomial
from taichi_raster.maths.elementary import exp, log, log1p
from taichi_raster.softness.distributions.registry import DistributionFormulas, register
from taichi_raster.softness.distributions.special import expm1_ratio
from taichi_raster.softness.distributions.tails import reversed_formulas

_LARGEST = 80.0  # F is 0 or 1 in any precision long before exp(80)
# 1 - e - e / (exp(e) - 1), over e: -1/2 and Bernoulli numbers over factorials.
_BEND = (-1 / 1209600, 0.0, 1 / 30240, 0.0, -1 / 720, 0.0, 1 / 12)


@ti.func
def _rate(x):
    """exp(-x), clamped to what makes a difference."""
    return exp(minimum(-x, _LARGEST))


@ti.func
def cdf(x):
    e = _rate(x)
    f = exp(-e)
    pdf = e * f
    return f, pdf, pdf * (e - 1.0)


@ti.func
def log_cdf(x):
    e = _rate(x)
    slope = ti.select(-x < _LARGEST, e, 0.0)
    return -e, slope, -slope


@ti.func
def log_survival(x):
    """log(1 - exp(-e)), e = exp(-x); its slope is -h, h = e / (exp(e) - 1)."""
    e = _rate(x)
    h = ti.select(e < 40.0, 1.0 / expm1_ratio(minimum(e, 40.0)), e * exp(-e))
    small = minimum(e, 1.0)
    value = ti.select(e < 1.0, -x + log(expm1_ratio(-small)), log1p(-exp(-maximum(e, 1.0))))
    tiny = minimum(e, 0.25)
    bend = ti.select(e < 0.25, -tiny * (0.5 + tiny * polynomial(tiny, _BEND)), 1.0 - e - h)
    return value, -h, h * bend


GUMBEL_MAX = register(
    DistributionFormulas(
        "gumbel_max",
        cdf,
        log_cdf,
        log_survival,
        reach=lambda t: math.inf if t <= 0 else math.log(-math.log(t)),
        saturates_at=math.inf,
        source="Petersen et al., CVPR 2022, table 1",
    )
)
GUMBEL_MIN = register(
    reversed_formulas(
        GUMBEL_MAX,
        name="gumbel_min",
        reach=lambda t: math.inf if t <= 0 else -math.log(-math.log1p(-t)),
    )
)
