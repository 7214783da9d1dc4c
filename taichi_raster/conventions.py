"""Cameras from the conventions of other software.

Each function gives one of this package's cameras, which sees the same picture. All are
differentiable in what they are given.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from taichi_raster.camera import Camera, OrthographicCamera, PerspectiveCamera, PinholeCamera


def from_intrinsics(
    view: Float[Tensor, "B 4 4"],
    matrix: Float[Tensor, "*B 3 3"],
    image_size: int | tuple[int, int],
    first_centre: float = 0.5,
) -> PinholeCamera:
    """A camera by its view matrix and an intrinsics matrix in pixels.

    Args:
        view: (B, 4, 4) from `look_at` or `orbit`.
        matrix: (3, 3) or (B, 3, 3), [[fx, s, cx], [0, fy, cy], [0, 0, 1]], for u right and v down.
        image_size: pixels, one number or (height, width).
        first_centre: u and v of the first pixel's centre: 0.5 where 0 is the image's border, 0
            where pixels have whole coordinates (OpenCV's own calibration).

    Raises:
        ValueError: for another shape.
    """
    if matrix.shape[-2:] != (3, 3) or matrix.ndim not in (2, 3):
        raise ValueError(f"matrix: must be (3, 3) or (B, 3, 3), got {tuple(matrix.shape)}")
    height, width, short = _sizes(image_size)
    focal = torch.stack([matrix[..., 0, 0], matrix[..., 1, 1]], dim=-1) * (2 / short)
    u = matrix[..., 0, 2] + (0.5 - first_centre)
    v = matrix[..., 1, 2] + (0.5 - first_centre)
    principal = torch.stack([(2 * u - width) / short, (height - 2 * v) / short], dim=-1)
    return PinholeCamera(view, focal, principal, -matrix[..., 0, 1] * (2 / short))


def from_opencv(
    rotation: Float[Tensor, "B 3 3"],
    translation: Float[Tensor, "B 3"],
    matrix: Float[Tensor, "*B 3 3"],
    image_size: int | tuple[int, int],
    first_centre: float = 0.0,
) -> PinholeCamera:
    """OpenCV: camera = R world + t, x right, y down, z forward; no distortion.

    Args:
        rotation, translation: (B, 3, 3) and (B, 3).
        matrix, image_size, first_centre: as for `from_intrinsics`; OpenCV's pixels have their
            centres at whole coordinates.
    """
    flip = rotation.new_tensor([1.0, -1.0, 1.0])
    view = _rigid(flip[:, None] * rotation, flip * translation)
    return from_intrinsics(view, matrix, image_size, first_centre)


def from_opengl(
    view: Float[Tensor, "B 4 4"],
    projection: Float[Tensor, "*B 4 4"],
    image_size: int | tuple[int, int],
) -> Camera:
    """OpenGL: eye = view world, x right, y up, -z forward; clip = projection eye.

    Args:
        view: (B, 4, 4), acting on columns.
        projection: (4, 4) or (B, 4, 4), as of glFrustum, gluPerspective or glOrtho: its last row
            says which.
        image_size: of the viewport, one number or (height, width).

    Raises:
        ValueError: for another shape, or a last row that is neither (0, 0, -1, 0) nor (0, 0, 0, 1).
    """
    if projection.shape[-2:] != (4, 4) or view.shape[-2:] != (4, 4):
        raise ValueError("projection, view: must be (B, 4, 4)")
    height, width, short = _sizes(image_size)
    stretch = projection.new_tensor([width / short, height / short])
    flip = view.new_tensor([1.0, 1.0, -1.0, 1.0])
    ours = flip[:, None] * view
    scale = torch.stack([projection[..., 0, 0], projection[..., 1, 1]], dim=-1) * stretch
    last = projection[..., 3, :]
    if torch.allclose(last, last.new_tensor([0.0, 0.0, -1.0, 0.0])):
        principal = -projection[..., :2, 2] * stretch
        skew = projection[..., 0, 1] * stretch[0]
        return PinholeCamera(ours, scale, principal, skew)
    if torch.allclose(last, last.new_tensor([0.0, 0.0, 0.0, 1.0])):
        centre = -projection[..., :2, 3] * stretch / scale
        return OrthographicCamera(ours, (1 / scale).reshape(-1, 2), centre.reshape(-1, 2))
    raise ValueError(
        f"projection: its last row must be (0, 0, -1, 0) or (0, 0, 0, 1), got {last.tolist()}"
    )


def from_pytorch3d(
    rotation: Float[Tensor, "B 3 3"],
    translation: Float[Tensor, "B 3"],
    fov: float | Tensor | None = None,
    focal_length: Float[Tensor, "*B 2"] | float | None = None,
    principal_point: Float[Tensor, "*B 2"] | tuple[float, float] = (0.0, 0.0),
    in_ndc: bool = True,
    image_size: int | tuple[int, int] | None = None,
) -> Camera:
    """PyTorch3D: camera = world R + T on rows, x *left*, y up, z forward.

    Args:
        rotation, translation: R (B, 3, 3) and T (B, 3).
        fov: of FoVPerspectiveCameras, in degrees, with its aspect_ratio of 1; or
        focal_length, principal_point: of PerspectiveCameras: a number, (2,), (B, 2).
        in_ndc: whether these are in PyTorch3D's NDC (x left, y up, in units of half the shorter
            side), or in pixels, which needs image_size.

    Raises:
        ValueError: unless one of fov and focal_length is given, or if image_size is missing.
    """
    flip = rotation.new_tensor([-1.0, 1.0, 1.0])
    view = _rigid(flip[:, None] * rotation.mT, flip * translation)
    if (fov is None) == (focal_length is None):
        raise ValueError("fov, focal_length: give one of them")
    if fov is not None:
        return PerspectiveCamera(view, fov)
    focal = torch.as_tensor(focal_length, dtype=view.dtype, device=view.device)
    focal = focal.expand(2) if focal.ndim == 0 else focal
    point = torch.as_tensor(principal_point, dtype=view.dtype, device=view.device)
    if in_ndc:
        return PinholeCamera(view, focal, point * point.new_tensor([-1.0, 1.0]))
    if image_size is None:
        raise ValueError("image_size: is needed for a focal length in pixels")
    height, width, short = _sizes(image_size)
    x, y = (2 * point[..., 0] - width) / short, (height - 2 * point[..., 1]) / short
    return PinholeCamera(view, focal * (2 / short), torch.stack([x, y], dim=-1))


def from_softras(
    distance: float | Tensor,
    elevation: float | Tensor,
    azimuth: float | Tensor,
    viewing_angle: float | Tensor = 30.0,
) -> PerspectiveCamera:
    """SoftRas and GenDR: ``look_at`` with ``get_points_from_angles``; numbers or (B,), degrees.

    Their camera stands at distance * (cos e sin a, sin e, -cos e cos a) and sees a mirrored world:
    faces that wind counter-clockwise to the eye are clockwise in their images. `viewing_angle` is
    half the field of view.
    """
    values = [torch.as_tensor(v) for v in (distance, elevation, azimuth)]
    dtype = next((v.dtype for v in values if v.is_floating_point()), torch.get_default_dtype())
    shape = torch.broadcast_shapes((1,), *(v.shape for v in values))
    d, e, a = (v.to(dtype).expand(shape) for v in values)
    e, a = torch.deg2rad(e), torch.deg2rad(a)
    forward = -torch.stack([e.cos() * a.sin(), e.sin(), -e.cos() * a.cos()], dim=-1)
    right = torch.stack([a.cos(), torch.zeros_like(a), a.sin()], dim=-1)
    up = torch.linalg.cross(forward, right)
    rotation = torch.stack([right, up, forward], dim=1)
    return PerspectiveCamera(
        _rigid(rotation, torch.stack([0 * d, 0 * d, d], dim=-1)), 2 * torch.as_tensor(viewing_angle)
    )


def _rigid(rotation: Tensor, translation: Tensor) -> Tensor:
    top = torch.cat([rotation, translation[..., None]], dim=-1)
    last = rotation.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(rotation), 1, 4)
    return torch.cat([top, last], dim=1)


def _sizes(image_size: int | tuple[int, int]) -> tuple[int, int, int]:
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    return height, width, min(height, width)
