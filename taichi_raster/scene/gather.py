"""Entries of a tensor, each as often as wanted, with gradients that add up in a fixed order.

On more than one thread, torch adds up the gradients of `values[index]` in whatever order the
threads get there. Where `init(deterministic=True)` was asked for, they are sorted by entry first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from taichi_raster.runtime import transforms
from taichi_raster.runtime.device import runtime
from taichi_raster.runtime.zeros import sparsely_used


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


def rows(values: Float[Tensor, "M D"], place: Int[Tensor, " *n"]) -> Float[Tensor, "*n D"]:
    """values[place], differentiable as often as wanted, for many values of which few are taken.

    Nothing that it does takes time for those that are not taken, but for the zeros of their
    gradient.
    """
    if runtime().deterministic and transforms.has_derivatives(values):
        return at(values, place)
    return _pick(values, place.reshape(-1)).view(*place.shape, -1)


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


class _Pick(_Sorted):
    """(M, D) values to rows (N, D), in no fixed order."""

    @staticmethod
    def forward(values: Tensor, place: Tensor) -> Tensor:
        return values.index_select(0, place)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.many = len(inputs[0])
        ctx.save_for_backward(inputs[1])
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _drop(grad, *ctx.saved_tensors, ctx.many), None

    @staticmethod
    def jvp(ctx: Any, dot: Tensor, *rest: None) -> Tensor:
        return _pick(dot, *ctx.saved_tensors)


class _Drop(_Sorted):
    """Its adjoint: rows (N, D) summed into (many, D)."""

    @staticmethod
    def forward(rows: Tensor, place: Tensor, many: int) -> Tensor:
        return sparsely_used((many, rows.shape[1]), rows).index_add_(0, place, rows)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.many = inputs[2]
        ctx.save_for_backward(inputs[1])
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _pick(grad, *ctx.saved_tensors), None, None

    @staticmethod
    def jvp(ctx: Any, dot: Tensor, *rest: None) -> Tensor:
        return _drop(dot, *ctx.saved_tensors, ctx.many)


_take: Callable[..., Tensor] = _Take.apply
_add: Callable[..., Tensor] = _Add.apply
_pick: Callable[..., Tensor] = _Pick.apply
_drop: Callable[..., Tensor] = _Drop.apply
