"""What listed pairs show, with its first and second derivatives, by the kernels of listed.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from taichi_raster import copying, elementary
from taichi_raster.engine import STILL, Engine, engine, refuse_what_autodiff_cannot, to_each
from taichi_raster.kernels import (
    Measure,
    MeasureByAutodiff,
    MeasureTangent,
    MeasureTangentByAutodiff,
    PullListed,
    PullListedTangent,
)
from taichi_raster.layout import Call, Variant
from taichi_raster.listing import Listing


@dataclass(frozen=True)
class PairMeasures:
    """Coverage, depth and attributes of listed pairs, (2 + C, N): an `autograd.Work`."""

    call: Call
    listing: Listing

    @property
    def kept(self) -> tuple[Tensor, ...]:
        return self.listing.entries, self.listing.begin

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with self._in_place(x) as current:
            self._measure(current, Measure, replace(self.call.variant, moves=STILL))
            return self._planes(current, current.scratch.y, x), x.new_empty(0)

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        with self._in_place(x) as current:
            fields = current.scratch
            copying.seed(fields, fields.y.grad, v, fields.x.grad, self.call.x_size)
            if current.prefer_autodiff:
                return self._by_autodiff(current, MeasureByAutodiff, x)
            return current.pull(PullListed, self.call, x, self._count)

    def jvp(self, x: Tensor, x_dot: Tensor) -> Tensor:
        with self._in_place(x, tangent=True) as current:
            fields, variant = current.scratch, self.call.variant
            copying.seed(fields, fields.x_dot, x_dot, fields.x_dot, 0)
            if current.prefer_autodiff:
                copying.seed(fields, fields.x_still, x, fields.x_still, 0)
                with elementary.native():
                    kernels = current.kernels(MeasureTangentByAutodiff, variant)
                    kernels.measure_pairs(self._count)
            else:
                self._measure(current, MeasureTangent, variant)
            return self._planes(current, fields.y_dot, x)

    def second(self, x: Tensor, v: Tensor, x_dot: Tensor) -> Tensor:
        with self._in_place(x, tangent=True) as current:
            fields = current.scratch
            copying.seed(fields, fields.x_dot, x_dot, fields.x.grad, self.call.x_size)
            if current.prefer_autodiff:
                copying.seed(fields, fields.y_dot.grad, v, fields.x_dot, 0)
                return self._by_autodiff(current, MeasureTangentByAutodiff, x)
            copying.seed(fields, fields.y.grad, v, fields.x_dot, 0)
            return current.pull(PullListedTangent, self.call, x, self._count)

    @property
    def _count(self) -> int:
        return self.listing.entries.shape[1]

    @contextmanager
    def _in_place(self, x: Tensor, tangent: bool = False) -> Iterator[Engine]:
        """The engine, under its lock, with the inputs and the pairs in place."""
        current = engine()
        with current.lock:
            current.place_pairs(self.call, self.listing, x, tangent)
            yield current

    def _measure(self, current: Engine, kind: type[Measure], variant: Variant) -> None:
        """Pair by pair, or face by face, which suits few threads."""
        if current.on_gpu:
            current.launch(kind, variant, "measure_pairs", self._count)
        else:
            runs, length = self.call.face_runs()
            total = self.call.batch * runs
            current.launch(kind, variant, "run_faces", total, runs, length, to_each(total))

    def _by_autodiff(self, current: Engine, kind: type[Measure], x: Tensor) -> Tensor:
        """The adjoint of x by Taichi's reverse mode."""
        refuse_what_autodiff_cannot(self.call, current.on_gpu)
        fields = current.scratch
        copying.seed(fields, fields.x_still, x, fields.x_still, 0)
        with elementary.native():
            current.kernels(kind, self.call.variant).measure_pairs.grad(self._count)
        return copying.read(fields, fields.x.grad, x, self.call.x_size)

    def _planes(self, current: Engine, field: Any, like: Tensor) -> Tensor:
        planes = 2 + self.call.variant.channels
        found = copying.read(current.scratch, field, like, planes * self._count)
        return found.view(planes, self._count)
