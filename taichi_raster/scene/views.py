"""Where a camera stands: view matrices from a place to look from, or from angles.

The world is right-handed. A view matrix maps it to the camera's axes x right, y up and z *forward*.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from taichi_raster import checks
from taichi_raster.runtime.precision import product

_Vector = Tensor | Sequence[float | Tensor]


def look_at(
    eye: Float[Tensor, "B 3"] | Sequence[float | Tensor],
    target: Float[Tensor, "B 3"] | Sequence[float] = (0.0, 0.0, 0.0),
    up: Float[Tensor, "B 3"] | Sequence[float] = (0.0, 1.0, 0.0),
) -> Float[Tensor, "B 4 4"]:
    """The view matrix of a camera at `eye` that looks at `target`, with `up` upwards in the image.

    Each argument is (3,) or (B, 3), in world units; they broadcast.

    Raises:
        ValueError: for another shape, if `eye` is at `target`, or if `up` is parallel to the view
            direction (looking straight down: use `orbit`, or another `up`).
    """
    eye, target, up = broadcast(eye=eye, target=target, up=up)
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
    radius, theta, phi, centre = broadcast(
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


def _view_matrix(eye: Tensor, right: Tensor, up: Tensor, forward: Tensor) -> Tensor:
    rotation = torch.stack([right, up, forward], dim=1)
    translation = -product(rotation, eye[..., None])
    last = eye.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(eye), 1, 4)
    return torch.cat([torch.cat([rotation, translation], dim=2), last], dim=1)


def broadcast(numbers: tuple[str, ...] = (), **values: float | _Vector) -> list[Tensor]:
    """Vectors, (3,) or (B, 3), as (B, 3), and those named in `numbers`, 0-d or (B,), as (B, 1).

    All come in the widest of the tensors' dtypes, or torch's default where there is no tensor.
    """
    dtype = None
    for name, value in values.items():
        if isinstance(value, Tensor) and checks.tensor(name, value).is_floating_point():
            dtype = value.dtype if dtype is None else torch.promote_types(dtype, value.dtype)
    device = next((v.device for v in values.values() if isinstance(v, Tensor)), None)

    columns = {}
    for name, value in values.items():
        tensor = checks.array(name, value, dtype or torch.get_default_dtype(), device)
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
