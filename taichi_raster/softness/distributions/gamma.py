"""The gamma distribution, F(x) = P(k, x) for x > 0 with shape k, and its mirror image.

Below x = k + 4, log P comes from the power series of P. Above, log Q = log(1 - P) comes from
Legendre's continued fraction (NIST DLMF 8.11.4, 8.9.2). Each is accurate in the tail where the
other one loses its digits. Both have their first two derivatives in k.
"""

import math

import taichi as ti

from taichi_raster.maths.arithmetic import maximum
from taichi_raster.maths.elementary import exp, log, log1p
from taichi_raster.softness.distributions.registry import LOG_ZERO, DistributionFormulas, register
from taichi_raster.softness.distributions.special import gammas
from taichi_raster.softness.distributions.tails import reversed_formulas

_SMALLEST = 1e-12  # smaller x are treated as this: the density may be infinite at 0
_SWITCH = 4.0
_SERIES = 130  # terms; enough for k up to 50
_FRACTION = 60


@ti.func
def _series(x, k):
    """log M and its derivatives in k, M = sum over n of x^n / ((k + 1) ... (k + n))."""
    term, total = 1.0 + 0.0 * x, 1.0 + 0.0 * x
    first, second = 0.0 * x, 0.0 * x
    s, r = 0.0 * x, 0.0 * x
    for n in range(1, _SERIES):
        w = 1.0 / (k + n)
        term *= x * w
        s += w
        r += w * w
        total += term
        first -= term * s
        second += term * (s * s + r)
    rate = first / total
    return log(total), rate, second / total - rate * rate


@ti.func
def _fraction(x, k):
    """log v and its derivatives in k, where Q = x^k exp(-x) / (Gamma(k) v)."""
    v = x + (2.0 * _FRACTION + 1.0) - k
    v_k, v_kk = -1.0 + 0.0 * x, 0.0 * x
    for j in range(_FRACTION):
        i = ti.cast(_FRACTION - j, ti.f32)
        w = -i * (i - k) / v
        w_k = (i - w * v_k) / v
        w_kk = -(2.0 * w_k * v_k + w * v_kk) / v
        v = x + (2.0 * i - 1.0) - k + w
        v_k, v_kk = w_k - 1.0, w_kk
    rate = v_k / v
    return log(v), rate, v_kk / v - rate * rate


@ti.func
def _tail(x, k):
    """One tail and the density at x > 0.

    Returns:
        lower: whether the tail is the lower one, P; else it is Q.
        t, t_k, t_kk: the tail's logarithm, and its derivatives in k.
        g, g_k: the density's logarithm, and its derivative in k.
        b: the derivative of g in x.
    """
    log_gamma, digamma, trigamma = gammas(k)  # at k + 1
    log_x, inverse = log(x), 1.0 / k
    g = (k - 1.0) * log_x - x - log_gamma + log(k)
    g_k = log_x - digamma + inverse
    t, t_k, t_kk = 0.0 * x, 0.0 * x, 0.0 * x
    lower = x < k + _SWITCH
    if lower:
        m, m_k, m_kk = _series(x, k)
        t, t_k, t_kk = k * log_x - x - log_gamma + m, log_x - digamma + m_k, m_kk - trigamma
    else:
        v, v_k, v_kk = _fraction(x, k)
        t = g + log_x - v
        t_k, t_kk = g_k - v_k, -trigamma - inverse * inverse - v_kk
    return lower, t, t_k, t_kk, g, g_k, (k - 1.0) / x - 1.0


@ti.func
def _own(t, t_k, t_kk, g, g_k, b, sign):
    """log T and its derivatives, with T the tail of `_tail` (P: sign 1, Q: sign -1)."""
    rate = sign * exp(g - t)
    return t, rate, rate * (b - rate), t_k, rate * (g_k - t_k), t_kk


@ti.func
def _other(t, t_k, t_kk, g, g_k, b, sign):
    """log(1 - T) and its derivatives."""
    tail = exp(t)
    rest = 1.0 - tail
    rate = -sign * exp(g) / rest
    by_k = -tail * t_k / rest
    by_kk = -tail * (t_kk + t_k * t_k) / rest - by_k * by_k
    return log1p(-tail), rate, rate * (b - rate), by_k, rate * (g_k - by_k), by_kk


@ti.func
def _zero_outside(x, values: ti.template(), outside):
    """The six values; where x <= 0, a constant and zero derivatives."""
    inside = x > 0.0
    return (
        ti.select(inside, values[0], outside),
        ti.select(inside, values[1], 0.0),
        ti.select(inside, values[2], 0.0),
        ti.select(inside, values[3], 0.0),
        ti.select(inside, values[4], 0.0),
        ti.select(inside, values[5], 0.0),
    )


@ti.func
def cdf(x, k):
    lower, t, t_k, t_kk, g, g_k, b = _tail(maximum(x, _SMALLEST), k)
    tail, f = exp(t), exp(g)
    sign = ti.select(lower, 1.0, -1.0)
    value = ti.select(lower, tail, 1.0 - tail)
    by_k, by_kk = sign * tail * t_k, sign * tail * (t_kk + t_k * t_k)
    return _zero_outside(x, (value, f, f * b, by_k, f * g_k, by_kk), 0.0)


@ti.func
def log_cdf(x, k):
    lower, t, t_k, t_kk, g, g_k, b = _tail(maximum(x, _SMALLEST), k)
    own = _own(t, t_k, t_kk, g, g_k, b, 1.0)
    other = _other(t, t_k, t_kk, g, g_k, b, -1.0)
    return _zero_outside(x, _pick(lower, own, other), LOG_ZERO)


@ti.func
def log_survival(x, k):
    lower, t, t_k, t_kk, g, g_k, b = _tail(maximum(x, _SMALLEST), k)
    own = _own(t, t_k, t_kk, g, g_k, b, -1.0)
    other = _other(t, t_k, t_kk, g, g_k, b, 1.0)
    return _zero_outside(x, _pick(lower, other, own), 0.0)


@ti.func
def _pick(condition, a: ti.template(), b: ti.template()):
    return (
        ti.select(condition, a[0], b[0]),
        ti.select(condition, a[1], b[1]),
        ti.select(condition, a[2], b[2]),
        ti.select(condition, a[3], b[3]),
        ti.select(condition, a[4], b[4]),
        ti.select(condition, a[5], b[5]),
    )


def _reach_reversed(threshold: float, k: float) -> float:
    from scipy.special import gammainccinv  # here, as SciPy takes a while to import

    return math.inf if threshold <= 0 else float(gammainccinv(k, threshold))


GAMMA = register(
    DistributionFormulas(
        "gamma",
        cdf,
        log_cdf,
        log_survival,
        reach=lambda t, k: 0.0,
        saturates_at=math.inf,
        source="Petersen et al., CVPR 2022, table 1",
        shaped=True,
    )
)
GAMMA_REV = register(
    reversed_formulas(
        GAMMA,
        name="gamma_rev",
        reach=_reach_reversed,
        saturates_at=0.0,
        mirrored=True,
    )
)
