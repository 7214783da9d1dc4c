"""Runs the kernels for one call at a time: upload, bin, select, accumulate, download.

The scratch fields are shared by all calls of the process, under a lock. A call that comes back for
its derivatives finds its data still there, or uploads them again if another call came between.
"""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from taichi_raster import scratch as memory
from taichi_raster.kernels import Kernels
from taichi_raster.layout import Call, Variant
from taichi_raster.runtime import Runtime, runtime
from taichi_raster.scratch import Scratch, clear, read, write

_STILL = (True, False, False)


@dataclass(frozen=True)
class Sums:
    """What the kernels find for each pixel.

    Attributes:
        y: (B, H, W, 2 + C) sums, see layout.py.
        offset: (B, H, W) largest log-weight, which was subtracted from all.
        saturated: (B, H, W) number of fragments with coverage exactly 1.
    """

    y: Tensor
    offset: Tensor
    saturated: Tensor


class Engine:
    """Owns scratch memory and compiled kernels of a runtime."""

    def __init__(self, settings: Runtime) -> None:
        self.on_gpu = settings.arch != "cpu"
        self._runtime = settings
        self._scratch = Scratch(settings)
        self._kernels: dict[Variant, tuple[int, Kernels]] = {}
        self._lock = threading.RLock()
        self._tickets = itertools.count()
        self._loaded = -1
        self.prefer_autodiff = False  # for tests: they compare the two

    def ticket(self) -> int:
        """A number that names one call's data in the scratch fields."""
        return next(self._tickets)

    def forward(self, call: Call, ticket: int, x: Tensor, background: Tensor) -> Sums:
        """The sums of the inputs x, packed as layout.py says; background: (B,) log-weights."""
        with self._lock:
            kernels = self._load(call, ticket, x, background)
            grid = (call.batch, call.height, call.width)
            return Sums(
                read(kernels.y, x, call.y_size).view(*grid, -1),
                read(kernels.offset, x, call.pixels).view(grid),
                read(kernels.saturated, x, call.pixels).view(grid),
            )

    def vjp(self, call: Call, ticket: int, x: Tensor, background: Tensor, v: Tensor) -> Tensor:
        """J(x)^T v: the adjoint of the inputs, given the adjoint of the sums."""
        with self._lock:
            kernels = self._load(call, ticket, x, background)
            write(kernels.y.grad, v.reshape(-1))
            clear(kernels.x.grad, call.x_size)
            if self.use_autodiff(call):
                kernels.accumulate.grad(call.runs(self.on_gpu))
            else:
                faces = call.faces if call.fixed_order else 1
                kernels.pull(call.batch * call.faces // faces, faces)
            return read(kernels.x.grad, x, call.x_size)

    def jvp(self, call: Call, ticket: int, x: Tensor, background: Tensor, x_dot: Tensor) -> Tensor:
        """J(x) x_dot: the tangent of the sums, given the tangent of the inputs."""
        with self._lock:
            kernels = self._load(call, ticket, x, background, tangent=True)
            write(kernels.x_dot, x_dot)
            clear(kernels.y_dot, call.y_size)
            kernels.accumulate_dot(call.runs(self.on_gpu))
            y_dot = read(kernels.y_dot, x, call.y_size)
            return y_dot.view(call.batch, call.height, call.width, -1)

    def second(
        self, call: Call, ticket: int, x: Tensor, background: Tensor, v: Tensor, x_dot: Tensor
    ) -> Tensor:
        """The gradient of v . J(x) x_dot with respect to x."""
        with self._lock:
            kernels = self._load(call, ticket, x, background, tangent=True)
            write(kernels.x_dot, x_dot)
            write(kernels.y_dot.grad, v.reshape(-1))
            clear(kernels.x.grad, call.x_size)
            kernels.accumulate_dot.grad(call.runs(self.on_gpu))
            return read(kernels.x.grad, x, call.x_size)

    def layers(self, call: Call, x: Tensor, depth: int) -> tuple[Tensor, bool]:
        """(B, H, W, depth) faces that cover each pixel, nearest first, then -1; and if that is all."""
        with self._lock:
            self._scratch.reserve(layers=call.pixels * depth)
            self._place(call, x)
            kernels = self._forward_kernels(call.variant)
            unfinished = kernels.collect(call.runs(self.on_gpu), depth)
            found = read(kernels.layers, x, call.pixels * depth)
            return found.view(call.batch, call.height, call.width, depth), unfinished == 0

    def use_autodiff(self, call: Call) -> bool:
        """Whether `vjp` takes accumulate's reverse pass rather than the closed form.

        The closed form has no gradient to network weights, and keeps one thread busy with each
        face, which suits few threads.
        """
        learns = call.variant.network is not None and call.variant.moves[2]
        return self.on_gpu or learns or self.prefer_autodiff

    def _load(
        self, call: Call, ticket: int, x: Tensor, background: Tensor, tangent: bool = False
    ) -> Kernels:
        """Kernels with this call's inputs, tile lists and sums in place."""
        runtime()  # raises if Taichi was re-initialised
        fields = self._scratch
        before = fields.version
        fields.reserve(y=call.y_size, layers=1)
        if tangent:
            fields.reserve(x_dot=call.x_size, y_dot=call.y_size)
        if fields.version == before and self._loaded == ticket:
            return self._compiled(call.variant)
        self._place(call, x)
        kernels = self._forward_kernels(call.variant)
        offsets = background[:, None].expand(-1, call.height * call.width)
        write(kernels.offset, offsets.reshape(-1))
        kernels.render(call.runs(self.on_gpu))
        self._loaded = ticket
        return self._compiled(call.variant)

    def _place(self, call: Call, x: Tensor) -> None:
        """Put this call's inputs and tile lists in place."""
        self._loaded = -1
        fields = self._scratch
        tiles = call.batch * call.tiles
        fields.reserve(x=call.x_size, y=1, pixels=call.pixels, tile_begin=tiles + 1, tile_faces=1)
        fields.reserve(layers=1)
        write(fields.x, x)
        write(fields.x_still, x)
        memory.put(fields.dims, call.dims(self.on_gpu))
        memory.put(fields.limits, call.limits())
        kernels = self._binning_kernels(call.variant)
        kernels.count(tiles)
        total = kernels.scan(tiles)
        if total < 0:
            raise MemoryError(
                "tile lists need more than 2^31 entries: render fewer batch items, faces or pixels "
                "at a time, or raise the threshold"
            )
        fields.reserve(tile_faces=total)
        self._binning_kernels(call.variant).fill(tiles)

    # Kernels that do not depend on all of a variant are shared, so that they compile once.

    def _binning_kernels(self, variant: Variant) -> Kernels:
        cull = variant.cull
        return self._compiled(
            Variant("uniform", None, "probabilistic", "hard", 1, True, cull, _STILL)
        )

    def _forward_kernels(self, variant: Variant) -> Kernels:
        return self._compiled(replace(variant, moves=_STILL))

    def _compiled(self, variant: Variant) -> Kernels:
        version, kernels = self._kernels.get(variant, (-1, None))
        if kernels is None or version != self._scratch.version:
            kernels = Kernels(variant, self._scratch, self._runtime)
            self._kernels[variant] = (self._scratch.version, kernels)
        return kernels


_engines: dict[int, Engine] = {}
_engines_lock = threading.Lock()


def engine() -> Engine:
    """The engine of the runtime in force."""
    current = runtime()
    with _engines_lock:
        if id(current) not in _engines:
            _engines[id(current)] = Engine(current)
        return _engines[id(current)]
