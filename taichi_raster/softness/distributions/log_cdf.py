"""log F of a distribution as a torch function, evaluated by the kernels' formulas."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from taichi_raster.runtime.transforms import one_by_one
from taichi_raster.softness.distributions.formulas import formulas_at


def log_cdf(name: str, x: Tensor, shape: Tensor | None = None) -> Tensor:
    """log F(x), (N,), differentiable twice in x and in the shape, which is (N,) or None."""
    if shape is None:
        return _LogCdf.apply(name, 0, 0, x, None)
    x, shape = torch.broadcast_tensors(x, shape)
    return _LogCdf.apply(name, 0, 0, x, shape)


class _LogCdf(torch.autograd.Function):
    """log F, differentiated `i` times in x and `j` times in the shape; i + j is at most 2."""

    @staticmethod
    def forward(name: str, i: int, j: int, x: Tensor, shape: Tensor | None) -> Tensor:
        return _derivatives(name, x, shape)[i, j].to(x).clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.name, ctx.order = inputs[0], inputs[1:3]
        ctx.save_for_backward(*inputs[3:])
        ctx.save_for_forward(*inputs[3:])

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *inputs: Any) -> tuple:
        return one_by_one(_LogCdf.apply, info, in_dims, *inputs)

    @staticmethod
    def jvp(ctx: Any, *dots: Any) -> Tensor:
        x, shape = ctx.saved_tensors
        i, j = ctx.order
        if i + j == 2:
            raise NotImplementedError("third derivatives of a distribution are not available")
        moved = torch.zeros_like(x)
        if dots[3] is not None:
            moved = moved + dots[3] * _LogCdf.apply(ctx.name, i + 1, j, x, shape)
        if dots[4] is not None:
            moved = moved + dots[4] * _LogCdf.apply(ctx.name, i, j + 1, x, shape)
        return moved

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, shape = ctx.saved_tensors
        i, j = ctx.order
        if i + j == 2:
            raise NotImplementedError("third derivatives of a distribution are not available")
        by_x = grad * _LogCdf.apply(ctx.name, i + 1, j, x, shape)
        by_shape = None
        if shape is not None and ctx.needs_input_grad[4]:
            by_shape = grad * _LogCdf.apply(ctx.name, i, j + 1, x, shape)
        return None, None, None, by_x, by_shape


def _derivatives(name: str, x: Tensor, shape: Tensor | None) -> dict[tuple[int, int], Tensor]:
    """log F and its derivatives, by (order in x, order in the shape)."""
    rows = formulas_at(name, x, shape)
    if shape is None:
        return dict(zip([(0, 0), (1, 0), (2, 0)], rows[3:6], strict=True))
    orders = [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (0, 2)]
    return dict(zip(orders, rows[6:12], strict=True))
