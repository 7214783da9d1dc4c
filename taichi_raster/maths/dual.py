"""Dual numbers and their elementary functions; all of it runs while a kernel is compiled.

The mathematics of a (pixel, face) pair is plain Python on `Number`: running it emits the kernel's
instructions. With tangents, the same formulas also emit their directional derivative (forward
mode), so that each formula stands once. The sums with tangents are Jacobian-vector products. The
hand-written vector-Jacobian product with tangents gives second derivatives.

A `Jet` is a number whose parts are `Number`s. It gives a formula's slope, which may carry a tangent
of its own.
"""

from __future__ import annotations

import math
from typing import Any

import taichi as ti
from taichi.lang import impl

from taichi_raster.maths import elementary
from taichi_raster.maths.arithmetic import clamp, frozen, polynomial
from taichi_raster.maths.tracing import let


class Number:
    """A value v and its tangent d, or None where it has none.

    Both are Taichi expressions or Python numbers.
    """

    _data_oriented = True  # lets Taichi hand it through
    level = 1

    def __init__(self, v: Any, d: Any = None) -> None:
        self.v = let(v)
        self.d = None if d is None else let(d)

    def _parts(self, other: Any) -> tuple[Any, Any]:
        same = isinstance(other, Number) and other.level == self.level
        return (other.v, other.d) if same else (other, None)

    def _below(self, other: Any) -> bool:
        return isinstance(other, Number) and other.level > self.level

    def __add__(self, other: Any) -> Any:
        if self._below(other):
            return NotImplemented
        v, d = self._parts(other)
        return type(self)(self.v + v, _plus(self.d, d))

    def __mul__(self, other: Any) -> Any:
        if self._below(other):
            return NotImplemented
        v, d = self._parts(other)
        return type(self)(self.v * v, _plus(_times(self.d, v), _times(d, self.v)))

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> Any:
        return type(self)(-self.v, None if self.d is None else -self.d)

    def __sub__(self, other: Any) -> Any:
        return NotImplemented if self._below(other) else self + (-other)

    def __rsub__(self, other: Any) -> Any:
        return -self + other

    def __truediv__(self, other: Any) -> Any:
        if self._below(other):
            return NotImplemented
        v, d = self._parts(other)
        quotient = let(self.v / v)
        top = self.d if d is None else _plus(self.d, -(quotient * d))
        return type(self)(quotient, None if top is None else top / v)

    def __rtruediv__(self, other: Any) -> Any:
        return type(self)(other) / self

    @property
    def fixed(self) -> Any:
        """The same value without its tangent."""
        return type(self)(self.v)


class Jet(Number):
    """A value and its slope with respect to one variable, each a `Number`."""

    level = 2

    @property
    def slope(self) -> Any:
        return Number(0.0) if self.d is None else self.d


def _plus(a: Any, b: Any) -> Any:
    if a is None:
        return b
    return a if b is None else a + b


def _times(d: Any, v: Any) -> Any:
    return None if d is None else d * v


def raw(x: Any) -> Any:
    """The bare value."""
    while isinstance(x, Number):
        x = x.v
    return x


def chain(value: Any, *slopes: tuple[Any, Any], autodiff: bool = False) -> Number:
    """A function's value at numbers x_i, given its slopes: (slope_i, x_i) each.

    Under Taichi's autodiff, the value gets these slopes too, whatever formula computed it.
    """
    tangent = None
    for slope, x in slopes:
        tangent = _plus(tangent, _times(x.d, raw(slope)) if isinstance(x, Number) else None)
        if autodiff and isinstance(x, Number):
            value = frozen(value) + raw(slope) * (x.v - frozen(x.v))
    return Number(value, tangent)


def select(condition: Any, a: Any, b: Any) -> Any:
    """a where `condition`, else b; both are evaluated, so both must be finite."""
    level = max(x.level if isinstance(x, Number) else 0 for x in (a, b))
    if level == 0:
        return ti.select(condition, a, b)
    kind = Jet if level == Jet.level else Number
    (av, ad), (bv, bd) = kind(0.0)._parts(a), kind(0.0)._parts(b)
    if ad is None and bd is None:
        return kind(select(condition, av, bv))
    ad, bd = (0.0 if d is None else d for d in (ad, bd))
    return kind(select(condition, av, bv), select(condition, ad, bd))


def exp(x: Any) -> Any:
    if not isinstance(x, Number):
        return elementary.exp(x) if isinstance(x, impl.Expr) else math.exp(x)
    e = let(exp(x.v))
    return type(x)(e, _times(x.d, e))


def log(x: Any) -> Any:
    if not isinstance(x, Number):
        return elementary.log(x) if isinstance(x, impl.Expr) else math.log(x)
    return type(x)(log(x.v), None if x.d is None else x.d / x.v)


def sqrt(x: Any) -> Any:
    """The root of something positive."""
    if not isinstance(x, Number):
        return ti.sqrt(x)
    root = let(sqrt(x.v))
    return type(x)(root, None if x.d is None else x.d / (2.0 * root))


def upto(x: Any, largest: float) -> Any:
    """min(x, largest)."""
    return select(raw(x) < largest, x, largest)


def expm1(x: Any) -> Any:
    """exp(x) - 1, accurate where x is small."""
    if isinstance(x, Number):
        return type(x)(expm1(x.v), None if x.d is None else exp(x.v) * x.d)
    if not isinstance(x, impl.Expr):
        return math.expm1(x)
    near = let(clamp(x, -0.5, 0.5))
    return let(ti.select(ti.abs(x) < 0.5, near * polynomial(near, _EXPM1_RATIO), exp(x) - 1.0))


def log1p(x: Any) -> Any:
    """log(1 + x), accurate where x is small."""
    if isinstance(x, Number):
        return type(x)(log1p(x.v), None if x.d is None else x.d / (1.0 + x.v))
    return let(elementary.log1p(x)) if isinstance(x, impl.Expr) else math.log1p(x)


def expm1_ratio(x: Any) -> Any:
    """(exp(x) - 1) / x, and 1 at 0."""
    small = ti.abs(raw(x)) < 0.5
    away, near = select(small, 1.0, x), select(small, x, 0.0)
    return select(small, polynomial(near, _EXPM1_RATIO), expm1(away) / away)


def log1p_ratio(x: Any) -> Any:
    """log(1 + x) / x, and 1 at 0; x >= 0."""
    small = raw(x) < 0.0625
    away, near = select(small, 1.0, x), select(small, x, 0.0)
    return select(small, polynomial(near, _LOG1P_RATIO), log1p(away) / away)


_EXPM1_RATIO = tuple(1 / math.factorial(k + 1) for k in reversed(range(14)))
_LOG1P_RATIO = tuple((-1) ** k / (k + 1) for k in reversed(range(13)))
