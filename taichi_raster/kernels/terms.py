"""What a (pixel, face) pair adds to its pixel's sums, once the pixel's offsets are known."""

from typing import Any

import taichi as ti

from taichi_raster.kernels.by_tile import TileKernels
from taichi_raster.kernels.fragment import Fragment, Meeting
from taichi_raster.maths.dual import Number, select
from taichi_raster.maths.tracing import element, traced
from taichi_raster.runtime.layout import Slot, State


@ti.data_oriented
class TermKernels(TileKernels):
    """Kernels that add up these terms, or their tangents."""

    @traced
    def terms(self, m: Meeting, f: Fragment) -> list[Any]:
        """One for each plane of y."""
        if not self.coloured:
            return [self.alpha_term(m, f), 0.0]
        weight = self.colour_weight(m, f)
        colours = [weight * colour for colour in self.colours(m, f.mixing)]
        return [self.alpha_term(m, f), 0.0 if self.nearest_alone else weight, *colours]

    @traced
    def alpha_term(self, m: Meeting, f: Fragment) -> Number:
        if self.conorm.largest_alone:
            return select(element(self.fields.top, m.q) == m.face.index, f.edge.f, 0.0)
        peak = self.kept(State.PEAK, m.q) if self.conorm.exponent is not None else None
        p = self.parameter(m.b, Slot.P)
        return self.conorm_term(m.b, f.edge.f, f.edge.log_s, p, f.edge.saturated, peak)

    @traced
    def colour_weight(self, m: Meeting, f: Fragment) -> Number:
        if self.nearest_alone:
            return Number(ti.select(element(self.fields.nearest, m.q) == m.face.index, 1.0, 0.0))
        l = self.depth.at(self, m.b, f.z_norm, self.kept(State.REFERENCE, m.q)).l  # noqa: E741
        return f.edge.f * self.relative_weight(m, f, l)
