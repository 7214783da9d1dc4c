"""Small functions that the kernels share; they run while a kernel is compiled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import taichi as ti

from taichi_raster.maths.tracing import let, traced
from taichi_raster.runtime.device import runtime


class _Types:
    """The runtime's number types, looked up when a kernel is compiled."""

    @property
    def real(self):
        return runtime().ti_float

    @property
    def single(self) -> bool:
        return runtime().precision == "f32"

    @property
    def on_cpu(self) -> bool:
        return runtime().arch == "cpu"

    @property
    def bits(self):
        return runtime().ti_bits


types = _Types()


@traced
def frozen(value: Any) -> Any:
    """`value` with no derivative: autodiff does not follow it through the integers."""
    return ti.bit_cast(ti.bit_cast(value, types.bits), types.real)


@traced
def polynomial(x: Any, coefficients: Sequence[float]) -> Any:
    """Horner's rule; coefficients from the highest power down."""
    value: Any = coefficients[0]
    for c in coefficients[1:]:
        value = x * value + c
    return let(value)


@traced
def minimum(x: Any, y: Any) -> Any:
    """The smaller of two numbers; y where x is NaN.

    A CPU needs one instruction for this, and three for `ti.min`, which also takes x if y is NaN.
    """
    x, y = let(x), let(y)
    return let(ti.select(x < y, x, y))


@traced
def maximum(x: Any, y: Any) -> Any:
    """The larger of two numbers; y where x is NaN. See `minimum`."""
    x, y = let(x), let(y)
    return let(ti.select(x > y, x, y))


@traced
def clamp(x: Any, low: Any, high: Any) -> Any:
    """x, kept in [low, high]."""
    return minimum(maximum(x, low), high)
