"""Which devices the kernels reach: the CPU, and the first GPU that CUDA shows the process."""

from __future__ import annotations

import torch
from torch import Tensor

from taichi_raster.runtime import Runtime


def check_device(name: str, tensor: Tensor, settings: Runtime) -> None:
    """Refuse a tensor that the kernels cannot reach.

    Taichi takes cuda:0 wherever tensors are, and an address on another GPU is an illegal one there.

    Raises:
        ValueError: for a CUDA tensor where the kernels run elsewhere, or on another GPU; the
            message names the tensor and says the remedy.
    """
    if reached(tensor.device, settings):
        return
    if settings.arch != "cuda":
        raise ValueError(
            f"{name}: CUDA tensors need taichi_raster.init(arch='cuda'), but arch is "
            f"{settings.arch!r}; move them to the CPU"
        )
    raise ValueError(
        f"{name}: on {tensor.device}, but the kernels run on cuda:0, which Taichi always takes; "
        f"move it to cuda:0, or set CUDA_VISIBLE_DEVICES={tensor.device.index} before the process "
        "starts, so that this GPU becomes cuda:0"
    )


def reached(device: torch.device, settings: Runtime) -> bool:
    """Whether kernels may be given tensors of a device."""
    return device.type != "cuda" or (settings.arch == "cuda" and device.index == 0)
