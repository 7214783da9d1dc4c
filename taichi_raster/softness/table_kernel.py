"""A tabulated softness's logit, as the kernels compute it: a cubic polynomial in each cell."""

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
    last = 2.0**table.octaves
    number, begin = elementary.octave_cell(let(ti.min(bare, last)), table.subdivision)
    first = let(ti.select(negative, 4 * table.knots, 0) + 4 * number)
    c0, c1, c2, c3 = (weight(first + i) for i in range(4))
    t = (v - begin) * table.width
    square = t * t
    logit = c0 + t * (c1 + t * (c2 + t * c3))
    along = c1 + t * (c2 * 2.0 + t * (c3 * 3.0))
    basis = [Number(1.0), t, square, square * t]
    return TableTape(table, first, logit, select(negative, -along, along), basis)
