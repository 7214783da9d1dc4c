"""The cameras of a capture alone, in the world of the file that they came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from taichi_raster.capture.capture import Capture, Photo
from taichi_raster.capture.writers import nerfstudio
from taichi_raster.runtime.precision import product
from taichi_raster.scene.files.writing import write_together


def write(folder: Path, capture: Capture) -> Path:
    """`cameras.json` of projection matrices; `transforms.json` if some camera has a lens.

    It names the photos as the capture does. Beside them, `load_capture` reads it.

    Raises:
        ValueError: for a lens together with skew, or one that `transforms.json` does not hold.
    """
    if any(photo.camera.lens is not None for photo in capture):
        path = folder / "transforms.json"
        frames = [nerfstudio.frame(photo, photo.name) | _mask(photo) for photo in capture]
        content: dict[str, Any] = {"frames": frames}
    else:
        path = folder / "cameras.json"
        sizes = {photo.image_size for photo in capture}
        content = {
            "P": [_matrix(photo, capture.mirrored) for photo in capture],
            "names": list(capture.names),
            "left_handed": capture.mirrored,
            **({"image_size": list(sizes.pop())} if len(sizes) == 1 else {}),
        }
    write_together({path: json.dumps(content, indent=1).encode()})
    return path


def _mask(photo: Photo) -> dict[str, str]:
    """The mask's file as seen from the folder that the photo's name begins in, if that is known."""
    if not (isinstance(photo.picture, Path) and isinstance(photo.silhouette, Path)):
        return {}
    folder, name = photo.picture, Path(photo.name)
    for part in reversed(name.parts):
        if folder.name not in (part, part + photo.picture.suffix):
            return {}
        folder = folder.parent
    if not photo.silhouette.is_relative_to(folder):
        return {}
    return {"mask_path": photo.silhouette.relative_to(folder).as_posix()}


def _matrix(photo: Photo, mirrored: bool) -> list[list[float]]:
    """(3, 4), world to pixels, the first one's centre at 0."""
    height, width = photo.image_size
    half, camera = min(height, width) / 2, photo.camera
    (fx, fy), (px, py), (skew,) = (
        torch.as_tensor(part).detach().double().flatten().tolist()
        for part in (camera.focal, camera.principal, camera.skew)
    )
    intrinsics = torch.tensor(
        [
            [fx * half, -skew * half, px * half + (width - 1) / 2],
            [0.0, fy * half, (height - 1) / 2 - py * half],
            [0.0, 0.0, 1.0],
        ],
        dtype=torch.float64,
    )
    pose = photo.pose.opencv[0, :3].detach().double()
    if mirrored:
        pose = pose * torch.tensor([1.0, 1.0, -1.0, 1.0], dtype=torch.float64)
    found: list[list[float]] = product(intrinsics, pose).tolist()
    return found
