"""What all kernels share: where things lie, and the mathematics of one (pixel, face) pair.

The mathematics runs while a kernel is compiled, on numbers that may carry tangents (dual.py).
"""

from typing import Any

import taichi as ti

from taichi_raster.kernels.fragment import Face, Fragment, Meeting
from taichi_raster.kernels.softness import EdgeTerms, network_at
from taichi_raster.kernels.textures import sampler
from taichi_raster.maths import geometry
from taichi_raster.maths.arithmetic import clamp
from taichi_raster.maths.dual import Number, Vector, exp, raw, select, total
from taichi_raster.maths.tracing import element, let, traced
from taichi_raster.runtime.device import Runtime
from taichi_raster.runtime.layout import TILE, Dim, Limit, Part, Slot, State
from taichi_raster.runtime.scratch import Scratch
from taichi_raster.runtime.variant import Architecture, Table, Variant
from taichi_raster.softness import conorm
from taichi_raster.softness.distributions import registry


def size_of(network: Architecture | Table | None) -> int:
    """How many weights all pairs need; a table's pairs need four each."""
    return network.size if isinstance(network, Architecture) else 0


# Taichi deals out a CPU loop in blocks of 512 iterations, so that a loop over a few hundred long
# runs would keep one thread busy and the others idle: run r is iteration SPREAD * r instead. As an
# empty iteration takes time too, there should be no more than `layout.RUNS` of them.
SPREAD = 512


@ti.data_oriented
class PairKernels:
    """One variant's view of the scratch fields; the kernels themselves are its subclasses.

    Attributes:
        tangents: whether numbers carry the tangents in x_dot.
        autodiff: whether Taichi differentiates the kernel.
        loops: whether a formula has loops, so that it pays to skip pixels.
        shared_sizes: how many of a batch item's inputs all of its faces share, by part.
    """

    tangents = False
    autodiff = False

    def __init__(self, variant: Variant, scratch: Scratch, runtime: Runtime) -> None:
        self.variant = variant
        self.edge = EdgeTerms(variant.edge, self.autodiff)
        self.depth: Any = variant.depth.log_weight
        self.shared_sizes = {
            Part.EDGE_WEIGHTS: 0 if variant.edge.network is None else variant.edge.network.size,
            Part.DEPTH_WEIGHTS: size_of(variant.depth.network),
            Part.PARAMETERS: Slot.COUNT,
        }
        self.conorm = conorm.generator(variant.conorm)
        self.sampler = sampler(variant)
        self.spread = SPREAD if runtime.arch == "cpu" else 1
        self.nearest_alone = variant.depth.colour == "nearest"
        self.coloured = variant.depth.colour != "none"
        self.channels = variant.channels
        self.loops = registry.find(variant.edge.distribution).shaped or variant.depth.looped
        self.perspective = variant.perspective and not variant.orthographic
        self.cull = variant.cull
        self.clockwise = variant.clockwise
        self.unclipped_alpha = variant.unclipped_alpha
        self.flatness = 1e-6 if runtime.precision == "f32" else 1e-12
        self.dims, self.limits = scratch.dims, scratch.limits
        self.x, self.x_dot = scratch.x, scratch.x_dot
        self.y, self.y_dot = scratch.y, scratch.y_dot
        self.x_still = scratch.x_still
        self.cells = scratch.cells if runtime.arch == "cpu" else None
        self.tile_begin, self.tile_faces = scratch.tile_begin, scratch.tile_faces
        self.group_begin, self.group_faces = scratch.group_begin, scratch.group_faces
        self.state = scratch.state
        self.nearest, self.top = scratch.nearest, scratch.top
        self.layers, self.layer_depths = scratch.layers, scratch.layer_depths
        self.layer_covers = scratch.layer_covers
        self.entries, self.entry_begin = scratch.entries, scratch.entry_begin
        self.partials = scratch.partials
        self.held: dict[Any, Any] = {}
        vertices, appearance, parameters = variant.moves
        self.moves = dict.fromkeys((Part.CORNERS, Part.UV, Part.TEXELS), appearance)
        self.moves[Part.VERTICES] = vertices
        self.moves |= dict.fromkeys(
            (Part.EDGE_WEIGHTS, Part.DEPTH_WEIGHTS, Part.PARAMETERS), parameters
        )

    # --- who does what ----------------------------------------------------------------------------

    @ti.func
    def slots(self, count, length):
        """Iterations of a parallel loop over `count` things, `length` of them to a run."""
        return (count + length - 1) // length * self.spread

    @ti.func
    def begins(self, slot):
        """Whether an iteration does a run; most do nothing."""
        return (slot & (self.spread - 1)) == 0

    @ti.func
    def first(self, slot, length):
        """The first thing of a run."""
        return slot // self.spread * length

    @ti.func
    def last(self, slot, length, count):
        """The one after the last thing of a run."""
        return ti.min(slot // self.spread * length + length, count)

    # --- where things lie -------------------------------------------------------------------------

    @traced
    def hold(self, b: Any) -> None:
        """Load what is the same for all of a batch item's pairs, once, ahead of the loops.

        LLVM would not move so many loads out of a loop by itself, nor vectorise it then.
        """
        self.held = {}
        held: dict[Any, Any] = {}
        held |= {(self.dims, i): let(self.dim(i)) for i in range(Dim.PARTS + Part.COUNT)}
        held |= {(self.limits, i): let(self.limit(i)) for i in range(Limit.COUNT)}
        self.held = held
        parts = {
            Part.PARAMETERS: Slot.COUNT,
            Part.EDGE_WEIGHTS: size_of(self.variant.edge.network),
            Part.DEPTH_WEIGHTS: size_of(self.variant.depth.network),
        }
        self.held = held | {
            (part, i): self.load(part, b * size + i)
            for part, size in parts.items()
            for i in range(size)
        }

    @traced
    def release(self) -> None:
        self.held = {}

    @traced
    def dim(self, which: Any) -> Any:
        return self._held_or_loaded(self.dims, which)

    @traced
    def limit(self, which: int) -> Any:
        return self._held_or_loaded(self.limits, which)

    @traced
    def _held_or_loaded(self, field: Any, which: int) -> Any:
        held = self.held.get((field, which))
        return element(field, which) if held is None else held

    @traced
    def load(self, part: int, index: Any) -> Number:
        """An element of a part of x, with its tangent."""
        moves = self.moves[part]
        source = self.x if moves or not self.autodiff else self.x_still
        at = let(self.dim(Dim.PARTS + part) + index)
        tangent = element(self.x_dot, at) if self.tangents and moves else None
        return Number(element(source, at), tangent)

    @traced
    def cell(self, part: int, index: Any) -> list[Number]:
        """The four weights of a table's cell, with their tangents.

        On a CPU the values are those in `cells`, which are addressed by the cell's number alone:
        every lane of a vector needs another address, and to find four for each would take longer
        than to load from them.
        """
        if self.cells is None or (self.tangents and self.moves[part]):
            return [self.load(part, 4 * index + i) for i in range(4)]
        return [Number(element(field, index)) for field in self.cells]

    @traced
    def parameter(self, b: Any, slot: int) -> Number:
        return self.shared(Part.PARAMETERS, Slot.COUNT, b, slot)

    @traced
    def shared(self, part: int, size: int, b: Any, i: int) -> Number:
        """One of the `size` elements of a part that a batch item has."""
        held = self.held.get((part, i))
        return self.load(part, b * size + i) if held is None else held

    @traced
    def network(self, shape: Architecture | Table, part: int, b: Any, x: Number) -> Any:
        """The tape of a network at x, whose weights lie in a part of the inputs."""
        return network_at(self, shape, part, b, x)

    @traced
    def face_index(self, b: Any, face: Any) -> Any:
        return let(b * self.dim(Dim.FACES) + face)

    @traced
    def face(self, b: Any, index: Any) -> Face:
        at = self.face_index(b, index)
        values = [self.load(Part.VERTICES, at * 9 + i) for i in range(9)]
        corners = [Vector(values[3 * i], values[3 * i + 1]) for i in range(3)]
        z = Vector(*(values[3 * i + 2] for i in range(3)))
        triangle = geometry.triangle(corners, z, self.flatness)
        attributes = self.sampler.at_corners(self, at) if self.coloured else None
        return Face(b, index, at, triangle, attributes)

    @ti.func
    def pixel(self, slot):
        """(batch item, row, column, tile) of a slot: tile after tile, row by row within each."""
        tile = slot // (TILE * TILE)
        b = tile // self.dims[Dim.TILES]
        in_image = tile - b * self.dims[Dim.TILES]
        in_tile = slot - tile * (TILE * TILE)
        ty = in_image // self.dims[Dim.TILES_X]
        tx = in_image - ty * self.dims[Dim.TILES_X]
        return b, ty * TILE + in_tile // TILE, tx * TILE + in_tile % TILE, tile

    @ti.func
    def tile_at(self, tile):
        """(batch item, first row, first column) of a tile."""
        b = tile // self.dims[Dim.TILES]
        in_image = tile - b * self.dims[Dim.TILES]
        ty = in_image // self.dims[Dim.TILES_X]
        tx = in_image - ty * self.dims[Dim.TILES_X]
        return b, ty * TILE, tx * TILE

    @traced
    def point(self, row: Any, column: Any) -> Vector:
        """The pixel's centre in NDC."""
        width, height = self.dim(Dim.WIDTH), self.dim(Dim.HEIGHT)
        short = 1.0 / ti.cast(ti.min(width, height), self.limits.dtype)
        px = ti.cast(2 * column + 1 - width, self.limits.dtype) * short
        py = ti.cast(height - 2 * row - 1, self.limits.dtype) * short
        return Vector(Number(px), Number(py))

    @traced
    def pixel_index(self, b: Any, row: Any, column: Any) -> Any:
        return let((b * self.dim(Dim.HEIGHT) + row) * self.dim(Dim.WIDTH) + column)

    @traced
    def place(self, plane: int, q: Any) -> Any:
        """Where a pixel's sum lies in y, or its number in the state."""
        return let(q + self.dim(Dim.PIXELS) * plane) if plane else q

    @traced
    def kept(self, plane: int, q: Any) -> Any:
        """One of the numbers that `Forward` has left for a pixel (see `State`)."""
        return element(self.state, self.place(plane, q))

    @traced
    def rows(self, face: Face, first: Any, last: Any) -> tuple[Any, Any]:
        """(top, bottom): the rows, from `first` up to `last`, that a face can reach."""
        highest, lowest = (
            extreme(*(raw(c[1]) for c in face.triangle.corners)) for extreme in (ti.max, ti.min)
        )
        return self._rows_between(face, lowest - self.reach(), highest + self.reach(), first, last)

    @traced
    def rows_of_tile(self, face: Face, first_row: Any, first_column: Any) -> tuple[Any, Any]:
        """(top, bottom): the rows of a tile that a face can reach somewhere in it.

        The region within reach of a triangle is convex: in a strip of columns, it is highest at its
        highest point, or at the end of the strip nearest to that.
        """
        left = raw(self.point(first_row, first_column)[0])
        right = raw(self.point(first_row, first_column + (TILE - 1))[0])
        lowest, highest = (self._end_of_strip(face, left, right, up) for up in (False, True))
        return self._rows_between(face, lowest, highest, first_row, first_row + TILE)

    @traced
    def _end_of_strip(self, face: Face, left: Any, right: Any, up: bool) -> Any:
        """The highest (`up`) or lowest y within reach of a face between two columns."""
        sign = 1.0 if up else -1.0
        keys = [let(raw(corner[1]) * sign) for corner in face.triangle.corners]
        x0, x1, x2 = (raw(corner[0]) for corner in face.triangle.corners)
        second = let(ti.select(keys[1] > keys[2], x1, x2))
        farthest = ti.select(keys[0] >= ti.max(keys[1], keys[2]), x0, second)
        column = let(clamp(farthest, left, right))
        return geometry.extent(face.triangle, 0, column, self.reach())[up]

    @traced
    def columns(self, face: Face, row: Any) -> tuple[Any, Any]:
        """(left, right): the columns of a row that a face can reach."""
        y = raw(self.point(row, 0)[1])
        low, high = geometry.extent(face.triangle, 1, y, self.reach())
        width = self.dim(Dim.WIDTH)
        return self.whole(low, width, False), self.whole(high, width, True)

    @traced
    def reach(self) -> Any:
        """A little more than the distance at which pairs cease to count."""
        return self.limit(Limit.REACH) * (1.0 + 1e-5)

    @traced
    def _rows_between(
        self, face: Face, lowest: Any, highest: Any, first: Any, last: Any
    ) -> tuple[Any, Any]:
        height = self.dim(Dim.HEIGHT)
        top = let(ti.max(self.whole(-highest, height, False), first))
        bottom = let(ti.min(self.whole(-lowest, height, True), ti.min(last, height)))
        return top, let(ti.select(self.drawn(face.triangle), bottom, top))

    @traced
    def whole(self, position: Any, size: Any, end: bool) -> Any:
        """The first pixel, in [0, size], whose centre is at `position` or behind it; or, for an
        `end`, the one after the last pixel before it."""
        width, height = self.dim(Dim.WIDTH), self.dim(Dim.HEIGHT)
        short = ti.cast(ti.min(width, height), self.limits.dtype)
        pixel = (position * short + (size - 1)) * 0.5
        nearby = ti.floor(pixel + 0.01) + 1.0 if end else ti.ceil(pixel - 0.01)
        return let(ti.cast(clamp(nearby, 0.0, size), ti.i32))

    @traced
    def depth_range(self) -> Any:
        return self.limit(Limit.FAR) - self.limit(Limit.NEAR)

    # --- one pair ---------------------------------------------------------------------------------

    @traced
    def front(self, triangle: geometry.Triangle) -> Any:
        """Whether a face shows its front."""
        area = raw(triangle.area)
        return let(area < 0.0) if self.clockwise else let(area > 0.0)

    @traced
    def drawn(self, triangle: geometry.Triangle) -> Any:
        """Whether a face is drawn at all, wherever it lies in the image."""
        z = triangle.z.each(raw)
        if self.unclipped_alpha:  # alpha asks only that 1 / z is finite
            return let(ti.min(*(ti.abs(depth) for depth in z)) > 0.0)
        shown = ti.min(*z) > 0.0
        shown = shown & (ti.min(*z) <= self.limit(Limit.FAR))
        shown = shown & (ti.max(*z) >= self.limit(Limit.NEAR))
        if self.cull:
            shown = shown & self.front(triangle)
        return let(shown)

    @traced
    def meet(self, face: Face, row: Any, column: Any) -> Meeting:
        """A pixel and a face: how far apart they are."""
        point = self.point(row, column)
        choice = geometry.decide(point, face.triangle, self.autodiff)
        foot = geometry.measure(point, face.triangle, choice, self.autodiff)
        near = let(raw(foot.d) >= -self.limit(Limit.REACH))
        return Meeting(face, self.pixel_index(face.b, row, column), point, foot, near)

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
        if self.unclipped_alpha:
            # Not above 0 behind the eye, nor on a face through it: anything beyond far will do.
            inverse_z = select(raw(inverse_z) * far > 0.5, inverse_z, 0.25 / far)
        z = w.dot(triangle.z) if self.variant.orthographic else 1.0 / inverse_z
        mixing = share * z if self.perspective else w
        depth = raw(z)
        z_norm = (-z + far) * (1.0 / self.depth_range())
        counts = raw(edge.f) > self.limit(Limit.THRESHOLD)
        counts = counts & (raw(m.foot.d) >= -self.limit(Limit.CUTOFF))
        visible = (depth >= self.limit(Limit.NEAR)) & (depth <= far)
        if self.unclipped_alpha:
            if self.cull:
                visible = visible & self.front(triangle)
        else:
            counts = counts & visible
        return Fragment(edge, w, share, z, mixing, z_norm, let(counts), let(visible))

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
        if not self.unclipped_alpha:  # then all that count are visible
            return exp(exponent)
        return select(f.visible, exp(select(f.visible, exponent, 0.0)), 0.0)

    @traced
    def colours(self, m: Meeting, mixing: Vector) -> list[Any]:
        """The fragment's attributes."""
        return self.sampler.sample(self, m, mixing)
