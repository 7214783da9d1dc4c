"""A tabulated softness's logit, as the kernels compute it: cubic Hermite interpolation.

Beyond the last knot the logit goes on along its tangent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import taichi as ti

from taichi_raster import elementary
from taichi_raster.architecture import Table
from taichi_raster.arithmetic import frozen
from taichi_raster.numbers import Number, raw, select
from taichi_raster.tracing import let


@dataclass(frozen=True)
class TableTape:
    """A table at one x, with what its derivatives need.

    Attributes:
        table: its layout; first: where the cell's four weights begin.
        logit: the value there; by_x: its slope.
        basis: the derivatives of the value with respect to the four weights.
    """

    table: Table
    first: Any
    logit: Number
    by_x: Number
    basis: list[Number]


def evaluate(table: Table, weight: Callable[[Any], Number], x: Number, autodiff: bool) -> TableTape:
    """`weight(i)` is the i-th weight."""
    negative = let((frozen(raw(x)) if autodiff else raw(x)) < 0.0)
    size = select(negative, -x, x)
    v = size * (1.0 / table.width) + 1.0
    bare = frozen(raw(v)) if autodiff else raw(v)
    # The last cell's end belongs to it.
    within = let(ti.min(bare, 2.0**table.octaves * (1.0 - 2.0 ** (-table.subdivision - 3))))
    number, begin, inverse = elementary.octave_cell(within, table.subdivision)
    first = let(ti.select(negative, 2 * table.knots, 0) + 2 * number)
    value, slope, next_value, next_slope = (weight(first + i) for i in range(4))
    t = (v - begin) * inverse
    over = let(raw(t) > 1.0)
    beyond = select(over, t - 1.0, 0.0)
    t = select(over, 1.0, t)
    h = let(table.width / inverse)
    rise, bend = next_value - value, (slope + next_slope) * h
    c2 = rise * 3.0 - slope * (2.0 * h) - next_slope * h
    c3 = bend - rise * 2.0
    logit = value + t * (slope * h + t * (c2 + t * c3)) + next_slope * (beyond * h)
    along = slope + t * (c2 * 2.0 + t * (c3 * 3.0)) * (1.0 / h)
    along = select(over, next_slope, along)
    square = t * t
    late = square * (3.0 - t * 2.0)
    basis = [
        1.0 - late,
        t * (1.0 - t) * (1.0 - t) * h,
        late,
        (square * (t - 1.0) + beyond) * h,
    ]  # fmt: skip
    return TableTape(table, first, logit, select(negative, -along, along), basis)
