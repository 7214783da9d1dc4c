"""The Gaussian distribution: F(x) = Phi(x), by the scaled complementary error function.

W. J. Cody, "Rational Chebyshev approximation for the error function", Math. Comp. 23 (1969): three
rational functions, accurate to the last digits of float64.
"""

import math

import taichi as ti
from scipy.special import ndtri

from taichi_raster.arithmetic import log1p, polynomial
from taichi_raster.softness.registry import DistributionFormulas, register

_SMALL_NUM = (
    1.85777706184603153e-1, 3.16112374387056560e0, 1.13864154151050156e2,
    3.77485237685302021e2, 3.20937758913846947e3,
)  # fmt: skip
_SMALL_DEN = (
    1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3,
    2.84423683343917062e3,
)  # fmt: skip
_MIDDLE_NUM = (
    2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0,
    6.61191906371416295e1, 2.98635138197400131e2, 8.81952221241769090e2,
    1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3,
)  # fmt: skip
_MIDDLE_DEN = (
    1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2,
    1.62138957456669019e3, 3.29079923573345963e3, 4.36261909014324716e3,
    3.43936767414372164e3, 1.23033935480374942e3,
)  # fmt: skip
_LARGE_NUM = (
    1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1,
    1.25781726111229246e-1, 1.60837851487422766e-2, 6.58749161529837803e-4,
)  # fmt: skip
_LARGE_DEN = (
    1.0, 2.56852019228982242e0, 1.87295284992346725e0, 5.27905102951428412e-1,
    6.05183413124413191e-2, 2.33520497626869185e-3,
)  # fmt: skip
_SQRT_HALF = math.sqrt(0.5)
_INV_SQRT_PI = 1 / math.sqrt(math.pi)
_INV_SQRT_2PI = 1 / math.sqrt(2 * math.pi)
_LOG_2 = math.log(2)


@ti.func
def _erfcx(y):
    """exp(y^2) erfc(y) for y >= 0."""
    square = ti.min(y, 1.0) * ti.min(y, 1.0)
    erf = y * polynomial(square, _SMALL_NUM) / polynomial(square, _SMALL_DEN)
    small = ti.exp(square) * (1.0 - erf)
    middle_y = ti.min(y, 4.0)
    middle = polynomial(middle_y, _MIDDLE_NUM) / polynomial(middle_y, _MIDDLE_DEN)
    large_y = ti.max(y, 4.0)
    inverse = 1.0 / (large_y * large_y)
    tail = inverse * polynomial(inverse, _LARGE_NUM) / polynomial(inverse, _LARGE_DEN)
    large = (_INV_SQRT_PI - tail) / large_y
    return ti.select(y <= 0.46875, small, ti.select(y <= 4.0, middle, large))


@ti.func
def cdf(x):
    tail = 0.5 * ti.exp(-0.5 * x * x) * _erfcx(ti.abs(x) * _SQRT_HALF)
    pdf = _INV_SQRT_2PI * ti.exp(-0.5 * x * x)
    return ti.select(x >= 0.0, 1.0 - tail, tail), pdf, -x * pdf


@ti.func
def log_survival(x):
    """log Phi(-x), without underflow inside; the hazard is phi(x) / Phi(-x)."""
    scaled = _erfcx(ti.abs(x) * _SQRT_HALF)
    half_square = 0.5 * x * x
    tail = 0.5 * ti.exp(-half_square) * scaled
    value = ti.select(x >= 0.0, -half_square + ti.log(scaled) - _LOG_2, log1p(-tail))
    hazard = _INV_SQRT_2PI * ti.select(x >= 0.0, 2.0 / scaled, ti.exp(-half_square) / (1.0 - tail))
    return value, -hazard, -hazard * (hazard - x)


def reach(threshold: float) -> float:
    return math.inf if threshold <= 0 else -float(ndtri(threshold))


GAUSSIAN = register(
    DistributionFormulas(
        "gaussian", cdf, log_survival, reach, math.inf, "Petersen et al., CVPR 2022, table 1"
    )
)
