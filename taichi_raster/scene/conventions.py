"""Cameras from the conventions of other software.

Each function gives one of this package's cameras, which sees the same picture. All are
differentiable in what they are given.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from taichi_raster import checks
from taichi_raster.scene.camera import Camera, OrthographicCamera, PerspectiveCamera, PinholeCamera
from taichi_raster.scene.lenses.base import Lens
from taichi_raster.scene.projection_matrices import decompose
from taichi_raster.scene.views import broadcast

_Rows = Sequence[float | Tensor | Sequence[float | Sequence[float]]]
"""Four numbers, or a matrix or several as lists."""


def from_intrinsics(
    view: Float[Tensor, "B 4 4"],
    matrix: Float[Tensor, "*B 3 3"] | np.ndarray | _Rows,
    image_size: int | tuple[int, int],
    first_centre: float = 0.5,
    lens: Lens | None = None,
) -> PinholeCamera:
    """A camera by its view matrix and an intrinsics matrix in pixels.

    Args:
        view: (B, 4, 4) from `look_at` or `orbit`.
        matrix: (3, 3) or (B, 3, 3), [[fx, s, cx], [0, fy, cy], [0, 0, 1]], for u right and v down;
            or fx, fy, cx, cy: four numbers, or tensors, 0-d or (B,). Tensors, arrays of NumPy's
            and lists will do, here as for views and rotations.
        image_size: pixels, one number or (height, width).
        first_centre: u and v of the first pixel's centre: 0.5 where 0 is the image's border, 0
            where pixels have whole coordinates (OpenCV's own calibration).
        lens: `BrownConradyLens` or `KannalaBrandtLens`, or None.

    Raises:
        ValueError: for another shape.
    """
    height, width, short = _sizes(image_size)
    view, first_centre = checks.array("view", view), checks.number("first_centre", first_centre)
    skew: float | Tensor
    if _are_four(matrix):
        parts = [checks.array("matrix", part, view.dtype, view.device) for part in matrix]
        (fx, fy, cx, cy), skew = torch.broadcast_tensors(*parts), 0.0
    else:
        matrix = checks.array("matrix", matrix, None if _has_floats(matrix) else view.dtype)
        if matrix.shape[-2:] != (3, 3) or matrix.ndim not in (2, 3):
            raise ValueError(
                "matrix: must be (3, 3), (B, 3, 3) or fx, fy, cx, cy, got shape "
                f"{tuple(matrix.shape)}"
            )
        (fx, fy), (cx, cy) = (matrix[..., [0, 1], i].unbind(-1) for i in ([0, 1], [2, 2]))
        skew = -matrix[..., 0, 1] * (2 / short)
    u, v = cx + (0.5 - first_centre), cy + (0.5 - first_centre)
    principal = torch.stack([(2 * u - width) / short, (height - 2 * v) / short], dim=-1)
    return PinholeCamera(
        view, torch.stack([fx, fy], dim=-1) * (2 / short), principal, skew, lens=lens
    )


def from_opencv(
    rotation: Float[Tensor, "B 3 3"],
    translation: Float[Tensor, "B 3"],
    matrix: Float[Tensor, "*B 3 3"] | np.ndarray | _Rows,
    image_size: int | tuple[int, int],
    first_centre: float = 0.0,
    lens: Lens | None = None,
) -> PinholeCamera:
    """OpenCV: camera = R world + t, x right, y down, z forward.

    Args:
        rotation, translation: (B, 3, 3) and (B, 3).
        matrix, image_size, first_centre: as for `from_intrinsics`; OpenCV's pixels have their
            centres at whole coordinates.
        lens: for `distCoeffs`, ``BrownConradyLens.from_opencv(distCoeffs)``, or for the module
            fisheye ``KannalaBrandtLens(D)``.

    Raises:
        ValueError: for another shape.
    """
    view = _rigid(rotation, translation, (1.0, -1.0, 1.0))
    return from_intrinsics(view, matrix, image_size, first_centre, lens)


def from_projections(
    matrices: Float[Tensor, "B 3 4"] | np.ndarray | _Rows,
    image_size: int | tuple[int, int],
    first_centre: float = 0.0,
    left_handed: bool | None = None,
) -> tuple[PinholeCamera, bool]:
    """Bare projection matrices: (u w, v w, w) = P (x, y, z, 1), u right and v down, in pixels.

    They may have any sign, scale and skew, and their world may be left-handed. The camera is then
    that of a world in which z has the other sign, right-handed as all are here; and True comes with
    it. Without `left_handed`, that is found out where several cameras look at one object.

    Args:
        matrices: (B, 3, 4).
        image_size, first_centre: as for `from_intrinsics`.
        left_handed: whether the matrices' world is; None to find out, as told above.

    Raises:
        ValueError: for another shape, NaN, or a matrix that is of no camera with a centre.
    """
    found = checks.array("matrices", matrices)
    parts = decompose(found[None] if found.ndim == 2 else found, left_handed)
    camera = from_opencv(
        parts.rotation, parts.translation, parts.intrinsics, image_size, first_centre
    )
    return camera, parts.mirrored


def from_opengl(
    view: Float[Tensor, "B 4 4"],
    projection: Float[Tensor, "*B 4 4"],
    image_size: int | tuple[int, int],
) -> Camera:
    """OpenGL: eye = view world, x right, y up, -z forward; clip = projection eye.

    The planes near and far in `projection` do not matter; give the renderer its own.

    Args:
        view: (B, 4, 4), acting on columns.
        projection: (4, 4) or (B, 4, 4), as of glFrustum, gluPerspective or glOrtho: its last row
            says which.
        image_size: of the viewport, one number or (height, width).

    Raises:
        ValueError: for another shape, or a projection that is not of that form.
    """
    view, projection = checks.array("view", view), checks.array("projection", projection)
    for name, matrix in (("view", view), ("projection", projection)):
        if matrix.shape[-2:] != (4, 4) or matrix.ndim not in (2, 3):
            raise ValueError(f"{name}: must be (B, 4, 4), got {tuple(matrix.shape)}")
    height, width, short = _sizes(image_size)
    stretch = projection.new_tensor([width / short, height / short])
    flip = view.new_tensor([1.0, 1.0, -1.0, 1.0])
    ours = (flip[:, None] * view).reshape(-1, 4, 4)
    scale = torch.stack([projection[..., 0, 0], projection[..., 1, 1]], dim=-1) * stretch
    if _has_form(projection, "x x x 0", "0 x x 0", "0 0 -1 0"):
        principal = -projection[..., :2, 2] * stretch
        return PinholeCamera(ours, scale, principal, projection[..., 0, 1] * stretch[0])
    if _has_form(projection, "x 0 0 x", "0 x 0 x", "0 0 0 1"):
        centre = -projection[..., :2, 3] * stretch / scale
        return OrthographicCamera(ours, (1 / scale).reshape(-1, 2), centre.reshape(-1, 2))
    raise ValueError(
        "projection: must be of the form of glFrustum, with a last row of (0, 0, -1, 0), or of "
        f"glOrtho, with (0, 0, 0, 1), got {projection.tolist()}"
    )


def from_pytorch3d(
    rotation: Float[Tensor, "B 3 3"],
    translation: Float[Tensor, "B 3"],
    fov: float | Tensor | None = None,
    aspect_ratio: float | Tensor = 1.0,
    focal_length: float | Tensor | None = None,
    principal_point: Float[Tensor, "*B 2"] | tuple[float, float] = (0.0, 0.0),
    in_ndc: bool = True,
    image_size: int | tuple[int, int] | None = None,
) -> Camera:
    """PyTorch3D: camera = world R + T on rows, x *left*, y up, z forward.

    Args:
        rotation, translation: R (B, 3, 3) and T (B, 3).
        fov, aspect_ratio: of FoVPerspectiveCameras, in degrees: numbers or (B,); or
        focal_length, principal_point: of PerspectiveCameras: a number or (B,) for both axes, or
            (B, 2) for x and y; and (2,) or (B, 2).
        in_ndc: whether these are in PyTorch3D's NDC (x left, y up, in units of half the shorter
            side), or in pixels, which needs image_size.
        image_size: pixels, one number or (height, width).

    Raises:
        ValueError: unless one of fov and focal_length is given; if image_size is missing; for
            other shapes.
    """
    rotation = checks.array("rotation", rotation)
    view = _rigid(rotation.mT, translation, (-1.0, 1.0, 1.0))
    if (fov is None) == (focal_length is None):
        raise ValueError("fov, focal_length: give one of them")

    def like_view(name: str, value: object) -> Tensor:
        return checks.array(name, value, view.dtype, view.device)

    if fov is not None:
        if checks.is_number(aspect_ratio) and aspect_ratio == 1:
            return PerspectiveCamera(view, fov)
        fy = 1 / torch.tan(torch.deg2rad(like_view("fov", fov)) / 2)
        fx = fy / like_view("aspect_ratio", aspect_ratio)
        return PinholeCamera(view, torch.stack(torch.broadcast_tensors(fx, fy), dim=-1))
    focal = like_view("focal_length", focal_length)
    point = like_view("principal_point", principal_point)
    focal = focal if focal.ndim == 2 else focal[..., None].expand(*focal.shape, 2)
    if checks.flag("in_ndc", in_ndc):
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
    d, e, a = (
        part[:, 0]
        for part in broadcast(
            numbers=("distance", "elevation", "azimuth"),
            distance=distance,
            elevation=elevation,
            azimuth=azimuth,
        )
    )
    e, a = torch.deg2rad(e), torch.deg2rad(a)
    forward = -torch.stack([e.cos() * a.sin(), e.sin(), -e.cos() * a.cos()], dim=-1)
    right = torch.stack([a.cos(), torch.zeros_like(a), a.sin()], dim=-1)
    up = torch.linalg.cross(forward, right)
    rotation = torch.stack([right, up, forward], dim=1)
    return PerspectiveCamera(
        _rigid(rotation, torch.stack([0 * d, 0 * d, d], dim=-1)),
        2 * checks.array("viewing_angle", viewing_angle),
    )


def _rigid(
    rotation: Tensor, translation: Tensor, signs: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> Tensor:
    """(B, 4, 4) of (B, 3, 3) and (B, 3), with some of the camera's axes turned round."""
    rotation = checks.array("rotation", rotation)
    translation = checks.array("translation", translation, rotation.dtype)
    if rotation.ndim != 3 or rotation.shape[1:] != (3, 3):
        raise ValueError(f"rotation: must be (B, 3, 3), got {tuple(rotation.shape)}")
    if translation.shape != rotation.shape[:2]:
        raise ValueError(
            f"translation: must be (B, 3) = {tuple(rotation.shape[:2])}, "
            f"got {tuple(translation.shape)}"
        )
    flip = rotation.new_tensor(signs)[:, None]
    top = flip * torch.cat([rotation, translation[..., None]], dim=-1)
    last = rotation.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(rotation), 1, 4)
    return torch.cat([top, last], dim=1)


def _are_four(matrix: object) -> bool:
    """Whether an argument is fx, fy, cx, cy, and not a matrix."""
    if isinstance(matrix, Tensor | np.ndarray):
        return tuple(matrix.shape) == (4,)
    return (
        isinstance(matrix, Sequence)
        and len(matrix) == 4
        and all(
            part.ndim <= 1 if isinstance(part, Tensor) else np.ndim(part) <= 1 for part in matrix
        )
    )


def _has_floats(matrix: object) -> bool:
    return isinstance(matrix, Tensor) and matrix.is_floating_point()


def _has_form(matrix: Tensor, *rows: str) -> bool:
    """Whether rows 0, 1 and 3 hold these numbers; x stands for any."""
    values = matrix.detach()[..., [0, 1, 3], :]
    for i, row in enumerate(rows):
        for j, entry in enumerate(row.split()):
            if entry != "x" and not bool((values[..., i, j] - float(entry)).abs().max() < 1e-6):
                return False
    return True


def _sizes(image_size: int | tuple[int, int]) -> tuple[int, int, int]:
    """Height, width, and the shorter of them."""
    height, width = checks.image_size(image_size)
    return height, width, min(height, width)
