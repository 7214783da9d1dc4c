"""Coverage, depth and attributes of listed fragments, with first and second derivatives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from taichi_raster.engine.autodiff import by_autodiff, refuse_what_autodiff_cannot
from taichi_raster.engine.autograd import Two
from taichi_raster.engine.engine import MARGIN, Engine, on_engine
from taichi_raster.engine.texture import Texture
from taichi_raster.engine.tile_lists import items_per_run
from taichi_raster.kernels import fragment_kernels as kernels
from taichi_raster.maths import elementary
from taichi_raster.runtime import transfer
from taichi_raster.runtime.call import Call
from taichi_raster.runtime.layout import Entry
from taichi_raster.runtime.variant import Variant, without_derivatives


@dataclass(frozen=True)
class FragmentValues:
    """Coverage, depth and attributes of listed fragments, (2 + C, N): an `autograd.Work`.

    Attributes:
        call: the call.
        entries, begin: the fragments, see `FragmentList`.
        autodiff: whether `derivatives_by("autodiff")` was in force when it was rendered.
    """

    call: Call
    entries: Tensor
    begin: Tensor
    autodiff: bool = False

    @property
    def kept(self) -> tuple[Tensor, ...]:
        return self.entries, self.begin

    def keeping(self, kept: tuple[Tensor, ...]) -> FragmentValues:
        return replace(self, entries=kept[0], begin=kept[1])

    def forward(self, x: Tensor, texels: Tensor | None) -> tuple[Tensor, Tensor]:
        return on_engine(self._forward, x, texels), x.new_empty(0)

    def vjp(self, x: Tensor, texels: Tensor | None, v: Tensor) -> Two:
        return on_engine(self._vjp, x, texels, v, self.autodiff or by_autodiff())

    def jvp(
        self, x: Tensor, texels: Tensor | None, x_dot: Tensor, texels_dot: Tensor | None
    ) -> Tensor:
        autodiff = self.autodiff or by_autodiff()
        return on_engine(self._jvp, x, texels, x_dot, texels_dot, autodiff)

    def second(
        self,
        x: Tensor,
        texels: Tensor | None,
        v: Tensor,
        x_dot: Tensor,
        texels_dot: Tensor | None,
    ) -> Two:
        autodiff = self.autodiff or by_autodiff()
        return on_engine(self._second, x, texels, v, x_dot, texels_dot, autodiff)

    def renewed(self) -> FragmentValues:
        raise NotImplementedError(
            "torch.vmap over the scene is not available for OverDepth: put the mapped axis into "
            "the batch"
        )

    def _forward(self, current: Engine, x: Tensor, texels: Tensor | None) -> Tensor:
        self._place(current, x, Texture.of(texels, self.call))
        self._measure(current, kernels.FragmentValues, without_derivatives(self.call.variant))
        return self._planes(current, current.scratch.y, x)

    def _vjp(
        self, current: Engine, x: Tensor, texels: Tensor | None, v: Tensor, autodiff: bool
    ) -> Two:
        texture = Texture.of(texels, self.call, adjoint=True, autodiff=autodiff)
        self._place(current, x, texture)
        fields = current.scratch
        transfer.seed(fields, (fields.y.grad, v), clear=(fields.x.grad, self.call.x_size))
        if autodiff:
            found = self._by_autodiff(current, kernels.FragmentValuesByAutodiff, x)
        else:
            found = current.vjp(kernels.FragmentVJP, self.call, x, self._count)
        return found, current.of_texels(self.call, texture)

    def _jvp(
        self,
        current: Engine,
        x: Tensor,
        texels: Tensor | None,
        x_dot: Tensor,
        texels_dot: Tensor | None,
        autodiff: bool,
    ) -> Tensor:
        texture = Texture.of(texels, self.call, texels_dot, tangent=True, autodiff=autodiff)
        self._place(current, x, texture, tangent=True)
        fields, variant = current.scratch, self.call.variant
        transfer.seed(fields, (fields.x_dot, x_dot))
        if autodiff:
            transfer.seed(fields, (fields.x_still, x))
            with elementary.native():
                oracle = current.cache.kernels(kernels.FragmentJVPByAutodiff, variant)
                oracle.accumulate(self._count)
        else:
            self._measure(current, kernels.FragmentJVP, variant)
        return self._planes(current, fields.y_dot, x)

    def _second(
        self,
        current: Engine,
        x: Tensor,
        texels: Tensor | None,
        v: Tensor,
        x_dot: Tensor,
        texels_dot: Tensor | None,
        autodiff: bool,
    ) -> Two:
        texture = Texture.of(
            texels, self.call, texels_dot, tangent=True, adjoint=True, autodiff=autodiff
        )
        self._place(current, x, texture, tangent=True)
        fields = current.scratch
        adjoint = fields.y_dot.grad if autodiff else fields.y.grad
        clear = fields.x.grad, self.call.x_size
        transfer.seed(fields, (fields.x_dot, x_dot), (adjoint, v), clear=clear)
        if autodiff:
            found = self._by_autodiff(current, kernels.FragmentJVPByAutodiff, x)
        else:
            found = current.vjp(kernels.FragmentVJPTangent, self.call, x, self._count)
        return found, current.of_texels(self.call, texture)

    @property
    def _count(self) -> int:
        return self.entries.shape[1]

    def _place(
        self, current: Engine, x: Tensor, texture: Texture | None, tangent: bool = False
    ) -> None:
        """Upload the inputs and the listed fragments."""
        current.displace()
        fields, size = current.scratch, (2 + self.call.variant.channels) * self._count + MARGIN
        begin, entries = self.begin, self.entries
        if current.on_gpu and self.call.one_run:
            begin = begin[:: self.call.faces]  # of batch items
        fields.reserve(y=size, entries=Entry.COUNT * self._count + MARGIN, entry_begin=len(begin))
        if tangent:
            fields.reserve(x_dot=self.call.x_size, y_dot=size)
        current.place_inputs(self.call, x, self._count, texture)
        transfer.seed(fields, (fields.entries, entries), (fields.entry_begin, begin))

    def _measure(
        self, current: Engine, kind: type[kernels.FragmentValues], variant: Variant
    ) -> None:
        """Evaluate the fragments: pair by pair on a GPU, face by face on a CPU."""
        if current.on_gpu:
            current.cache.launch(kind, variant, "run_fragments", self._count, *current.texture)
        else:
            runs, length = self.call.face_runs()
            total = self.call.batch * runs
            sizes = total, runs, length, items_per_run(total), 0, self.call.pixels
            current.cache.launch(kind, variant, "run_faces", *sizes, *current.texture)

    def _by_autodiff(
        self, current: Engine, kind: type[kernels.FragmentValues], x: Tensor
    ) -> Tensor:
        """The adjoint of x by Taichi's reverse mode."""
        refuse_what_autodiff_cannot(self.call, current.on_gpu)
        fields = current.scratch
        transfer.seed(fields, (fields.x_still, x))
        with elementary.native():
            current.cache.kernels(kind, self.call.variant).accumulate.grad(self._count)
        return transfer.read(fields, fields.x.grad, x, self.call.x_size)

    def _planes(self, current: Engine, field: Any, like: Tensor) -> Tensor:
        planes = 2 + self.call.variant.channels
        found = transfer.read(current.scratch, field, like, planes * self._count)
        return found.view(planes, self._count)
