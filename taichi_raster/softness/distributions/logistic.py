"""The logistic distribution: F(x) = 1 / (1 + exp(-x)), the sigmoid of SoftRas."""

import math

import taichi as ti

from taichi_raster.maths.arithmetic import maximum
from taichi_raster.maths.elementary import exp, log1p
from taichi_raster.softness.distributions.registry import DistributionFormulas, register
from taichi_raster.softness.distributions.tails import reflected


@ti.func
def cdf(x):
    e = exp(-ti.abs(x))
    inverse = 1.0 / (1.0 + e)
    pdf = e * inverse * inverse
    f = ti.select(x >= 0.0, 1.0, e) * inverse
    return f, pdf, pdf * ti.select(x >= 0.0, e - 1.0, 1.0 - e) * inverse


@ti.func
def log_survival(x):
    """-softplus(x); the hazard rate is F itself."""
    e = exp(-ti.abs(x))
    inverse = 1.0 / (1.0 + e)
    f = ti.select(x >= 0.0, 1.0, e) * inverse
    return -maximum(x, 0.0) - log1p(e), -f, -e * inverse * inverse


def reach(threshold: float) -> float:
    return math.inf if threshold <= 0 else math.log1p(-threshold) - math.log(threshold)


LOGISTIC = register(
    DistributionFormulas(
        "logistic",
        cdf,
        reflected(log_survival),
        log_survival,
        reach=reach,
        saturates_at=math.inf,
        source="Liu et al., ICCV 2019, eq. 1",
    )
)
