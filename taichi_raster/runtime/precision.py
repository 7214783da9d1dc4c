"""Multiplies matrices in the precision of their entries, also under `torch.autocast`.

Autocast rounds the factors of a matrix product to 8 or 11 bits. That suits the layers of a network,
not positions: at 512 pixels, a projection would be off by a quarter of a pixel. Autocast also acts
on a backward pass that runs inside its region. So this package multiplies matrices only by
`product`, which switches autocast off in its derivatives, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

_DEVICES = ("cpu", "cuda", "mps", "xpu")


@contextmanager
def own_precision() -> Iterator[None]:
    """Within it, autocast is off. Use it for computations without derivatives; else `product`."""
    with ExitStack() as stack:
        for device in _DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b for matrices or batches of them, differentiable in either mode, to any order.

    `a` may be a sparse matrix that has no derivatives.
    """
    return _Product.apply(a, b)


class _Product(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        with own_precision():
            return a @ b

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        by_a, by_b = ctx.needs_input_grad
        return (
            _Product.apply(grad, b.mT).sum_to_size(a.shape) if by_a else None,
            _Product.apply(_transposed(a), grad).sum_to_size(b.shape) if by_b else None,
        )

    @staticmethod
    def jvp(ctx: Any, a_dot: Tensor | None, b_dot: Tensor | None) -> Tensor:
        a, b = ctx.saved_tensors
        parts = [] if a_dot is None else [_Product.apply(a_dot, b)]
        parts += [] if b_dot is None else [_Product.apply(a, b_dot)]
        return sum(parts[1:], parts[0])


def _transposed(matrix: Tensor) -> Tensor:
    return matrix.t() if matrix.is_sparse else matrix.mT
