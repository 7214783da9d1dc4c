"""Where a kernel finds its numbers, and which of them its threads work on.

Every kernel class of this folder derives from `Memory`: it addresses the flat vectors x and y (see
runtime/layout.py), and the tiles and pixels of the image.
"""

from typing import Any

import taichi as ti

from taichi_raster.maths.dual import Number
from taichi_raster.maths.tracing import element, let, traced
from taichi_raster.maths.vector import Vector
from taichi_raster.runtime.device import Runtime
from taichi_raster.runtime.layout import TILE, Dim, Limit, Part, Slot
from taichi_raster.runtime.scratch import Scratch
from taichi_raster.runtime.variant import Architecture, Table, Variant

# Taichi deals out a CPU loop in blocks of 512 iterations, so that a loop over a few hundred long
# runs would keep one thread busy and the others idle. So run r is iteration SPREAD * r. Empty
# iterations take time too: there should be no more than `layout.RUNS` runs.
SPREAD = 512


THREADS = 1 << 17
"""How many threads a kernel has on CUDA, each for every 2^17th item.

That is about what a large GPU holds at a time. A loop whose length is known when it is compiled
takes one launch. Taichi launches two kernels for any other: one that stores its length, and one of
as many blocks as the GPU could ever hold.
"""

LANES = 16
"""Pixels that are worked on together on a CPU, by kernels that go face by face."""

IN_PLACE = ("cpu", "cuda")
"""Backends whose kernels read torch's memory where it is. Vulkan copies it at each launch."""

TEXELS: Any = ti.types.ndarray(ndim=1)
"""A kernel's argument: the texture's texels, their tangents, or their adjoints."""


def size_of(network: Architecture | Table | None) -> int:
    """How many weights every pair needs; 0 for a table, of which a pair needs four."""
    return network.size if isinstance(network, Architecture) else 0


@ti.data_oriented
class Memory:
    """One variant's view of the scratch fields.

    Attributes:
        tangents: whether numbers carry the tangents in x_dot.
        autodiff: whether Taichi differentiates the kernel.
        fields: the scratch fields. The engine makes new kernels whenever a field is replaced.
        dims: `fields.dims`, the sizes of the call at hand.
        moves: whether a part of x gets a derivative, by part.
        shared_sizes: how many of a batch item's inputs all of its faces share, by part.
        lanes: how many pixels are worked on together, face by face.
        threads: how many threads share the items of a loop; 0 where each item has its own.
        held: what `hold` has loaded: a variable by (field, place) or (part, place).
        texture: a kernel's arrays of texels, of their tangents and of their adjoints; None where
            these are behind x.
    """

    tangents = False
    autodiff = False

    def __init__(self, variant: Variant, scratch: Scratch, runtime: Runtime) -> None:
        self.variant = variant
        self.fields = scratch
        self.dims = scratch.dims
        self.on_cpu = runtime.arch == "cpu"
        self.lanes = LANES if self.on_cpu else 1
        self.threads = THREADS if runtime.arch == "cuda" else 0
        self.reads_in_place = runtime.arch in IN_PLACE and not self.autodiff
        vertices, appearance, parameters, texels = variant.moves
        self.moves = {
            Part.VERTICES: vertices,
            Part.CORNERS: appearance,
            Part.UV: appearance,
            Part.EDGE_WEIGHTS: parameters,
            Part.DEPTH_WEIGHTS: parameters,
            Part.PARAMETERS: parameters,
            Part.TEXELS: texels,
        }
        self.texture: tuple[Any, Any, Any] | None = None
        self.shared_sizes = {
            Part.EDGE_WEIGHTS: 0 if variant.edge.network is None else variant.edge.network.size,
            Part.DEPTH_WEIGHTS: size_of(variant.depth.network),
            Part.PARAMETERS: Slot.COUNT,
        }
        self.held: dict[Any, Any] = {}

    # --- who does what ----------------------------------------------------------------------------

    @ti.func
    def parallel(
        self,
        count: ti.template(),
        length: ti.template(),
        body: ti.template(),
        extra: ti.template(),
    ):
        """Call ``body(i, *extra)`` for each i below `count`, in parallel runs of `length`.

        `body` is a `ti.func` and `extra` a tuple, both inlined. Taichi makes the outermost loops of
        a kernel parallel, so a kernel calls this outside of any loop or branch.
        """
        if ti.static(self.on_cpu):
            for slot in range((count + length - 1) // length * SPREAD):
                if (slot & (SPREAD - 1)) == 0:
                    first = slot // SPREAD * length
                    for i in range(first, ti.min(first + length, count)):
                        body(i, *extra)
        else:
            self.each(count, body, extra)

    @ti.func
    def each(self, count: ti.template(), body: ti.template(), extra: ti.template()):
        """Call ``body(i, *extra)`` for each i below `count`, on a GPU."""
        if ti.static(self.threads > 0):
            for thread in range(self.threads):
                for turn in range(self.turns(thread, count)):
                    body(thread + turn * self.threads, *extra)
        else:
            for i in range(count):
                body(i, *extra)

    @ti.func
    def turns(self, thread, count):
        """How many of `count` items a thread has."""
        return (count - thread + (self.threads - 1)) // self.threads

    @ti.func
    def parallel_pixels(self, slots: ti.template(), body: ti.template(), extra: ti.template()):
        """Call ``body(b, row, column, tile, *extra)`` for each pixel, on a GPU."""
        self.each(slots, self.at_pixel, (body, extra))

    @ti.func
    def at_pixel(self, slot, body: ti.template(), extra: ti.template()):
        """Call ``body(b, row, column, tile, *extra)`` for a slot's pixel, if the image has it."""
        b, row, column, tile = self.pixel(slot)
        if row < self.dims[Dim.HEIGHT] and column < self.dims[Dim.WIDTH]:
            body(b, row, column, tile, *extra)

    # --- where things lie -------------------------------------------------------------------------

    @traced
    def hold(self, b: Any) -> None:
        """Load what is the same for all of a batch item's pairs, once, ahead of the loops.

        LLVM would not move so many loads out of a loop by itself, nor vectorise it then. On a GPU
        registers are scarcer than loads of what neighbouring threads load, too.
        """
        self.held = {}
        if not self.on_cpu:
            return
        held: dict[Any, Any] = {}
        held |= {(self.dims, i): let(self.dim(i)) for i in range(Dim.PARTS + Part.COUNT)}
        held |= {(self.fields.limits, i): let(self.limit(i)) for i in range(Limit.COUNT)}
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
        return self._held_or_loaded(self.fields.limits, which)

    @traced
    def _held_or_loaded(self, field: Any, which: int) -> Any:
        held = self.held.get((field, which))
        return element(field, which) if held is None else held

    @traced
    def bind(self, texels: Any, tangents: Any, adjoints: Any) -> None:
        """Tell where the texture is: every kernel that samples it begins with this."""
        self.texture = (texels, tangents, adjoints) if self.reads_in_place else None

    @traced
    def load(self, part: int, index: Any) -> Number:
        """An element of a part of x, or a texel, with its tangent."""
        moves = self.moves[part]
        if part == Part.TEXELS and self.texture is not None:
            texels, tangents, _ = self.texture
            tangent = element(tangents, index) if self.tangents and moves else None
            return Number(element(texels, index), tangent)
        source = self.fields.x if moves or not self.autodiff else self.fields.x_still
        at = let(self.dim(Dim.PARTS + part) + index)
        tangent = element(self.fields.x_dot, at) if self.tangents and moves else None
        return Number(element(source, at), tangent)

    @traced
    def cell(self, part: int, index: Any) -> list[Number]:
        """The four weights of a table's cell, with their tangents.

        On a CPU the values come from `cells`, which are addressed by the cell's number alone. Every
        lane of a vector has its own address, and computing four for each would take longer than
        the loads.
        """
        if not self.on_cpu or (self.tangents and self.moves[part]):
            return [self.load(part, 4 * index + i) for i in range(4)]
        return [Number(element(field, index)) for field in self.fields.cells]

    @traced
    def parameter(self, b: Any, slot: int) -> Number:
        return self.shared(Part.PARAMETERS, Slot.COUNT, b, slot)

    @traced
    def shared(self, part: int, size: int, b: Any, i: int) -> Number:
        """One of the `size` elements of a part that a batch item has."""
        held = self.held.get((part, i))
        return self.load(part, b * size + i) if held is None else held

    @traced
    def face_index(self, b: Any, face: Any) -> Any:
        return let(b * self.dim(Dim.FACES) + face)

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
        short = 1.0 / ti.cast(ti.min(width, height), self.fields.limits.dtype)
        px = ti.cast(2 * column + 1 - width, self.fields.limits.dtype) * short
        py = ti.cast(height - 2 * row - 1, self.fields.limits.dtype) * short
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
        return element(self.fields.state, self.place(plane, q))
