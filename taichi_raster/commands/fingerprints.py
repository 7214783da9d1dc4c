"""What a part of a run was made of, by digests: so that it is found anew where that has changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from taichi_raster.capture.capture import Capture, Photo
from taichi_raster.scene.camera import PinholeCamera
from taichi_raster.scene.mesh import Mesh

SAID = 3
"""Changes that are named; more are counted."""


def of_capture(capture: Capture, pictures: bool = True) -> dict[str, str]:
    """Of each photo's mask and camera, and of its pixels; files by their content."""
    found = {}
    for photo in capture:
        found[f"the mask of {photo.name}"] = _mask(photo)
        found[f"the camera of {photo.name}"] = _camera(photo.camera)
        if pictures:
            found[f"the photo {photo.name}"] = _picture(photo)
    return found


def of_shape(mesh: Mesh) -> dict[str, str]:
    """Of a mesh without its texture."""
    return {"the shape": _digest(mesh.vertices, mesh.faces)}


def changes(before: dict[str, str], now: dict[str, str]) -> str:
    """What differs, in words; empty if nothing does."""
    found = [f"{name} is new" for name in now if name not in before]
    found += [f"{name} is gone" for name in before if name not in now]
    found += [f"{name} has changed" for name in now if before.get(name, now[name]) != now[name]]
    more = [f"{len(found) - SAID} others"] if len(found) > SAID else []
    return ", ".join([*found[:SAID], *more])


def _picture(photo: Photo) -> str:
    return _digest(photo.picture)


def _mask(photo: Photo) -> str:
    if photo.silhouette is None or isinstance(photo.silhouette, Path | Tensor):
        return _digest(photo.silhouette)
    return _digest(repr(photo.silhouette), photo.picture)  # a rule, and what it is applied to


def _camera(camera: PinholeCamera) -> str:
    lens = camera.lens
    kind = () if lens is None else (type(lens).__name__, lens.rows())
    numbers = (camera.focal, camera.principal, camera.skew)
    flat = [torch.as_tensor(number, dtype=torch.float64).flatten() for number in numbers]
    return _digest(camera.view.double(), *flat, *kind)


def _digest(*parts: Path | Tensor | str | None) -> str:
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, Path):
            content = part.read_bytes()
        elif isinstance(part, Tensor):
            content = part.detach().cpu().contiguous().numpy().tobytes()
        else:
            content = repr(part).encode()
        found.update(len(content).to_bytes(8, "little") + content)
    return found.hexdigest()
