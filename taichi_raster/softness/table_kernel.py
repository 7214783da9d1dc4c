"""A tabulated softness's logit in the kernels: a cubic polynomial in each cell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import taichi as ti

from taichi_raster.maths import elementary
from taichi_raster.maths.arithmetic import frozen, minimum
from taichi_raster.maths.dual import Number, raw
from taichi_raster.maths.tracing import let
from taichi_raster.runtime.variant import Table


@dataclass(frozen=True)
class TableTape:
    """A table at one x, with what its VJP needs.

    Attributes:
        table: its layout.
        first: the index of the first of the cell's four weights.
        logit: the value.
        by_x: its derivative in x.
        basis: its derivatives in the four weights.
    """

    table: Table
    first: Any
    logit: Number
    by_x: Number
    basis: list[Number]


def evaluate(
    table: Table, weights: Callable[[Any], list[Number]], x: Number, autodiff: bool
) -> TableTape:
    """Evaluate a table; `weights(i)` gives the four weights of cell i, as `Table` lays them out."""
    bare = frozen(raw(x)) if autodiff else raw(x)
    negative = let(bare < 0.0)
    sign = let(ti.select(negative, -1.0, 1.0))
    v = x * sign * (1.0 / table.width) + 1.0
    within = minimum(frozen(raw(v)) if autodiff else raw(v), 2.0**table.octaves)
    number, begin = elementary.octave_cell(within, table.subdivision)
    cell = let(ti.select(negative, table.knots, 0) + number)
    c0, c1, c2, c3 = weights(cell)
    t = (v - begin) * table.width
    inner = c2 + t * c3  # Horner's rule, for the value and for its slope
    outer = c1 + t * inner
    along = outer + t * (inner + t * c3)
    square = t * t
    basis = [Number(1.0), t, square, square * t]
    return TableTape(table, let(4 * cell), c0 + t * outer, along * sign, basis)
