"""The Laplace distribution: F(x) = exp(x) / 2 for x < 0."""

import math

import taichi as ti

from taichi_raster.maths.elementary import exp, log1p
from taichi_raster.softness.distributions.registry import DistributionFormulas, register
from taichi_raster.softness.distributions.tails import reflected

_LOG_2 = math.log(2)


@ti.func
def cdf(x):
    tail = 0.5 * exp(-ti.abs(x))
    return ti.select(x >= 0.0, 1.0 - tail, tail), tail, ti.select(x >= 0.0, -tail, tail)


@ti.func
def log_survival(x):
    tail = 0.5 * exp(-ti.abs(x))
    hazard = ti.select(x >= 0.0, 1.0, tail / (1.0 - tail))
    value = ti.select(x >= 0.0, -x - _LOG_2, log1p(-tail))
    return value, -hazard, ti.select(x >= 0.0, 0.0, -hazard * (1.0 + hazard))


def reach(threshold: float) -> float:
    if threshold <= 0:
        return math.inf
    return -math.log(2 * threshold) if threshold < 0.5 else math.log(2 * (1 - threshold))


LAPLACE = register(
    DistributionFormulas(
        "laplace",
        cdf,
        reflected(log_survival),
        log_survival,
        reach=reach,
        saturates_at=math.inf,
        source="Petersen et al., CVPR 2022, table 1",
    )
)
