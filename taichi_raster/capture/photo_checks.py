"""Checks of what a `Photo` is made of: kinds, shapes, and values in [0, 1]."""

from __future__ import annotations

import torch
from numpy import ndarray
from torch import Tensor

from taichi_raster.capture.masks import TOLERANCE


def check_kind(name: str, value: object, *kinds: type) -> None:
    """TypeError unless a value is None or of one of these kinds, with what to do about it."""
    if value is None or isinstance(value, kinds):
        return
    remedies = {str: f"; give pathlib.Path({value!r:.80})", ndarray: "; give torch.from_numpy(it)"}
    remedy = next((text for kind, text in remedies.items() if isinstance(value, kind)), "")
    expected = " or ".join(kind.__name__ for kind in (*kinds, type(None)))
    raise TypeError(f"{name}: expected a {expected}, got {type(value).__name__}{remedy}")


def check_picture(picture: Tensor) -> None:
    """That a tensor is of floats, and of the shape of a picture."""
    if not picture.is_floating_point():
        remedy = "; divide it by 255" if picture.dtype == torch.uint8 else ""
        raise TypeError(f"picture: expected floats in [0, 1], got {picture.dtype}{remedy}")
    shape = tuple(picture.shape)
    if len(shape) == 3 and shape[2] in (3, 4):
        return
    remedy = ""
    if len(shape) == 2 or shape[2:] == (1,):
        remedy = "; repeat grey three times along the last dimension"
    elif len(shape) == 3 and shape[0] in (3, 4):
        remedy = "; permute it: picture.permute(1, 2, 0)"
    raise ValueError(f"picture: must have the shape (H, W, 3 or 4), got {shape}{remedy}")


def check_silhouette(silhouette: Tensor) -> None:
    """That a tensor is of real numbers, and of the shape of a mask; it may be of bool."""
    if silhouette.is_complex():
        raise TypeError(f"silhouette: expected floats in [0, 1], got {silhouette.dtype}")
    if silhouette.ndim != 2:
        raise ValueError(f"silhouette: must have the shape (H, W), got {tuple(silhouette.shape)}")


_SHADES = 4.0  # what is larger is no colour that is lit brightly


def check_range(where: str, values: Tensor) -> None:
    """ValueError unless all values lie in [0, 1]."""
    low, high = float(values.detach().min()), float(values.detach().max())
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
        remedy = "; clamp it" if 1 < high <= _SHADES else ""
        remedy = "; divide it by 255" if _SHADES < high <= 255 else remedy
        raise ValueError(f"{where}: must lie in [0, 1], and has {low:.4g} to {high:.4g}{remedy}")
