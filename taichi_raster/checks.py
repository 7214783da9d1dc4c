"""Checks of what users pass in; every error names the argument and says the mend."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from taichi_raster.runtime.device import Runtime
from taichi_raster.runtime.transforms import plain
from taichi_raster.scene import attributes


def positive(name: str, value: Any) -> float:
    """`value` as a float, if it is a positive finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"{name}: expected a positive finite number, got {value}")
    return float(value)


def image_size(value: Any) -> tuple[int, int]:
    """(height, width) from an int or a pair of ints."""
    pair = (value, value) if isinstance(value, int) else value
    is_pair = isinstance(pair, tuple | list) and len(pair) == 2
    if not is_pair or not all(type(v) is int for v in pair):
        raise TypeError(f"image_size: expected an int or (height, width), got {value!r}")
    if pair[0] <= 0 or pair[1] <= 0:
        raise ValueError(f"image_size: expected positive sizes, got {value!r}")
    return pair[0], pair[1]


def depth_range(near: Any, far: Any) -> tuple[float, float]:
    """(near, far) as floats, if 0 < near < far."""
    low, high = positive("near", near), positive("far", far)
    if low >= high:
        raise ValueError(f"far: expected far > near, got near={near}, far={far}")
    return low, high


def vertices(face_vertices: Any, settings: Runtime) -> None:
    """Shape, dtype, device and finiteness of triangles."""
    name = "face_vertices"
    if not isinstance(face_vertices, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(face_vertices).__name__}")
    if face_vertices.ndim != 4 or face_vertices.shape[2:] != (3, 3):
        shape = tuple(face_vertices.shape)
        raise ValueError(f"{name}: expected shape (B, F, 3, 3), got {shape}")
    for what, size in (("batch items", 0), ("faces", 1)):
        if face_vertices.shape[size] == 0:
            raise ValueError(f"{name}: the batch has no {what}: nothing to render")
    values(name, face_vertices, settings)
    if face_vertices.device.type == "cuda" and settings.arch != "cuda":
        raise ValueError(
            f"{name}: CUDA tensors need taichi_raster.init(arch='cuda'), but arch is "
            f"{settings.arch!r}; move them to the CPU"
        )


def corner_attributes(name: str, value: Tensor, face_vertices: Tensor) -> None:
    """The shape of attributes at face corners."""
    if value.ndim != 4 or value.shape[2] != 3:
        raise ValueError(f"{name}: expected shape (B, F, 3, C), got {tuple(value.shape)}")
    if face_vertices.shape[:2] != value.shape[:2]:
        raise ValueError(
            f"{name}: expected {tuple(face_vertices.shape[:2])} batch items and faces as "
            f"in face_vertices, got {tuple(value.shape[:2])}"
        )
    if value.shape[3] == 0:
        raise ValueError(f"{name}: expected at least one channel")


def appearance(face_attributes: Any, face_vertices: Tensor, settings: Runtime) -> None:
    """Shapes, dtypes, devices and finiteness of everything in a renderer's attributes."""
    if not attributes.is_attributes(face_attributes):
        raise TypeError(
            "face_attributes: expected a torch.Tensor, a SurfaceTexture, a UVTexture or None, got "
            f"{type(face_attributes).__name__}"
        )
    for name, value in attributes.tensors(face_attributes).items():
        if name in ("face_attributes", "corners"):
            corner_attributes(name, value, face_vertices)
        values(name, value, settings)
        if value.device != face_vertices.device:
            raise ValueError(
                f"{name}: on {value.device}, but face_vertices is on "
                f"{face_vertices.device}; move them to one device"
            )


def values(name: str, value: Tensor, settings: Runtime) -> None:
    """The dtype of the runtime, and nothing infinite."""
    if value.dtype != settings.dtype:
        raise TypeError(
            f"{name}: expected {settings.dtype}, as set by taichi_raster.init(precision="
            f"{settings.precision!r}), got {value.dtype}"
        )
    finite("an infinite or NaN value", name, value)


def finite(what: str, name: str, value: Tensor) -> None:
    """Nothing infinite or NaN, and values at all; else the error says that it holds `what`."""
    if value.device.type == "meta":
        raise ValueError(f"{name}: is on the meta device and has no values")
    if value.numel() > 0 and not all(map(math.isfinite, extremes(value))):
        raise ValueError(f"{name}: holds {what}")


def extremes(values: Tensor) -> tuple[float, float]:
    """The smallest and the largest value; NaN where there is one."""
    low, high = torch.aminmax(plain(values))
    return float(low), float(high)


def visible(face_vertices: Tensor, near: float, far: float) -> None:
    """At least one face must reach the depth range."""
    z = plain(face_vertices)[..., 2]
    nearest, farthest = extremes(z)
    if near <= nearest and farthest <= far:
        return
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
    """A background as a tensor: 0-d, (C,), (H, W, C) or (B, H, W, C); size is (B, H, W)."""
    try:
        tensor = value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
    except (TypeError, ValueError):
        raise TypeError(
            f"background: expected a number, numbers or a tensor, got {value!r}"
        ) from None
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
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return value


def instance(name: str, value: Any, *kinds: type) -> Any:
    """`value`, if it is of one of the kinds."""
    if not isinstance(value, kinds):
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{name}: expected a {expected}, got {type(value).__name__}")
    return value


def count(name: str, value: Any) -> int:
    """`value`, if it is an integer >= 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}: expected a positive integer, got {value!r}")
    return value


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
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"{name}: expected a number in [0, 1), got {value!r}")
    return float(value)


def weights(name: str, value: Tensor, batch: int, size: int) -> None:
    """The finite weights of one network, or of one for each batch item."""
    if value.shape not in ((size,), (1, size), (batch, size)):
        raise ValueError(
            f"{name}: expected shape ({size},) or ({batch}, {size}), got {tuple(value.shape)}"
        )
    finite("an infinite or NaN value", name, value)
