"""Sums over the fragments of each pixel, with first and second derivatives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

from taichi_raster.engine.autodiff import by_autodiff, refuse_what_autodiff_cannot
from taichi_raster.engine.autograd import Two
from taichi_raster.engine.engine import Engine, engine, on_engine, on_engine_here
from taichi_raster.engine.texture import Texture
from taichi_raster.kernels.autodiff import Accumulate, AccumulateTangent
from taichi_raster.kernels.jvp import JVP
from taichi_raster.kernels.vjp import VJP, VJPTangent
from taichi_raster.maths import elementary
from taichi_raster.runtime import transfer
from taichi_raster.runtime.call import Call
from taichi_raster.runtime.layout import State


class Sums(NamedTuple):
    """What the kernels find for each pixel.

    Attributes:
        y: (2 + C, B, H, W) sums, see layout.py.
        state: (4, B, H, W), see layout.State; it has no derivative.
    """

    y: Tensor
    state: Tensor


@dataclass(frozen=True)
class PixelSums:
    """`Sums` of packed inputs x: an `autograd.Work`.

    Attributes:
        call, ticket: the call, and its own ticket.
        background: (B,) log-weights.
        autodiff: whether `derivatives_by("autodiff")` was in force when it was rendered.
    """

    call: Call
    ticket: int
    background: Tensor
    autodiff: bool = False

    @property
    def kept(self) -> tuple[Tensor, ...]:
        return ()  # the background is a number for each batch item

    def keeping(self, kept: tuple[Tensor, ...]) -> PixelSums:
        return self

    def forward(self, x: Tensor, texels: Tensor | None) -> tuple[Tensor, Tensor]:
        sums = on_engine_here(_forward, self.call, self.ticket, x, texels, self.background)
        return sums.y, sums.state

    def vjp(self, x: Tensor, texels: Tensor | None, v: Tensor) -> Two:
        now = self._now()
        return (on_engine if now.autodiff else on_engine_here)(_vjp, now, x, texels, v)

    def jvp(
        self, x: Tensor, texels: Tensor | None, x_dot: Tensor, texels_dot: Tensor | None
    ) -> Tensor:
        return on_engine(_jvp, self._now(), x, texels, x_dot, texels_dot)

    def second(
        self,
        x: Tensor,
        texels: Tensor | None,
        v: Tensor,
        x_dot: Tensor,
        texels_dot: Tensor | None,
    ) -> Two:
        return on_engine(_second, self._now(), x, texels, v, x_dot, texels_dot)

    def renewed(self) -> PixelSums:
        return replace(self, ticket=engine().ticket())

    def _now(self) -> PixelSums:
        """With the caller's `derivatives_by`, which the owner's thread cannot see."""
        return replace(self, autodiff=True) if by_autodiff() else self


def nearest_faces(call: Call, x: Tensor) -> Tensor:
    """(B, H, W): the nearest face that contains the pixel's centre, or -1."""
    return on_engine(_nearest, call, x)


def _forward(
    current: Engine, call: Call, ticket: int, x: Tensor, texels: Tensor | None, background: Tensor
) -> Sums:
    current.load(call, ticket, x, background, Texture.of(texels, call))
    fields, grid = current.scratch, (-1, call.batch, call.height, call.width)
    y, state = transfer.read_both(
        fields, fields.y, call.y_size, fields.state, State.COUNT * call.pixels, x
    )
    return Sums(y.view(grid), state.view(grid))


def _nearest(current: Engine, call: Call, x: Tensor) -> Tensor:
    current.load(call, current.ticket(), x, x.new_zeros(call.batch))
    found = transfer.read(current.scratch, current.scratch.nearest, x, call.pixels)
    return found.view(call.batch, call.height, call.width)


def _vjp(current: Engine, sums: PixelSums, x: Tensor, texels: Tensor | None, v: Tensor) -> Two:
    call, fields, autodiff = sums.call, current.scratch, sums.autodiff
    texture = Texture.of(texels, call, adjoint=True, autodiff=autodiff)
    current.load(call, sums.ticket, x, sums.background, texture)
    transfer.seed(fields, (fields.y.grad, v), clear=(fields.x.grad, call.x_size))
    if not autodiff:
        return current.vjp(VJP, call, x), current.of_texels(call, texture)
    refuse_what_autodiff_cannot(call, current.on_gpu)
    transfer.seed(fields, (fields.x_still, x))
    with elementary.native():
        kernels = current.cache.kernels(Accumulate, call.variant)
        kernels.accumulate.grad(call.runs(current.on_gpu))
    found = transfer.read(fields, fields.x.grad, x, call.x_size)
    return found, current.of_texels(call, texture)


def _jvp(
    current: Engine,
    sums: PixelSums,
    x: Tensor,
    texels: Tensor | None,
    x_dot: Tensor,
    texels_dot: Tensor | None,
) -> Tensor:
    call, fields, autodiff = sums.call, current.scratch, sums.autodiff
    texture = Texture.of(texels, call, texels_dot, tangent=True, autodiff=autodiff)
    current.load(call, sums.ticket, x, sums.background, texture, tangent=True)
    clear = (fields.y_dot, call.y_size) if autodiff else None
    transfer.seed(fields, (fields.x_dot, x_dot), clear=clear)
    if autodiff:
        transfer.seed(fields, (fields.x_still, x))
        with elementary.native():
            kernels = current.cache.kernels(AccumulateTangent, call.variant)
            kernels.accumulate(call.runs(current.on_gpu))
    else:
        current.run(JVP, call.variant, call)
    y_dot = transfer.read(fields, fields.y_dot, x, call.y_size)
    return y_dot.view(-1, call.batch, call.height, call.width)


def _second(
    current: Engine,
    sums: PixelSums,
    x: Tensor,
    texels: Tensor | None,
    v: Tensor,
    x_dot: Tensor,
    texels_dot: Tensor | None,
) -> Two:
    """The gradient of v . J(x) x_dot with respect to x."""
    call, fields, autodiff = sums.call, current.scratch, sums.autodiff
    texture = Texture.of(texels, call, texels_dot, tangent=True, adjoint=True, autodiff=autodiff)
    current.load(call, sums.ticket, x, sums.background, texture, tangent=True)
    adjoint = fields.y_dot.grad if autodiff else fields.y.grad
    clear = fields.x.grad, call.x_size
    transfer.seed(fields, (fields.x_dot, x_dot), (adjoint, v), clear=clear)
    if not autodiff:
        return current.vjp(VJPTangent, call, x), current.of_texels(call, texture)
    refuse_what_autodiff_cannot(call, current.on_gpu)
    transfer.seed(fields, (fields.x_still, x))
    with elementary.native():
        kernels = current.cache.kernels(AccumulateTangent, call.variant)
        kernels.accumulate.grad(call.runs(current.on_gpu))
    found = transfer.read(fields, fields.x.grad, x, call.x_size)
    return found, current.of_texels(call, texture)
