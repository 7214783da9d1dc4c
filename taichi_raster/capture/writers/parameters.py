"""What files of cameras hold: pixels, coefficients, and the photos beside them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image

from taichi_raster.capture.capture import Photo
from taichi_raster.capture.readers.reading import PICTURES, size_of_picture
from taichi_raster.scene.files.images import as_bytes
from taichi_raster.scene.lenses.kannala_brandt import KannalaBrandtLens

_SKEW = 1e-3
"""In pixels; less is left out."""


@dataclass(frozen=True)
class Parameters:
    """A camera in pixels, the first one's centre at 0.5.

    Attributes:
        width, height: of the image.
        fx, fy, cx, cy: in pixels.
        fisheye: whether `k` are those of a fisheye.
        k: k1 to k6, of a fisheye k1 to k4.
        p: p1 and p2.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    fisheye: bool
    k: tuple[float, ...]
    p: tuple[float, float]


@dataclass(frozen=True)
class Plan:
    """What is to be written into a folder, by paths within it, with slashes.

    Attributes:
        pictures, masks: whose, for each file.
        cameras: the files that name those, which are written last.
        stale: files that other programs would read together with these.
        masks_are_named: whether the file of cameras says which mask belongs to which photo.
    """

    pictures: dict[str, Photo]
    masks: dict[str, Photo]
    cameras: dict[str, bytes]
    stale: Sequence[str] = ()
    masks_are_named: bool = False


def parameters_of(photo: Photo, files: str) -> Parameters:
    """The parameters of a photo's camera.

    Raises:
        ValueError: for a camera with skew, which the formats do not hold.
    """
    height, width = photo.image_size
    short, camera = min(height, width), photo.camera
    matrix = [
        torch.as_tensor(part).detach().double().flatten().tolist()
        for part in (camera.focal, camera.principal, camera.skew)
    ]
    (fx, fy), (px, py), (skew,) = matrix
    if abs(skew) * short / 2 > _SKEW:
        raise ValueError(
            f"{photo.name}: camera.skew: is {-skew * short / 2:.4g} pixels, which {files} does "
            "not hold; use tr.undistort with a camera without skew as its target"
        )
    rows = [0.0] * 8 if camera.lens is None else camera.lens.rows()[0].detach().double().tolist()
    fisheye = isinstance(camera.lens, KannalaBrandtLens)
    return Parameters(
        width,
        height,
        fx * short / 2,
        fy * short / 2,
        (px * short + width) / 2,
        (height - py * short) / 2,
        fisheye,
        tuple(rows if fisheye else rows[:6]),
        (0.0, 0.0) if fisheye else (rows[6], rows[7]),
    )


def file_names(photos: Sequence[Photo]) -> list[str]:
    """Where each photo goes in the folder of photos: its own name, as far as a folder may have it.

    Raises:
        ValueError: if two come to be the same.
    """
    names = []
    for photo in photos:
        parts = [
            p for p in PurePosixPath(photo.name.replace("\\", "/")).parts if p not in ("/", "..")
        ]
        inner = parts[1:] if len(parts) > 1 and parts[0] in ("images", "photos") else parts
        path = PurePosixPath(*inner)
        own = photo.picture.suffix if isinstance(photo.picture, Path) else ".png"
        if path.suffix.lower() not in PICTURES:
            path = path.with_name(path.name + own)
        elif path.suffix.lower() != own.lower():
            path = path.with_suffix(own)
        names.append(str(path))
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"photos: several would be written as {twice[0]}")
    return names


def mask_names(names: Sequence[str]) -> list[str]:
    """The masks of photos of these names: their stems, or their whole names if two share a stem."""
    short = [str(PurePosixPath(name).with_suffix(".png")) for name in names]
    apart = len({name.lower() for name in short}) == len(names)
    return short if apart else [f"{name}.png" for name in names]


def write_picture(path: Path, photo: Photo) -> None:
    """The photo: its file copied, or a PNG of 8 bits of its pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(photo.picture, Path):
        height, width = size_of_picture(photo.picture, photo.image_size)
        if (height, width) != photo.image_size:
            raise ValueError(
                f"{photo.picture}: has {height} x {width} pixels (height x width), and its camera "
                f"{photo.image_size[0]} x {photo.image_size[1]}"
            )
        shutil.copyfile(photo.picture, path)
    else:
        Image.fromarray(as_bytes(photo.pixels())).save(path, "PNG")


def write_mask(path: Path, photo: Photo) -> None:
    """The mask as a PNG of 8 bits."""
    pixels = np.ascontiguousarray(as_bytes(photo.mask()))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "PNG")
