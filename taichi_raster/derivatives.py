"""Whether torch follows a tensor, in either mode of differentiation."""

from __future__ import annotations

import torch
from torch import Tensor


def moves(value: Tensor) -> bool:
    """Whether `value` has derivatives, reverse or forward."""
    return value.requires_grad or torch.autograd.forward_ad.unpack_dual(value).tangent is not None
