"""Special functions that Taichi lacks. They are evaluated, never differentiated."""

import math

import taichi as ti

from taichi_raster.maths.arithmetic import clamp, maximum, minimum, polynomial
from taichi_raster.maths.elementary import exp, log

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
    6.05183413124143191e-2, 2.33520497626869185e-3,
)  # fmt: skip
_INV_SQRT_PI = 1 / math.sqrt(math.pi)
_ERF_SMALL = 0.46875


@ti.func
def erfcx(y):
    """exp(y^2) erfc(y) for y >= 0.

    W. J. Cody, "Rational Chebyshev approximation for the error function", Math. Comp. 23 (1969):
    three rational functions, accurate to the last digits of float64.
    """
    square = minimum(y, 1.0) * minimum(y, 1.0)
    small = exp(square) * (1.0 - erf_small(minimum(y, 1.0)))
    middle_y = minimum(y, 4.0)
    middle = polynomial(middle_y, _MIDDLE_NUM) / polynomial(middle_y, _MIDDLE_DEN)
    large_y = maximum(y, 4.0)
    inverse = 1.0 / (large_y * large_y)
    tail = inverse * polynomial(inverse, _LARGE_NUM) / polynomial(inverse, _LARGE_DEN)
    large = (_INV_SQRT_PI - tail) / large_y
    return ti.select(y <= _ERF_SMALL, small, ti.select(y <= 4.0, middle, large))


@ti.func
def erf_small(y):
    """erf(y) for 0 <= y <= 0.46875, accurate to the last digits."""
    square = y * y
    return y * polynomial(square, _SMALL_NUM) / polynomial(square, _SMALL_DEN)


@ti.func
def erf(y):
    """The error function for y >= 0."""
    near = minimum(y, 30.0)
    large = 1.0 - exp(-near * near) * erfcx(near)
    return ti.select(y <= _ERF_SMALL, erf_small(minimum(y, _ERF_SMALL)), large)


_EXPM1_RATIO = tuple(1 / math.factorial(k + 1) for k in reversed(range(14)))


@ti.func
def expm1_ratio(x):
    """(exp(x) - 1) / x, and 1 at 0; x at most about 80."""
    near = clamp(x, -0.5, 0.5)
    away = ti.select(ti.abs(x) < 0.5, 1.0, x)
    series = polynomial(near, _EXPM1_RATIO)
    return ti.select(ti.abs(x) < 0.5, series, (exp(away) - 1.0) / away)


# Bernoulli numbers B_2n, n = 7 ... 1, and the coefficients of the asymptotic series.
_BERNOULLI = (7 / 6, -691 / 2730, 5 / 66, -1 / 30, 1 / 42, -1 / 30, 1 / 6)
_LGAMMA = tuple(b / (2 * n * (2 * n - 1)) for b, n in zip(_BERNOULLI, range(7, 0, -1), strict=True))
_DIGAMMA = tuple(b / (2 * n) for b, n in zip(_BERNOULLI, range(7, 0, -1), strict=True))
_SHIFT = 8
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@ti.func
def gammas(k):
    """(log Gamma, digamma, trigamma) at 1 + k, k >= 0.

    It takes the recurrence up to 9 + k, then Stirling's series (Abramowitz & Stegun, 6.1.40,
    6.3.18, 6.4.11).
    """
    product = 1.0 + 0.0 * k
    reciprocals = 0.0 * k
    squares = 0.0 * k
    for i in ti.static(range(1, _SHIFT + 1)):
        product *= k + i
        reciprocals += 1.0 / (k + i)
        squares += 1.0 / ((k + i) * (k + i))
    z = k + (_SHIFT + 1.0)
    w = 1.0 / (z * z)
    stirling = (z - 0.5) * log(z) - z + _HALF_LOG_2PI
    log_gamma = stirling + polynomial(w, _LGAMMA) / z - log(product)
    digamma = log(z) - 0.5 / z - polynomial(w, _DIGAMMA) * w - reciprocals
    trigamma = 1.0 / z + 0.5 * w + polynomial(w, _BERNOULLI) * w / z + squares
    return log_gamma, digamma, trigamma
