"""Checks of users' arguments; every error names the argument and says how to fix it."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from taichi_raster.runtime.device import Runtime
from taichi_raster.runtime.extremes import Extremes, extremes, waits
from taichi_raster.runtime.transforms import is_active, unwrapped

_COARSE = (torch.float16, torch.bfloat16)
_FLOATS: dict[Any, torch.dtype] = {np.float32: torch.float32, np.float64: torch.float64}


def is_number(value: Any) -> bool:
    """Whether `value` is a number of Python or NumPy, and not a bool."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_whole(value: Any) -> bool:
    """Whether `value` is an integer of Python or NumPy, and not a bool."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def number(name: str, value: Any) -> float:
    """`value` as a float; TypeError unless it is a number."""
    if not is_number(value):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    return float(value)


def positive(name: str, value: Any) -> float:
    """`value` as a float; an error unless it is a positive finite number."""
    found = number(name, value)
    if not math.isfinite(found) or found <= 0:
        raise ValueError(f"{name}: must be positive and finite, got {value}")
    return found


def whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    """`value` as an int; an error unless it is a whole number in this range."""
    if not is_whole(value):
        raise TypeError(f"{name}: expected a whole number, got {value!r}")
    if value < least or (most is not None and value > most):
        bounds = f"at least {least}" if most is None else f"{least} to {most}"
        raise ValueError(f"{name}: must be {bounds}, got {value}")
    return int(value)


def image_size(value: Any) -> tuple[int, int]:
    """(height, width) from an int or a pair of ints."""
    pair = (value, value) if is_whole(value) else value
    is_pair = isinstance(pair, tuple | list | np.ndarray) and len(pair) == 2
    if not is_pair or not all(map(is_whole, pair)):
        raise TypeError(f"image_size: expected an int or (height, width), got {value!r}")
    if pair[0] <= 0 or pair[1] <= 0:
        raise ValueError(f"image_size: expected positive sizes, got {value!r}")
    return int(pair[0]), int(pair[1])


def depth_range(near: Any, far: Any) -> tuple[float, float]:
    """(near, far) as floats, if 0 < near < far."""
    low, high = positive("near", near), positive("far", far)
    if low >= high:
        raise ValueError(f"far: expected far > near, got near={near}, far={far}")
    return low, high


def vertices(face_vertices: Any, settings: Runtime, later: Extremes | None = None) -> None:
    """Check shape, dtype, device and finiteness of face vertices, and that they are not traced."""
    name = "face_vertices"
    if torch.jit.is_tracing():  # type: ignore[attr-defined]
        raise NotImplementedError(
            "torch.jit.trace and torch.onnx record operations of torch, and renders are kernels of "
            "Taichi: leave them out of what is traced; torch.compile takes models that hold them"
        )
    if not isinstance(face_vertices, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(face_vertices).__name__}")
    if face_vertices.ndim != 4 or face_vertices.shape[2:] != (3, 3):
        shape = tuple(face_vertices.shape)
        raise ValueError(f"{name}: expected shape (B, F, 3, 3), got {shape}")
    for what, size in (("batch items", 0), ("faces", 1)):
        if face_vertices.shape[size] == 0:
            raise ValueError(f"{name}: the batch has no {what}: nothing to render")
    values(name, face_vertices, settings, later)


def tensor(name: str, value: Any) -> Tensor:
    """`value`; TypeError unless it is a tensor, and not of float16 or bfloat16."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
    if value.dtype in _COARSE:
        raise TypeError(
            f"{name}: expected float32 or float64, got {value.dtype}, which is too coarse for "
            f"geometry; convert it, with {name}.float() (torch.autocast makes such tensors)"
        )
    return value


def floats(name: str, value: Any) -> Tensor:
    """`value`, if it is a tensor of float32 or float64."""
    found = tensor(name, value)
    if not found.is_floating_point():
        raise TypeError(f"{name}: expected float32 or float64, got {found.dtype}")
    return found


def array(
    name: str,
    value: Any,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Numbers as a floating-point tensor: from a number, a sequence, a NumPy array or a tensor.

    Without a `dtype`, floating-point tensors and arrays keep theirs, and anything else gets torch's
    default. Derivatives of a tensor, or of tensors in a flat sequence, are kept.
    """
    if isinstance(value, Tensor):
        if tensor(name, value).is_complex() or value.dtype == torch.bool:
            raise TypeError(f"{name}: expected numbers, got {value.dtype}")
        kept = value.dtype if value.is_floating_point() else torch.get_default_dtype()
        return value.to(dtype=dtype or kept, device=device or value.device)
    if isinstance(value, Sequence) and any(isinstance(part, Tensor) for part in value):
        device = device or next(part.device for part in value if isinstance(part, Tensor))
        parts = [array(name, part, dtype, device) for part in value]
        return torch.stack(torch.broadcast_tensors(*parts), dim=-1)
    try:
        found = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):
        found = np.asarray(None)
    if found.dtype.kind not in "iuf":
        raise TypeError(f"{name}: expected a number, numbers or a tensor, got {value!r}")
    if dtype is None:
        own = found.dtype.type if isinstance(value, np.ndarray | np.generic) else None
        dtype = _FLOATS.get(own, torch.get_default_dtype())
    return torch.tensor(found.astype(np.float64), dtype=dtype, device=device)


def values(name: str, value: Tensor, settings: Runtime, later: Extremes | None = None) -> None:
    """Check that a tensor has the runtime's dtype, a device that kernels reach, finite values."""
    if value.dtype != settings.dtype:
        raise TypeError(
            f"{name}: expected {settings.dtype}, as set by taichi_raster.init(precision="
            f"{settings.precision!r}), got {value.dtype}; convert it, with "
            f"{name}.to({settings.dtype})"
        )
    device(name, value, settings)
    finite("an infinite or NaN value", name, value, later)


def device(name: str, tensor: Tensor, settings: Runtime) -> None:
    """Refuse a tensor that the kernels cannot reach.

    Taichi always uses cuda:0, where an address on another GPU is illegal.

    Raises:
        ValueError: for a CUDA tensor if the kernels run elsewhere, or on another GPU; the message
            names the tensor and says how to fix it.
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
    """Whether kernels can reach tensors on a device."""
    return device.type != "cuda" or (settings.arch == "cuda" and device.index == 0)


def finite(what: str, name: str, value: Tensor, later: Extremes | None = None) -> None:
    """Raise ValueError unless all values are finite; for a GPU's, when `later` fetches them."""
    if value.device.type == "meta":
        raise ValueError(f"{name}: is on the meta device and has no values")

    def check(low: float, high: float) -> None:
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"{name}: holds {what}")

    numbers = unwrapped(value)
    if later is not None and waits(numbers):
        if numbers.numel() > 0:
            later.of(numbers, check)
    # A sum takes a fifth of the time that extremes take. That of finite values may overflow.
    elif not math.isfinite(numbers.sum().item()):
        check(*extremes(numbers))


def visible(face_vertices: Tensor, near: float, far: float, later: Extremes | None = None) -> None:
    """Raise ValueError unless a face reaches the depth range."""
    numbers = unwrapped(face_vertices)
    waiting = waits(numbers)
    if not waiting:
        first = (0,) * (numbers.ndim - 2)
        array = numbers if is_active() else numbers.numpy()  # NumPy finds a face in half the time
        if _reach(array[first].tolist(), near, far):
            return  # the first face does; others need not be looked at
    z = numbers[..., 2]

    def check(nearest: float, farthest: float) -> None:
        if not (near <= nearest and farthest <= far):
            _visible(z, near, far)

    if later is not None and waiting:
        later.of(z, check)
    else:
        check(*extremes(z))


def _reach(corners: list[list[float]], near: float, far: float) -> bool:
    """Whether a face with these corners reaches the depth range."""
    z = [corner[2] for corner in corners]
    return 0 < min(z) <= far and near <= max(z)


def _visible(z: Tensor, near: float, far: float) -> None:
    """`visible`, if some vertex is outside the depth range."""
    reaches = (z.amin(-1) <= far) & (z.amax(-1) >= near) & (z.amin(-1) > 0)
    if not bool(reaches.any()):
        raise ValueError(
            f"face_vertices: every face lies outside [near, far] = [{near}, {far}] (z from "
            f"{float(z.min()):.6g} to {float(z.max()):.6g}); z is the positive distance along the "
            "view axis"
        )


def background(
    value: Any, channels: int | None = None, size: tuple[int, ...] | None = None
) -> Tensor:
    """A background as a tensor, 0-d, (C,), (H, W, C) or (B, H, W, C); `size` is (B, H, W)."""
    tensor = (
        value
        if isinstance(value, Tensor)
        else array("background", value, torch.float64, torch.device("cpu"))
    )
    if tensor.ndim not in (0, 1, 3, 4) or not tensor.is_floating_point():
        raise ValueError(
            "background: expected a number, (C,), (H, W, C) or (B, H, W, C), got shape "
            f"{tuple(tensor.shape)}"
        )
    finite("an infinite or NaN value", "background", tensor)
    if channels is not None and tensor.ndim > 0 and tensor.shape[-1] not in (1, channels):
        raise ValueError(
            f"background: has {tensor.shape[-1]} channels, but face_attributes has {channels}"
        )
    if size is not None and tensor.ndim >= 3:
        lead = tensor.shape[:-1] if tensor.ndim == 4 else (1, *tensor.shape[:-1])
        if lead[0] not in (1, size[0]) or tuple(lead[1:]) != tuple(size[1:]):
            raise ValueError(
                f"background: expected an image of {size[1]} x {size[2]} pixels, and a batch of 1 "
                f"or {size[0]}, got shape {tuple(tensor.shape)}"
            )
    return tensor


def choice(name: str, value: str, *known: str) -> str:
    """`value`, if it is one of the known names."""
    if value not in known:
        raise ValueError(f"{name}: unknown {value!r}; known: {', '.join(known)}")
    return value


def flag(name: str, value: Any) -> bool:
    """`value`, if it is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return bool(value)


def instance(name: str, value: Any, *kinds: type) -> Any:
    """`value`, if it is of one of the kinds."""
    if not isinstance(value, kinds):
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{name}: expected a {expected}, got {type(value).__name__}")
    return value


def path(name: str, value: Any) -> Path:
    """`value` as a path; TypeError unless it is a string or a path."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name}: expected a path, got {type(value).__name__}")
    return Path(value)


def count(name: str, value: Any) -> int:
    """`value`, if it is an integer >= 1."""
    if not is_whole(value) or value < 1:
        raise ValueError(f"{name}: expected a positive integer, got {value!r}")
    return int(value)


def scenes(batch: int, views: Any) -> int:
    """How many scenes a batch shows, `views` items each."""
    each = count("views", views)
    if batch % each:
        raise ValueError(f"views: {batch} batch items are not a multiple of {each} views")
    return batch // each


def fits_batch(name: str, value: Tensor, batch: int) -> None:
    """One number, or one for each batch item."""
    if value.shape not in ((), (1,), (batch,)):
        shape = tuple(value.shape)
        raise ValueError(f"{name}: expected a scalar or shape ({batch},), got {shape}")


def fraction(name: str, value: Any) -> float:
    """`value` as a float, if it is a number in [0, 1)."""
    if not is_number(value) or not 0 <= value < 1:
        raise ValueError(f"{name}: expected a number in [0, 1), got {value!r}")
    return float(value)


def weights(name: str, value: Tensor, batch: int, size: int) -> None:
    """The finite weights of one network, or of one for each batch item."""
    if value.shape not in ((size,), (1, size), (batch, size)):
        raise ValueError(
            f"{name}: expected shape ({size},) or ({batch}, {size}), got {tuple(value.shape)}"
        )
    finite("an infinite or NaN value", name, value)
