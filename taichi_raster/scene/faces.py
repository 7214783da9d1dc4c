"""From vertices and indices to faces with corners of their own, as the renderer takes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from taichi_raster import checks


def gather_faces(
    vertices: Float[Tensor, "B V C"], faces: Int[Tensor, "*B F 3"]
) -> Float[Tensor, "B F 3 C"]:
    """Each face's own copy of its three vertices (or of any C values a vertex has).

    Args:
        vertices: (B, V, C).
        faces: (F, 3) for all batch items, or (B, F, 3), where a face of -1s is padding (see
            `MeshBatch`): its values are 0, so that its z makes the renderer drop it. As wherever
            faces are taken: a tensor or an array of NumPy's, of any integer type, or lists.

    The gradient sums in a fixed order on the CPU, so that equal runs give equal results.

    Raises:
        ValueError: for other shapes, or indices outside [0, V).
        TypeError: if `faces` does not hold integers.
    """
    checks.tensor("vertices", vertices)
    if vertices.ndim != 3:
        raise ValueError(f"vertices: must be (B, V, C), got {tuple(vertices.shape)}")
    batch, count, channels = vertices.shape
    faces = check_batch_of_faces(faces, batch, count)
    index = faces.to(vertices.device).reshape(1 if faces.ndim == 2 else batch, -1, 1)
    gathered = vertices.gather(1, index.clamp(min=0).expand(batch, -1, channels))
    if faces.ndim == 3:
        gathered = torch.where(index >= 0, gathered, torch.zeros_like(gathered))
    return gathered.reshape(batch, -1, 3, channels)


def lift_triangles(
    xy: Float[Tensor, "B F 3 2"], depth: Float[Tensor, "*B F"]
) -> Float[Tensor, "B F 3 3"]:
    """Flat triangles, each parallel to the image at its own depth, as the renderer takes them.

    Args:
        xy: (B, F, 3, 2) corners in NDC.
        depth: (F,), or (B, F): each triangle's distance along the view axis, positive.

    Raises:
        ValueError: for other shapes, or a depth that is not positive.
    """
    checks.floats("xy", xy)
    checks.tensor("depth", depth)
    if xy.ndim != 4 or xy.shape[2:] != (3, 2):
        raise ValueError(f"xy: must be (B, F, 3, 2), got {tuple(xy.shape)}")
    if depth.shape not in (xy.shape[:2], xy.shape[1:2]):
        raise ValueError(
            f"depth: must be (F,) = {tuple(xy.shape[1:2])} or (B, F) = {tuple(xy.shape[:2])}, "
            f"got {tuple(depth.shape)}"
        )
    if not bool((depth > 0).all()):
        raise ValueError("depth: must be positive, the distance along the view axis")
    z = depth.to(xy).expand(xy.shape[:2])[..., None, None].expand(*xy.shape[:3], 1)
    return torch.cat([xy, z], dim=-1)


def check_faces(faces: Any, vertex_count: int, name: str = "faces") -> Int[Tensor, "F 3"]:
    """`faces`, as (F, 3) int64, if they are integers in [0, vertex_count); see `as_indices`."""
    found = as_indices(name, faces)
    if found.ndim != 2 or found.shape[1] != 3 or len(found) == 0:
        raise ValueError(f"{name}: must be (F, 3) with F >= 1, got {tuple(found.shape)}")
    low, high = int(found.min()), int(found.max())
    if low < 0 or high >= vertex_count:
        raise ValueError(
            f"{name}: indices must lie in [0, {vertex_count}), the vertices there are; "
            f"got {low} to {high}"
        )
    return found


def check_batch_of_faces(faces: Any, batch: int, vertex_count: int) -> Int[Tensor, "*B F 3"]:
    """`faces`, as int64: (F, 3) for all batch items, or (B, F, 3), where -1s are padding."""
    found = as_indices("faces", faces)
    if found.ndim == 2:
        return check_faces(found, vertex_count)
    if found.ndim != 3 or found.shape[2] != 3 or len(found) != batch or found.shape[1] == 0:
        raise ValueError(
            f"faces: must be (F, 3), or (B, F, 3) with B = {batch}, got {tuple(found.shape)}"
        )
    padding = (found == -1).all(-1, keepdim=True)
    check_faces(torch.where(padding, 0, found).reshape(-1, 3), vertex_count)
    return found


def as_indices(name: str, value: Any) -> Int[Tensor, "*n"]:
    """Integers as int64: a tensor or an array of NumPy's, of any integer type, or nested lists.

    Raises:
        TypeError: for anything else; it names the argument.
        ValueError: for integers that int64 cannot hold.
    """
    if isinstance(value, Tensor):
        if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
            raise TypeError(f"{name}: must hold integers, got {value.dtype}")
        found = value.to(torch.int64)
        wrapped = value.dtype == torch.uint64 and bool((found < 0).any())
    else:
        try:
            array = np.asarray(value)
        except (TypeError, ValueError):  # lists of different lengths, say
            array = np.asarray(None)
        if array.dtype.kind not in "iu" and array.size > 0:
            kind = array.dtype if isinstance(value, np.ndarray) else type(value).__name__
            raise TypeError(f"{name}: must hold integers, as a tensor, array or lists, got {kind}")
        found = torch.tensor(array.astype(np.int64))
        wrapped = array.dtype == np.uint64 and bool((found < 0).any())
    if wrapped:
        raise ValueError(f"{name}: holds integers beyond int64")
    return found
