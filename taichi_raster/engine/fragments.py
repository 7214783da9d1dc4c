"""What listed pairs show, with its derivatives, by the kernels of fragment_kernels.py."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from taichi_raster.engine.engine import (
    STILL,
    Engine,
    by_autodiff,
    engine,
    refuse_what_autodiff_cannot,
    to_each,
)
from taichi_raster.engine.fragment_lists import Listing
from taichi_raster.kernels.fragment_kernels import (
    FragmentJVP,
    FragmentJVPByAutodiff,
    FragmentValues,
    FragmentValuesByAutodiff,
    FragmentVJP,
    FragmentVJPTangent,
)
from taichi_raster.maths import elementary
from taichi_raster.runtime import transfer
from taichi_raster.runtime.layout import Call, Variant
from taichi_raster.runtime.thread import owner


@dataclass(frozen=True)
class PairMeasures:
    """Coverage, depth and attributes of listed pairs, (2 + C, N): an `autograd.Work`."""

    call: Call
    listing: Listing
    autodiff: bool = False

    @property
    def kept(self) -> tuple[Tensor, ...]:
        return self.listing.entries, self.listing.begin

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return owner.run(self._forward, engine(), x), x.new_empty(0)

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        return owner.run(self._vjp, engine(), x, v, self.autodiff or by_autodiff())

    def jvp(self, x: Tensor, x_dot: Tensor) -> Tensor:
        return owner.run(self._jvp, engine(), x, x_dot, self.autodiff or by_autodiff())

    def second(self, x: Tensor, v: Tensor, x_dot: Tensor) -> Tensor:
        return owner.run(self._second, engine(), x, v, x_dot, self.autodiff or by_autodiff())

    def renewed(self) -> PairMeasures:
        raise NotImplementedError(
            "torch.vmap over the scene is not available for OverDepth: put the mapped axis into "
            "the batch"
        )

    def _forward(self, current: Engine, x: Tensor) -> Tensor:
        current.place_pairs(self.call, self.listing, x)
        self._measure(current, FragmentValues, replace(self.call.variant, moves=STILL))
        return self._planes(current, current.scratch.y, x)

    def _vjp(self, current: Engine, x: Tensor, v: Tensor, autodiff: bool) -> Tensor:
        current.place_pairs(self.call, self.listing, x)
        fields = current.scratch
        transfer.seed(fields, fields.y.grad, v, fields.x.grad, self.call.x_size)
        if autodiff:
            return self._by_autodiff(current, FragmentValuesByAutodiff, x)
        return current.pull(FragmentVJP, self.call, x, self._count)

    def _jvp(self, current: Engine, x: Tensor, x_dot: Tensor, autodiff: bool) -> Tensor:
        current.place_pairs(self.call, self.listing, x, tangent=True)
        fields, variant = current.scratch, self.call.variant
        transfer.seed(fields, fields.x_dot, x_dot, fields.x_dot, 0)
        if autodiff:
            transfer.seed(fields, fields.x_still, x, fields.x_still, 0)
            with elementary.native():
                kernels = current.kernels(FragmentJVPByAutodiff, variant)
                kernels.run_fragments(self._count)
        else:
            self._measure(current, FragmentJVP, variant)
        return self._planes(current, fields.y_dot, x)

    def _second(
        self, current: Engine, x: Tensor, v: Tensor, x_dot: Tensor, autodiff: bool
    ) -> Tensor:
        current.place_pairs(self.call, self.listing, x, tangent=True)
        fields = current.scratch
        transfer.seed(fields, fields.x_dot, x_dot, fields.x.grad, self.call.x_size)
        if autodiff:
            transfer.seed(fields, fields.y_dot.grad, v, fields.x_dot, 0)
            return self._by_autodiff(current, FragmentJVPByAutodiff, x)
        transfer.seed(fields, fields.y.grad, v, fields.x_dot, 0)
        return current.pull(FragmentVJPTangent, self.call, x, self._count)

    @property
    def _count(self) -> int:
        return self.listing.entries.shape[1]

    def _measure(self, current: Engine, kind: type[FragmentValues], variant: Variant) -> None:
        """Pair by pair, or face by face, which suits few threads."""
        if current.on_gpu:
            current.launch(kind, variant, "run_fragments", self._count)
        else:
            runs, length = self.call.face_runs()
            total = self.call.batch * runs
            current.launch(kind, variant, "run_faces", total, runs, length, to_each(total))

    def _by_autodiff(self, current: Engine, kind: type[FragmentValues], x: Tensor) -> Tensor:
        """The adjoint of x by Taichi's reverse mode."""
        refuse_what_autodiff_cannot(self.call, current.on_gpu)
        fields = current.scratch
        transfer.seed(fields, fields.x_still, x, fields.x_still, 0)
        with elementary.native():
            current.kernels(kind, self.call.variant).run_fragments.grad(self._count)
        return transfer.read(fields, fields.x.grad, x, self.call.x_size)

    def _planes(self, current: Engine, field: Any, like: Tensor) -> Tensor:
        planes = 2 + self.call.variant.channels
        found = transfer.read(current.scratch, field, like, planes * self._count)
        return found.view(planes, self._count)
