"""From the world into normalised device coordinates (NDC), differentiably and in any float dtype.

The world is right-handed. A view matrix (views.py) maps it to the camera's axes x right, y up and z
*forward*, so that z is the distance along the view axis, as the renderer takes it. A triangle that
is counter-clockwise to the eye is counter-clockwise in NDC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from taichi_raster import checks
from taichi_raster.runtime.precision import product
from taichi_raster.scene.clipping import clip_near
from taichi_raster.scene.faces import check_faces, gather_faces, lift_triangles
from taichi_raster.scene.movable import Movable
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

# A point nearer than this to the plane of the eye, or behind it, is divided by this instead of by
# its depth: its x and y stay finite (and its z, which makes the renderer drop the face, is kept).
_SMALLEST_DIVISOR = 1e-6


@dataclass(frozen=True, eq=False)
class ProjectedFaces(Movable):
    """Faces as the renderer takes them.

    Attributes:
        vertices: (B, F', 3, 3) in NDC.
        attributes: (B, F', 3, C), or None.
        source: (B, F') the face that each came from, -1 for padding.
    """

    vertices: Float[Tensor, "B F 3 3"]
    attributes: Float[Tensor, "B F 3 C"] | None
    source: Int[Tensor, "B F"]


@dataclass(frozen=True, eq=False)
class Camera(Movable):
    """A camera, or B of them, somewhere in the world; subclasses say how it projects.

    Attributes:
        view: (B, 4, 4) world to camera, from `look_at` or `orbit`.
    """

    view: Float[Tensor, "B 4 4"]

    def __post_init__(self) -> None:
        object.__setattr__(self, "view", checks.array("view", self.view))
        if self.view.ndim != 3 or self.view.shape[1:] != (4, 4):
            raise ValueError(f"view: must be (B, 4, 4), got {tuple(self.view.shape)}")
        _check_finite("view", self.view)

    def to_image(self, points: Float[Tensor, "B *n 3"]) -> Float[Tensor, "B *n 3"]:
        """Points in camera space to (x, y, z), x and y in NDC."""
        raise NotImplementedError

    @property
    def eye(self) -> Float[Tensor, "B 3"]:
        """Where the cameras stand in the world."""
        rotation, translation = self.view[:, :3, :3], self.view[:, :3, 3:]
        return -product(rotation.mT, translation)[..., 0]

    def towards_eye(self, points: Float[Tensor, "B *n 3"]) -> Float[Tensor, "B *n 3"]:
        """From world points to the eye, of any length: what a highlight or a back side depends on.

        `points` may have a batch of 1 for B cameras, or B for one camera.
        """
        return over_batch(self.eye, points) - points

    def to_camera(self, vertices: Float[Tensor, "B V 3"]) -> Float[Tensor, "B V 3"]:
        """World points to camera space: x right, y up, z forward."""
        batch = len(self.view)
        checks.floats("vertices", vertices)
        if vertices.ndim != 3 or vertices.shape[2] != 3:
            raise ValueError(f"vertices: must be (B, V, 3), got {tuple(vertices.shape)}")
        if batch != 1 and vertices.shape[0] not in (1, batch):
            raise ValueError(
                f"vertices: batch must be 1 or that of the cameras, {batch}, "
                f"got {vertices.shape[0]}"
            )
        view = self.view.to(vertices)
        return product(vertices, view[:, :3, :3].mT) + view[:, None, :3, 3]

    def project(self, vertices: Float[Tensor, "B V 3"]) -> Float[Tensor, "B V 3"]:
        """World points to (x, y, z): x and y in NDC, z the distance along the view axis.

        x and y are in units of half the shorter image side, whatever the image's aspect. `vertices`
        may have a batch of 1 for B cameras, or B for one camera. A point in or behind the plane of
        the eye gets a z <= 0, which makes the renderer drop its faces, and finite x and y; use
        `project_faces` where faces may cross that plane.

        Raises:
            ValueError: for another shape of `vertices`.
        """
        return self.to_image(self.to_camera(vertices))

    def project_faces(
        self,
        vertices: Float[Tensor, "B V 3"],
        faces: Int[Tensor, "*B F 3"],
        attributes: Float[Tensor, "B F 3 C"] | None = None,
        near: float = 0.1,
    ) -> ProjectedFaces:
        """Transform, gather, cut at the near plane (see `clip_near`), and project.

        Args:
            vertices: (B, V, 3), or (1, V, 3) for B cameras.
            faces: (F, 3), or (B, F, 3) padded with -1, as for `gather_faces`.
            attributes: (B, F, 3, C) per-corner values to cut along, or (1, F, 3, C).
            near: distance of the plane, positive; give the renderer the same.

        Raises:
            ValueError: for other shapes.
        """
        corners = gather_faces(self.to_camera(vertices), faces)
        extra = () if attributes is None else (attributes.expand(len(corners), -1, -1, -1),)
        clipped = clip_near(corners, extra, near)
        image = self.to_image(clipped.corners.flatten(1, 2)).view_as(clipped.corners)
        shown = clipped.attributes[0] if clipped.attributes else None
        return ProjectedFaces(image, shown, clipped.source)


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
        x, y, z = points.unbind(-1)
        fov = _like("fov", self.fov, points)
        half_side = torch.tan(torch.deg2rad(fov) / 2)
        divisor = z.clamp_min(_SMALLEST_DIVISOR) * half_side.reshape(-1, 1)
        return torch.stack([x / divisor, y / divisor, z], dim=-1)


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
            _check_pair(name, getattr(self, name), len(self.view))
        if not bool((checks.array("focal", self.focal) > 0).all()):
            raise ValueError(f"focal: must be positive, got {self.focal}")
        skew = checks.array("skew", self.skew)
        if skew.shape not in ((), (1,), (len(self.view),)):
            raise ValueError(f"skew: must be a number or (B,), got {tuple(skew.shape)}")
        _check_finite("skew", skew)

    def to_image(self, points: Float[Tensor, "B V 3"]) -> Float[Tensor, "B V 3"]:
        """NDC x and y, and z along the view axis, of points (B, V, 3) in camera space."""
        x, y, z = points.unbind(-1)
        fx, fy = _columns("focal", self.focal, points)
        px, py = _columns("principal", self.principal, points)
        skew = _like("skew", self.skew, points).reshape(-1, 1)
        divisor = z.clamp_min(_SMALLEST_DIVISOR)
        return torch.stack([(fx * x + skew * y) / divisor + px, fy * y / divisor + py, z], dim=-1)


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
        _check_finite("half_extent", extent)
        _check_pair("centre", self.centre, batch)

    def towards_eye(self, points: Float[Tensor, "B *n 3"]) -> Float[Tensor, "B *n 3"]:
        """The direction that all rays come from, (B, ..., 3)."""
        back: Tensor = torch.broadcast_tensors(over_batch(-self.view[:, 2, :3], points), points)[0]
        return back

    def to_image(self, points: Float[Tensor, "B V 3"]) -> Float[Tensor, "B V 3"]:
        """NDC x and y, and z along the view axis, of points (B, V, 3) in camera space."""
        extent = _like("half_extent", self.half_extent, points)
        extent = extent[:, None] if extent.ndim == 2 else extent.reshape(-1, 1, 1)
        centre = _like("centre", self.centre, points).reshape(-1, 1, 2)
        return torch.cat([(points[..., :2] - centre) / extent, points[..., 2:]], dim=-1)


def over_batch(vectors: Float[Tensor, "B 3"], points: Float[Tensor, "B *n 3"]) -> Tensor:
    """(B, 1, ..., 1, 3), to combine with points."""
    return vectors.to(points).reshape(len(vectors), *[1] * (points.ndim - 2), vectors.shape[-1])


def _like(name: str, value: float | Tensor | Sequence[float | Tensor], points: Tensor) -> Tensor:
    return checks.array(name, value, points.dtype, points.device)


def _columns(
    name: str, pair: Tensor | tuple[float | Tensor, float | Tensor], like: Tensor
) -> tuple[Tensor, Tensor]:
    """(2,) or (B, 2) as two (1, 1) or (B, 1)."""
    tensor = _like(name, pair, like)
    return tensor[..., 0].reshape(-1, 1), tensor[..., 1].reshape(-1, 1)


def _check_pair(name: str, value: Tensor | tuple[float, float], batch: int) -> None:
    tensor = checks.array(name, value)
    if tensor.shape not in ((2,), (1, 2), (batch, 2)):
        raise ValueError(f"{name}: must be (2,) or (B, 2), got {tuple(tensor.shape)}")
    _check_finite(name, tensor)


def _check_finite(name: str, tensor: Tensor) -> None:
    if not bool(tensor.isfinite().all()):
        raise ValueError(f"{name}: must be finite, got {tensor.tolist()}")
