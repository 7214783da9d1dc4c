"""Each pair's terms, added to the sums in memory: what Taichi differentiates.

It is the oracle of the closed forms. The reverse pass of `Accumulate` is the vector-Jacobian
product. `AccumulateTangent` adds up the terms' tangents: its value is the Jacobian-vector product.
Its reverse pass, seeded with an adjoint v of the sums' tangents, is the derivative of
v . J(x) x_dot with respect to x. Nothing is assigned in a branch, because autodiff would keep it on
a stack. What must not be differentiated is frozen first.
"""

from typing import Any

import taichi as ti

from taichi_raster.kernels.fragment import Fragment, Meeting
from taichi_raster.kernels.terms import TermKernels
from taichi_raster.maths.dual import Number, raw
from taichi_raster.maths.tracing import element, traced
from taichi_raster.runtime.layout import Dim


@ti.data_oriented
class Accumulate(TermKernels):
    """The differentiable sums; their values come from `Forward`, which is faster."""

    autodiff = True

    @ti.kernel
    def accumulate(self, runs: ti.i32):
        for run in range(runs):
            for step in range(self.dims[Dim.RUN_LENGTH]):
                self.at_pixel(run * self.dims[Dim.RUN_LENGTH] + step, self.add_pixel, ())

    @ti.func
    def add_pixel(self, b, row, column, tile):
        for k in range(self.fields.tile_begin[tile], self.fields.tile_begin[tile + 1]):
            m = self.meet(self.face(b, self.fields.tile_faces[k]), row, column)
            f = self.weigh(m)
            if f.counts:
                self.add_fragment(m, f)

    @traced
    def add_fragment(self, m: Meeting, f: Fragment) -> None:
        for plane, term in enumerate(self.terms(m, f)):
            self.add_term(self.place(plane, m.q), term)

    @traced
    def add_term(self, at: Any, term: Any) -> None:
        """Add a term, or its tangent."""
        if not self.tangents:
            place = element(self.fields.y, at)
            place += raw(term)
        elif isinstance(term, Number) and term.d is not None:
            place = element(self.fields.y_dot, at)
            place += term.d


@ti.data_oriented
class AccumulateTangent(Accumulate):
    """The tangents of the sums."""

    tangents = True
