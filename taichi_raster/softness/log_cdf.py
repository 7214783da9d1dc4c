"""F and log F of a distribution as torch functions, from the kernels' own formulas."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from taichi_raster.softness.formulas import formulas_at


def cdf(name: str, x: Tensor, shape: Tensor | None = None) -> Tensor:
    """F(x), of the shape of x; differentiable twice in x and in the shape, or None."""
    return _derivative(False, name, x, shape)


def log_cdf(name: str, x: Tensor, shape: Tensor | None = None) -> Tensor:
    """log F(x), likewise."""
    return _derivative(True, name, x, shape)


def _derivative(log: bool, name: str, x: Tensor, shape: Tensor | None) -> Tensor:
    if shape is None:
        return _Formula.apply((log, name), 0, 0, x, None)
    x, shape = torch.broadcast_tensors(x, shape)
    return _Formula.apply((log, name), 0, 0, x, shape)


class _Formula(torch.autograd.Function):
    """A derivative of F or log F: `i` times in x, `j` times in the shape, i + j at most 2."""

    @staticmethod
    def forward(
        ctx: Any, which: tuple[bool, str], i: int, j: int, x: Tensor, shape: Tensor | None
    ) -> Tensor:
        ctx.which, ctx.order = which, (i, j)
        ctx.save_for_backward(x, shape)
        ctx.save_for_forward(x, shape)
        return _derivatives(*which, x, shape)[i, j].to(x).view(x.shape)

    @staticmethod
    def jvp(ctx: Any, *dots: Any) -> Tensor:
        x, shape = ctx.saved_tensors
        (i, j), x_dot, shape_dot = ctx.order, dots[3], dots[4]
        if i + j == 2:
            raise NotImplementedError("third derivatives of a distribution are not available")
        moved = torch.zeros_like(x)
        if x_dot is not None:
            moved = moved + x_dot * _Formula.apply(ctx.which, i + 1, j, x, shape)
        if shape_dot is not None:
            moved = moved + shape_dot * _Formula.apply(ctx.which, i, j + 1, x, shape)
        return moved

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, shape = ctx.saved_tensors
        i, j = ctx.order
        if i + j == 2:
            raise NotImplementedError("third derivatives of a distribution are not available")
        by_x = grad * _Formula.apply(ctx.which, i + 1, j, x, shape)
        by_shape = None
        if shape is not None and ctx.needs_input_grad[4]:
            by_shape = grad * _Formula.apply(ctx.which, i, j + 1, x, shape)
        return None, None, None, by_x, by_shape


def _derivatives(
    log: bool, name: str, x: Tensor, shape: Tensor | None
) -> dict[tuple[int, int], Tensor]:
    """F or log F, and its derivatives by (times in x, times in the shape), flat."""
    rows = formulas_at(name, x.reshape(-1), None if shape is None else shape.reshape(-1))
    orders = [(0, 0), (1, 0), (2, 0)]
    if shape is not None:
        orders += [(0, 1), (1, 1), (0, 2)]
    begin = len(orders) if log else 0
    return dict(zip(orders, rows[begin : begin + len(orders)], strict=True))
