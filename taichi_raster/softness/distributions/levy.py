"""The Levy distribution, F(x) = erfc(1 / sqrt(2 x)) for x > 0, and its mirror image."""

import math

import taichi as ti

from taichi_raster.maths.arithmetic import maximum
from taichi_raster.maths.elementary import exp, log
from taichi_raster.softness.distributions.registry import LOG_ZERO, DistributionFormulas, register
from taichi_raster.softness.distributions.special import erf, erfcx
from taichi_raster.softness.distributions.tails import log_of, reversed_formulas

_SMALLEST = 1e-6  # as published; F is 0 in any precision long before
_INV_SQRT_2PI = 1 / math.sqrt(2 * math.pi)


@ti.func
def _parts(x):
    """(size, y, exp(-y^2), f over exp(-y^2), f' over f) at x > 0, y = 1 / sqrt(2 x)."""
    size = maximum(x, _SMALLEST)
    y = ti.sqrt(0.5 / size)
    return (
        size,
        y,
        exp(-0.5 / size),
        _INV_SQRT_2PI / (size * ti.sqrt(size)),
        ((0.5 / size - 1.5) / size),
    )


@ti.func
def cdf(x):
    _size, y, small, f, bend = _parts(x)
    inside = x > _SMALLEST
    return (
        ti.select(inside, small * erfcx(y), 0.0),
        ti.select(inside, f * small, 0.0),
        ti.select(inside, f * small * bend, 0.0),
    )


@ti.func
def log_cdf(x):
    size, y, _small, f, bend = _parts(x)
    inside = x > _SMALLEST
    scaled = erfcx(y)
    rate = f / scaled
    return (
        ti.select(inside, log(scaled) - 0.5 / size, LOG_ZERO),
        ti.select(inside, rate, 0.0),
        ti.select(inside, rate * (bend - rate), 0.0),
    )


@ti.func
def log_survival(x):
    _size, y, small, f, bend = _parts(x)
    value, slope, curve = log_of(erf(y), small * erfcx(y), -f * small, -f * small * bend)
    inside = x > _SMALLEST
    return (
        ti.select(inside, value, 0.0),
        ti.select(inside, slope, 0.0),
        (ti.select(inside, curve, 0.0)),
    )


def _reach_reversed(threshold: float) -> float:
    from scipy.special import erfinv  # here, as SciPy takes a while to import

    return math.inf if threshold <= 0 else 0.5 / float(erfinv(threshold)) ** 2


LEVY = register(
    DistributionFormulas(
        "levy",
        cdf,
        log_cdf,
        log_survival,
        reach=lambda t: 0.0,
        saturates_at=math.inf,
        source="Petersen et al., CVPR 2022, table 1",
    )
)
LEVY_REV = register(
    reversed_formulas(
        LEVY,
        name="levy_rev",
        reach=_reach_reversed,
        saturates_at=-_SMALLEST,
        mirrored=True,
    )
)
