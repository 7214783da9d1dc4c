"""The values of listed fragments, one number a plane, and their derivatives.

`DepthSort` has found the fragments. On a CPU they are sorted by face: a thread takes a face and
works on several of its pixels at a time. On a GPU a thread takes a fragment, or a face where sums
must have a fixed order.
"""

from dataclasses import replace
from typing import Any

import taichi as ti

from taichi_raster.kernels.adjoints import Adjoints, SharedSums
from taichi_raster.kernels.by_face import FaceKernels
from taichi_raster.kernels.fragment import Face, Fragment, Meeting
from taichi_raster.kernels.memory import TEXELS
from taichi_raster.kernels.pairs import PairKernels
from taichi_raster.kernels.vjp import VJP, eights
from taichi_raster.maths.dual import Number, raw
from taichi_raster.maths.tracing import element, let, set_to, traced
from taichi_raster.maths.variables import Lanes
from taichi_raster.runtime.layout import Dim, Entry


class Planes:
    """The values of fragments that are worked on together.

    If each were written at once, LLVM would have to assume that it changes what is read next, and
    would not vectorise the loop.
    """

    _data_oriented = True

    def __init__(self, lanes: list[Lanes]) -> None:
        self.lanes = lanes


@ti.data_oriented
class FragmentKernels(PairKernels):
    """Kernels that go through listed fragments.

    Here `Meeting.q` is the fragment's number, and `Dim.PIXELS` the number of fragments, so that
    each has its place in y.
    """

    @ti.func
    def each_chunk(self, face, part: ti.template(), body: ti.template(), extra: ti.template()):
        """Call ``body(face, begin, last, *extra)`` for each `lanes` fragments of a face.

        `begin` is the first of them, and `last` the one after the face's last. `part` says which of
        the face's fragments it is about.
        """
        start = self.fields.entry_begin[face.at]
        last = start + ti.min(self.fields.entry_begin[face.at + 1] - start, part[1])
        first = start + part[0]
        for chunk in range((ti.max(last - first, 0) + self.lanes - 1) // self.lanes):
            body(face, first + chunk * self.lanes, last, *extra)

    @traced
    def find_entry(self, e: Any) -> Meeting:
        """Fragment number e, whose face is not known yet."""
        at = let(self.entry(Entry.FACE, e))
        b = let(at // self.dim(Dim.FACES))
        return self.meet_entry(self.face(b, let(at - b * self.dim(Dim.FACES))), e)

    @traced
    def meet_entry(self, face: Face, e: Any) -> Meeting:
        """Fragment number e, a face's."""
        row, column = (let(self.entry(plane, e)) for plane in (Entry.ROW, Entry.COLUMN))
        return replace(self.meet(face, row, column), q=let(e))

    @traced
    def entry(self, plane: int, e: Any) -> Any:
        return element(self.fields.entries, self.place(plane, e))


@ti.data_oriented
class FragmentValues(FaceKernels, FragmentKernels):
    """Coverage, depth and attributes of each fragment."""

    @ti.func
    def run_face(self, face, run, part: ti.template()):
        self.each_chunk(face, part, self.write_chunk, (self.planes(),))

    @ti.func
    def write_chunk(self, face, begin, last, planes):
        for lane in range(ti.min(eights(last - begin), self.lanes)):
            self.keep(self.meet_entry(face, begin + lane), planes, lane)
        for lane in range(ti.min(last - begin, self.lanes)):
            self.put(planes, lane, begin + lane)

    @ti.kernel
    def run_fragments(self, fragments: ti.i32, texels: TEXELS, tangents: TEXELS, adjoints: TEXELS):
        self.bind(texels, tangents, adjoints)
        self.each(fragments, self.write_entry, ())

    @traced
    def write_entry(self, e: Any) -> None:
        self.write_values(self.find_entry(e))

    @traced
    def write_values(self, m: Meeting) -> None:
        for plane, number in enumerate(self.values(m)):
            self.write(plane, m.q, number)

    @traced
    def values(self, m: Meeting) -> list[Any]:
        """Coverage, depth and attributes of a fragment, or their tangents."""
        f = self.weigh(m)
        shown = [f.edge.f, f.z, *self.colours(m, f.mixing)]
        if not self.tangents:
            return [raw(number) for number in shown]
        return [
            number.d if isinstance(number, Number) and number.d is not None else 0.0
            for number in shown
        ]

    @traced
    def planes(self) -> Planes:
        return Planes([Lanes(self.lanes) for _ in range(2 + self.channels)])

    @traced
    def keep(self, m: Meeting, planes: Planes, lane: Any) -> None:
        for plane, number in zip(planes.lanes, self.values(m), strict=True):
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
class FragmentJVP(FragmentValues):
    """The tangents of these values along x_dot."""

    tangents = True


@ti.data_oriented
class FragmentVJP(VJP, FragmentKernels):
    """The adjoint of all inputs, given those of `FragmentValues`."""

    @ti.func
    def vjp_face(self, face, part: ti.template(), sums):
        self.each_chunk(face, part, self.vjp_chunk, (sums,))

    @ti.func
    def vjp_chunk(self, face, begin, last, sums):
        self.vjp_lanes(face, 0, ti.min(eights(last - begin), self.lanes), (begin, last), sums)

    @traced
    def meet_lane(self, face: Face, lane: Any, where: tuple[Any, ...]) -> tuple[Meeting, Any, Any]:
        begin, last = where
        inside = let(begin + lane < last)
        return self.meet_entry(face, begin + lane), inside, inside

    @ti.kernel
    def vjp_fragments(self, fragments: ti.i32, texels: TEXELS, tangents: TEXELS, adjoints: TEXELS):
        self.bind(texels, tangents, adjoints)
        self.each_summed(fragments, self.item_of_entry, self.vjp_entry, ())

    @ti.kernel
    def vjp_items(
        self,
        items: ti.i32,
        begin: ti.i32,
        count: ti.i32,
        texels: TEXELS,
        tangents: TEXELS,
        adjoints: TEXELS,
    ):
        """The same in a fixed order: a thread takes `count` pairs of an item, from `begin` on."""
        self.bind(texels, tangents, adjoints)
        for b in range(items):
            sums = self.shared_sums()
            first = self.fields.entry_begin[b] + begin
            for e in range(first, ti.min(first + count, self.fields.entry_begin[b + 1])):
                self.vjp_entry(e, sums)
            self.flush(sums, b)

    @traced
    def vjp_entry(self, e: Any, sums: SharedSums) -> None:
        m = self.find_entry(e)
        self.vjp_fragment(m, self.weigh(m), self.pixel_adjoints(m, sums))

    @traced
    def item_of_entry(self, e: Any) -> Any:
        return let(self.entry(Entry.FACE, e) // self.dim(Dim.FACES))

    @traced
    def takes_part(self, f: Fragment, in_image: Any) -> Any:
        return let(in_image)  # listed fragments count

    @traced
    def vjp_fragment(self, m: Meeting, f: Fragment, adjoints: Adjoints) -> None:
        planes = range(2 + self.channels)
        f_bar, z_bar, *bars = (
            Number(let(element(self.fields.y.grad, self.place(plane, m.q)))) for plane in planes
        )
        k_bar = None if f.edge.f_k is None else f.edge.f_k * f_bar
        d_bar = self.vjp_edge(f, f.edge.f_u * f_bar, k_bar, adjoints)
        mixing_bar = self.sampler.vjp(self, m, f.mixing, bars, adjoints)
        self.vjp_surface(m, f, d_bar, *self.vjp_mixing(m, f, mixing_bar, z_bar), adjoints)


@ti.data_oriented
class FragmentVJPTangent(FragmentVJP):
    """The derivative of `FragmentVJP` along x_dot."""

    tangents = True


@ti.data_oriented
class FragmentValuesByAutodiff(FragmentValues):
    """What Taichi differentiates instead: the oracle of `FragmentVJP`."""

    autodiff = True

    @ti.kernel
    def accumulate(self, fragments: ti.i32):
        for e in range(fragments):
            self.write_values(self.find_entry(e))


@ti.data_oriented
class FragmentJVPByAutodiff(FragmentValuesByAutodiff):
    """Likewise, the oracle of `FragmentVJPTangent`."""

    tangents = True
