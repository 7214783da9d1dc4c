"""exp, log and atan2 for the kernels.

On a CPU, Taichi's functions call the C library for one number at a time, which keeps LLVM from
computing several pixels at once. So there these are plain arithmetic, without a branch. On a GPU
exp and log are the hardware's. Kernels that Taichi differentiates need its own: see `native`.

The arguments are reduced as in W. J. Cody and W. Waite, *Software Manual for the Elementary
Functions*, 1980; results are good to a few units in the last place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import taichi as ti
from taichi.lang import impl

from taichi_raster.maths.arithmetic import clamp, maximum, minimum, polynomial, types
from taichi_raster.maths.tracing import let, traced
from taichi_raster.runtime.device import runtime


class _Native:
    """Whether Taichi's functions are used, looked up when a kernel is compiled."""

    forced = False

    def __bool__(self) -> bool:
        return self.forced or runtime().arch != "cpu"


_native = _Native()


@contextmanager
def native() -> Iterator[None]:
    """Within it, kernels are compiled with Taichi's functions, which its autodiff can follow.

    Autodiff also needs Taichi's own optimisation, which `init` turns off on CPUs.
    """
    config = impl.current_cfg()
    before = _native.forced, config.advanced_optimization
    _native.forced, config.advanced_optimization = True, True
    try:
        yield
    finally:
        _native.forced, config.advanced_optimization = before


class _Format:
    """A floating-point format, for taking its numbers apart.

    Attributes:
        digits: of the mantissa.
        shifter: adding it to a small number leaves the nearest integer in the low bits.
        least, most: between these exp(x) is a normal number.
        ln2_high, ln2_low: log 2 in two parts, the first one with few digits.
        exp, log: coefficients; smallest: the smallest normal number.
    """

    def __init__(self, digits: int, bias: int, ln2_high: float, ln2_low: float, terms: int) -> None:
        self.digits = digits
        self.shifter = 1.5 * 2.0**digits
        self.least, self.most = (1.0 - bias) * math.log(2), bias * math.log(2)
        self.ln2_high, self.ln2_low = ln2_high, ln2_low
        self.exp = tuple(1 / math.factorial(k) for k in reversed(range(terms)))
        self.log = tuple(2 / (2 * k + 1) for k in reversed(range(terms - 2)))
        self.smallest = 2.0 ** (1 - bias)


_SINGLE = _Format(23, 127, 0.693359375, -2.12194440054690583e-4, 8)
_DOUBLE = _Format(52, 1023, 6.93147180369123816e-1, 1.90821492927058770e-10, 14)


class _Current:
    def __getattr__(self, name: str) -> Any:
        return getattr(_SINGLE if types.single else _DOUBLE, name)


_format = _Current()
_LOG2_E = 1 / math.log(2)
_ROOT_HALF = math.sqrt(0.5)


def _bits(number: float) -> Any:
    return ti.bit_cast(ti.cast(number, types.real), types.bits)


def _integer(shifted: Any) -> Any:
    """The number whose lowest bits hold an integer, taken off the shifter, as a number."""
    return let(ti.bit_cast(shifted + _bits(_format.shifter), types.real) - _format.shifter)


@traced
def exp(x: Any) -> Any:
    """e^x; 0 where that is below the normal numbers, and never more than e^(most)."""
    if _native:
        return let(ti.exp(x))
    x = let(x)
    near = clamp(x, _format.least, _format.most)
    shifted = let(near * _LOG2_E + _format.shifter)
    n = let(shifted - _format.shifter)
    r = let((near - n * _format.ln2_high) - n * _format.ln2_low)
    exponent = (ti.bit_cast(shifted, types.bits) << _format.digits) + _bits(1.0)
    power = let(ti.bit_cast(exponent, types.real))
    return let(ti.select(x < _format.least, 0.0, polynomial(r, _format.exp) * power))


@traced
def log(x: Any) -> Any:
    """log x for x > 0; where x is below the normal numbers, the logarithm of the smallest one.

    x = m 2^n with m in [sqrt(1/2), sqrt(2)), and log m = 2 atanh((m - 1) / (m + 1)).
    """
    if _native:
        return let(ti.log(x))
    bits = let(ti.bit_cast(maximum(x, _format.smallest), types.bits))
    exponent = _exponent(bits)
    m = let(ti.bit_cast(bits - (exponent << _format.digits), types.real))
    return _log(exponent, let((m - 1.0) / (m + 1.0)))


@traced
def log1p(x: Any) -> Any:
    """log(1 + x) for x > -1, with all its digits where x is small.

    As `log` of u = 1 + x = m 2^n, but with m - 1 = (x - (2^n - 1)) / 2^n. On a GPU, whose log may
    promise little, by the series of 2 atanh(x / (2 + x)) where x is small.
    """
    x = let(x)
    if _native:
        s = let(x / (2.0 + x))
        series = 2.0 * s * polynomial(let(s * s), _ATANH)
        return let(ti.select(ti.abs(x) < 0.125, series, ti.log(1.0 + x)))
    exponent = _exponent(let(ti.bit_cast(maximum(1.0 + x, _format.smallest), types.bits)))
    shift = let(exponent << _format.digits)
    power = ti.bit_cast(_bits(1.0) + shift, types.real)
    inverse = ti.bit_cast(_bits(1.0) - shift, types.real)
    f = let((x - (power - 1.0)) * inverse)
    return _log(exponent, let(f / (2.0 + f)))


def _exponent(bits: Any) -> Any:
    """n of m 2^n."""
    return let((bits - _bits(_ROOT_HALF)) >> _format.digits)


def _log(exponent: Any, s: Any) -> Any:
    """log of 2^n (1 + s) / (1 - s)."""
    n = _integer(exponent)
    series = s * polynomial(let(s * s), _format.log)
    return let(n * _format.ln2_high + (series + n * _format.ln2_low))


@traced
def octave_cell(v: Any, subdivision: int) -> tuple[Any, Any]:
    """(number, beginning) of the cell that v >= 1 lies in; an octave has 2^subdivision cells.

    They are v's exponent and its leading digits.
    """
    bits = let(ti.bit_cast(v, types.bits))
    rest = _format.digits - subdivision
    number = let((bits - _bits(1.0)) >> rest)
    begin = let(ti.bit_cast((bits >> rest) << rest, types.real))
    return let(ti.cast(number, ti.i32)), begin


_ATANH = tuple(1 / (2 * k + 1) for k in reversed(range(8)))
_TAN_EIGHTH = math.sqrt(2) - 1
# atan(t) = t + t^3 P(t^2) / Q(t^2) for |t| <= tan(pi / 8), from the Cephes library.
_ATAN_NUM = (
    -8.750608600031904122785e-1,
    -1.615753718733365076637e1,
    -7.500855792314704667340e1,
    -1.228866684490136173410e2,
    -6.485021904942025371773e1,
)
_ATAN_DEN = (
    1.0,
    2.485846490142306297962e1,
    1.650270098316988542046e2,
    4.328810604912902668951e2,
    4.853903996359136964868e2,
    1.945506571482613964425e2,
)


@traced
def atan2(y: Any, x: Any) -> Any:
    """The angle of (x, y), in [0, pi]; y >= 0, and not both 0."""
    y, x = let(y), let(x)
    size = let(ti.abs(x))
    low, high = minimum(size, y), maximum(size, y)
    wide = let(low > _TAN_EIGHTH * high)
    t = let(ti.select(wide, low - high, low) / ti.select(wide, low + high, high))
    square = let(t * t)
    rest = let(square * polynomial(square, _ATAN_NUM) / polynomial(square, _ATAN_DEN))
    angle = let(ti.select(wide, math.pi / 4, 0.0) + (t + t * rest))
    angle = let(ti.select(y > size, math.pi / 2 - angle, angle))
    return let(ti.select(x < 0.0, math.pi - angle, angle))
