"""From the world into normalised device coordinates (NDC), differentiably and in any float dtype.

The world is right-handed. A view matrix (views.py) maps it to the camera's axes x right, y up and z
*forward*, so that z is the distance along the view axis, as the renderer takes it. A triangle that
is counter-clockwise to the eye is counter-clockwise in NDC.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from taichi_raster import checks
from taichi_raster.scene.camera_base import (
    SIDES,
    SMALLEST_DIVISOR,
    Camera,
    ProjectedFaces,
    check_finite,
    check_pair,
    columns,
    like,
    over_batch,
    polygon,
)
from taichi_raster.scene.faces import check_faces, gather_faces, lift_triangles
from taichi_raster.scene.views import look_at, orbit

__all__ = [
    "Camera",
    "OrthographicCamera",
    "PerspectiveCamera",
    "PinholeCamera",
    "ProjectedFaces",
    "check_faces",
    "gather_faces",
    "lift_triangles",
    "look_at",
    "orbit",
]


@dataclass(frozen=True, eq=False)
class PerspectiveCamera(Camera):
    """A pinhole camera by its field of view, looking straight through the image's centre.

    Attributes:
        view: (B, 4, 4) world to camera, from `look_at` or `orbit`.
        fov: the angle that the shorter image side spans, in degrees, above 0 and below 180: a
            number, a 0-d tensor or a (B,) tensor.

    Raises:
        ValueError: for another shape of `view` or `fov`, or an angle out of range.

    Example:
        >>> camera = PerspectiveCamera(orbit(2.5, elevation=20.0, azimuth=[0.0, 90.0]), fov=40.0)
        >>> face_vertices = gather_faces(camera.project(vertices[None]), faces)  # (2, F, 3, 3)
    """

    fov: float | Tensor = 30.0

    def __post_init__(self) -> None:
        super().__post_init__()
        fov = checks.array("fov", self.fov, torch.float64)
        if fov.ndim > 1 or (fov.ndim == 1 and len(fov) != len(self.view)):
            raise ValueError(
                f"fov: must be a number or (B,) = ({len(self.view)},), got {tuple(fov.shape)}"
            )
        if not bool(((fov > 0) & (fov < 180)).all()):
            raise ValueError(f"fov: must lie between 0 and 180 degrees, got {fov.tolist()}")

    def to_image(self, points: Float[Tensor, "B V 3"]) -> Float[Tensor, "B V 3"]:
        """NDC x and y, and z along the view axis, of points (B, V, 3) in camera space."""
        x, y, z = self._bent(points).unbind(-1)
        divisor = z.clamp_min(SMALLEST_DIVISOR) * self._half_side(points)
        return torch.stack([x / divisor, y / divisor, z], dim=-1)

    def from_image(self, points: Float[Tensor, "B V 3"]) -> Float[Tensor, "B V 3"]:
        """Camera-space points of NDC x and y, and z > 0; NaN where no ray of the lens arrives."""
        scale = points[..., 2:] * self._half_side(points)[..., None]
        return self._bent(torch.cat([points[..., :2] * scale, points[..., 2:]], -1), back=True)

    def _half_side(self, points: Tensor) -> Tensor:
        return torch.tan(torch.deg2rad(like("fov", self.fov, points)) / 2).reshape(-1, 1)


@dataclass(frozen=True, eq=False)
class PinholeCamera(Camera):
    """A pinhole camera by its intrinsics, in NDC: x_ndc = (fx x + skew y) / z + px, and y likewise.

    For an intrinsics matrix in pixels, see `from_intrinsics`.

    Attributes:
        view: (B, 4, 4) world to camera.
        focal: (fx, fy) in units of half the shorter image side, positive: a pair of floats, or a
            tensor, (2,) or (B, 2), which may require grad.
        principal: (px, py) in NDC, x right and y up: as focal.
        skew: a number, a 0-d tensor or (B,).

    Raises:
        ValueError: for another shape, or a focal length that is not positive.
    """

    focal: Float[Tensor, "*B 2"] | tuple[float | Tensor, float | Tensor] = (1.0, 1.0)
    principal: Float[Tensor, "*B 2"] | tuple[float | Tensor, float | Tensor] = (0.0, 0.0)
    skew: float | Tensor = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("focal", "principal"):
            check_pair(name, getattr(self, name), len(self.view))
        if not bool((checks.array("focal", self.focal) > 0).all()):
            raise ValueError(f"focal: must be positive, got {self.focal}")
        skew = checks.array("skew", self.skew)
        if skew.shape not in ((), (1,), (len(self.view),)):
            raise ValueError(f"skew: must be a number or (B,), got {tuple(skew.shape)}")
        check_finite("skew", skew)

    def to_image(self, points: Float[Tensor, "B V 3"]) -> Float[Tensor, "B V 3"]:
        """NDC x and y, and z along the view axis, of points (B, V, 3) in camera space."""
        x, y, z = self._bent(points).unbind(-1)
        fx, fy, skew, px, py = self._intrinsics(points)
        divisor = z.clamp_min(SMALLEST_DIVISOR)
        return torch.stack([(fx * x + skew * y) / divisor + px, fy * y / divisor + py, z], dim=-1)

    def from_image(self, points: Float[Tensor, "B V 3"]) -> Float[Tensor, "B V 3"]:
        """Camera-space points of NDC x and y, and z > 0; NaN where no ray of the lens arrives."""
        x, y, z = points.unbind(-1)
        fx, fy, skew, px, py = self._intrinsics(points)
        up = (y - py) * z / fy
        right = ((x - px) * z - skew * up) / fx
        return self._bent(torch.stack([right, up, z], dim=-1), back=True)

    def _intrinsics(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """fx, fy, skew, px, py, (1, 1) or (B, 1)."""
        skew = like("skew", self.skew, points).reshape(-1, 1)
        focal = columns("focal", self.focal, points)
        return *focal, skew, *columns("principal", self.principal, points)


@dataclass(frozen=True, eq=False)
class OrthographicCamera(Camera):
    """A camera without perspective: x and y do not depend on z.

    Render with ``orthographic=True``, so that depth and attributes are linear across a face.

    Attributes:
        view: (B, 4, 4) world to camera.
        half_extent: what reaches from the image's centre to its nearer border, in world units,
            positive: a number, (B,), or (B, 2) for x and y apart.
        centre: (2,) or (B, 2): the point of camera space at the image's centre.

    Raises:
        ValueError: for another shape, or a half_extent that is not positive.
    """

    half_extent: float | Tensor = 1.0
    centre: Float[Tensor, "*B 2"] | tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        batch, extent = len(self.view), checks.array("half_extent", self.half_extent)
        if extent.shape not in ((), (1,), (batch,), (1, 2), (batch, 2)):
            raise ValueError(
                f"half_extent: must be a number, (B,) or (B, 2), got {tuple(extent.shape)}"
            )
        if not bool((extent > 0).all()):
            raise ValueError(f"half_extent: must be positive, got {extent.tolist()}")
        check_finite("half_extent", extent)
        check_pair("centre", self.centre, batch)

    def towards_eye(self, points: Float[Tensor, "B *n 3"]) -> Float[Tensor, "B *n 3"]:
        """The direction that all rays come from, (B, ..., 3)."""
        back: Tensor = torch.broadcast_tensors(over_batch(-self.view[:, 2, :3], points), points)[0]
        return back

    def to_image(self, points: Float[Tensor, "B V 3"]) -> Float[Tensor, "B V 3"]:
        """NDC x and y, and z along the view axis, of points (B, V, 3) in camera space."""
        extent, centre = self._plane(points)
        bent = self._bent(points)
        return torch.cat([(bent[..., :2] - centre) / extent, bent[..., 2:]], dim=-1)

    def from_image(self, points: Float[Tensor, "B V 3"]) -> Float[Tensor, "B V 3"]:
        """Camera-space points of NDC x and y, and z; NaN where the lens shows nothing."""
        extent, centre = self._plane(points)
        plain = torch.cat([points[..., :2] * extent + centre, points[..., 2:]], dim=-1)
        return self._bent(plain, back=True)

    def _plane(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """A lens acts on what would be NDC without it."""
        extent = like("half_extent", self.half_extent, points)
        extent = extent[:, None] if extent.ndim == 2 else extent.reshape(-1, 1, 1)
        return extent, like("centre", self.centre, points).reshape(-1, 1, 2)

    def _lens_planes(self, radius: Tensor) -> Tensor:
        extent, centre = self._plane(radius)
        normal = polygon(radius) / extent
        reach = radius[:, None, None] * math.cos(math.pi / SIDES)
        reach = reach + (normal * centre).sum(-1, keepdim=True)
        normal = normal.expand(len(reach), -1, -1)
        return torch.cat([-normal, 0 * normal[..., :1], reach], dim=-1)
