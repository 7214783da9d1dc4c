"""Runs the kernels for one call at a time: upload, bin, render or differentiate, download.

The scratch fields are shared by all calls of the process, under a lock. A call that comes back for
its derivatives finds its data still there, or uploads them again if another call came between.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from taichi_raster import copying, elementary
from taichi_raster.architecture import Table
from taichi_raster.kernels import (
    Accumulate,
    AccumulateTangent,
    Binning,
    Forward,
    Layers,
    Lists,
    Measure,
    MeasureByAutodiff,
    MeasureTangent,
    MeasureTangentByAutodiff,
    Pull,
    PullListed,
    PullListedTangent,
    PullTangent,
    Push,
)
from taichi_raster.kernels.sinks import LANES
from taichi_raster.kernels.tiles import TileKernels
from taichi_raster.launching import Launcher
from taichi_raster.layout import (
    RUNS,
    Call,
    DepthVariant,
    Dim,
    EdgeVariant,
    Entry,
    Hides,
    State,
    Variant,
)
from taichi_raster.listing import Listing
from taichi_raster.runtime import Runtime, runtime
from taichi_raster.scratch import Scratch
from taichi_raster.softness import registry

_STILL = (True, False, False)
_MARGIN = LANES  # pixels past the last row that are read, and not used


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
    """Owns scratch memory and compiled kernels of a runtime."""

    def __init__(self, settings: Runtime) -> None:
        self.on_gpu = settings.arch != "cpu"
        self._runtime = settings
        self._scratch = Scratch(settings)
        self._compiled: dict[tuple[type, Variant], tuple[int, Any]] = {}
        self._launchers: dict[tuple[type, Variant, str], tuple[int, Launcher]] = {}
        self._lock = threading.RLock()
        self._tickets = itertools.count()
        self._depths: dict[tuple[Variant, int, int, int, int], int] = {}  # of layers, the last time
        self._loaded = -1  # whose lists and state are there; not the sums, which are read at once
        self._placed = -1  # and whose inputs
        self.prefer_autodiff = False  # derivatives by Taichi's autodiff, the closed forms' oracle

    def ticket(self) -> int:
        """A number that names one call's data in the scratch fields."""
        return next(self._tickets)

    def forward(self, call: Call, ticket: int, x: Tensor, background: Tensor) -> Sums:
        """The sums of the inputs x, packed as layout.py says; background: (B,) log-weights."""
        with self._lock:
            self._load(call, ticket, x, background)
            fields, grid = self._scratch, (-1, call.batch, call.height, call.width)
            y, state = copying.read_both(
                fields, fields.y, call.y_size, fields.state, State.COUNT * call.pixels, x
            )
            return Sums(y.view(grid), state.view(grid))

    def nearest(self, call: Call, x: Tensor) -> Tensor:
        """(B, H, W): the nearest face that contains the pixel's centre, or -1."""
        with self._lock:
            self._load(call, self.ticket(), x, x.new_zeros(call.batch))
            found = copying.read(self._scratch, self._scratch.nearest, x, call.pixels)
            return found.view(call.batch, call.height, call.width)

    def vjp(self, call: Call, ticket: int, x: Tensor, background: Tensor, v: Tensor) -> Tensor:
        """J(x)^T v: the adjoint of the inputs, given the adjoint of the sums."""
        with self._lock:
            self._load(call, ticket, x, background)
            fields = self._scratch
            copying.seed(fields, fields.y.grad, v, fields.x.grad, call.x_size)
            if self.prefer_autodiff:
                copying.seed(fields, fields.x_still, x, fields.x_still, 0)
                _refuse_what_autodiff_cannot(call)
                with elementary.native():
                    self._kernels(Accumulate, call.variant).accumulate.grad(call.runs(self.on_gpu))
                return copying.read(fields, fields.x.grad, x, call.x_size)
            return self._pull(Pull, call, x)

    def jvp(self, call: Call, ticket: int, x: Tensor, background: Tensor, x_dot: Tensor) -> Tensor:
        """J(x) x_dot: the tangent of the sums, given the tangent of the inputs."""
        with self._lock:
            self._load(call, ticket, x, background, tangent=True)
            fields = self._scratch
            zeroed = call.y_size if self.prefer_autodiff else 0
            copying.seed(fields, fields.x_dot, x_dot, fields.y_dot, zeroed)
            if self.prefer_autodiff:
                copying.seed(fields, fields.x_still, x, fields.x_still, 0)
                with elementary.native():
                    kernels = self._kernels(AccumulateTangent, call.variant)
                    kernels.accumulate(call.runs(self.on_gpu))
            else:
                self._run(Push, call.variant, call)
            y_dot = copying.read(fields, fields.y_dot, x, call.y_size)
            return y_dot.view(-1, call.batch, call.height, call.width)

    def second(
        self, call: Call, ticket: int, x: Tensor, background: Tensor, v: Tensor, x_dot: Tensor
    ) -> Tensor:
        """The gradient of v . J(x) x_dot with respect to x."""
        with self._lock:
            self._load(call, ticket, x, background, tangent=True)
            fields = self._scratch
            copying.seed(fields, fields.x_dot, x_dot, fields.x.grad, call.x_size)
            if self.prefer_autodiff:
                _refuse_what_autodiff_cannot(call)
                copying.seed(fields, fields.x_still, x, fields.x_still, 0)
                copying.seed(fields, fields.y_dot.grad, v, fields.x_still, 0)
                kernels = self._kernels(AccumulateTangent, call.variant)
                with elementary.native():
                    kernels.accumulate.grad(call.runs(self.on_gpu))
                return copying.read(fields, fields.x.grad, x, call.x_size)
            copying.seed(fields, fields.y.grad, v, fields.x_dot, 0)
            return self._pull(PullTangent, call, x)

    def layers(self, call: Call, x: Tensor, hides: int) -> Int[Tensor, "B H W K"]:
        """Faces that each pixel sees, nearest first, then -1; see `Layers`."""
        with self._lock:
            self._place(call, x, x.new_zeros(call.batch))
            return self._layers(call, call.variant, x, hides)

    def listing(
        self, call: Call, ticket: int, x: Tensor, background: Tensor, hides: int
    ) -> Listing:
        """The pairs that pixels see, of the inputs that `forward` had with this ticket."""
        with self._lock:
            self._load(call, ticket, x, background)
            # The T-conorm is of no account: so all share the kernels.
            variant = replace(call.variant, conorm="probabilistic", moves=_STILL)
            layers = self._layers(call, variant, x, hides)
        return Listing.of(layers, call.faces, by_face=not self.on_gpu)

    def _layers(self, call: Call, variant: Variant, x: Tensor, hides: int) -> Tensor:
        """The layers of inputs that are in place."""
        key = variant, hides, call.faces, call.height, call.width
        depth, fields = min(self._depths.get(key, 4), call.faces), self._scratch
        tiles = call.batch * call.tiles
        name = "collect_pixels" if self.on_gpu else "collect_tiles"
        sizes = (call.runs(True),) if self.on_gpu else (tiles, _to_each(tiles))
        while True:
            listed = call.pixels * depth
            fields.reserve(layers=listed, layer_depths=listed, layer_covers=listed)
            needed = self._launch(Layers, variant, name, *sizes, depth, hides)
            if needed == 0:
                found = copying.read(fields, fields.layers, x, listed)
                found = found.view(call.batch, call.height, call.width, depth)
                deepest = max(int((found >= 0).sum(-1).max()), 1)
                self._depths[key] = deepest
                return found[..., :deepest]
            depth = min(2 * depth, needed) if hides == Hides.SUM else needed

    def measure(self, call: Call, listing: Listing, x: Tensor) -> Float[Tensor, "P N"]:
        """Coverage, depth and attributes of listed pairs."""
        with self._lock:
            n = self._place_listing(call, listing, x)
            self._measure(Measure, replace(call.variant, moves=_STILL), call, n)
            return self._planes(self._scratch.y, call, n, x)

    def measure_vjp(self, call: Call, listing: Listing, x: Tensor, v: Tensor) -> Tensor:
        """The adjoint of the inputs, given that of `measure`."""
        with self._lock:
            n = self._place_listing(call, listing, x)
            fields = self._scratch
            copying.seed(fields, fields.y.grad, v, fields.x.grad, call.x_size)
            if self.prefer_autodiff:
                return self._measure_back(MeasureByAutodiff, call, n, x)
            return self._pull(PullListed, call, x, n)

    def measure_jvp(self, call: Call, listing: Listing, x: Tensor, x_dot: Tensor) -> Tensor:
        """The tangent of `measure`, given that of the inputs."""
        with self._lock:
            n = self._place_listing(call, listing, x, tangent=True)
            fields = self._scratch
            copying.seed(fields, fields.x_dot, x_dot, fields.x_dot, 0)
            if self.prefer_autodiff:
                copying.seed(fields, fields.x_still, x, fields.x_still, 0)
                with elementary.native():
                    self._kernels(MeasureTangentByAutodiff, call.variant).measure_pairs(n)
            else:
                self._measure(MeasureTangent, call.variant, call, n)
            return self._planes(fields.y_dot, call, n, x)

    def measure_second(
        self, call: Call, listing: Listing, x: Tensor, v: Tensor, x_dot: Tensor
    ) -> Tensor:
        """The gradient of v . J(x) x_dot with respect to x, J of `measure`."""
        with self._lock:
            n = self._place_listing(call, listing, x, tangent=True)
            fields = self._scratch
            copying.seed(fields, fields.x_dot, x_dot, fields.x.grad, call.x_size)
            if self.prefer_autodiff:
                copying.seed(fields, fields.y_dot.grad, v, fields.x_dot, 0)
                return self._measure_back(MeasureTangentByAutodiff, call, n, x)
            copying.seed(fields, fields.y.grad, v, fields.x_dot, 0)
            return self._pull(PullListedTangent, call, x, n)

    def _place_listing(self, call: Call, listing: Listing, x: Tensor, tangent: bool = False) -> int:
        """Put this call's inputs and pairs in place; how many pairs there are."""
        runtime()  # raises if Taichi was re-initialised
        self._placed = -1
        n = listing.entries.shape[1]
        fields, size = self._scratch, (2 + call.variant.channels) * n + _MARGIN
        fields.reserve(
            x=call.x_size, y=size, limits=len(call.limits()),
            entries=Entry.COUNT * n + _MARGIN, entry_begin=len(listing.begin),
        )  # fmt: skip
        if tangent:
            fields.reserve(x_dot=call.x_size, y_dot=size)
        sizes, limits = _numbers(call, self.on_gpu, x.dtype)
        sizes = sizes.clone()
        sizes[Dim.PIXELS] = n
        copying.place(fields, x, sizes, limits, x[:0])
        copying.seed(fields, fields.entries, listing.entries, fields.entries, 0)
        copying.seed(fields, fields.entry_begin, listing.begin, fields.entry_begin, 0)
        return n

    def _measure(self, kind: type[Measure], variant: Variant, call: Call, n: int) -> None:
        if self.on_gpu:
            self._launch(kind, variant, "measure_pairs", n)
        else:
            runs, length = call.face_runs()
            total = call.batch * runs
            self._launch(kind, variant, "measure_faces", total, runs, length, _to_each(total))

    def _measure_back(self, kind: type[Measure], call: Call, n: int, x: Tensor) -> Tensor:
        fields = self._scratch
        copying.seed(fields, fields.x_still, x, fields.x_still, 0)
        _refuse_what_autodiff_cannot(call)
        with elementary.native():
            self._kernels(kind, call.variant).measure_pairs.grad(n)
        return copying.read(fields, fields.x.grad, x, call.x_size)

    def _planes(self, field: Any, call: Call, n: int, like: Tensor) -> Tensor:
        planes = 2 + call.variant.channels
        return copying.read(self._scratch, field, like, planes * n).view(planes, n)

    def _run(self, kind: type[TileKernels], variant: Variant, call: Call) -> None:
        """Tile by tile, or pixel by pixel."""
        if self.on_gpu:
            self._launch(kind, variant, "run_pixels", call.batch * call.slots)
        else:
            tiles = call.batch * call.tiles
            self._launch(kind, variant, "run_tiles", tiles, _to_each(tiles))

    def _pull(self, kind: type[Pull], call: Call, x: Tensor, pairs: int | None = None) -> Tensor:
        """The adjoint of x: face by face, which suits few threads, or pixel by pixel; or pair by
        pair, where `pairs` are listed."""
        fields, variant = self._scratch, call.variant
        if self.on_gpu:
            if pairs is None:
                self._launch(kind, variant, "pull_pixels", call.runs(self.on_gpu))
            elif call.fixed_order:
                self._launch(kind, variant, "pull_items", call.batch)
            else:
                self._launch(kind, variant, "pull_pairs", pairs)
            return copying.read(fields, fields.x.grad, x, call.x_size)
        runs, length = call.face_runs()
        sizes = self._kernels(kind, variant).shared_sizes if variant.moves[2] else {}
        total = call.batch * runs * sum(sizes.values())
        if total > 0:
            fields.reserve(partials=total)
            copying.clear(fields, fields.partials, total)
        all_runs = call.batch * runs
        self._launch(kind, variant, "pull_faces", all_runs, runs, length, _to_each(all_runs))
        found = copying.read(fields, fields.x.grad, x, call.x_size)
        if total > 0:
            parts = copying.read(fields, fields.partials, x, total)
            parts = parts.view(call.batch, runs, -1).sum(1)
            for part, of_part in zip(sizes, parts.split(list(sizes.values()), 1), strict=True):
                begin = sum(call.sizes[:part])
                found[begin : begin + call.sizes[part]] += of_part.reshape(-1)
        return found

    def _load(
        self, call: Call, ticket: int, x: Tensor, background: Tensor, tangent: bool = False
    ) -> None:
        """Have this call's inputs, tile lists and sums in place."""
        runtime()  # raises if Taichi was re-initialised
        fields = self._scratch
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
        variant = replace(call.variant, moves=_STILL)  # shared by all, so that it compiles once
        self._run(Forward, variant, call)
        self._loaded = self._placed = ticket

    def _place(self, call: Call, x: Tensor, background: Tensor) -> None:
        """Put this call's inputs and tile lists in place."""
        self._loaded = self._placed = -1
        fields = self._scratch
        tiles = call.batch * call.tiles
        fields.reserve(
            x=call.x_size, state=State.COUNT * call.pixels + _MARGIN,
            pixels=call.pixels + _MARGIN, tile_begin=tiles + 2,
            limits=len(call.limits()) + call.batch,
        )  # fmt: skip
        self._put(call, x, background)
        variant = Variant(
            EdgeVariant("uniform"), DepthVariant("none"), cull=call.variant.cull,
            clockwise=call.variant.clockwise, unclipped_alpha=call.variant.unclipped_alpha,
            moves=_STILL,
        )  # fmt: skip
        if self.on_gpu:
            self._bin(call, variant)
        else:
            self._list(call, variant)

    def _put(self, call: Call, x: Tensor, background: Tensor) -> None:
        """The inputs alone."""
        sizes, limits = _numbers(call, self.on_gpu, x.dtype)
        copying.place(self._scratch, x, sizes, limits, background)

    def _list(self, call: Call, variant: Variant) -> None:
        """Find each tile's faces, face by face."""
        fields, tiles, bands = self._scratch, call.batch * call.tiles, call.batch * call.bands
        total, room = 1, 0
        while total > room:  # the second time, there is room
            room = fields.capacity("tile_faces")
            total = self._launch(
                Lists, variant, "build", tiles, bands, call.bands, _to_each(bands), room
            )
            fields.reserve(tile_faces=_fitting(total))

    def _bin(self, call: Call, variant: Variant) -> None:
        """Find each tile's faces, tile by tile."""
        fields, tiles = self._scratch, call.batch * call.tiles
        if call.grouped:
            groups = call.batch * call.groups
            fields.reserve(group_begin=groups + 1)
            self._launch(Binning, variant, "count_groups", groups, 1)
            total = self._launch(Binning, variant, "scan_groups", groups)
            fields.reserve(group_faces=_fitting(total))
            self._launch(Binning, variant, "fill_groups", groups, 1)
        grouped = int(call.grouped)
        self._launch(Binning, variant, "count", tiles, 1, grouped)
        fields.reserve(tile_faces=_fitting(self._launch(Binning, variant, "scan", tiles)))
        self._launch(Binning, variant, "fill", tiles, 1, grouped)

    def _launch(self, kind: type, variant: Variant, name: str, *arguments: int) -> int:
        """Run one of the kernels of a kind."""
        key, fresh = (kind, variant, name), self._scratch.version
        version, launcher = self._launchers.get(key, (-1, None))
        if launcher is None or version != fresh:
            method = getattr(self._kernels(kind, variant), name)
            launcher = Launcher(method, self._runtime.arch)
            self._launchers[key] = fresh, launcher
        return launcher(*arguments)

    def _kernels(self, kind: type, variant: Variant) -> Any:
        """The kernels of a kind, compiled anew if a field was replaced since."""
        version, kernels = self._compiled.get((kind, variant), (-1, None))
        if kernels is None or version != self._scratch.version:
            kernels = kind(variant, self._scratch, self._runtime)
            self._compiled[kind, variant] = (self._scratch.version, kernels)
        return kernels


@lru_cache(maxsize=256)
def _numbers(call: Call, on_gpu: bool, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The contents of the integer field, and of the floating-point field beside it."""
    sizes = torch.tensor(call.dims(on_gpu), dtype=torch.int32)
    return sizes, torch.tensor(call.limits(), dtype=dtype)


def _to_each(count: int) -> int:
    """How many of `count` things one run of a parallel loop does on a CPU."""
    return -(-count // RUNS)


def _fitting(total: int) -> int:
    if total < 0:
        raise MemoryError(
            "tile lists need more than 2^31 entries: render fewer batch items, faces or pixels "
            "at a time, or raise the threshold"
        )
    return total


def _refuse_what_autodiff_cannot(call: Call) -> None:
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


_engines: dict[int, Engine] = {}
_engines_lock = threading.Lock()


def engine() -> Engine:
    """The engine of the runtime in force."""
    current = runtime()
    with _engines_lock:
        if id(current) not in _engines:
            _engines[id(current)] = Engine(current)
        return _engines[id(current)]


@contextmanager
def derivatives_by(method: str) -> Iterator[None]:
    """Within it, derivatives come from ``"closed_forms"`` (the default) or from ``"autodiff"``.

    The closed forms are faster, and compile faster. Taichi's reverse-mode autodiff, over the same
    sums, gives the same numbers by another road: use it to check the other one, or a formula of
    your own. It cannot follow the loops in the gamma distributions.

    Raises:
        ValueError: for another method.
    """
    if method not in ("closed_forms", "autodiff"):
        raise ValueError(f"method: unknown {method!r}; known: closed_forms, autodiff")
    current = engine()
    before, current.prefer_autodiff = current.prefer_autodiff, method == "autodiff"
    try:
        yield
    finally:
        current.prefer_autodiff = before
