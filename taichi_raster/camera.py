"""From the world into normalised device coordinates (NDC), differentiably and in any float dtype.

The world is right-handed. A view matrix maps it to the camera's axes x right, y up and z *forward*,
so that z is the distance along the view axis, as the renderer takes it. A triangle that is
counter-clockwise to the eye is counter-clockwise in NDC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

# A point nearer than this to the plane of the eye, or behind it, is divided by this instead of by
# its depth: its x and y stay finite (and its z, which makes the renderer drop the face, is kept).
_SMALLEST_DIVISOR = 1e-6

_Vector = Tensor | Sequence[float]


@dataclass(frozen=True, eq=False)
class PerspectiveCamera:
    """A pinhole camera, or B of them.

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

    view: Float[Tensor, "B 4 4"]
    fov: float | Tensor = 30.0

    def __post_init__(self) -> None:
        if self.view.ndim != 3 or self.view.shape[1:] != (4, 4):
            raise ValueError(f"view: must be (B, 4, 4), got {tuple(self.view.shape)}")
        fov = torch.as_tensor(self.fov, dtype=torch.float64)
        if fov.ndim > 1 or (fov.ndim == 1 and len(fov) != len(self.view)):
            raise ValueError(
                f"fov: must be a number or (B,) = ({len(self.view)},), got {tuple(fov.shape)}"
            )
        if not bool(((fov > 0) & (fov < 180)).all()):
            raise ValueError(f"fov: must lie between 0 and 180 degrees, got {fov.tolist()}")

    def project(self, vertices: Float[Tensor, "B V 3"]) -> Float[Tensor, "B V 3"]:
        """World points to (x, y, z): x and y in NDC, z the distance along the view axis.

        x and y are in units of half the shorter image side, whatever the image's aspect. `vertices`
        may have a batch of 1 for B cameras, or B for one camera. A point in or behind the plane of
        the eye gets a z <= 0, which makes the renderer drop its faces, and finite x and y.

        Raises:
            ValueError: for another shape of `vertices`.
        """
        batch = len(self.view)
        if vertices.ndim != 3 or vertices.shape[2] != 3:
            raise ValueError(f"vertices: must be (B, V, 3), got {tuple(vertices.shape)}")
        if batch != 1 and vertices.shape[0] not in (1, batch):
            raise ValueError(
                f"vertices: batch must be 1 or that of the cameras, {batch}, "
                f"got {vertices.shape[0]}"
            )
        view = self.view.to(vertices)
        x, y, z = (vertices @ view[:, :3, :3].mT + view[:, None, :3, 3]).unbind(-1)
        fov = torch.as_tensor(self.fov, dtype=vertices.dtype, device=vertices.device)
        half_side = torch.tan(torch.deg2rad(fov) / 2)
        divisor = z.clamp_min(_SMALLEST_DIVISOR) * half_side.reshape(-1, 1)
        return torch.stack([x / divisor, y / divisor, z], dim=-1)


def look_at(
    eye: Float[Tensor, "B 3"] | Sequence[float],
    target: Float[Tensor, "B 3"] | Sequence[float] = (0.0, 0.0, 0.0),
    up: Float[Tensor, "B 3"] | Sequence[float] = (0.0, 1.0, 0.0),
) -> Float[Tensor, "B 4 4"]:
    """The view matrix of a camera at `eye` that looks at `target`, with `up` upwards in the image.

    Each argument is (3,) or (B, 3), in world units; they broadcast.

    Raises:
        ValueError: for another shape, if `eye` is at `target`, or if `up` is parallel to the view
            direction (looking straight down: use `orbit`, or another `up`).
    """
    eye, target, up = _broadcast(eye=eye, target=target, up=up)
    forward = target - eye
    if not bool((forward.norm(dim=-1) > 0).all()):
        raise ValueError("eye: must not be at target")
    forward = forward / forward.norm(dim=-1, keepdim=True)
    right = torch.linalg.cross(forward, up)
    if not bool((right.norm(dim=-1) > 1e-6 * up.norm(dim=-1)).all()):
        raise ValueError("up: must not be zero or parallel to the view direction; choose another")
    right = right / right.norm(dim=-1, keepdim=True)
    return _view_matrix(eye, right, torch.linalg.cross(right, forward), forward)


def orbit(
    distance: float | Tensor | Sequence[float],
    elevation: float | Tensor | Sequence[float],
    azimuth: float | Tensor | Sequence[float],
    target: Float[Tensor, "B 3"] | Sequence[float] = (0.0, 0.0, 0.0),
) -> Float[Tensor, "B 4 4"]:
    """The view matrix of a camera on a sphere around `target`, looking at it; smooth at the poles.

    Args:
        distance: radius of the sphere in world units, positive.
        elevation: degrees above the horizontal plane; 90 looks straight down.
        azimuth: degrees around the y axis; 0 puts the eye on +z, 90 on +x.
        target: (3,) or (B, 3). The others are numbers or (B,); all broadcast.

    Raises:
        ValueError: for another shape or a distance that is not positive.
    """
    radius, theta, phi, centre = _broadcast(
        numbers=("distance", "elevation", "azimuth"),
        distance=distance,
        elevation=elevation,
        azimuth=azimuth,
        target=target,
    )
    radius, theta, phi = radius[:, 0], torch.deg2rad(theta[:, 0]), torch.deg2rad(phi[:, 0])
    if not bool((radius > 0).all()):
        raise ValueError(f"distance: must be positive, got {radius.tolist()}")
    (sin_t, cos_t), (sin_p, cos_p) = (theta.sin(), theta.cos()), (phi.sin(), phi.cos())
    outward = torch.stack([cos_t * sin_p, sin_t, cos_t * cos_p], dim=-1)
    up = torch.stack([-sin_t * sin_p, cos_t, -sin_t * cos_p], dim=-1)
    right = torch.stack([cos_p, torch.zeros_like(cos_p), -sin_p], dim=-1)
    return _view_matrix(centre + radius[:, None] * outward, right, up, -outward)


def gather_faces(
    vertices: Float[Tensor, "B V C"], faces: Int[Tensor, "F 3"]
) -> Float[Tensor, "B F 3 C"]:
    """Each face's own copy of its three vertices (or of any C values a vertex has).

    The gradient sums in a fixed order on the CPU, so that equal runs give equal results.

    Raises:
        ValueError: for other shapes, or indices outside [0, V).
        TypeError: if `faces` does not hold integers.
    """
    if vertices.ndim != 3:
        raise ValueError(f"vertices: must be (B, V, C), got {tuple(vertices.shape)}")
    check_faces(faces, vertices.shape[1])
    index = faces.to(vertices.device, torch.int64).reshape(1, -1, 1)
    batch, channels = vertices.shape[0], vertices.shape[2]
    gathered = vertices.gather(1, index.expand(batch, -1, channels))
    return gathered.reshape(batch, len(faces), 3, channels)


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


def _view_matrix(eye: Tensor, right: Tensor, up: Tensor, forward: Tensor) -> Tensor:
    rotation = torch.stack([right, up, forward], dim=1)
    translation = -rotation @ eye[..., None]
    last = eye.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(eye), 1, 4)
    return torch.cat([torch.cat([rotation, translation], dim=2), last], dim=1)


def _broadcast(numbers: tuple[str, ...] = (), **values: float | _Vector) -> list[Tensor]:
    """Vectors, (3,) or (B, 3), as (B, 3), and those named in `numbers`, 0-d or (B,), as (B, 1).

    All come in the widest of the tensors' dtypes, or torch's default where there is no tensor.
    """
    dtype = None
    for value in values.values():
        if isinstance(value, Tensor) and value.is_floating_point():
            dtype = value.dtype if dtype is None else torch.promote_types(dtype, value.dtype)
    device = next((v.device for v in values.values() if isinstance(v, Tensor)), None)

    columns = {}
    for name, value in values.items():
        tensor = torch.as_tensor(value, dtype=dtype or torch.get_default_dtype(), device=device)
        if name in numbers:
            if tensor.ndim > 1:
                raise ValueError(f"{name}: must be a number or (B,), got {tuple(tensor.shape)}")
            columns[name] = tensor.reshape(-1, 1)
        else:
            if tensor.ndim not in (1, 2) or tensor.shape[-1] != 3:
                raise ValueError(f"{name}: must be (3,) or (B, 3), got {tuple(tensor.shape)}")
            columns[name] = tensor.reshape(-1, 3)

    batch = max(len(column) for column in columns.values())
    for name, column in columns.items():
        if len(column) not in (1, batch):
            raise ValueError(f"{name}: has batch {len(column)} where others have {batch}")
    return [column.expand(batch, -1) for column in columns.values()]
