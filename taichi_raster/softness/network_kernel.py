"""The small network of a learned softness in the kernels: its value and its VJP.

The network maps x to u = x + r(x), where r is made of tanh layers. It is written on dual numbers
(see dual.py), so that the same code also gives tangents of both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import taichi as ti

from taichi_raster.maths import elementary
from taichi_raster.maths.arithmetic import clamp, frozen, polynomial, types
from taichi_raster.maths.dual import Number, log, raw, select, sqrt
from taichi_raster.maths.tracing import let
from taichi_raster.maths.vector import total
from taichi_raster.runtime.variant import Architecture

Weight = Callable[[int], Number]


@dataclass(frozen=True)
class Tape:
    """A network at one x, with what its VJP needs.

    Attributes:
        arch: the architecture.
        weight: gives the i-th weight, in the order of `MLPSoftness.weights`.
        x: the input.
        logit: the output u.
        layers: the first layer's input, then the outputs of each hidden layer.
    """

    arch: Architecture
    weight: Weight
    x: Number
    logit: Number
    layers: list[list[Number]]


def evaluate(arch: Architecture, weight: Weight, x: Number) -> Tape:
    """Evaluate u = x + r(x)."""
    layers = [[_asinh(x) if arch.asinh else x]]
    for layer, (inputs, outputs) in enumerate(arch.fans):
        start, h = arch.offsets[layer], layers[-1]
        sums = []
        for unit in range(outputs):
            terms = [weight(start + unit * inputs + i) * h[i] for i in range(inputs)]
            if arch.bias:
                terms.append(weight(start + outputs * inputs + unit))
            sums.append(total(terms))
        if layer == len(arch.widths):
            return Tape(arch, weight, x, x + sums[0], layers)
        if arch.residual and layer == len(arch.widths) - 1:
            sums = [s + f for s, f in zip(sums, layers[1], strict=True)]
        layers.append([_tanh(s) for s in sums])
    raise AssertionError("the last layer returns")


def pull(tape: Tape, u_bar: Number, take: Callable[[int, Number], None] | None) -> Number:
    """The adjoint of x, given that of u; `take(i, bar)`, if given, gets the i-th weight's."""
    arch = tape.arch
    bars, first_bars = [u_bar], None
    for layer in reversed(range(len(arch.fans))):
        inputs, outputs = arch.fans[layer]
        start, h = arch.offsets[layer], tape.layers[layer]
        if take is not None:
            for unit, bar in enumerate(bars):
                for i in range(inputs):
                    take(start + unit * inputs + i, bar * h[i])
                if arch.bias:
                    take(start + outputs * inputs + unit, bar)
        if arch.residual and layer == len(arch.widths) - 1:
            first_bars = bars
        bars = [
            total(bar * tape.weight(start + unit * inputs + i) for unit, bar in enumerate(bars))
            for i in range(inputs)
        ]
        if layer == 1 and first_bars is not None:
            bars = [bar + more for bar, more in zip(bars, first_bars, strict=True)]
        if layer > 0:
            bars = [bar * (1.0 - out * out) for bar, out in zip(bars, h, strict=True)]
    into = bars[0]
    if arch.asinh:
        into = into / sqrt(1.0 + tape.x * tape.x)
    return u_bar + into


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
        c = let(clamp(v, -_TANH_EDGE, _TANH_EDGE))
        h = let(c * polynomial(c * c, _TANH_NUM) / polynomial(c * c, _TANH_DEN))
    else:
        e = let(elementary.exp(-2.0 * ti.abs(v)))
        h = let(ti.select(v >= 0.0, 1.0 - e, e - 1.0) / (1.0 + e))
    # For Taichi's autodiff: the value's derivative is the closed form, not the approximation's.
    return let(h + (1.0 - h * h) * (x - v))


def _asinh(x: Any) -> Any:
    size = select(raw(x) >= 0.0, x, -x)
    y = log(size + sqrt(1.0 + size * size))
    return select(raw(x) >= 0.0, y, -y)
