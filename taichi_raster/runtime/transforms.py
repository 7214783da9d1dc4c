"""Looks through the wrappers of `torch.func`, and gives a rule for its `vmap`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def unwrapped(value: Tensor) -> Tensor:
    """A tensor's numbers, detached and without the wrappers of `torch.func`.

    Under `torch.vmap` it has the mapped axes, too. Use it to check all numbers.
    """
    while _wrapped(value):
        value = torch._C._functorch.get_unwrapped(value)
    return value.detach()


def has_derivatives(value: Tensor) -> bool:
    """Whether a tensor takes part in differentiation, in either mode, at any level."""
    forward_mode = torch.autograd.forward_ad._current_level >= 0
    while True:
        if value.requires_grad:
            return True
        if forward_mode and torch.autograd.forward_ad.unpack_dual(value).tangent is not None:
            return True
        if not _wrapped(value):
            return False
        value = torch._C._functorch.get_unwrapped(value)


def is_vmapped(value: Tensor) -> bool:
    """Whether `torch.vmap` maps over a tensor."""
    while _wrapped(value):
        if torch._C._functorch.is_batchedtensor(value):
            return True
        value = torch._C._functorch.get_unwrapped(value)
    return False


def is_active() -> bool:
    """Whether this runs inside a transform of `torch.func`."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def no_modes(but_autocast: bool = False) -> bool:
    """Whether new tensors are ordinary ones here: no transform or mode of torch is on.

    Args:
        but_autocast: whether autocast may be on, which leaves all but products of matrices alone.
    """
    return not (
        torch._C._are_functorch_transforms_active()
        or torch.is_inference_mode_enabled()
        or (torch.is_autocast_enabled("cpu") and not but_autocast)
        or torch._C._len_torch_function_stack()
        or torch._C._len_torch_dispatch_stack()
    )


def is_differentiated() -> bool:
    """Whether torch may differentiate, in either mode, what is computed now."""
    return (
        torch.is_grad_enabled()
        or torch.autograd.forward_ad._current_level >= 0
        or torch._C._are_functorch_transforms_active()
    )


def _wrapped(value: Tensor) -> bool:
    return torch._C._functorch.is_functorch_wrapped_tensor(value)


def one_by_one(
    function: Callable[..., Any], info: Any, in_dims: tuple[Any, ...], *inputs: Any
) -> tuple[Any, Any]:
    """A rule for `torch.vmap`: one call per entry of the mapped axis; results are stacked."""
    found = []
    for i in range(info.batch_size):
        entry = [
            value if dim is None else value.select(dim, i)
            for value, dim in zip(inputs, in_dims, strict=True)
        ]
        found.append(function(*entry))
    if isinstance(found[0], tuple):
        parts = tuple(
            None if part[0] is None else torch.stack(part) for part in zip(*found, strict=True)
        )
        return parts, tuple(None if part is None else 0 for part in parts)
    return torch.stack(found), 0
