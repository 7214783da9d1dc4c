"""Rows of a tensor, each as often as wanted, with gradients that add up in a fixed order.

On more than one thread, torch adds up the gradients of `values[index]` in whatever order the
threads get there. Where `init(deterministic=True)` was asked for, they are sorted by row first.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from taichi_raster.runtime import runtime


def rows(
    values: Float[Tensor, "B F *rest"], item: Int[Tensor, "N"], face: Int[Tensor, "N"]
) -> Float[Tensor, "N *rest"]:
    """values[item, face], differentiable as often as wanted."""
    if not runtime().deterministic:
        return values[item, face]
    place = item * values.shape[1] + face
    order = place.argsort(stable=True)
    counts = torch.bincount(place, minlength=values.shape[0] * values.shape[1])
    found = _Take.apply(values.flatten(0, 1).flatten(1), place, order, counts)
    return found.unflatten(1, values.shape[2:])


class _Take(torch.autograd.Function):
    """(M, D) values to rows (N, D)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, place: Tensor, order: Tensor, counts: Tensor) -> Tensor:
        ctx.save_for_backward(place, order, counts)
        ctx.save_for_forward(place, order, counts)
        return values[place]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _Add.apply(grad, *ctx.saved_tensors), None, None, None

    @staticmethod
    def jvp(ctx: Any, dot: Tensor, *rest: None) -> Tensor:
        return _Take.apply(dot, *ctx.saved_tensors)


class _Add(torch.autograd.Function):
    """Its adjoint: rows (N, D) summed into (M, D)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, place: Tensor, order: Tensor, counts: Tensor) -> Tensor:
        ctx.save_for_backward(place, order, counts)
        ctx.save_for_forward(place, order, counts)
        return torch.segment_reduce(rows[order].contiguous(), "sum", lengths=counts, unsafe=True)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _Take.apply(grad, *ctx.saved_tensors), None, None, None

    @staticmethod
    def jvp(ctx: Any, dot: Tensor, *rest: None) -> Tensor:
        return _Add.apply(dot, *ctx.saved_tensors)
