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
from taichi_raster.scene.sampling import of_faces


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
    face = visible_faces(face_vertices, view)
    hit = face >= 0
    weights, z = at_centres(face_vertices, face)
    depth = (weights * z).sum(-1) if orthographic else 1 / (weights / z).sum(-1)
    infinite = torch.full_like(depth, torch.inf)
    return HardBuffers(
        face,
        torch.where(hit[..., None], weights, torch.zeros_like(weights)),
        torch.where(hit, depth, infinite),
    )


def visible_faces(face_vertices: Float[Tensor, "B F 3 3"], view: View) -> Int[Tensor, "B H W"]:
    """The nearest face that contains each pixel's centre, or -1. No derivative.

    Neighbours agree on which side of their edge a centre is, so that none lies between them.
    Where depths are equal but for rounding, a face that shows its front is nearer than one that
    shows its back, as at the silhouette of a surface; then the one with the lower index.
    """
    still = face_vertices.detach()
    # The softness does not matter: only faces that contain the centre are used. But the reach must
    # exceed the rounding of distances.
    softness = Softness.none(still, DepthVariant("nearest"), reach=1e-3, cutoff=1e-3)
    call, x, _ = pack(still, without_attributes(still), view, softness)
    return nearest_faces(call, x).long()


def at_centres(
    face_vertices: Float[Tensor, "B F 3 3"], face: Int[Tensor, "B H W"]
) -> tuple[Float[Tensor, "B H W 3"], Float[Tensor, "B H W 3"]]:
    """Barycentric coordinates of each pixel's centre, and the depths of its face's corners.

    Where there is no face, they are harmless numbers.
    """
    corners = of_faces(face_vertices, face)
    points = pixel_centres(*face.shape[1:]).to(face_vertices)
    _, weights = nearest_point(points.expand(len(face), -1, -1, -1), corners[..., :2])
    return weights, corners[..., 2]
