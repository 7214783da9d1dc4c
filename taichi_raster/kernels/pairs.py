"""The mathematics of one (pixel, face) pair.

It runs while a kernel is compiled, on dual numbers (see maths/dual.py).
"""

from typing import Any

import taichi as ti

from taichi_raster.kernels.fragment import Face, Fragment, Meeting
from taichi_raster.kernels.reach import Reach
from taichi_raster.kernels.softness import EdgeTerms, network_at
from taichi_raster.kernels.textures import sampler
from taichi_raster.maths import geometry
from taichi_raster.maths.dual import Number, exp, raw, select
from taichi_raster.maths.tracing import let, traced
from taichi_raster.maths.vector import Vector, total
from taichi_raster.runtime.device import Runtime
from taichi_raster.runtime.layout import SHIFT, TILE, Limit, Part, State
from taichi_raster.runtime.scratch import Scratch
from taichi_raster.runtime.variant import Architecture, Table, Variant
from taichi_raster.softness import conorm
from taichi_raster.softness.distributions import registry


@ti.data_oriented
class PairKernels(Reach):
    """What a face and a pixel have to do with one another; the kernels are its subclasses.

    Attributes:
        loops: whether a formula has loops, so that it pays to skip pixels.
        flatness: see `geometry.triangle`.
        in_order: whether it matters which of two fragments is nearer.
        rounding: of depths, in the last place.
    """

    in_order = False

    def __init__(self, variant: Variant, scratch: Scratch, runtime: Runtime) -> None:
        super().__init__(variant, scratch, runtime)
        self.edge = EdgeTerms(variant.edge, self.autodiff)
        self.depth: Any = variant.depth.log_weight
        self.conorm = conorm.generator(variant.conorm)
        self.sampler = sampler(variant)
        self.nearest_alone = variant.depth.colour == "nearest"
        self.coloured = variant.depth.colour != "none"
        self.channels = variant.channels
        self.loops = registry.find(variant.edge.distribution).shaped or variant.depth.looped
        self.perspective = variant.perspective and not variant.orthographic
        single = runtime.precision == "f32"
        self.flatness = 1e-6 if single else 1e-12
        self.rounding = 2.0**-24 if single else 2.0**-53

    @traced
    def network(self, shape: Architecture | Table, part: int, b: Any, x: Number) -> Any:
        """The tape of a network at x, whose weights lie in a part of the inputs."""
        return network_at(self, shape, part, b, x)

    @traced
    def face(self, b: Any, index: Any) -> Face:
        at = self.face_index(b, index)
        values = [self.load(Part.VERTICES, at * 9 + i) for i in range(9)]
        corners = [Vector(values[3 * i], values[3 * i + 1]) for i in range(3)]
        z = Vector(*(values[3 * i + 2] for i in range(3)))
        triangle = geometry.triangle(corners, z, self.flatness, watertight=self.nearest_alone)
        attributes = self.sampler.at_corners(self, at) if self.coloured else None
        slopes = (0.0, 0.0)
        if self.in_order or self.nearest_alone:
            slopes = geometry.depth_slopes(triangle, self.variant.orthographic)
        return Face(b, index, at, triangle, attributes, slopes)

    @traced
    def meet(self, face: Face, row: Any, column: Any) -> Meeting:
        """A pixel and a face: how far apart they are."""
        point = self.point(row, column)
        choice = geometry.decide(point, face.triangle, self.autodiff)
        foot = geometry.measure(point, face.triangle, choice, self.autodiff)
        near = let(raw(foot.d) >= -self.limit(Limit.REACH))
        return Meeting(face, self.pixel_index(face.b, row, column), point, foot, near)

    @traced
    def meet_in_tile(self, face: Face, first_row: Any, first_column: Any, lane: Any) -> Meeting:
        """The same, of a tile's pixel number `lane`."""
        return self.meet(face, first_row + (lane >> SHIFT), first_column + (lane & (TILE - 1)))

    @traced
    def weigh(self, m: Meeting) -> Fragment:
        """The coverage of a pair, and the surface point that the pixel sees."""
        triangle = m.face.triangle
        edge = self.edge.at(self, m.b, m.foot.d)
        if self.variant.clipped:
            w = geometry.clipped_weights(m.point, triangle)
        else:
            w = geometry.nearest_weights(m.point, triangle, m.foot)
        share = Vector(*(i * j for i, j in zip(w, triangle.inverse_z, strict=True)))
        far, inverse_z = self.limit(Limit.FAR), total(share)
        if self.variant.unclipped_alpha:
            # Not above 0 behind the eye, nor on a face through it: anything beyond far will do.
            inverse_z = select(raw(inverse_z) * far > 0.5, inverse_z, 0.25 / far)
        z = w.dot(triangle.z) if self.variant.orthographic else 1.0 / inverse_z
        mixing = share * z if self.perspective else w
        depth = raw(z)
        z_norm = (-z + far) * (1.0 / self.depth_range())
        counts = raw(edge.f) > self.limit(Limit.THRESHOLD)
        counts = counts & (raw(m.foot.d) >= -self.limit(Limit.CUTOFF))
        visible = (depth >= self.limit(Limit.NEAR)) & (depth <= far)
        if self.variant.unclipped_alpha:
            if self.variant.cull:
                visible = visible & self.front(triangle)
        else:
            counts = counts & visible
        return Fragment(edge, w, share, z, mixing, z_norm, let(counts), let(visible))

    @traced
    def order(self, m: Meeting, f: Fragment) -> Any:
        """The depth by which fragments are sorted.

        At the silhouette of a surface, a face that shows its front and one that shows its back have
        one depth. So that rounding does not decide which of them is seen, fronts are moved
        towards the eye by their depth's rounding error, and backs are moved away. That of a level
        front stays, so that equal depths stay equal.
        """
        z, error = self.depth_and_error(m, f)
        rounding = let(16.0 * self.rounding * ti.abs(z))
        return let(z + ti.select(self.front(m.face.triangle), rounding - error, error))

    @traced
    def depth_and_error(self, m: Meeting, f: Fragment) -> tuple[Any, Any]:
        """A fragment's depth, exactly that of the corners if all have one; and a bound on how much
        rounding may have moved it."""
        first, second, third = (raw(z) for z in m.face.triangle.z)
        z = let(ti.select((first == second) & (second == third), first, raw(f.z)))
        slope = ti.select(m.foot.choice.inside, m.face.slopes[1], m.face.slopes[0])
        if not self.variant.orthographic:
            slope = slope * z * z
        size = 1.0 + ti.sqrt(ti.max(*(raw(e.dot(e)) for e in m.face.triangle.edges)))
        return z, let(16.0 * self.rounding * (slope * size + ti.abs(z)))

    @traced
    def conorm_term(self, b: Any, a: Any, L: Any, p: Any, saturated: Any, peak: Any) -> Any:
        """g(a) of a fragment, zero where it is saturated."""
        if saturated is not None:
            a, L = select(saturated, 0.5, a), select(saturated, -1.0, L)
        if self.conorm.term is not None:
            g = self.conorm.term(a, L, p)
        else:
            assert self.conorm.exponent is not None
            g = self.conorm.scaled(self.conorm.exponent(a, L, p), peak)
        return g if saturated is None else select(saturated, 0.0, g)

    @traced
    def relative_weight(self, m: Meeting, f: Fragment, l: Number) -> Number:  # noqa: E741
        """psi: exp of the log-weight, relative to the pixel's."""
        exponent = l - self.kept(State.OFFSET, m.q)
        if not self.variant.unclipped_alpha:  # then all that count are visible
            return exp(exponent)
        return select(f.visible, exp(select(f.visible, exponent, 0.0)), 0.0)

    @traced
    def colours(self, m: Meeting, mixing: Vector) -> list[Any]:
        """The fragment's attributes."""
        return self.sampler.sample(self, m, mixing)
