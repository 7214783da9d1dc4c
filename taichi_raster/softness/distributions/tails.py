"""Builds a distribution's formulas from its tails, or from those of its mirror image.

Both tails, F and S = 1 - F, must be accurate to the last digits. f is the density, f1 its slope.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import taichi as ti

from taichi_raster.maths.arithmetic import minimum
from taichi_raster.maths.elementary import exp, log, log1p
from taichi_raster.softness.distributions.registry import LOG_ZERO, DistributionFormulas

Function = Callable[..., Any]


@ti.func
def log_of(value, rest, slope, curve):
    """log v and its derivatives, from v, 1 - v and v's derivatives; `LOG_ZERO` where v is 0."""
    some = value > 0.0
    v = ti.select(some, value, 1.0)
    rate = ti.select(some, slope / v, 0.0)
    second = ti.select(some, curve / v - rate * rate, 0.0)
    log_v = ti.select(v < 0.5, log(v), log1p(-minimum(rest, 0.75)))
    return ti.select(some, log_v, LOG_ZERO), rate, second


def from_tails(tails: Function) -> tuple[Function, Function, Function]:
    """(cdf, log_cdf, log_survival) from ``tails(x) -> (F, S, f, f1)``."""

    @ti.func
    def cdf(x):
        big_f, _s, f, f1 = tails(x)
        return big_f, f, f1

    @ti.func
    def log_cdf(x):
        big_f, s, f, f1 = tails(x)
        return log_of(big_f, s, f, f1)

    @ti.func
    def log_survival(x):
        big_f, s, f, f1 = tails(x)
        return log_of(s, big_f, -f, -f1)

    return cdf, log_cdf, log_survival


def reflected(log_survival: Function) -> Function:
    """log F of a distribution, from log(1 - F) of its mirror image."""

    @ti.func
    def log_cdf(x):
        v, v_x, v_xx = log_survival(-x)
        return v, -v_x, v_xx

    return log_cdf


def reflected_with_shape(log_survival: Function) -> Function:
    """`reflected`, for formulas with a shape."""

    @ti.func
    def log_cdf(x, k):
        v, v_x, v_xx, v_k, v_kx, v_kk = log_survival(-x, k)
        return v, -v_x, v_xx, v_k, -v_kx, v_kk

    return log_cdf


def reversed_formulas(base: DistributionFormulas, **changes: Any) -> DistributionFormulas:
    """The mirror image 1 - F(-x) of a distribution, which exchanges its tails."""

    @ti.func
    def cdf(x):
        log_s, _1, _2 = base.log_survival(-x)
        _f, f, f1 = base.cdf(-x)
        return exp(log_s), f, -f1

    @ti.func
    def cdf_with_shape(x, k):
        log_s, _1, _2, _3, _4, _5 = base.log_survival(-x, k)
        _f, f, f1, f_k, f_kx, f_kk = base.cdf(-x, k)
        return exp(log_s), f, -f1, -f_k, f_kx, -f_kk

    reflect = reflected_with_shape if base.shaped else reflected
    return replace(
        base,
        cdf=cdf_with_shape if base.shaped else cdf,
        log_cdf=reflect(base.log_survival),
        log_survival=reflect(base.log_cdf),
        **changes,
    )
