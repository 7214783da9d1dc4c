"""Read the image files and start triangles of `Picture`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

PathLike: TypeAlias = "str | os.PathLike[str]"

MARGIN = 0.95  # start triangles from a file span this share of the picture at most


@dataclass(frozen=True)
class LoadedPicture:
    """A picture on a plain background, all values in [0, 1].

    Attributes:
        image: (H, W, 4) with its matte, or (H, W, 3) without.
        ground: (3,), the background colour.
        ink: (3,), the mean colour of the foreground.
    """

    image: np.ndarray
    ground: np.ndarray
    ink: np.ndarray


def load_picture(path: PathLike, size: tuple[int, int], matte: bool) -> LoadedPicture:
    """An image file fitted into (H, W) pixels, padded with its background colour.

    A file with an alpha channel keeps it as the matte, and its background is black. Otherwise the
    background is the median colour of the file's border, and the matte is each pixel's distance to
    it in colour, relative to the largest. That is exact for drawings of one colour on a plain
    background. Without `matte`, a picture is RGB alone.

    Raises ValueError, naming `images`, for a file that is no image or has one colour throughout.
    """
    try:
        with Image.open(path) as file:
            own_matte = file.has_transparency_data
            source = file.convert("RGBA")
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"images: cannot read {os.fspath(path)} as an image: {error}") from error
    height, width = size
    fitted = ImageOps.contain(source, (width, height), Image.Resampling.BOX)
    pixels = np.asarray(fitted, dtype=np.float64) / 255
    alpha = pixels[..., 3:]
    if own_matte:
        ground, rgb = np.zeros(3), pixels[..., :3] * alpha
    else:
        ground, rgb = _border_colour(np.asarray(source)[..., :3] / 255), pixels[..., :3]
        alpha = np.linalg.norm(rgb - ground, axis=-1, keepdims=True)
        alpha = alpha / max(alpha.max(), 1e-12)
    if alpha.sum() < 1e-3:
        raise ValueError(f"images: {os.fspath(path)} shows one colour all over: nothing to draw")
    ink = (rgb - (1 - alpha) * ground).sum(axis=(0, 1)) / alpha.sum()
    image = np.zeros((height, width, 4))
    image[..., :3] = ground
    top, left = (height - fitted.height) // 2, (width - fitted.width) // 2
    image[top : top + fitted.height, left : left + fitted.width] = np.dstack([rgb, alpha])
    return LoadedPicture(image if matte else image[..., :3], ground, ink.clip(0, 1))


def load_triangles(path: PathLike, half_sides: np.ndarray) -> np.ndarray:
    """Triangles (K, 3, 2) in NDC from a .npy file of (K, 3, C) or (1, K, 3, C), C >= 2: x, y, ...

    They are moved, and scaled equally in x and y, to the largest size at which they lie within 95%
    of the picture, whose half sides in NDC are `half_sides`, (x, y).

    Raises ValueError, naming `start_meshes`, for a file of other content.
    """
    name = os.fspath(path)
    try:
        content = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"start_meshes: cannot read {name} as a .npy array: {error}") from error
    shape = content.shape
    if content.ndim == 4 and shape[0] == 1:
        content = content[0]
    if content.ndim != 3 or content.shape[1] != 3 or content.shape[2] < 2 or not len(content):
        raise ValueError(f"start_meshes: expected (K, 3, 2 or more) in {name}, got {shape}")
    xy = content[..., :2].astype(np.float64)
    low, high = xy.min(axis=(0, 1)), xy.max(axis=(0, 1))
    if not np.isfinite(xy).all() or not (high > low).all():
        raise ValueError(f"start_meshes: expected finite triangles of some extent in {name}")
    scale = MARGIN * (2 * half_sides / (high - low)).min()
    return (xy - (low + high) / 2) * scale


def _border_colour(rgb: np.ndarray) -> np.ndarray:
    """Median colour (3,) of the outermost pixels of (H, W, 3)."""
    border = [rgb[0], rgb[-1], rgb[:, 0], rgb[:, -1]]
    return np.median(np.concatenate(border), axis=0)
