"""The sums of each pixel, in one pass over its fragments. No derivative."""

from typing import Any

import taichi as ti

from taichi_raster.kernels.fragment import Fragment, Meeting
from taichi_raster.kernels.pairs import PairKernels
from taichi_raster.layout import Dim, Slot
from taichi_raster.numbers import Local, element, exp, let, log, raw, set_to, traced

_NOTHING = -1e30  # the logarithm of nothing yet


class _Pixel:
    """A pixel's running sums."""

    _data_oriented = True

    def __init__(self, background: Any, channels: int, grounded: bool) -> None:
        self.total, self.weight = Local(), Local()
        self.colour = [Local() for _ in range(channels)]
        self.largest = Local(background)
        self.peak = Local(0.0 if grounded else _NOTHING)
        self.saturated, self.nearest, self.top = Local(0), Local(-1), Local(-1)
        self.nearest_z = Local()


@ti.data_oriented
class Forward(PairKernels):
    """Also finds what must not be differentiated: reference depth and offset of the log-weights,
    peak of the T-conorm's exponents, number of saturated fragments, nearest and top face."""

    @ti.kernel
    def render(self, slots: ti.i32):
        for slot in range(slots):
            run = slot // self.spread
            mine = ti.select(slot == run * self.spread, self.dims[Dim.RUN_LENGTH], 0)
            for step in range(mine):
                b, row, column, tile = self.pixel(run * self.dims[Dim.RUN_LENGTH] + step)
                if row < self.dims[Dim.HEIGHT] and column < self.dims[Dim.WIDTH]:
                    self.render_pixel(b, row, column, tile)

    @ti.func
    def render_pixel(self, b, row, column, tile):
        q = self.pixel_index(b, row, column)
        sums = self.begin(q)
        for k in range(self.tile_begin[tile], self.tile_begin[tile + 1]):
            m = self.meet(b, self.tile_faces[k], row, column)
            if m.near:
                f = self.weigh(m)
                if f.counts:
                    self.add_alpha(m, f, sums)
                    if ti.static(self.coloured):
                        if f.visible:
                            if ti.static(self.hard):
                                if self.is_nearer(m, f, sums):
                                    self.replace_colour(m, f, sums)
                            else:
                                self.add_colour(m, f, sums)
        self.finish(q, sums)

    @traced
    def begin(self, q: Any) -> _Pixel:
        # On entry, `offset` holds the background's depth (softmax) or log-weight.
        return _Pixel(element(self.offset, q), self.channels, self.conorm.grounded)

    @traced
    def add_alpha(self, m: Meeting, f: Fragment, sums: _Pixel) -> None:
        a, log_s, saturated = f.edge.f, f.edge.log_s, f.edge.saturated
        if self.conorm.largest_alone:
            larger = let(raw(a) > sums.total.expression)
            sums.top.set(ti.select(larger, m.face, sums.top.expression))
            sums.total.set(ti.select(larger, raw(a), sums.total.expression))
            return
        if saturated is not None:
            sums.saturated.add(ti.cast(saturated, ti.i32))
        p = self.parameter(m.b, Slot.P)
        peak = None
        if self.conorm.exponent is not None:
            e = let(raw(self.conorm.exponent(a, log_s, p)))
            if saturated is not None:
                e = let(ti.select(saturated, sums.peak.expression, e))
            peak = let(ti.max(sums.peak.expression, e))
            sums.total.set(sums.total.expression * exp(sums.peak.expression - peak))
            sums.peak.set(peak)
        sums.total.add(raw(self.conorm_term(m.b, a, log_s, p, saturated, peak)))

    @traced
    def is_nearer(self, m: Meeting, f: Fragment, sums: _Pixel) -> Any:
        nearer = (sums.nearest.expression < 0) | (raw(f.z) < sums.nearest_z.expression)
        return let(m.foot.choice.inside & nearer)

    @traced
    def replace_colour(self, m: Meeting, f: Fragment, sums: _Pixel) -> None:
        sums.nearest.set(m.face)
        sums.nearest_z.set(raw(f.z))
        sums.weight.set(1.0)
        for c, colour in enumerate(self.colours(m, f.mixing)):
            sums.colour[c].set(raw(colour))

    @traced
    def add_colour(self, m: Meeting, f: Fragment, sums: _Pixel) -> None:
        """Add a fragment, with weights relative to the largest so far."""
        largest = sums.largest.expression
        if self.depth.softmax:
            key = raw(f.z_norm)
            rise = let((key - largest) / raw(self.parameter(m.b, Slot.GAMMA)))
        else:
            key = let(raw(self.depth.at(self, m.b, f.z_norm, 0.0).l))
            rise = let(key - largest)
        shrink = let(exp(-ti.abs(rise)))
        rises = let(rise > 0.0)
        old, new = let(ti.select(rises, shrink, 1.0)), let(ti.select(rises, 1.0, shrink))
        sums.largest.set(ti.max(largest, key))
        part = let(raw(f.edge.f) * new)
        sums.weight.set(sums.weight.expression * old + part)
        for c, colour in enumerate(self.colours(m, f.mixing)):
            sums.colour[c].set(sums.colour[c].expression * old + part * raw(colour))

    @traced
    def finish(self, q: Any, sums: _Pixel) -> None:
        b = let(q // (self.dim(Dim.HEIGHT) * self.dim(Dim.WIDTH)))
        to = let(q * self.sums)
        norm: Any = 1.0
        if self.coloured and not self.hard:
            # Any offset common to all log-weights cancels: take the one that makes their sum 1.
            fall = element(self.offset, q) - sums.largest.expression
            if self.depth.softmax:
                fall = fall / raw(self.parameter(b, Slot.GAMMA))
            norm = let(ti.max(sums.weight.expression + exp(fall), 1e-30))
            set_to(
                element(self.reference, q), sums.largest.expression if self.depth.softmax else 0.0
            )
            base = 0.0 if self.depth.softmax else sums.largest.expression
            set_to(element(self.offset, q), base + log(norm))
        set_to(element(self.y, to), sums.total.expression)
        set_to(element(self.y, to + 1), sums.weight.expression / norm)
        for c, colour in enumerate(sums.colour):
            set_to(element(self.y, to + 2 + c), colour.expression / norm)
        set_to(element(self.peak, q), sums.peak.expression)
        set_to(element(self.saturated, q), sums.saturated.expression)
        set_to(element(self.nearest, q), sums.nearest.expression)
        set_to(element(self.top, q), sums.top.expression)
