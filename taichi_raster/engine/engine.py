"""Runs one call at a time: uploads its inputs, lists the faces of its tiles, launches kernels.

Calls do not overlap: each runs in the thread that owns the runtime, or in the caller's in its turn
(see thread.py). They share the scratch fields. A call that comes back for its derivatives finds its
data still there, or uploads them again if another call came between.

What is evaluated is in pixel_sums.py, fragment_values.py and soft_order.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

from taichi_raster.engine.kernel_cache import KernelCache
from taichi_raster.engine.texture import Texture, without_texture
from taichi_raster.engine.tile_lists import items_per_run, list_faces
from taichi_raster.kernels.by_tile import TileKernels
from taichi_raster.kernels.forward import Forward
from taichi_raster.kernels.memory import IN_PLACE, LANES
from taichi_raster.kernels.vjp import VJP
from taichi_raster.runtime import transfer
from taichi_raster.runtime.call import Call
from taichi_raster.runtime.device import Runtime, runtime
from taichi_raster.runtime.layout import RUNS, Part, State
from taichi_raster.runtime.scratch import Scratch
from taichi_raster.runtime.thread import owner
from taichi_raster.runtime.transforms import no_modes
from taichi_raster.runtime.variant import Table, Variant, without_derivatives

P = ParamSpec("P")
T = TypeVar("T")

MARGIN = LANES
"""Pixels behind the last row that kernels read and ignore."""

LOOPS = 1 << 13
"""Iterations of a loop in one launch, for a GPU thread that processes many pixels.

Mesa's software driver ends loops after 2^16 turns, and some iterations take three. Long loops also
trip other drivers' watchdogs.
"""


_SHARED_SUMS = 1 << 22
"""How many sums of what faces share a GPU keeps at most, where they have a fixed order."""


class Engine:
    """Scratch memory and compiled kernels of a runtime; for one thread at a time.

    Attributes:
        on_gpu: whether kernels go pixel by pixel, which suits many threads.
        scratch: the fields.
        cache: the compiled kernels.
        busy: whether a call is being done.
        sorted: the ticket whose tile lists are sorted by depth.
        texture: what every kernel that samples textures takes last, see `Texture.arrays`.
    """

    def __init__(self, settings: Runtime) -> None:
        self.on_gpu = settings.arch != "cpu"
        self.scratch = Scratch(settings)
        self.cache = KernelCache(self.scratch, settings)
        self._tickets = itertools.count()
        self.busy = False
        self.sorted = -1
        self._without = without_texture(settings)
        self.texture = self._without
        self._loaded = -1  # the ticket whose tile lists and state are on the device
        self._placed = -1  # the ticket whose inputs are on the device
        self._version = -1  # of the scratch fields that these are in

    def ticket(self) -> int:
        """A number that names one call's data in the scratch fields; from any thread."""
        return next(self._tickets)

    def load(
        self,
        call: Call,
        ticket: int,
        x: Tensor,
        background: Tensor,
        texture: Texture | None = None,
        tangent: bool = False,
    ) -> None:
        """Bring this call's inputs, tile lists and sums onto the device, unless they are there.

        Args:
            call: the call.
            ticket: the call's own.
            x: its inputs, packed as layout.py says.
            background: (B,) log-weights.
            texture: its texture; None without one, or where no kernel will sample it.
            tangent: whether to make room for tangents of x and y.
        """
        runtime()  # raises if Taichi was re-initialised
        fields = self.scratch
        fields.reserve(y=call.y_size + MARGIN)
        if tangent:
            fields.reserve(x_dot=call.x_size, y_dot=call.y_size + MARGIN)
        self.bind(call, texture)
        if fields.version == self._version and self._loaded == ticket:
            if self._placed != ticket:  # other inputs were uploaded meanwhile
                self._put(call, x, background)
                self._placed = ticket
            return
        self.place(call, x, background)
        # The same for all calls that differ in derivatives alone, so that it compiles once.
        variant = without_derivatives(call.variant)
        self.run(Forward, variant, call)
        self._loaded = self._placed = ticket
        self._version = fields.version

    def place(self, call: Call, x: Tensor, background: Tensor) -> None:
        """Upload a call's inputs, and list the faces of its tiles."""
        self._loaded = self._placed = self.sorted = -1
        self.scratch.reserve(
            x=call.x_size,
            state=State.COUNT * call.pixels + MARGIN,
            pixels=call.pixels + MARGIN,
            tile_begin=call.batch * call.tiles + 2,
            limits=len(call.limits()) + call.batch,
        )
        self._put(call, x, background)
        list_faces(self.cache, self.scratch, call, self.on_gpu, x)

    def place_inputs(self, call: Call, x: Tensor, pixels: int, texture: Texture | None) -> None:
        """Upload a call's inputs without tile lists; `pixels` is the number of sums."""
        self._placed = -1
        self.scratch.reserve(x=call.x_size, limits=len(call.limits()))
        self.bind(call, texture)
        self._put(call, x, x[:0], pixels)

    def bind(self, call: Call, texture: Texture | None) -> None:
        """Let kernels sample this texture, from now on until the call is done."""
        self.unbind()
        if texture is None:
            return
        if runtime().arch in IN_PLACE:
            self.texture = texture.arrays
        if not texture.in_place:
            texture.upload(self.scratch, call.x_size)

    def of_texels(self, call: Call, texture: Texture | None) -> Tensor | None:
        """The adjoint of the texels, if a launch has given one."""
        return None if texture is None else texture.found(self.scratch, call.x_size)

    def unbind(self) -> None:
        """Let go of the texture."""
        self.texture = self._without

    def displace(self) -> None:
        """Note that the inputs on the device will be overwritten."""
        runtime()  # raises if Taichi was re-initialised
        self._placed = -1

    def run(self, kind: type[TileKernels], variant: Variant, call: Call) -> None:
        """Run a kernel tile by tile on a CPU, pixel by pixel on a GPU."""
        if self.on_gpu:
            self.cache.launch(kind, variant, "run_pixels", call.batch * call.slots, *self.texture)
        else:
            tiles = call.batch * call.tiles
            self.cache.launch(
                kind, variant, "run_tiles", tiles, items_per_run(tiles), *self.texture
            )

    def vjp(self, kind: type[VJP], call: Call, x: Tensor, pairs: int | None = None) -> Tensor:
        """The adjoint of x, given that of the sums, which is on the device.

        Kernels go face by face on a CPU, which suits few threads, and on a GPU where sums must have
        a fixed order. Else they go pixel by pixel there, or, given the number of listed `pairs`,
        pair by pair.
        """
        if self.on_gpu and (call.one_run or not call.fixed_order):
            self._vjp_by_pixels(kind, call, x, pairs)
            return transfer.read(self.scratch, self.scratch.x.grad, x, call.x_size)
        return self._vjp_by_faces(kind, call, x, listed=pairs is not None)

    def _vjp_by_pixels(self, kind: type[VJP], call: Call, x: Tensor, pairs: int | None) -> None:
        """On a GPU; in a fixed order a thread takes a batch item."""
        fields, launch = self.scratch, self.cache.launch
        if pairs is not None and not call.fixed_order:
            launch(kind, call.variant, "vjp_fragments", pairs, *self.texture)
            return
        name, total, loops = "vjp_pixels", call.run_length(True), 1
        if pairs is not None:
            name, total = "vjp_items", self._longest(fields.entry_begin, call.batch, x)
        elif call.fixed_order:
            loops += self._longest(fields.tile_begin, call.batch * call.tiles, x)
        portion = max(LOOPS // loops, 1)
        for begin in range(0, total, portion):
            count = min(portion, total - begin)
            launch(kind, call.variant, name, call.runs(True), begin, count, *self.texture)

    def _vjp_by_faces(self, kind: type[VJP], call: Call, x: Tensor, listed: bool) -> Tensor:
        """With `listed` fragments, or with all pixels of the image's rows."""
        most, parts, portion = RUNS, call.pixels if listed else call.height, call.pixels
        if self.on_gpu:
            shared = sum(self.cache.kernels(kind, call.variant).shared_sizes.values())
            most = _SHARED_SUMS // shared
        runs, length = call.face_runs(most)
        if self.on_gpu:
            portion = max(LOOPS // (length * (1 if listed else call.width)), 1)
        total = call.batch * runs
        sizes = total, runs, length, 1 if self.on_gpu else items_per_run(total)

        def launch() -> None:
            for begin in range(0, parts, portion):
                part = begin, min(begin + portion, parts)
                self.cache.launch(kind, call.variant, "run_faces", *sizes, *part, *self.texture)

        return self.with_shared_sums(kind, call, x, runs, launch)

    def with_shared_sums(
        self, kind: type[VJP], call: Call, x: Tensor, runs: int, launch: Callable[[], None]
    ) -> Tensor:
        """The adjoint of x after a launch, in which each of a batch item's runs has sums of its own
        for what faces share."""
        fields, variant = self.scratch, call.variant
        sizes = self.cache.kernels(kind, variant).shared_sizes if variant.moves[2] else {}
        total = call.batch * runs * sum(sizes.values())
        if total > 0:
            fields.reserve(partials=total)
            transfer.clear(fields, fields.partials, total)
        launch()
        found = transfer.read(fields, fields.x.grad, x, call.x_size)
        if total > 0:  # shared by faces: the sum over runs, in a fixed order
            at = 0
            parts = (
                transfer.read(fields, fields.partials, x, total).view(call.batch, runs, -1).sum(1)
            )
            for part, size in sizes.items():
                begin = sum(call.sizes[:part])
                found[begin : begin + call.sizes[part]] += parts[:, at : at + size].reshape(-1)
                at += size
        return found

    def _longest(self, begins: Any, lists: int, like: Tensor) -> int:
        """The length of the longest list; the field holds the beginnings of `lists` lists."""
        return int(transfer.read(self.scratch, begins, like, lists + 1).diff().max())

    def _put(self, call: Call, x: Tensor, background: Tensor, pixels: int | None = None) -> None:
        """Upload the inputs; on a CPU, also the cells of a table, to a field of their own."""
        sizes, limits = _numbers(call, self.on_gpu, pixels, x.dtype)
        transfer.place(self.scratch, x, sizes, limits, background)
        if isinstance(call.variant.edge.network, Table) and not self.on_gpu:
            begin, size = sum(call.sizes[: Part.EDGE_WEIGHTS]), call.sizes[Part.EDGE_WEIGHTS]
            self.scratch.reserve(cells=size // 4)
            transfer.place_cells(self.scratch, x[begin : begin + size])


@lru_cache(maxsize=256)
def _numbers(
    call: Call, on_gpu: bool, pixels: int | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The integer field and the floating-point field of a call, as tensors."""
    sizes = torch.tensor(call.dims(on_gpu, pixels), dtype=torch.int32)
    return sizes, torch.tensor(call.limits(), dtype=dtype)


_engine: Engine | None = None


def on_engine(
    function: Callable[Concatenate[Engine, P], T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call ``function(engine, ...)`` in the owner's thread, and return its result.

    Raises:
        RuntimeError: within another such call. Python may run a finalizer there, and a render in it
            would overwrite the memory of the call.
    """
    found: T = owner.run(_alone, function, *args, **kwargs)
    return found


def on_engine_here(
    function: Callable[Concatenate[Engine, P], T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """`on_engine`, but in this thread where that is possible; it saves most of a small call.

    `function` makes no fields and calls no kernels of Taichi by itself: `Scratch`, `KernelCache`
    and `Launcher` hand over what only the owner's thread can do. It may end anywhere, by Ctrl-C.
    """
    if _engine is None or _engine.on_gpu or not no_modes():
        return on_engine(function, *args, **kwargs)
    found: T = owner.run_here(_alone, function, *args, **kwargs)
    return found


def _alone(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    current = engine()
    if current.busy:
        raise RuntimeError(
            "a render was begun within another one, by a finalizer (__del__, weakref) that Python "
            "ran meanwhile: render outside of it"
        )
    current.busy = True
    try:
        return function(current, *args, **kwargs)
    finally:
        current.busy = False
        current.unbind()


def engine() -> Engine:
    """The engine of the runtime in force; may be called from any thread."""
    settings = runtime()
    return owner.run(_create, settings) if _engine is None else _engine


def _create(settings: Runtime) -> Engine:
    global _engine
    if _engine is None:
        _engine = Engine(settings)
    return _engine
