"""What all cameras have: a place in the world, a lens, and the way of faces into the image.

See `camera.py` for the axes and for the cameras themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from taichi_raster import checks
from taichi_raster.runtime.precision import product
from taichi_raster.scene.clipping import clip_near, clip_planes
from taichi_raster.scene.faces import gather_faces
from taichi_raster.scene.lenses.base import Lens
from taichi_raster.scene.movable import Movable

# A point nearer than this to the plane of the eye, or behind it, is divided by this instead of by
# its depth: its x and y stay finite (and its z, which makes the renderer drop the face, is kept).
SMALLEST_DIVISOR = 1e-6

SIDES = 16
"""Of the polygon that faces are cut at where a lens ends."""


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
        lens: what bends the picture, or None; by name alone, of every camera. Vertices are moved
            by it, edges between them stay straight: subdivide faces that are large in the image.
    """

    view: Float[Tensor, "B 4 4"]
    lens: Lens | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "view", checks.array("view", self.view))
        if self.view.ndim != 3 or self.view.shape[1:] != (4, 4):
            raise ValueError(f"view: must be (B, 4, 4), got {tuple(self.view.shape)}")
        check_finite("view", self.view)
        if self.lens is not None:
            lenses = checks.instance("lens", self.lens, Lens).batch_size
            if lenses not in (1, len(self.view)):
                raise ValueError(
                    f"lens: batch must be 1 or that of the cameras, {len(self.view)}, got {lenses}"
                )

    def to_image(self, points: Float[Tensor, "B *n 3"]) -> Float[Tensor, "B *n 3"]:
        """Points in camera space to (x, y, z), x and y in NDC."""
        raise NotImplementedError

    def from_image(self, points: Float[Tensor, "B *n 3"]) -> Float[Tensor, "B *n 3"]:
        """The inverse of `to_image`: NaN where no ray of the lens arrives. z must be positive."""
        raise NotImplementedError

    def shows(self, points: Float[Tensor, "B *n 3"]) -> Bool[Tensor, " B *n"]:
        """Whether the lens can show points of camera space: those within its `radius`."""
        if self.lens is None:
            return torch.ones_like(points[..., 0], dtype=torch.bool)
        scale, shift = self._plane(points)
        radius = self.lens.radius.to(points).reshape(-1, *[1] * (points.ndim - 2))
        inside: Tensor = ((points[..., :2] - shift) / scale).norm(dim=-1) <= radius
        return inside

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
        `project_faces` where faces may cross that plane, or the `radius` of a lens.

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

        With a lens, faces are also cut where it ends: at a regular polygon of 16 sides within its
        `radius`, so that nothing that the lens cannot show comes back into the image.

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
        if self.lens is not None:
            clipped = clip_planes(clipped, self._lens_planes(self.lens.radius.to(corners)))
        image = self.to_image(clipped.corners.flatten(1, 2)).view_as(clipped.corners)
        shown = clipped.attributes[0] if clipped.attributes else None
        return ProjectedFaces(image, shown, clipped.source)

    def _bent(self, points: Tensor, back: bool = False) -> Tensor:
        """Camera points moved so that an ideal camera sees them as the lens does; or `back`."""
        if self.lens is None:
            return points
        scale, shift = self._plane(points)
        axes = points.new_tensor([1.0, -1.0])  # the lens has y down
        plane = (points[..., :2] - shift) / scale * axes
        plane = self.lens.undistort(plane) if back else self.lens.distort(plane)
        return torch.cat([plane * axes * scale + shift, points[..., 2:]], dim=-1)

    def _plane(self, points: Tensor) -> tuple[Tensor, Tensor | float]:
        """(scale, shift): x and y of camera points are scale * (those the lens acts on) + shift."""
        return points[..., 2:].clamp_min(SMALLEST_DIVISOR), 0.0

    def _lens_planes(self, radius: Tensor) -> Tensor:
        """(B, 16, 4) for `clip_planes`: a pyramid within the cone that the lens can show."""
        direction = polygon(radius)
        reach = radius[:, None, None] * math.cos(math.pi / SIDES)
        reach = reach.expand(-1, SIDES, 1)
        return torch.cat([-direction.expand(len(radius), -1, -1), reach, 0 * reach], dim=-1)


def polygon(radius: Tensor) -> Tensor:
    """(1, 16, 2), the directions in which the sides of a regular polygon lie."""
    turn = torch.arange(SIDES, dtype=radius.dtype, device=radius.device) * (2 * math.pi / SIDES)
    return torch.stack([turn.cos(), turn.sin()], dim=-1)[None]


def over_batch(vectors: Float[Tensor, "B 3"], points: Float[Tensor, "B *n 3"]) -> Tensor:
    """(B, 1, ..., 1, 3), to combine with points."""
    return vectors.to(points).reshape(len(vectors), *[1] * (points.ndim - 2), vectors.shape[-1])


def like(name: str, value: float | Tensor | Sequence[float | Tensor], points: Tensor) -> Tensor:
    """An argument in the dtype of points, and where they are."""
    return checks.array(name, value, points.dtype, points.device)


def columns(
    name: str, pair: Tensor | tuple[float | Tensor, float | Tensor], points: Tensor
) -> tuple[Tensor, Tensor]:
    """(2,) or (B, 2) as two (1, 1) or (B, 1)."""
    tensor = like(name, pair, points)
    return tensor[..., 0].reshape(-1, 1), tensor[..., 1].reshape(-1, 1)


def check_pair(name: str, value: Tensor | tuple[float, float], batch: int) -> None:
    """Two finite numbers, or two for each camera."""
    tensor = checks.array(name, value)
    if tensor.shape not in ((2,), (1, 2), (batch, 2)):
        raise ValueError(f"{name}: must be (2,) or (B, 2), got {tuple(tensor.shape)}")
    check_finite(name, tensor)


def check_finite(name: str, tensor: Tensor) -> None:
    """ValueError unless all are finite."""
    if not bool(tensor.isfinite().all()):
        raise ValueError(f"{name}: must be finite, got {tensor.tolist()}")
