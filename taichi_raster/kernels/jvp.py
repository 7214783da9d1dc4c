"""The Jacobian-vector product: each pair's terms with their tangents along x_dot, added up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import taichi as ti

from taichi_raster.kernels.fragment import Meeting
from taichi_raster.kernels.terms import TermKernels
from taichi_raster.maths.dual import Number
from taichi_raster.maths.tracing import element, set_to, traced
from taichi_raster.maths.variables import Lanes, Local
from taichi_raster.runtime.layout import TILE


class Tangents:
    """The tangents of a pixel's sums, a variable for each plane of y."""

    _data_oriented = True

    def __init__(self, planes: list[Any]) -> None:
        self.planes = planes

    @traced
    def at(self, lane: Any) -> Tangents:
        return Tangents([plane.at(lane) for plane in self.planes])


@ti.data_oriented
class JVP(TermKernels):
    """The tangents of the sums."""

    tangents = True

    @traced
    def tile_sums(self) -> Tangents:
        return self._sums(lambda: Lanes(TILE * TILE))

    @traced
    def pixel_sums(self) -> Tangents:
        return self._sums(Local)

    @traced
    def _sums(self, make: Callable[[], Any]) -> Tangents:
        return Tangents([make() for _ in range(2 + self.channels)])

    @traced
    def add(self, m: Meeting, sums: Tangents) -> None:
        f = self.weigh(m)
        for plane, term in zip(sums.planes, self.terms(m, f), strict=False):
            if isinstance(term, Number) and term.d is not None:
                plane.add(ti.select(f.counts, term.d, 0.0))

    @traced
    def finish(self, b: Any, q: Any, sums: Tangents) -> None:
        for i, plane in enumerate(sums.planes):
            set_to(element(self.fields.y_dot, self.place(i, q)), plane.value)
