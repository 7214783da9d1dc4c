"""Checks of what fits are given, before anything slow; and the same without derivatives."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from taichi_raster import checks
from taichi_raster.capture.capture import Capture, Photo
from taichi_raster.scene.camera_base import Camera
from taichi_raster.scene.mesh import Mesh
from taichi_raster.scene.movable import Movable
from taichi_raster.scene.pose import centre_and_size

LOW, HIGH = -1.0, 2.0
"""Noise may leave [0, 1], but not by more: such pictures are of 0 to 255, or of something else."""

MOST_SEED = 2**63 - 1

_M = TypeVar("_M", bound=Movable)


def seed(value: Any) -> int:
    """A seed of random numbers."""
    return checks.whole("seed", value, 0, MOST_SEED)


def detached(thing: _M) -> _M:
    """A mesh, a camera or a pose without derivatives; itself if it has none."""
    changed: dict[str, Any] = {}
    for field in fields(thing):  # type: ignore[arg-type]
        value = getattr(thing, field.name)
        plain = _plain(value)
        if plain is not value:
            changed[field.name] = plain
    return replace(thing, **changed) if changed else thing  # type: ignore[type-var]


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach() if value.requires_grad else value
    if isinstance(value, tuple):
        parts = tuple(map(_plain, value))
        return parts if any(a is not b for a, b in zip(parts, value, strict=True)) else value
    return detached(value) if isinstance(value, Movable) else value


def floats(name: str, value: Any, yes_or_no: bool = False) -> Tensor:
    """`value`, if it is a tensor of floats, or of bool where it may be."""
    found = checks.tensor(name, value)
    if not found.is_floating_point() and not (yes_or_no and found.dtype == torch.bool):
        way = "float()" if found.dtype == torch.bool else "float() / 255"
        raise TypeError(
            f"{name}: expected float32 or float64 in [0, 1], got {found.dtype}; convert it, with "
            f"{name}.{way}"
        )
    return found


def picture(name: str, value: Any, told: Tensor | None = None, yes_or_no: bool = False) -> Tensor:
    """`value`, if it is of floats in [0, 1], but for noise.

    Args:
        name: of the argument.
        value: a mask or a photo of any shape.
        told: where values count.
        yes_or_no: whether it may be of bool, too.
    """
    found = floats(name, value, yes_or_no)
    if found.dtype == torch.bool:
        return found
    counted = found if told is None else found[told]
    if not bool(torch.isfinite(counted).all()):
        raise ValueError(f"{name}: must be finite")
    if counted.numel() > 0:
        low, high = (float(end) for end in counted.detach().aminmax())
        if low < LOW or high > HIGH:
            raise ValueError(
                f"{name}: must be in [0, 1], got values from {low:.6g} to {high:.6g}"
                + ("; divide by 255" if low >= 0 and 4 < high <= 255 else "")
            )
    return found


def capture(value: Any, pictures: bool = False) -> Capture:
    """`value`, if it is a capture whose masks can be used.

    Args:
        value: given as the argument `capture`.
        pictures: whether the photos' colours are used, too.

    Returns:
        The same, with cameras without derivatives.
    """
    found: Capture = checks.instance("capture", value, Capture)
    for photo in found:
        _check_photo(photo, pictures)
    photos = [replace(photo, camera=detached(photo.camera)) for photo in found]
    return replace(found, photos=tuple(photos))


def _check_photo(photo: Photo, pictures: bool) -> None:
    """The values of a photo's tensors; those of files are right."""
    if isinstance(photo.silhouette, Tensor):
        mask = photo.silhouette
        shown = mask if mask.is_floating_point() else mask.float()
        picture(f"capture: the mask of {photo.name}", shown)
    if pictures and isinstance(photo.picture, Tensor):
        picture(f"capture: the picture of {photo.name}", photo.picture)


def one_camera(name: str, value: Any) -> Camera:
    """`value`, if it is a camera of one view; without derivatives."""
    found: Camera = detached(checks.instance(name, value, Camera))
    if len(found.view) != 1:
        raise ValueError(f"{name}: expected one camera, got {len(found.view)}")
    return found


def mesh(name: str, value: Any) -> Mesh:
    """`value`, if it is a mesh of which something can be seen; without derivatives."""
    found: Mesh = detached(checks.instance(name, value, Mesh))
    vertices = found.vertices.double()
    if not bool((vertices != vertices[:1]).any()):
        raise ValueError(f"{name}: all vertices are in one point: an object must have an extent")
    corners = vertices[found.faces] / float(centre_and_size(vertices)[1])
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    if float(normals.norm(dim=1).max()) < 1e-9:
        raise ValueError(f"{name}: none of its faces has an area, so that nothing of it is seen")
    return found
