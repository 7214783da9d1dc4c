"""Brings a softness's parameters into the kernels' form: checked, one entry per batch item."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from taichi_raster import checks
from taichi_raster.runtime.transforms import has_derivatives, is_vmapped, unwrapped

_FEW = 8
_POSITIVE = ("edge.scale", "edge.shape", "depth.gamma", "depth.shape")


def for_views(state: Any, scenes: int, views: int) -> Any:
    """Repeat a state with one entry per scene, (B / views,), to one per batch item, (B,)."""
    values = {field.name: getattr(state, field.name) for field in fields(state)}
    changed = {
        name: repeated(name, value, 1 if name == "weights" else 0, scenes, views)
        for name, value in values.items()
        if isinstance(value, Tensor)
    }
    return replace(state, **changed)


def repeated(name: str, value: Tensor, dims: int, scenes: int, views: int) -> Tensor:
    """Repeat each entry `views` times; `dims` is the number of dimensions behind the batch."""
    if value.ndim == dims or len(value) == 1:
        return value
    if len(value) != scenes:
        raise ValueError(
            f"{name}: expected one entry, or one for each of the {scenes} scenes (batch items / "
            f"views), got shape {tuple(value.shape)}"
        )
    return value.repeat_interleave(views, dim=0)


def weights(name: str, weights: Tensor | None, variant: Any, like: Tensor) -> Tensor:
    """A network's weights as (B, P), checked; (B, 0) if there is no network."""
    batch = len(like)
    if weights is None:
        return like.new_empty(batch, 0)
    checks.weights(name, weights, batch, variant.network.size)
    return weights.to(like).expand(batch, -1)


def to_like(value: Tensor, like: Tensor) -> Tensor:
    """`value` in the dtype and on the device of `like`.

    A few numbers without derivatives are written to a GPU one by one. A copy would make the host
    wait.
    """
    few = value.device.type == "cpu" and like.device.type != "cpu" and value.numel() <= _FEW
    if not few or has_derivatives(value):
        return value.to(like)
    return _filled(value.reshape(-1).tolist(), like).view(value.shape)


def _filled(numbers: list[float], like: Tensor) -> Tensor:
    """Numbers as a new tensor, without a copy from the host to a GPU."""
    like = like.detach()
    if like.device.type == "cpu":
        # By NumPy, which takes a tenth of what torch takes for a list.
        kind = np.float32 if like.dtype == torch.float32 else np.float64
        return torch.from_numpy(np.array(numbers, dtype=kind))
    found = like.new_ones(len(numbers))
    for i, number in enumerate(numbers):
        if number != 1.0:
            found[i] = number
    return found


def stack(parameters: dict[str, Tensor], like: Tensor) -> Tensor:
    """Parameters as columns (B, len(parameters)), in the dtype and on the device of `like`.

    Raises:
        ValueError: for a wrong shape, or for values that are not finite, or not positive where they
            have to be.
    """
    batch = len(like)
    for name, value in parameters.items():
        checks.fits_batch(name, value, batch)
    if any(
        v.ndim > 0 or has_derivatives(v) or is_vmapped(v) or v.is_cuda for v in parameters.values()
    ):
        columns = [to_like(value, like).expand(batch) for value in parameters.values()]
        found = torch.stack(columns, dim=1)
        rows = unwrapped(found).reshape(-1, len(parameters))
        least_and_most = torch.stack(torch.aminmax(rows, dim=0)).tolist()
    else:  # the same numbers for all items, without derivatives
        numbers = [float(value) for value in parameters.values()]
        found = _filled(numbers, like).expand(batch, -1)
        least_and_most = [numbers, numbers]
    for (name, value), least, most in zip(parameters.items(), *least_and_most, strict=True):
        positive = name in _POSITIVE
        if not (math.isfinite(least) and math.isfinite(most) and (least > 0 or not positive)):
            kind = "positive finite" if positive else "finite"
            raise ValueError(f"{name}: expected {kind} values, got {unwrapped(value).tolist()}")
    return found
