"""The small network of a learned softness, as the kernels compute it.

The network maps x to u = x + r(x), where r is made of tanh layers. It is written on numbers that
may carry derivatives (see numbers.py), so that this one text gives its value, its slope, and their
directional derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import taichi as ti

from taichi_raster.architecture import Architecture
from taichi_raster.arithmetic import frozen, polynomial, types
from taichi_raster.numbers import Number, let, log, raw, select, sqrt, total


def logit(arch: Architecture, weight: Callable[[int], Number], x: Any) -> Any:
    """u = x + r(x); `weight(i)` is the network's i-th weight, in the order of `MLPSoftness`."""
    h = [_asinh(x) if arch.asinh else x]
    first = h
    for layer, (inputs, outputs) in enumerate(arch.fans):
        start = arch.offsets[layer]
        sums = []
        for unit in range(outputs):
            terms = [weight(start + unit * inputs + i) * h[i] for i in range(inputs)]
            if arch.bias:
                terms.append(weight(start + outputs * inputs + unit))
            sums.append(total(terms))
        if layer == len(arch.widths):
            return x + sums[0]
        if arch.residual and layer == len(arch.widths) - 1:
            sums = [s + f for s, f in zip(sums, first, strict=True)]
        h = [_tanh(s) for s in sums]
        first = h if layer == 0 else first
    raise AssertionError("the last layer returns")


# A rational minimax approximation of tanh on [-7.9, 7.9], good to float32 (from the Eigen library).
_TANH_EDGE = 7.90531110763549805
_TANH_NUM = (
    -2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08,
    1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03,
)  # fmt: skip
_TANH_DEN = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)


def _tanh(x: Any) -> Any:
    if isinstance(x, Number):
        h = _tanh(x.v)
        return type(x)(h, None if x.d is None else (1.0 - h * h) * x.d)
    v = let(frozen(x))
    if types.single:
        c = let(ti.math.clamp(v, -_TANH_EDGE, _TANH_EDGE))
        h = let(c * polynomial(c * c, _TANH_NUM) / polynomial(c * c, _TANH_DEN))
    else:
        e = let(ti.exp(-2.0 * ti.abs(v)))
        h = let(ti.select(v >= 0.0, 1.0 - e, e - 1.0) / (1.0 + e))
    # For Taichi's autodiff: the value's derivative is the closed form, not the approximation's.
    return let(h + (1.0 - h * h) * (x - v))


def _asinh(x: Any) -> Any:
    size = select(raw(x) >= 0.0, x, -x)
    y = log(size + sqrt(1.0 + size * size))
    return select(raw(x) >= 0.0, y, -y)
