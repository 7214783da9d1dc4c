"""The vector-Jacobian product from closed forms; with tangents, the second derivatives.

`VJP` gives J(x)^T v. Its derivative along x_dot is the gradient of v . J(x) x_dot, because second
derivatives are symmetric. So `VJPTangent` is the same code on numbers with tangents. On a CPU a
thread takes a face and sums over its pixels, several at a time. On a GPU a thread takes a pixel,
or a face where sums must have a fixed order.
"""

from typing import Any

import taichi as ti

from taichi_raster.kernels.adjoints import (
    Adjoints,
    FaceAdjoints,
    LaneAdjoints,
    PixelAdjoints,
    SharedSums,
)
from taichi_raster.kernels.by_face import FaceKernels
from taichi_raster.kernels.fragment import Face, Fragment, Meeting
from taichi_raster.kernels.memory import TEXELS
from taichi_raster.kernels.softness import network_vjp
from taichi_raster.maths import geometry
from taichi_raster.maths.dual import Jet, Number
from taichi_raster.maths.tracing import element, let, traced
from taichi_raster.maths.vector import Vector, total
from taichi_raster.runtime.layout import TILE, Dim, Part, Slot, State
from taichi_raster.runtime.variant import Table


@ti.func
def eights(count):
    """`count` rounded up to a multiple of eight: a CPU's vector holds eight numbers or four."""
    return (count + 7) // 8 * 8


@ti.data_oriented
class VJP(FaceKernels):
    """The adjoint of all inputs.

    Attributes:
        skips: whether pixels that do not count are skipped. That pays where the loop over pixels
            is not vectorised anyway: a formula has loops, or adjoints go to texels.
    """

    @property
    def skips(self) -> bool:
        return self.loops or (self.variant.texels > 0 and self.moves[Part.TEXELS])

    @property
    def scatters(self) -> bool:
        """Whether adjoints go to a table's knots."""
        return isinstance(self.variant.edge.network, Table) and self.moves[Part.EDGE_WEIGHTS]

    @ti.func
    def run_face(self, face, run, part: ti.template()):
        sums = self.face_sums(face, run)
        self.vjp_face(face, part, sums)
        if ti.static(self.lanes > 1):
            for lane in range(1, self.lanes):
                sums.fold(lane)
        sums.flush()

    @ti.func
    def vjp_face(self, face, part: ti.template(), sums):
        """Add the adjoints of a face's pairs in rows of the image."""
        top, bottom = self.rows(face, part[0], part[1])
        for row in range(top, bottom):
            left, right = self.columns(face, row)
            # Lanes are columns modulo their number, so that sums do not depend on the reach.
            for chunk in range(left // self.lanes, (right + self.lanes - 1) // self.lanes):
                first = chunk * self.lanes
                begin = ti.max(left - first, 0) // 8 * 8
                end = ti.min(eights(right - first), self.lanes)
                self.vjp_lanes(face, begin, end, (row, first, left, right), sums)

    @ti.func
    def vjp_lanes(self, face, begin, end, where: ti.template(), sums):
        """Add the adjoints of the pairs in lanes from `begin` to before `end`."""
        for lane in range(begin, end):
            m, inside, near = self.meet_lane(face, lane, where)
            if ti.static(self.skips):
                if ti.static(self.scatters):
                    sums.empty(lane)
                if near:
                    self.vjp_pair(m, inside, sums, lane)
            else:
                self.vjp_pair(m, inside, sums, lane)
        if ti.static(self.scatters):
            for lane in range(begin, end):
                sums.scatter(lane)

    @ti.kernel
    def vjp_pixels(
        self,
        runs: ti.i32,
        begin: ti.i32,
        count: ti.i32,
        texels: TEXELS,
        tangents: TEXELS,
        adjoints: TEXELS,
    ):
        """A thread takes `count` pixels of a run, from number `begin` on."""
        self.bind(texels, tangents, adjoints)
        self.each_summed(runs, self.item_of_run, self.vjp_run, (begin, count))

    @ti.func
    def each_summed(
        self, count: ti.template(), item: ti.template(), body: ti.template(), extra: ti.template()
    ):
        """Call ``body(i, sums, *extra)`` for each i below `count`, on a GPU.

        `sums` are the thread's, of batch item ``item(i)``. They are added to the adjoints when the
        item changes, and at the end.
        """
        if ti.static(self.threads > 0):
            for thread in range(self.threads):
                sums = self.shared_sums()
                for turn in range(self.turns(thread, count)):
                    i = thread + turn * self.threads
                    body(i, sums, *extra)
                    following = i + self.threads
                    b = item(i)
                    if following >= count or item(ti.min(following, count - 1)) != b:
                        self.flush(sums, b)
        else:
            for i in range(count):
                sums = self.shared_sums()
                body(i, sums, *extra)
                self.flush(sums, item(i))

    @ti.func
    def flush(self, sums, b):
        if sums.touched():
            sums.flush(b)

    @ti.func
    def item_of_run(self, run):
        """The batch item of a run of pixels."""
        return run * self.dims[Dim.RUN_LENGTH] // (TILE * TILE) // self.dims[Dim.TILES]

    @ti.func
    def vjp_run(self, run, sums, begin, count):
        for step in range(begin, begin + count):
            self.at_pixel(run * self.dims[Dim.RUN_LENGTH] + step, self.vjp_pixel, (sums,))

    @ti.func
    def vjp_pixel(self, b, row, column, tile, sums):
        for k in range(self.fields.tile_begin[tile], self.fields.tile_begin[tile + 1]):
            m = self.meet(self.face(b, self.fields.tile_faces[k]), row, column)
            if m.near:
                f = self.weigh(m)
                if f.counts:
                    self.vjp_fragment(m, f, self.pixel_adjoints(m, sums))

    @traced
    def face_sums(self, face: Face, run: Any) -> FaceAdjoints:
        return FaceAdjoints(self, face, run)

    @traced
    def meet_lane(self, face: Face, lane: Any, where: tuple[Any, ...]) -> tuple[Meeting, Any, Any]:
        """A lane's pair, whether it is one at all, and whether it may count.

        `where` is what `vjp_face` knows of all lanes.
        """
        row, first, left, right = where
        column = let(first + lane)
        inside = let((column >= left) & (column < right))
        m = self.meet(face, row, column)
        return m, inside, let(m.near & inside)

    @traced
    def vjp_pair(self, m: Meeting, in_image: Any, sums: FaceAdjoints, lane: Any) -> None:
        f = self.weigh(m)
        self.vjp_fragment(m, f, LaneAdjoints(sums, lane, self.takes_part(f, in_image)))

    @traced
    def takes_part(self, f: Fragment, in_image: Any) -> Any:
        return let(f.counts & in_image)

    @traced
    def pixel_adjoints(self, m: Meeting, sums: SharedSums) -> PixelAdjoints:
        return PixelAdjoints(self, m.face, sums)

    @traced
    def shared_sums(self) -> SharedSums:
        return SharedSums(self)

    @traced
    def vjp_fragment(self, m: Meeting, f: Fragment, adjoints: Adjoints) -> None:
        """Add the adjoints of a fragment's inputs."""
        u_bar, k_bar = self.vjp_alpha(m, f, let(element(self.fields.y.grad, m.q)), adjoints)
        w_bar, corner_bar = Vector(0.0, 0.0, 0.0), Vector(0.0, 0.0, 0.0)
        if self.coloured:
            colour_u, colour_k, w_bar, corner_bar = self.vjp_colour(m, f, adjoints)
            u_bar = u_bar + colour_u
            k_bar = None if k_bar is None else k_bar + colour_k
        self.vjp_surface(
            m, f, self.vjp_edge(f, u_bar, k_bar, adjoints), w_bar, corner_bar, adjoints
        )

    @traced
    def vjp_edge(self, f: Fragment, u_bar: Any, k_bar: Any, adjoints: Adjoints) -> Any:
        """The adjoint of the signed distance; those of the parameters go into `adjoints`."""
        if k_bar is not None:
            adjoints.parameter(Slot.SHAPE, k_bar)
        x_bar = network_vjp(f.edge.tape, Part.EDGE_WEIGHTS, u_bar, adjoints)
        adjoints.parameter(Slot.SCALE, x_bar * f.edge.x_scale)
        if f.edge.x_shift:
            adjoints.parameter(Slot.SHIFT, x_bar * f.edge.x_shift)
        return x_bar * f.edge.x_d

    @traced
    def vjp_alpha(self, m: Meeting, f: Fragment, along: Any, adjoints: Adjoints) -> tuple[Any, Any]:
        """The adjoints of u and of the shape, through the T-conorm."""
        edge = f.edge
        shaped = edge.f_k is not None
        if self.conorm.largest_alone:
            mine = let(ti.select(element(self.fields.top, m.q) == m.face.index, along, 0.0))
            return edge.f_u * mine, edge.f_k * mine if shaped else None
        p = self.parameter(m.b, Slot.P)
        peak = self.kept(State.PEAK, m.q) if self.conorm.exponent is not None else None
        bars = [self.conorm_slope(m, edge, edge.f_u, edge.log_s_u, p, peak) * along, None]
        if shaped:
            bars[1] = self.conorm_slope(m, edge, edge.f_k, edge.log_s_k, p, peak) * along
        if self.conorm.domain is not None:
            by_p = self.conorm_term(m.b, edge.f, edge.log_s, Jet(p, 1.0), edge.saturated, peak)
            adjoints.parameter(Slot.P, by_p.slope * along)
        return bars[0], bars[1]

    @traced
    def conorm_slope(
        self, m: Meeting, edge: Any, f_slope: Any, log_s_slope: Any, p: Number, peak: Any
    ) -> Number:
        """The slope of the T-conorm's term, given those of F and of log(1 - F)."""
        f, log_s = Jet(edge.f, f_slope), Jet(edge.log_s, log_s_slope)
        return self.conorm_term(m.b, f, log_s, p, edge.saturated, peak).slope

    @traced
    def vjp_colour(
        self, m: Meeting, f: Fragment, adjoints: Adjoints
    ) -> tuple[Any, Any, Vector, Vector]:
        """The adjoints of u, of the shape, of barycentric coordinates and of corners' depths."""
        bars = [
            let(element(self.fields.y.grad, self.place(2 + c, m.q))) for c in range(self.channels)
        ]
        if self.nearest_alone:
            weight = Number(ti.select(element(self.fields.nearest, m.q) == m.face.index, 1.0, 0.0))
            u_bar, k_bar, z_bar = 0.0, 0.0, 0.0
        else:
            l = self.depth.at(self, m.b, f.z_norm, self.kept(State.REFERENCE, m.q))  # noqa: E741
            psi = self.relative_weight(m, f, l.l)
            weight = f.edge.f * psi
            colours = self.colours(m, f.mixing)
            along = total(c * bar for c, bar in zip(colours, bars, strict=True))
            along = along + element(self.fields.y.grad, self.place(1, m.q))
            u_bar, k_bar = along * psi * f.edge.f_u, 0.0
            if f.edge.f_k is not None:
                k_bar = along * psi * f.edge.f_k
            l_bar = along * weight
            z_norm_bar = network_vjp(l.tape, Part.DEPTH_WEIGHTS, l_bar * l.by_z, adjoints)
            z_bar = z_norm_bar * (-1.0 / self.depth_range())
            adjoints.parameter(Slot.GAMMA, l_bar * l.by_gamma)
            if l.by_shift is not None:
                adjoints.parameter(Slot.DEPTH_SHIFT, l_bar * l.by_shift)
            if l.by_shape is not None:
                adjoints.parameter(Slot.DEPTH_SHAPE, l_bar * l.by_shape)
        mixing_bar = self.sampler.vjp(self, m, f.mixing, [weight * bar for bar in bars], adjoints)
        return u_bar, k_bar, *self.vjp_mixing(m, f, mixing_bar, z_bar)

    @traced
    def vjp_mixing(
        self, m: Meeting, f: Fragment, mixing_bar: Vector, z_bar: Any
    ) -> tuple[Vector, Vector]:
        """The adjoints of barycentric coordinates and of the corners' depths.

        Given are those of the attributes' weights and of depth.
        """
        triangle = m.face.triangle
        if self.variant.orthographic:
            return mixing_bar + triangle.z * z_bar, f.w * z_bar
        w_bar, share_bar = mixing_bar, Vector(0.0, 0.0, 0.0)
        if self.perspective:
            z_bar = z_bar + mixing_bar.dot(f.share)
            share_bar = mixing_bar * f.z
            w_bar = Vector(0.0, 0.0, 0.0)
        back = f.z * f.z * z_bar
        by_z = [(bar - back) * i for bar, i in zip(share_bar, triangle.inverse_z, strict=True)]
        corner_bar = [-(bar * share) for bar, share in zip(by_z, f.share, strict=True)]
        return w_bar + Vector(*by_z), Vector(*corner_bar)

    @traced
    def vjp_surface(
        self,
        m: Meeting,
        f: Fragment,
        d_bar: Any,
        w_bar: Vector,
        corner_bar: Vector,
        adjoints: Adjoints,
    ) -> None:
        """Add the adjoints of the vertices, given those of distance, coordinates and depths."""
        foot = m.foot
        inward = foot.n * -d_bar
        rows = geometry.spread(foot.choice.edge, inward * (1.0 - foot.t), inward * foot.t)
        if self.coloured:
            for i in range(3):
                adjoints.vertex(i, 2, corner_bar[i])
            if self.variant.clipped:
                moves = geometry.clipped_weights_vjp(m.point, m.face.triangle, w_bar)
            else:
                moves = geometry.nearest_weights_vjp(m.face.triangle, foot, f.w, w_bar)
            rows = [row + move for row, move in zip(rows, moves, strict=True)]
        for i in range(3):
            for j in range(2):
                adjoints.vertex(i, j, rows[i][j])


@ti.data_oriented
class VJPTangent(VJP):
    """The derivative of `VJP` along x_dot."""

    tangents = True
