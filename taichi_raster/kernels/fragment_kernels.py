"""Listed pairs of a pixel and a face: what each shows, one number a plane, and its derivatives.

`Layers` has found the pairs. On a CPU they are sorted by face, and a thread takes a face and all of
its pixels, several at a time; on a GPU it takes a pair.
"""

from dataclasses import replace
from typing import Any

import taichi as ti

from taichi_raster.kernels.adjoints import LANES, Sink
from taichi_raster.kernels.by_face import FaceKernels
from taichi_raster.kernels.fragment import Face, Fragment, Meeting
from taichi_raster.kernels.pairs import PairKernels
from taichi_raster.kernels.vjp import Pull, eights
from taichi_raster.maths.dual import Number, raw
from taichi_raster.maths.tracing import element, let, set_to, traced
from taichi_raster.maths.variables import Lanes
from taichi_raster.runtime.layout import Dim, Entry


class Planes:
    """What the pairs that are worked on together show; were it written at once, LLVM would have to
    assume that it changes what is read next, and take the pairs one by one."""

    _data_oriented = True

    def __init__(self, lanes: list[Lanes]) -> None:
        self.lanes = lanes


@ti.data_oriented
class ListedPairs(PairKernels):
    """Kernels that go through listed pairs: `Meeting.q` is then the pair's number, `Dim.PIXELS` how
    many there are, and a place in y a pair's."""

    @ti.func
    def each_chunk(self, face, body: ti.template(), extra: ti.template()):
        """Call ``body(face, begin, last, *extra)`` for each LANES of a face's pairs, which end
        before `last`."""
        first, last = self.fields.entry_begin[face.at], self.fields.entry_begin[face.at + 1]
        for chunk in range((last - first + LANES - 1) // LANES):
            body(face, first + chunk * LANES, last, *extra)

    @traced
    def meet_entry(self, e: Any) -> Meeting:
        """Pair number e, when its face is not known yet."""
        at = let(self.entry(Entry.FACE, e))
        b = let(at // self.dim(Dim.FACES))
        return self.meet_listed(self.face(b, let(at - b * self.dim(Dim.FACES))), e)

    @traced
    def meet_listed(self, face: Face, e: Any) -> Meeting:
        """Pair number e, by which its numbers are found, too."""
        row, column = (let(self.entry(plane, e)) for plane in (Entry.ROW, Entry.COLUMN))
        return replace(self.meet(face, row, column), q=let(e))

    @traced
    def entry(self, plane: int, e: Any) -> Any:
        return element(self.fields.entries, self.place(plane, e))


@ti.data_oriented
class Measure(FaceKernels, ListedPairs):
    """Coverage, depth and attributes of each pair."""

    @ti.func
    def run_face(self, face, run):
        self.each_chunk(face, self.measure_chunk, (self.planes(),))

    @ti.func
    def measure_chunk(self, face, begin, last, planes):
        for lane in range(ti.min(eights(last - begin), LANES)):
            self.keep(self.meet_listed(face, begin + lane), planes, lane)
        for lane in range(ti.min(last - begin, LANES)):
            self.put(planes, lane, begin + lane)

    @ti.kernel
    def measure_pairs(self, pairs: ti.i32):
        for e in range(pairs):
            self.measure(self.meet_entry(e))

    @traced
    def measure(self, m: Meeting) -> None:
        for plane, number in enumerate(self.numbers(m)):
            self.write(plane, m.q, number)

    @traced
    def numbers(self, m: Meeting) -> list[Any]:
        """What a pair shows, or its tangents."""
        f = self.weigh(m)
        shown = [f.edge.f, f.z, *self.colours(m, f.mixing)]
        if not self.tangents:
            return [raw(number) for number in shown]
        return [number.d if isinstance(number, Number) and number.d is not None else 0.0
                for number in shown]  # fmt: skip

    @traced
    def planes(self) -> Planes:
        return Planes([Lanes(LANES) for _ in range(2 + self.channels)])

    @traced
    def keep(self, m: Meeting, planes: Planes, lane: Any) -> None:
        for plane, number in zip(planes.lanes, self.numbers(m), strict=True):
            plane.at(lane).set(number)

    @traced
    def put(self, planes: Planes, lane: Any, e: Any) -> None:
        for i, plane in enumerate(planes.lanes):
            self.write(i, e, plane.at(lane).value)

    @traced
    def write(self, plane: int, e: Any, number: Any) -> None:
        field = self.fields.y_dot if self.tangents else self.fields.y
        set_to(element(field, self.place(plane, e)), number)


@ti.data_oriented
class MeasureTangent(Measure):
    """Their tangents along x_dot."""

    tangents = True


@ti.data_oriented
class PullListed(Pull, ListedPairs):
    """The adjoint of all inputs, given those of what `Measure` finds."""

    @ti.func
    def pull_face(self, face, sums):
        self.each_chunk(face, self.pull_chunk, (sums,))

    @ti.func
    def pull_chunk(self, face, begin, last, sums):
        self.pull_lanes(face, 0, ti.min(eights(last - begin), LANES), (begin, last), sums)

    @traced
    def meet_lane(self, face: Face, lane: Any, where: tuple[Any, ...]) -> tuple[Meeting, Any, Any]:
        begin, last = where
        inside = let(begin + lane < last)
        return self.meet_listed(face, begin + lane), inside, inside

    @ti.kernel
    def pull_pairs(self, pairs: ti.i32):
        for e in range(pairs):
            self.pull_listed(e)

    @ti.kernel
    def pull_items(self, items: ti.i32, begin: ti.i32, count: ti.i32):
        """The same in a fixed order: a thread takes `count` pairs of a batch item, from number
        `begin` on."""
        for b in range(items):
            first = self.fields.entry_begin[b] + begin
            for e in range(first, ti.min(first + count, self.fields.entry_begin[b + 1])):
                self.pull_listed(e)

    @traced
    def pull_listed(self, e: Any) -> None:
        m = self.meet_entry(e)
        self.pull_fragment(m, self.weigh(m), self.pixel_sink(m))

    @traced
    def takes_part(self, f: Fragment, in_image: Any) -> Any:
        return let(in_image)  # that it counts was found when it was listed

    @traced
    def pull_fragment(self, m: Meeting, f: Fragment, sink: Sink) -> None:
        planes = range(2 + self.channels)
        f_bar, z_bar, *bars = (
            Number(let(element(self.fields.y.grad, self.place(plane, m.q)))) for plane in planes
        )
        k_bar = None if f.edge.f_k is None else f.edge.f_k * f_bar
        d_bar = self.pull_edge(f, f.edge.f_u * f_bar, k_bar, sink)
        mixing_bar = self.sampler.pull(self, m, f.mixing, bars, sink)
        self.pull_surface(m, f, d_bar, *self.pull_mixing(m, f, mixing_bar, z_bar), sink)


@ti.data_oriented
class PullListedTangent(PullListed):
    """The derivative of `PullListed` along x_dot."""

    tangents = True


@ti.data_oriented
class MeasureByAutodiff(Measure):
    """What Taichi differentiates instead: the oracle of `PullListed`."""

    autodiff = True


@ti.data_oriented
class MeasureTangentByAutodiff(MeasureByAutodiff):
    """Likewise, of `PullListedTangent`."""

    tangents = True
