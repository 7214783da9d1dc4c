"""Rasterizes without softness: the nearest face of each pixel, barycentrics and depth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from taichi_raster import checks
from taichi_raster.engine.pixel_sums import nearest_faces
from taichi_raster.render.nearest import nearest_point, pixel_centres
from taichi_raster.render.packing import Softness, View, pack, without_attributes
from taichi_raster.runtime.device import runtime
from taichi_raster.runtime.extremes import Extremes
from taichi_raster.runtime.variant import DepthVariant
from taichi_raster.scene.movable import Movable


@dataclass(frozen=True, eq=False)
class HardBuffers(Movable):
    """What each pixel's centre sees: the result of `hard_buffers`.

    Attributes:
        face: (B, H, W) int64, index of the nearest face that contains the centre; -1 if none does.
        barycentrics: (B, H, W, 3) coordinates of the centre in that face's projection, not
            perspective-correct; 0 if there is no face.
        depth: (B, H, W) depth z at the centre; infinite if there is no face.

    Barycentrics and depth are differentiable with respect to the face's vertices.
    """

    face: Int[Tensor, "B H W"]
    barycentrics: Float[Tensor, "B H W 3"]
    depth: Float[Tensor, "B H W"]


def hard_buffers(
    face_vertices: Float[Tensor, "B F 3 3"],
    image_size: int | tuple[int, int],
    near: float = 0.1,
    far: float = 100.0,
    cull_backfaces: bool = False,
    front: str = "ccw",
    orthographic: bool = False,
) -> HardBuffers:
    """Rasterize without softness.

    Args:
        face_vertices: (B, F, 3, 3), as for `SoftRasterizer.forward`.
        image_size: pixels: one number, or (height, width).
        near, far, cull_backfaces, front, orthographic: as for `SoftRasterizer`.

    Returns:
        The nearest face of each pixel, with barycentric coordinates and depth.

    Raises:
        TypeError, ValueError: as `SoftRasterizer` and its `forward`.

    Example:
        >>> covered = tr.hard_buffers(faces, 64).face >= 0  # (B, 64, 64)
    """
    size = checks.image_size(image_size)
    near, far = checks.depth_range(near, far)
    checks.choice("front", front, "ccw", "cw")
    later = Extremes()
    checks.vertices(face_vertices, runtime(), later)
    checks.visible(face_vertices, near, far, later)
    later.fetch()
    view = View(
        *size,
        near,
        far,
        checks.flag("cull_backfaces", cull_backfaces),
        front,
        checks.flag("orthographic", orthographic),
    )
    still = face_vertices.detach()
    # The softness does not matter: only faces that contain the centre are used.
    softness = Softness.none(still, DepthVariant("nearest"), reach=1e-6, cutoff=0.0)
    call, x = pack(still, without_attributes(still), view, softness)
    return _describe(face_vertices, nearest_faces(call, x).long(), orthographic)


def _describe(face_vertices: Tensor, face: Tensor, orthographic: bool) -> HardBuffers:
    hit = face >= 0
    items = torch.arange(len(face_vertices), device=face.device).view(-1, 1, 1)
    corners = face_vertices[items, face.clamp(min=0)]
    points = pixel_centres(*face.shape[1:]).to(face_vertices)
    _, weights = nearest_point(points.expand(len(face), -1, -1, -1), corners[..., :2])
    z = corners[..., 2]
    z = torch.where(hit[..., None], z, torch.ones_like(z))
    depth = (weights * z).sum(-1) if orthographic else 1 / (weights / z).sum(-1)
    infinite = torch.full_like(depth, torch.inf)
    return HardBuffers(
        face,
        torch.where(hit[..., None], weights, torch.zeros_like(weights)),
        torch.where(hit, depth, infinite),
    )
