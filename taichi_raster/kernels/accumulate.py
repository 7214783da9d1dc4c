"""Each (pixel, face) pair's terms, added to the pixel's sums: what Taichi differentiates.

The reverse pass of `Accumulate` is the vector-Jacobian product. `AccumulateTangent` adds up the
terms' tangents: its value is the Jacobian-vector product, and its reverse pass, seeded with an
adjoint v of the sums' tangents, the derivative of v . J(x) x_dot with respect to x. Nothing is
assigned in a branch, and what must not be differentiated is frozen first: autodiff would keep the
one on a stack and follow the other.
"""

from typing import Any

import taichi as ti

from taichi_raster.kernels.fragment import Fragment, Meeting
from taichi_raster.kernels.pairs import PairKernels
from taichi_raster.layout import Dim, Slot
from taichi_raster.numbers import Number, element, let, raw, select, traced


@ti.data_oriented
class Accumulate(PairKernels):
    """The differentiable sums; their values come from `Forward`, which is faster."""

    autodiff = True

    @ti.kernel
    def accumulate(self, runs: ti.i32):
        for run in range(runs):
            for step in range(self.dims[Dim.RUN_LENGTH]):
                b, row, column, tile = self.pixel(run * self.dims[Dim.RUN_LENGTH] + step)
                if row < self.dims[Dim.HEIGHT] and column < self.dims[Dim.WIDTH]:
                    for k in range(self.tile_begin[tile], self.tile_begin[tile + 1]):
                        m = self.meet(b, self.tile_faces[k], row, column)
                        f = self.weigh(m)
                        if f.counts:
                            self.add_fragment(m, f)

    @traced
    def add_fragment(self, m: Meeting, f: Fragment) -> None:
        to = let(m.q * self.sums)
        self.add(to, self.alpha_term(m, f))
        if self.coloured:
            weight = self.colour_weight(m, f)
            if not self.hard:
                self.add(to + 1, weight)
            for c, colour in enumerate(self.colours(m, f.mixing)):
                self.add(to + 2 + c, weight * colour)

    @traced
    def alpha_term(self, m: Meeting, f: Fragment) -> Number:
        if self.conorm.largest_alone:
            return select(element(self.top, m.q) == m.face, f.edge.f, 0.0)
        peak = element(self.peak, m.q) if self.conorm.exponent is not None else None
        p = self.parameter(m.b, Slot.P)
        return self.conorm_term(m.b, f.edge.f, f.edge.log_s, p, f.edge.saturated, peak)

    @traced
    def colour_weight(self, m: Meeting, f: Fragment) -> Number:
        if self.hard:
            return Number(ti.select(element(self.nearest, m.q) == m.face, 1.0, 0.0))
        l = self.depth.at(self, m.b, f.z_norm, element(self.reference, m.q)).l  # noqa: E741
        return f.edge.f * self.relative_weight(m, f, l)

    @traced
    def add(self, at: Any, number: Any) -> None:
        """Add a term, or its tangent."""
        if not self.tangents:
            place = element(self.y, at)
            place += raw(number)
        elif isinstance(number, Number) and number.d is not None:
            place = element(self.y_dot, at)
            place += number.d


@ti.data_oriented
class AccumulateTangent(Accumulate):
    """The tangents of the sums."""

    tangents = True
