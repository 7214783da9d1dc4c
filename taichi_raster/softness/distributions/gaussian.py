"""The Gaussian distribution: F(x) = Phi(x), by the scaled complementary error function."""

import math

import taichi as ti

from taichi_raster.maths.elementary import exp, log, log1p
from taichi_raster.softness.distributions.registry import DistributionFormulas, register
from taichi_raster.softness.distributions.special import erfcx
from taichi_raster.softness.distributions.tails import reflected

_SQRT_HALF = math.sqrt(0.5)
_INV_SQRT_2PI = 1 / math.sqrt(2 * math.pi)
_LOG_2 = math.log(2)


@ti.func
def cdf(x):
    tail = 0.5 * exp(-0.5 * x * x) * erfcx(ti.abs(x) * _SQRT_HALF)
    pdf = _INV_SQRT_2PI * exp(-0.5 * x * x)
    return ti.select(x >= 0.0, 1.0 - tail, tail), pdf, -x * pdf


@ti.func
def log_survival(x):
    """log Phi(-x), without underflow far inside; the hazard rate is phi(x) / Phi(-x)."""
    scaled = erfcx(ti.abs(x) * _SQRT_HALF)
    half_square = 0.5 * x * x
    tail = 0.5 * exp(-half_square) * scaled
    value = ti.select(x >= 0.0, -half_square + log(scaled) - _LOG_2, log1p(-tail))
    hazard = _INV_SQRT_2PI * ti.select(x >= 0.0, 2.0 / scaled, exp(-half_square) / (1.0 - tail))
    return value, -hazard, -hazard * (hazard - x)


def reach(threshold: float) -> float:
    from scipy.special import ndtri  # here, as SciPy takes a while to import

    return math.inf if threshold <= 0 else -float(ndtri(threshold))


GAUSSIAN = register(
    DistributionFormulas(
        "gaussian",
        cdf,
        reflected(log_survival),
        log_survival,
        reach=reach,
        saturates_at=math.inf,
        source="Petersen et al., CVPR 2022, table 1",
    )
)
