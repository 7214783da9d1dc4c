"""Runs the kernels for one call at a time: upload, bin, render or differentiate, download.

All of it is done in the thread that owns the runtime (see thread.py), so that calls come one after
the other. They share the scratch fields: a call that comes back for its derivatives finds its data
still there, or uploads them again if another call came between.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from taichi_raster.engine.fragment_lists import Listing
from taichi_raster.kernels.adjoints import LANES
from taichi_raster.kernels.autodiff import Accumulate, AccumulateTangent
from taichi_raster.kernels.binning_cpu import BinningCPU
from taichi_raster.kernels.binning_gpu import BinningGPU
from taichi_raster.kernels.by_tile import TileKernels
from taichi_raster.kernels.depth_sort import DepthSort
from taichi_raster.kernels.forward import Forward
from taichi_raster.kernels.jvp import JVP
from taichi_raster.kernels.vjp import VJP, VJPTangent
from taichi_raster.maths import elementary
from taichi_raster.runtime import transfer
from taichi_raster.runtime.device import Runtime, runtime
from taichi_raster.runtime.launcher import Launcher
from taichi_raster.runtime.layout import (
    RUNS,
    Call,
    DepthVariant,
    Dim,
    EdgeVariant,
    Entry,
    Hides,
    Part,
    State,
    Variant,
)
from taichi_raster.runtime.network_shape import Table
from taichi_raster.runtime.recent import Recent
from taichi_raster.runtime.scratch import Scratch
from taichi_raster.runtime.thread import owned, owner
from taichi_raster.softness.distributions import registry

STILL = (True, False, False)
_MARGIN = LANES  # pixels past the last row that are read, and not used
LOOPS = 1 << 13
"""How often a GPU's thread may go through loops where it takes many pixels: Mesa's software driver
ends loops after 2^16 turns, of which some take three, and others dislike long ones, too."""


@dataclass(frozen=True)
class Sums:
    """What the kernels find for each pixel.

    Attributes:
        y: (2 + C, B, H, W) sums, see layout.py.
        state: (4, B, H, W), see layout.State; it has no derivative.
    """

    y: Tensor
    state: Tensor


class Engine:
    """Owns scratch memory and compiled kernels of a runtime.

    Made, and used but for `ticket`, in the thread that owns the runtime; what is public here is
    done there, whoever calls. Where derivatives are asked for, `autodiff` says whether Taichi's
    autodiff gives them, the oracle of the closed forms.
    """

    def __init__(self, settings: Runtime) -> None:
        self.on_gpu = settings.arch != "cpu"
        self._runtime = settings
        self.scratch = Scratch(settings)
        self._compiled: Recent[tuple[type, Variant], Any] = Recent(512)
        self._launchers: Recent[tuple[type, Variant, str], Launcher] = Recent(1024)
        self._compiled_for = -1  # the version of the scratch fields
        self._tickets = itertools.count()
        self._depths: Recent[tuple[Variant, int, int, int, int], int] = Recent(256)  # of layers
        self._loaded = -1  # whose lists and state are there; not the sums, which are read at once
        self._placed = -1  # and whose inputs

    def ticket(self) -> int:
        """A number that names one call's data in the scratch fields."""
        return next(self._tickets)

    @owned
    def forward(self, call: Call, ticket: int, x: Tensor, background: Tensor) -> Sums:
        """The sums of the inputs x, packed as layout.py says; background: (B,) log-weights."""
        self._load(call, ticket, x, background)
        fields, grid = self.scratch, (-1, call.batch, call.height, call.width)
        y, state = transfer.read_both(
            fields, fields.y, call.y_size, fields.state, State.COUNT * call.pixels, x
        )
        return Sums(y.view(grid), state.view(grid))

    @owned
    def nearest(self, call: Call, x: Tensor) -> Tensor:
        """(B, H, W): the nearest face that contains the pixel's centre, or -1."""
        self._load(call, self.ticket(), x, x.new_zeros(call.batch))
        found = transfer.read(self.scratch, self.scratch.nearest, x, call.pixels)
        return found.view(call.batch, call.height, call.width)

    @owned
    def vjp(
        self, call: Call, ticket: int, x: Tensor, background: Tensor, v: Tensor, autodiff: bool
    ) -> Tensor:
        """J(x)^T v: the adjoint of the inputs, given the adjoint of the sums."""
        self._load(call, ticket, x, background)
        fields = self.scratch
        transfer.seed(fields, fields.y.grad, v, fields.x.grad, call.x_size)
        if not autodiff:
            return self.pull(VJP, call, x)
        transfer.seed(fields, fields.x_still, x, fields.x_still, 0)
        refuse_what_autodiff_cannot(call, self.on_gpu)
        with elementary.native():
            self.kernels(Accumulate, call.variant).accumulate.grad(call.runs(self.on_gpu))
        return transfer.read(fields, fields.x.grad, x, call.x_size)

    @owned
    def jvp(
        self, call: Call, ticket: int, x: Tensor, background: Tensor, x_dot: Tensor, autodiff: bool
    ) -> Tensor:
        """J(x) x_dot: the tangent of the sums, given the tangent of the inputs."""
        self._load(call, ticket, x, background, tangent=True)
        fields = self.scratch
        transfer.seed(fields, fields.x_dot, x_dot, fields.y_dot, call.y_size if autodiff else 0)
        if autodiff:
            transfer.seed(fields, fields.x_still, x, fields.x_still, 0)
            with elementary.native():
                kernels = self.kernels(AccumulateTangent, call.variant)
                kernels.accumulate(call.runs(self.on_gpu))
        else:
            self._run(JVP, call.variant, call)
        y_dot = transfer.read(fields, fields.y_dot, x, call.y_size)
        return y_dot.view(-1, call.batch, call.height, call.width)

    @owned
    def second(
        self, call: Call, ticket: int, x: Tensor, background: Tensor, v: Tensor, x_dot: Tensor,
        autodiff: bool,
    ) -> Tensor:  # fmt: skip
        """The gradient of v . J(x) x_dot with respect to x."""
        self._load(call, ticket, x, background, tangent=True)
        fields = self.scratch
        transfer.seed(fields, fields.x_dot, x_dot, fields.x.grad, call.x_size)
        if not autodiff:
            transfer.seed(fields, fields.y.grad, v, fields.x_dot, 0)
            return self.pull(VJPTangent, call, x)
        refuse_what_autodiff_cannot(call, self.on_gpu)
        transfer.seed(fields, fields.x_still, x, fields.x_still, 0)
        transfer.seed(fields, fields.y_dot.grad, v, fields.x_still, 0)
        kernels = self.kernels(AccumulateTangent, call.variant)
        with elementary.native():
            kernels.accumulate.grad(call.runs(self.on_gpu))
        return transfer.read(fields, fields.x.grad, x, call.x_size)

    def layers(self, call: Call, x: Tensor, hides: int) -> Int[Tensor, "B H W K"]:
        """Faces that each pixel sees, nearest first, then -1; see `DepthSort`."""

        @owned
        def collect() -> Tensor:
            self._place(call, x, x.new_zeros(call.batch))
            return self._layers(call, call.variant, x, hides)

        return self._cut(call, call.variant, hides, collect())

    def listing(
        self, call: Call, ticket: int, x: Tensor, background: Tensor, hides: int
    ) -> Listing:
        """The pairs that pixels see, of the inputs that `forward` had with this ticket."""
        # The T-conorm is of no account: so all share the kernels.
        variant = replace(call.variant, conorm="probabilistic", moves=STILL)

        @owned
        def collect() -> Tensor:
            self._load(call, ticket, x, background)
            return self._layers(call, variant, x, hides)

        layers = self._cut(call, variant, hides, collect())
        return Listing.of(layers, call.faces, by_face=not self.on_gpu)

    def _layers(self, call: Call, variant: Variant, x: Tensor, hides: int) -> Tensor:
        """The layers of inputs that are in place, as deep as there was room for."""
        fields, tiles = self.scratch, call.batch * call.tiles
        depth = min(self._depths.get(_scene(call, variant, hides), 4), call.faces)
        name = "collect_pixels" if self.on_gpu else "collect_tiles"
        sizes = (call.batch * call.slots,) if self.on_gpu else (tiles, to_each(tiles))
        while True:
            listed = call.pixels * depth
            fields.reserve(layers=listed, layer_depths=listed, layer_covers=listed)
            needed = self.launch(DepthSort, variant, name, *sizes, depth, hides)
            if needed == 0:
                found = transfer.read(fields, fields.layers, x, listed)
                return found.view(call.batch, call.height, call.width, depth)
            depth = min(2 * depth, needed) if hides == Hides.SUM else needed

    def _cut(self, call: Call, variant: Variant, hides: int, found: Tensor) -> Tensor:
        """Layers without those that no pixel fills; remembers for the next time how many are."""
        deepest = max(int((found >= 0).sum(-1).max()), 1)
        self._depths[_scene(call, variant, hides)] = deepest
        return found[..., :deepest]

    def place_pairs(self, call: Call, listing: Listing, x: Tensor, tangent: bool = False) -> None:
        """Put a call's inputs and listed pairs in place, for the kernels of fragment_kernels.py."""
        runtime()  # raises if Taichi was re-initialised
        self._placed = -1
        n = listing.entries.shape[1]
        fields, size = self.scratch, (2 + call.variant.channels) * n + _MARGIN
        fields.reserve(
            x=call.x_size, y=size, limits=len(call.limits()),
            entries=Entry.COUNT * n + _MARGIN, entry_begin=len(listing.begin),
            cells=self._cells(call),
        )  # fmt: skip
        if tangent:
            fields.reserve(x_dot=call.x_size, y_dot=size)
        sizes, limits = _numbers(call, self.on_gpu, x.dtype)
        sizes = sizes.clone()
        sizes[Dim.PIXELS] = n
        transfer.place(fields, x, sizes, limits, x[:0])
        self._place_cells(call, x)
        transfer.seed(fields, fields.entries, listing.entries, fields.entries, 0)
        transfer.seed(fields, fields.entry_begin, listing.begin, fields.entry_begin, 0)

    def place_numbers(self, x: Tensor, counts: Tensor, x_dot: Tensor | None = None) -> None:
        """Put numbers in place, for the kernels of soft_order.py; and room for as many sums."""
        runtime()  # raises if Taichi was re-initialised
        self._placed = -1
        fields, size = self.scratch, len(x) + _MARGIN
        fields.reserve(x=size, y=size, entries=len(counts) + _MARGIN)
        if x_dot is not None:
            fields.reserve(x_dot=size, y_dot=size)
            transfer.seed(fields, fields.x_dot, x_dot, fields.x_dot, 0)
        transfer.seed(fields, fields.x, x, fields.x, 0)
        transfer.seed(fields, fields.entries, counts, fields.entries, 0)

    def _run(self, kind: type[TileKernels], variant: Variant, call: Call) -> None:
        """Tile by tile, or pixel by pixel."""
        if self.on_gpu:
            self.launch(kind, variant, "run_pixels", call.batch * call.slots)
        else:
            tiles = call.batch * call.tiles
            self.launch(kind, variant, "run_tiles", tiles, to_each(tiles))

    def pull(self, kind: type[VJP], call: Call, x: Tensor, pairs: int | None = None) -> Tensor:
        """The adjoint of x: face by face, which suits few threads, or pixel by pixel; or pair by
        pair, where `pairs` are listed."""
        fields, variant = self.scratch, call.variant
        if self.on_gpu:
            if pairs is not None and not call.fixed_order:
                self.launch(kind, variant, "vjp_fragments", pairs)
                return transfer.read(fields, fields.x.grad, x, call.x_size)
            name, total, loops = "vjp_pixels", call.run_length(True), 1
            if pairs is not None:
                name, total = "vjp_items", self._longest(fields.entry_begin, call.batch, x)
            elif call.fixed_order:
                loops += self._longest(fields.tile_begin, call.batch * call.tiles, x)
            portion = max(LOOPS // loops, 1)
            for begin in range(0, total, portion):
                count = min(portion, total - begin)
                self.launch(kind, variant, name, call.runs(True), begin, count)
            return transfer.read(fields, fields.x.grad, x, call.x_size)
        runs, length = call.face_runs()
        sizes = self.kernels(kind, variant).shared_sizes if variant.moves[2] else {}
        total = call.batch * runs * sum(sizes.values())
        if total > 0:
            fields.reserve(partials=total)
            transfer.clear(fields, fields.partials, total)
        all_runs = call.batch * runs
        self.launch(kind, variant, "run_faces", all_runs, runs, length, to_each(all_runs))
        found = transfer.read(fields, fields.x.grad, x, call.x_size)
        if total > 0:
            values, at = found.numpy(), 0
            parts = fields.views[fields.partials][:total].reshape(call.batch, runs, -1).sum(1)
            for part, size in sizes.items():
                begin = sum(call.sizes[:part])
                values[begin : begin + call.sizes[part]] += parts[:, at : at + size].reshape(-1)
                at += size
        return found

    def _longest(self, begins: Any, lists: int, like: Tensor) -> int:
        """The length of the longest of so many lists, of which a field has the beginnings."""
        return int(transfer.read(self.scratch, begins, like, lists + 1).diff().max())

    def _load(
        self, call: Call, ticket: int, x: Tensor, background: Tensor, tangent: bool = False
    ) -> None:
        """Have this call's inputs, tile lists and sums in place."""
        runtime()  # raises if Taichi was re-initialised
        fields = self.scratch
        before = fields.version
        fields.reserve(y=call.y_size + _MARGIN)
        if tangent:
            fields.reserve(x_dot=call.x_size, y_dot=call.y_size + _MARGIN)
        if fields.version == before and self._loaded == ticket:
            if self._placed != ticket:  # listed pairs came between
                self._put(call, x, background)
                self._placed = ticket
            return
        self._place(call, x, background)
        variant = replace(call.variant, moves=STILL)  # shared by all, so that it compiles once
        self._run(Forward, variant, call)
        self._loaded = self._placed = ticket

    def _place(self, call: Call, x: Tensor, background: Tensor) -> None:
        """Put this call's inputs and tile lists in place."""
        self._loaded = self._placed = -1
        fields = self.scratch
        tiles = call.batch * call.tiles
        fields.reserve(
            x=call.x_size, state=State.COUNT * call.pixels + _MARGIN,
            pixels=call.pixels + _MARGIN, tile_begin=tiles + 2,
            limits=len(call.limits()) + call.batch, cells=self._cells(call),
        )  # fmt: skip
        self._put(call, x, background)
        variant = Variant(
            EdgeVariant("uniform"), DepthVariant("none"), cull=call.variant.cull,
            clockwise=call.variant.clockwise, unclipped_alpha=call.variant.unclipped_alpha,
            moves=STILL,
        )  # fmt: skip
        if self.on_gpu:
            self._bin(call, variant)
        else:
            self._list(call, variant)

    def _put(self, call: Call, x: Tensor, background: Tensor) -> None:
        """The inputs alone."""
        sizes, limits = _numbers(call, self.on_gpu, x.dtype)
        transfer.place(self.scratch, x, sizes, limits, background)
        self._place_cells(call, x)

    def _cells(self, call: Call) -> int:
        """How many cells of tables a CPU reads."""
        table = isinstance(call.variant.edge.network, Table) and not self.on_gpu
        return call.sizes[Part.EDGE_WEIGHTS] // 4 if table else 0

    def _place_cells(self, call: Call, x: Tensor) -> None:
        if (cells := self._cells(call)) > 0:
            begin = sum(call.sizes[: Part.EDGE_WEIGHTS])
            transfer.place_cells(self.scratch, x[begin : begin + 4 * cells])

    def _list(self, call: Call, variant: Variant) -> None:
        """Find each tile's faces, face by face."""
        fields, tiles, bands = self.scratch, call.batch * call.tiles, call.batch * call.bands
        total, room = 1, 0
        while total > room:  # the second time, there is room
            room = fields.capacity("tile_faces")
            total = self.launch(
                BinningCPU, variant, "build", tiles, bands, call.bands, to_each(bands), room
            )
            fields.reserve(tile_faces=_fitting(total))

    def _bin(self, call: Call, variant: Variant) -> None:
        """Find each tile's faces, tile by tile."""
        fields, tiles = self.scratch, call.batch * call.tiles
        if call.grouped:
            groups = call.batch * call.groups
            fields.reserve(group_begin=groups + 1)
            self.launch(BinningGPU, variant, "count_groups", groups, 1)
            total = self.launch(BinningGPU, variant, "scan_groups", groups)
            fields.reserve(group_faces=_fitting(total))
            self.launch(BinningGPU, variant, "fill_groups", groups, 1)
        grouped = int(call.grouped)
        self.launch(BinningGPU, variant, "count", tiles, 1, grouped)
        fields.reserve(tile_faces=_fitting(self.launch(BinningGPU, variant, "scan", tiles)))
        self.launch(BinningGPU, variant, "fill", tiles, 1, grouped)

    def launch(self, kind: type, variant: Variant, name: str, *arguments: int) -> int:
        """Run one of the kernels of a kind."""
        self._forget_stale()
        launcher = self._launchers.get((kind, variant, name))
        if launcher is None:
            method = getattr(self.kernels(kind, variant), name)
            launcher = Launcher(method, self._runtime.arch)
            self._launchers[kind, variant, name] = launcher
        return launcher(*arguments)

    def kernels(self, kind: type, variant: Variant) -> Any:
        """The kernels of a kind, compiled anew if a field was replaced since."""
        self._forget_stale()
        kernels = self._compiled.get((kind, variant))
        if kernels is None:
            kernels = kind(variant, self.scratch, self._runtime)
            self._compiled[kind, variant] = kernels
        return kernels

    def _forget_stale(self) -> None:
        """Forget the kernels of fields that were replaced since."""
        if self._compiled_for != self.scratch.version:
            self._compiled.clear()
            self._launchers.clear()
            self._compiled_for = self.scratch.version


def _scene(call: Call, variant: Variant, hides: int) -> tuple[Variant, int, int, int, int]:
    """What scenes have in common whose layers are likely to be as deep."""
    return variant, hides, call.faces, call.height, call.width


@lru_cache(maxsize=256)
def _numbers(call: Call, on_gpu: bool, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The contents of the integer field, and of the floating-point field beside it."""
    sizes = torch.tensor(call.dims(on_gpu), dtype=torch.int32)
    return sizes, torch.tensor(call.limits(), dtype=dtype)


def to_each(count: int) -> int:
    """How many of `count` things one run of a parallel loop does on a CPU."""
    return -(-count // RUNS)


def _fitting(total: int) -> int:
    if total < 0:
        raise MemoryError(
            "tile lists need more than 2^31 entries: render fewer batch items, faces or pixels "
            "at a time, or raise the threshold"
        )
    return total


def refuse_what_autodiff_cannot(call: Call, on_gpu: bool) -> None:
    if on_gpu and call.fixed_order:
        raise NotImplementedError(
            "derivatives_by('autodiff') knows no deterministic=True on a GPU; use closed forms"
        )
    if isinstance(call.variant.edge.network, Table):
        raise NotImplementedError(
            "derivatives_by('autodiff') cannot follow a table's look-up; use closed forms"
        )
    names = (call.variant.edge.distribution, call.variant.depth.distribution)
    if any(name is not None and registry.find(name).shaped for name in names):
        raise NotImplementedError(
            "derivatives_by('autodiff') cannot follow the gamma distributions' loops; use closed "
            "forms"
        )


_engine: Engine | None = None


def engine() -> Engine:
    """The engine of the runtime in force."""
    settings = runtime()
    return owner.run(_made, settings) if _engine is None else _engine


def _made(settings: Runtime) -> Engine:
    global _engine
    if _engine is None:
        _engine = Engine(settings)
    return _engine


_by_autodiff: ContextVar[bool] = ContextVar("derivatives_by_autodiff", default=False)


def by_autodiff() -> bool:
    """Whether the caller wants derivatives by Taichi's autodiff (see `derivatives_by`)."""
    return _by_autodiff.get()


@contextmanager
def derivatives_by(method: str) -> Iterator[None]:
    """Within it, derivatives come from ``"closed_forms"`` (the default) or from ``"autodiff"``.

    The closed forms are faster, and compile faster. Taichi's reverse-mode autodiff, over the same
    sums, gives the same numbers by another road: use it to check the other one, or a formula of
    your own. It cannot follow the loops in the gamma distributions.

    It holds for this thread (or asyncio task) alone: for what is rendered in it, whichever thread
    torch then runs the backward in, and for the backward of what was rendered before.

    Raises:
        ValueError: for another method.
    """
    if method not in ("closed_forms", "autodiff"):
        raise ValueError(f"method: unknown {method!r}; known: closed_forms, autodiff")
    token = _by_autodiff.set(method == "autodiff")
    try:
        yield
    finally:
        _by_autodiff.reset(token)
