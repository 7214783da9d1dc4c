"""From vertices and indices to faces with corners of their own, as the renderer takes them."""

from __future__ import annotations

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
            `MeshBatch`): its values are 0, so that its z makes the renderer drop it.

    The gradient sums in a fixed order on the CPU, so that equal runs give equal results.

    Raises:
        ValueError: for other shapes, or indices outside [0, V).
        TypeError: if `faces` does not hold integers.
    """
    checks.tensor("vertices", vertices)
    if vertices.ndim != 3:
        raise ValueError(f"vertices: must be (B, V, C), got {tuple(vertices.shape)}")
    batch, count, channels = vertices.shape
    if faces.ndim == 2:
        check_faces(faces, count)
    else:
        check_padded_faces(faces, batch, count)
    index = faces.to(vertices.device, torch.int64).reshape(1 if faces.ndim == 2 else batch, -1, 1)
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


def check_faces(faces: Tensor, vertex_count: int) -> None:
    """Raise unless `faces` is (F, 3) integers in [0, vertex_count)."""
    if faces.is_floating_point() or faces.is_complex() or faces.dtype == torch.bool:
        raise TypeError(f"faces: must hold integers, got {faces.dtype}")
    if faces.ndim != 2 or faces.shape[1] != 3 or len(faces) == 0:
        raise ValueError(f"faces: must be (F, 3) with F >= 1, got {tuple(faces.shape)}")
    low, high = int(faces.min()), int(faces.max())
    if low < 0 or high >= vertex_count:
        raise ValueError(
            f"faces: indices must lie in [0, {vertex_count}), the vertices there are; "
            f"got {low} to {high}"
        )


def check_padded_faces(faces: Tensor, batch: int, vertex_count: int) -> None:
    """Raise unless `faces` is (B, F, 3) integers in [0, vertex_count), or all -1 in a face."""
    if faces.ndim != 3 or faces.shape[2] != 3 or len(faces) != batch or faces.shape[1] == 0:
        raise ValueError(
            f"faces: must be (F, 3), or (B, F, 3) with B = {batch}, got {tuple(faces.shape)}"
        )
    padding = (faces == -1).all(-1, keepdim=True).expand_as(faces)
    check_faces(torch.where(padding, torch.zeros_like(faces), faces).reshape(-1, 3), vertex_count)
