"""Zeros of which few will be touched: adjoints of a large texture, say."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def sparsely_used(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Zeros of the dtype and device of `like`.

    On a CPU, the system clears each page of a large one when it is first touched. To clear 50 MB
    at once would take 20 ms.
    """
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    kind = like.new_empty(0).numpy().dtype
    return torch.from_numpy(np.zeros(shape, dtype=kind))
