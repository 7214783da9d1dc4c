"""The bridge to torch: what kernels compute, as a function that torch can differentiate twice.

`Evaluate` computes y(x) by the kernels of a `Work`; its backward is `_VJP`, q(x, v) = J(x)^T v,
itself a function; and the backward of that needs J(x) u and the gradient of v . J(x) u, which the
tangent kernel and its reverse give. A third derivative is refused.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from taichi_raster import streams
from taichi_raster.engine import engine
from taichi_raster.layout import Call


class Work(Protocol):
    """A function y(x) of the kernels', its first and its second derivatives."""

    @property
    def kept(self) -> tuple[Tensor, ...]:
        """What it keeps for its derivatives."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y(x), and what else was found, which has no derivative."""

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """J(x)^T v."""

    def jvp(self, x: Tensor, x_dot: Tensor) -> Tensor:
        """J(x) x_dot."""

    def second(self, x: Tensor, v: Tensor, x_dot: Tensor) -> Tensor:
        """The gradient of v . J(x) x_dot with respect to x."""


@dataclass(frozen=True)
class PixelSums:
    """The sums of each pixel, the fields of `Sums`; background: (B,) log-weights."""

    call: Call
    ticket: int
    background: Tensor

    @property
    def kept(self) -> tuple[Tensor, ...]:
        return (self.background,)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        sums = engine().forward(self.call, self.ticket, x, self.background)
        return sums.y, sums.state

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        return engine().vjp(self.call, self.ticket, x, self.background, v)

    def jvp(self, x: Tensor, x_dot: Tensor) -> Tensor:
        return engine().jvp(self.call, self.ticket, x, self.background, x_dot)

    def second(self, x: Tensor, v: Tensor, x_dot: Tensor) -> Tensor:
        return engine().second(self.call, self.ticket, x, self.background, v, x_dot)


class Evaluate(torch.autograd.Function):
    """``(x, work) -> work.forward(x)``; only y has a derivative."""

    @staticmethod
    def forward(x: Tensor, work: Work) -> tuple[Tensor, ...]:
        with streams.ordered(x) as order:
            found = work.forward(x)
            order.outputs(*found)
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        x, ctx.work = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(x, *ctx.work.kept)
        ctx.save_for_forward(x)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if grads[0] is None:
            return None, None
        x = ctx.saved_tensors[0]
        return _VJP.apply(x, grads[0], ctx.work), None

    @staticmethod
    def jvp(ctx: Any, x_dot: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if x_dot is None:
            return None, None
        x = ctx.saved_tensors[0]
        with streams.ordered(x) as order:
            found = ctx.work.jvp(x, x_dot)
            order.outputs(found)
        return found, None


# torch asks for it at each call, and reads it off the function if it is not there.
Evaluate.forward.__signature__ = inspect.signature(Evaluate.forward)  # type: ignore[attr-defined]


class _VJP(torch.autograd.Function):
    """``(x, v) -> J(x)^T v``."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, v: Tensor, work: Work) -> Tensor:
        ctx.save_for_backward(x, v)
        ctx.work = work  # type: ignore[attr-defined]
        with streams.ordered(x) as order:
            found = work.vjp(x, v)
            order.outputs(found)
        return found

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor | None, ...]:
        x, v = ctx.saved_tensors
        by_x, by_v = _Second.apply(x, v, u, ctx.work, ctx.needs_input_grad[:2])
        return by_x, by_v, None


class _Second(torch.autograd.Function):
    """``(x, v, u) -> (gradient of v . J(x) u with respect to x, J(x) u)``: the end of the line."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, v: Tensor, u: Tensor, work: Work, wanted: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        with streams.ordered(x) as order:
            by_x = work.second(x, v, u) if wanted[0] else None
            by_v = work.jvp(x, u) if wanted[1] else None
            order.outputs(by_x, by_v)
        return by_x, by_v

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor | None) -> Any:
        raise NotImplementedError(
            "third derivatives of the rasterizer are not available: only first and second ones are "
            "exact; do not differentiate a second derivative again (drop the outermost "
            "create_graph=True)"
        )
