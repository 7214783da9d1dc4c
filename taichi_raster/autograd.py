"""The bridge to torch: the sums as a function that torch can differentiate twice.

`Accumulate` computes y(x); its backward is `_VJP`, q(x, v) = J(x)^T v, itself a function; and the
backward of that needs J(x) u and the gradient of v . J(x) u, which the tangent kernel and its
reverse give. A third derivative is refused.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from taichi_raster.engine import engine
from taichi_raster.layout import Call


class Accumulate(torch.autograd.Function):
    """``(x, background, call, ticket) ->`` the fields of `Sums`; only y has a derivative."""

    @staticmethod
    def forward(x: Tensor, background: Tensor, call: Call, ticket: int) -> tuple[Tensor, ...]:
        sums = engine().forward(call, ticket, x, background)
        return sums.y, sums.state

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        x, background, ctx.call, ctx.ticket = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(x, background)
        ctx.save_for_forward(x, background)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if grads[0] is None:
            return None, None, None, None
        x, background = ctx.saved_tensors
        return _VJP.apply(x, grads[0], background, ctx.call, ctx.ticket), None, None, None

    @staticmethod
    def jvp(ctx: Any, x_dot: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if x_dot is None:
            return None, None
        x, background = ctx.saved_tensors
        return engine().jvp(ctx.call, ctx.ticket, x, background, x_dot), None


# torch asks for it at each call, and reads it off the function if it is not there.
Accumulate.forward.__signature__ = inspect.signature(Accumulate.forward)  # type: ignore[attr-defined]


class _VJP(torch.autograd.Function):
    """``(x, v) -> J(x)^T v``."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, v: Tensor, background: Tensor, call: Call, ticket: int
    ) -> Tensor:
        ctx.save_for_backward(x, v, background)
        ctx.call, ctx.ticket = call, ticket  # type: ignore[attr-defined]
        return engine().vjp(call, ticket, x, background, v)

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor | None, ...]:
        x, v, background = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:2]
        by_x, by_v = _Second.apply(x, v, u, background, ctx.call, ctx.ticket, wanted)
        return by_x, by_v, None, None, None


class _Second(torch.autograd.Function):
    """``(x, v, u) -> (gradient of v . J(x) u with respect to x, J(x) u)``: the end of the line."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        v: Tensor,
        u: Tensor,
        background: Tensor,
        call: Call,
        ticket: int,
        wanted: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        by_x = engine().second(call, ticket, x, background, v, u) if wanted[0] else None
        by_v = engine().jvp(call, ticket, x, background, u) if wanted[1] else None
        return by_x, by_v

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor | None) -> Any:
        raise NotImplementedError(
            "third derivatives of the rasterizer are not available: only first and second ones are "
            "exact; do not differentiate a second derivative again (drop the outermost "
            "create_graph=True)"
        )
