"""The hard buffers: which face each pixel's centre sees, where on it, and how deep."""

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
    """What each pixel's centre sees.

    Attributes:
        face: (B, H, W) index of the nearest face that contains the centre, -1 where there is none.
        barycentrics: (B, H, W, 3) of the centre in that face, in the image (not
            perspective-correct); 0 where there is none.
        depth: (B, H, W) the depth there; infinite where there is none.

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
    """Rasterize without any softness.

    Args:
        face_vertices: as for `SoftRasterizer.forward`; so are the other arguments and errors.
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
    # The softness plays no part: what is inside has F >= 1/2, and nothing else is asked for.
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
