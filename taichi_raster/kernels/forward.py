"""The sums of each pixel, in one pass over its fragments. No derivative."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import taichi as ti

from taichi_raster.kernels.by_tile import TileKernels
from taichi_raster.kernels.fragment import Fragment, Meeting
from taichi_raster.maths.arithmetic import maximum
from taichi_raster.maths.dual import exp, log, raw
from taichi_raster.maths.tracing import element, let, set_to, traced
from taichi_raster.maths.variables import Lanes, Local
from taichi_raster.runtime.layout import TILE, Limit, Slot, State

_NOTHING = -1e30  # the logarithm of nothing yet


class Pixel:
    """A pixel's running sums; `make(zero)` gives each its variable, of zero's type.

    Attributes:
        total, peak: of the T-conorm's terms, and of their exponents.
        weight, colour, largest: of the colour, and the largest log-weight so far.
        saturated: fragments with coverage 1; top, nearest: faces.
        nearest_z, nearest_error: a depth, and its rounding error, negative for a face's back.
    """

    _data_oriented = True

    def __init__(self, kernels: Forward, make: Callable[[Any], Any]) -> None:
        self.total, self.peak = make(0.0), make(0.0)
        self.weight, self.largest = make(0.0), make(0.0)
        self.colour = [make(0.0) for _ in range(kernels.channels)]
        self.saturated = make(0.0)
        self.nearest_z, self.nearest_error = make(0.0), make(0.0)
        self.nearest, self.top = make(0), make(0)

    @traced
    def at(self, lane: Any) -> Pixel:
        """One of the pixels, of variables that hold several."""
        one = object.__new__(Pixel)
        for name, variable in vars(self).items():
            several = isinstance(variable, list)
            setattr(one, name, [v.at(lane) for v in variable] if several else variable.at(lane))
        return one


@ti.data_oriented
class Forward(TileKernels):
    """Also finds what must not be differentiated: reference depth and offset of the log-weights,
    peak of the T-conorm's exponents, number of saturated fragments, nearest and top face."""

    @traced
    def tile_sums(self) -> Pixel:
        return Pixel(self, lambda zero: Lanes(TILE * TILE, zero))

    @traced
    def pixel_sums(self) -> Pixel:
        return Pixel(self, Local)

    @traced
    def start(self, sums: Pixel) -> None:
        sums.largest.set(_NOTHING)
        if not self.conorm.grounded:
            sums.peak.set(_NOTHING)
        sums.nearest.set(-1)
        sums.top.set(-1)

    @traced
    def add(self, m: Meeting, sums: Pixel) -> None:
        f = self.weigh(m)
        self.add_alpha(m, f, sums)
        if self.coloured:
            shown = let(f.counts & f.visible) if self.variant.unclipped_alpha else f.counts
            (self.replace_colour if self.nearest_alone else self.add_colour)(m, f, shown, sums)

    @traced
    def add_alpha(self, m: Meeting, f: Fragment, sums: Pixel) -> None:
        a, log_s, saturated = f.edge.f, f.edge.log_s, f.edge.saturated
        if self.conorm.largest_alone:
            before = sums.total.value
            larger = let(f.counts & (raw(a) > before))
            sums.top.set(ti.select(larger, m.face.index, sums.top.value))
            sums.total.set(ti.select(larger, raw(a), before))
            return
        if saturated is not None:
            sums.saturated.add(ti.select(f.counts & saturated, 1.0, 0.0))
        p = self.parameter(m.b, Slot.P)
        peak = None
        if self.conorm.exponent is not None:
            e = let(raw(self.conorm.exponent(a, log_s, p)))
            before = sums.peak.value
            adds = f.counts if saturated is None else let(f.counts & (saturated == 0))
            peak = maximum(ti.select(adds, e, before), before)
            sums.total.set(sums.total.value * exp(before - peak))
            sums.peak.set(peak)
        term = raw(self.conorm_term(m.b, a, log_s, p, saturated, peak))
        sums.total.add(ti.select(f.counts, term, 0.0))

    @traced
    def replace_colour(self, m: Meeting, f: Fragment, shown: Any, sums: Pixel) -> None:
        """The nearest face that contains the pixel's centre gives the colour.

        Of those that are equally near but for rounding, a front, then the first: faces come in the
        order of their numbers.
        """
        depth, error = self.depth_and_error(m, f)
        front, behind = self.front(m.face.triangle), sums.nearest_error.value < 0.0
        either = let(error + ti.abs(sums.nearest_error.value))
        ahead = let(sums.nearest_z.value - depth)
        nearer = (ahead > either) | (front & behind & (ahead >= -either))
        nearer = (sums.nearest.value < 0) | nearer
        nearer = let(shown & m.foot.choice.inside & nearer)
        sums.nearest.set(ti.select(nearer, m.face.index, sums.nearest.value))
        sums.nearest_z.set(ti.select(nearer, depth, sums.nearest_z.value))
        signed = ti.select(front, error, -error)
        sums.nearest_error.set(ti.select(nearer, signed, sums.nearest_error.value))
        sums.weight.set(ti.select(nearer, 1.0, sums.weight.value))
        for colour, value in zip(sums.colour, self.colours(m, f.mixing), strict=True):
            colour.set(ti.select(nearer, raw(value), colour.value))

    @traced
    def add_colour(self, m: Meeting, f: Fragment, shown: Any, sums: Pixel) -> None:
        """Add a fragment, with weights relative to the largest so far."""
        largest = sums.largest.value
        if self.depth.relative:
            key, inverse = raw(f.z_norm), 1.0 / raw(self.parameter(m.b, Slot.GAMMA))
        else:
            key, inverse = let(raw(self.depth.at(self, m.b, f.z_norm, 0.0).l)), 1.0
        key = let(ti.select(shown, key, largest))
        rise = let((key - largest) * inverse)
        shrink = let(exp(-ti.abs(rise)))
        rises = let(rise > 0.0)
        old, new = let(ti.select(rises, shrink, 1.0)), let(ti.select(rises, 1.0, shrink))
        sums.largest.set(maximum(key, largest))
        part = let(ti.select(shown, raw(f.edge.f) * new, 0.0))
        sums.weight.set(sums.weight.value * old + part)
        for colour, value in zip(sums.colour, self.colours(m, f.mixing), strict=True):
            colour.set(colour.value * old + part * raw(value))

    @traced
    def finish(self, b: Any, q: Any, sums: Pixel) -> None:
        """Write the sums, all colour weights relative to what makes them add up to 1."""
        background = element(self.fields.limits, b + Limit.COUNT)
        largest = maximum(sums.largest.value, background)
        shrink: Any = 1.0
        if self.depth is not None:
            relative = self.depth.relative
            inverse = 1.0 / raw(self.parameter(b, Slot.GAMMA)) if relative else 1.0
            shrink = let(exp((sums.largest.value - largest) * inverse))
            weight = sums.weight.value * shrink + exp((background - largest) * inverse)
            norm = maximum(weight, 1e-30)
            shrink = shrink / norm
            set_to(self.kept(State.REFERENCE, q), largest if relative else 0.0)
            set_to(self.kept(State.OFFSET, q), (0.0 if relative else largest) + log(norm))
        sizes = [sums.total.value, sums.weight.value * shrink]
        sizes += [colour.value * shrink for colour in sums.colour]
        for plane, value in enumerate(sizes):
            set_to(element(self.fields.y, self.place(plane, q)), value)
        set_to(self.kept(State.PEAK, q), sums.peak.value)
        set_to(self.kept(State.SATURATED, q), sums.saturated.value)
        set_to(element(self.fields.nearest, q), sums.nearest.value)
        set_to(element(self.fields.top, q), sums.top.value)
