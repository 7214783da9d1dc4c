"""Repeat the instances of a batch, as `meta.TaskBatch.repeat` asks."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def repeater(copies: int) -> Callable[[Tensor], Tensor]:
    """A function that repeats a tensor (B, ...) to (copies * B, ...), copy by copy.

    Raises ValueError for `copies` below 1.
    """
    if copies < 1:
        raise ValueError(f"copies must be >= 1, got {copies}")
    return lambda tensor: tensor.repeat(copies, *[1] * (tensor.ndim - 1))
