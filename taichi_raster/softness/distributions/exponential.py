"""The exponential distribution, F(x) = 1 - exp(-x) for x > 0, and its mirror image."""

import math

import taichi as ti

from taichi_raster.maths.arithmetic import maximum
from taichi_raster.maths.elementary import exp, log, log1p
from taichi_raster.softness.distributions.registry import LOG_ZERO, DistributionFormulas, register
from taichi_raster.softness.distributions.special import expm1_ratio
from taichi_raster.softness.distributions.tails import reversed_formulas

_SMALLEST = 1e-12  # smaller x are treated as this; its logarithm's derivatives are finite


@ti.func
def cdf(x):
    inside = x > 0.0
    rest = exp(-maximum(x, 0.0))
    f = ti.select(inside, rest, 0.0)
    size = maximum(x, 0.0)
    return size * expm1_ratio(-size), f, -f


@ti.func
def log_cdf(x):
    """log x + log((1 - exp(-x)) / x); its slope is r = 1 / (exp(x) - 1)."""
    size = maximum(x, _SMALLEST)
    inside = x > 0.0
    ratio = expm1_ratio(-size)
    r = exp(-size) / (size * ratio)
    value = ti.select(size < 1.0, log(size) + log(ratio), log1p(-exp(-maximum(size, 0.5))))
    return (
        ti.select(inside, value, LOG_ZERO),
        ti.select(inside, r, 0.0),
        ti.select(inside, -r * (1.0 + r), 0.0),
    )


@ti.func
def log_survival(x):
    return -maximum(x, 0.0), ti.select(x > 0.0, -1.0, 0.0 * x), 0.0 * x


EXPONENTIAL = register(
    DistributionFormulas(
        "exponential",
        cdf,
        log_cdf,
        log_survival,
        reach=lambda t: 0.0,
        saturates_at=math.inf,
        source="Petersen et al., CVPR 2022, table 1",
    )
)
EXPONENTIAL_REV = register(
    reversed_formulas(
        EXPONENTIAL,
        name="exponential_rev",
        reach=lambda t: math.inf if t <= 0 else -math.log(t),
        saturates_at=0.0,
        mirrored=True,
    )
)
