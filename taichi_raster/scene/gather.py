"""Entries of a tensor, each as often as wanted, with gradients that add up in a fixed order.

On more than one thread, torch adds up the gradients of `values[index]` in whatever order the
threads get there. Where `init(deterministic=True)` was asked for, they are sorted by entry first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from taichi_raster.runtime import transforms
from taichi_raster.runtime.device import runtime


def at(values: Tensor, *index: Tensor) -> Tensor:
    """values[index], differentiable as often as wanted.

    `index` are integers >= 0 that broadcast, for the first dimensions of `values`.
    """
    if not (runtime().deterministic and transforms.has_derivatives(values) and values.numel() > 0):
        return values[index]
    index = torch.broadcast_tensors(*index)
    place = torch.zeros_like(index[0])
    for size, part in zip(values.shape, index, strict=False):
        place = place * size + part
    rest = values.shape[len(index) :]
    flat = values.reshape(-1, rest.numel())
    place, shape = place.reshape(-1), place.shape
    order = place.argsort(stable=True)
    counts = torch.bincount(place, minlength=len(flat))
    return _take(flat, place, order, counts).view(*shape, *rest)


class _Sorted(torch.autograd.Function):
    """What the two have in common; each is the other's derivative."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])
        ctx.save_for_forward(*inputs[1:])

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[Any, ...], *inputs: Tensor) -> tuple[Any, ...]:
        return transforms.one_by_one(cls.apply, info, in_dims, *inputs)


class _Take(_Sorted):
    """(M, D) values to rows (N, D)."""

    @staticmethod
    def forward(values: Tensor, place: Tensor, order: Tensor, counts: Tensor) -> Tensor:
        return values[place]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _add(grad, *ctx.saved_tensors), None, None, None

    @staticmethod
    def jvp(ctx: Any, dot: Tensor, *rest: None) -> Tensor:
        return _take(dot, *ctx.saved_tensors)


class _Add(_Sorted):
    """Its adjoint: rows (N, D) summed into (M, D)."""

    @staticmethod
    def forward(rows: Tensor, place: Tensor, order: Tensor, counts: Tensor) -> Tensor:
        return torch.segment_reduce(rows[order].contiguous(), "sum", lengths=counts, unsafe=True)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _take(grad, *ctx.saved_tensors), None, None, None

    @staticmethod
    def jvp(ctx: Any, dot: Tensor, *rest: None) -> Tensor:
        return _add(dot, *ctx.saved_tensors)


_take: Callable[..., Tensor] = _Take.apply
_add: Callable[..., Tensor] = _Add.apply
