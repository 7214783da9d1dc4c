"""What all readers give, and the checks of what they find: errors name the file and the field."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray
from PIL import ExifTags, Image

from taichi_raster.scene.files.images import find_beside
from taichi_raster.scene.files.matrices_numpy import product
from taichi_raster.scene.lenses.base import Lens

_NOT_ORTHONORMAL = 1e-2
"""Rotations of files that are off by less are made exact."""

_LARGEST = 1e6
"""Of the entries of a rotation with a scale, and of a photo's pixels on a side."""

_NOT_TRIANGULAR = 1e-6
"""Of the focal length: what may stand below the diagonal of an intrinsics matrix."""

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".ppm")
"""The suffixes that photos may have where a file leaves them out, or a folder is gone through."""

FOLDERS = ("photos", "images", "image", "rgb", "gray")
"""Where photos may be, beside a file that names them without their folder."""


@dataclass(frozen=True)
class Intrinsics:
    """One camera's.

    Attributes:
        matrix: (3, 3), [[fx, s, cx], [0, fy, cy], [0, 0, 1]] in pixels, u right and v down.
        image_size: (height, width), or None if the file does not say.
        first_centre: u and v of the first pixel's centre.
        lens: or None.
    """

    matrix: ndarray
    image_size: tuple[int, int] | None
    first_centre: float
    lens: Lens | None = None


@dataclass(frozen=True)
class Shot:
    """One photo.

    Attributes:
        name: as the file has it.
        field: where the file has it, for errors.
        intrinsics: of its camera.
        pose: (4, 4), world to camera, in OpenCV's axes; the world is right-handed.
        image: the photo, or None if there is none.
        mask: the file that it names, which may not be there, or None.
    """

    name: str
    field: str
    intrinsics: Intrinsics
    pose: ndarray
    image: Path | None
    mask: Path | None = None


@dataclass(frozen=True)
class Reading:
    """What a file says.

    Attributes:
        path: the file.
        shots: its photos.
        mirrored: whether the file's world is left-handed, so that z changed its sign here.
        points: (P, 3) points of the scene, or None.
    """

    path: Path
    shots: Sequence[Shot]
    mirrored: bool = False
    points: ndarray | None = None


def wrong(path: Path, field: str, message: str) -> ValueError:
    """An error that names the file and the field."""
    return ValueError(f"{path}: {field}: {message}" if field else f"{path}: {message}")


def json_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object."""
    found = json_value(path)
    if not isinstance(found, dict):
        raise wrong(path, "", f"must hold an object, got a {type(found).__name__}")
    return found


def json_value(path: Path) -> Any:
    """A JSON file."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # cut off, or not text
        raise wrong(path, "", f"cannot be read as JSON: {error}") from error


def numbers(path: Path, field: str, value: Any, *shapes: tuple[int, ...]) -> ndarray:
    """Finite numbers of one of these shapes; of any, if none is given."""
    try:
        found = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise wrong(path, field, f"must hold numbers, got {str(value)[:80]}") from error
    if shapes and found.shape not in shapes:
        allowed = " or ".join(map(str, shapes))
        raise wrong(path, field, f"must have the shape {allowed}, got {found.shape}")
    if not np.isfinite(found).all():
        raise wrong(path, field, "holds NaN or infinite numbers")
    return found


def intrinsics_matrix(path: Path, field: str, value: Any) -> ndarray:
    """(3, 3), [[fx, s, cx], [0, fy, cy], [0, 0, 1]], of 9 numbers in any layout by rows."""
    found = numbers(path, field, value, (3, 3), (9,), (1, 9), (9, 1)).reshape(3, 3)
    if found[0, 0] <= 0 or found[1, 1] <= 0:
        raise wrong(path, field, "focal lengths must be positive")
    least = _NOT_TRIANGULAR * max(found[0, 0], found[1, 1])
    if abs(found[2, 2] - 1) > _NOT_TRIANGULAR or np.abs(np.tril(found, -1)).max() > least:
        raise wrong(
            path,
            field,
            "must be [[fx, s, cx], [0, fy, cy], [0, 0, 1]]"
            + ("; it is transposed" if np.abs(np.triu(found, 1)).max() <= least else "")
            + f"; got {found.round(4).tolist()}",
        )
    return np.triu(found)


def rigid(path: Path, field: str, rotation: ndarray, translation: ndarray) -> ndarray:
    """(4, 4) of a rotation (3, 3) and a translation (3,), the rotation made exact."""
    if not np.abs(rotation).max() <= _LARGEST:  # or NaN, of a turn by too large an angle
        raise wrong(path, field, f"is no rotation: it has {np.abs(rotation).max():.3g} in it")
    left, sizes, right = np.linalg.svd(rotation)
    if np.linalg.det(rotation) < 0:
        raise wrong(path, field, "mirrors: the determinant of its rotation is negative")
    if np.abs(sizes - 1).max() > _NOT_ORTHONORMAL:
        raise wrong(
            path,
            field,
            "is no rotation and translation: the columns of its rotation are not orthonormal "
            f"(singular values {sizes.round(4).tolist()}, which ought to be 1)",
        )
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = product(left, right), translation
    return pose


def size_in_file(path: Path, field: str, width: Any, height: Any) -> tuple[int, int]:
    """(height, width) of two numbers, which may be written as 640.0."""
    found = numbers(path, field, (height, width), (2,))
    if (found < 1).any() or (found > _LARGEST).any() or (found != found.round()).any():
        raise wrong(
            path, field, f"must be whole positive pixels, got {width!s:.40} x {height!s:.40}"
        )
    return int(found[0]), int(found[1])


def size_of_picture(path: Path, wanted: tuple[int, int] | None = None) -> tuple[int, int]:
    """(height, width) of a picture, of which only the head is read.

    `wanted` is what its camera is for, if that is known; see `to_be_turned`.
    """
    size, _ = _head(path)
    return (size[1], size[0]) if to_be_turned(path, wanted) else size


def to_be_turned(path: Path, wanted: tuple[int, int] | None) -> bool:
    """Whether a photo with an EXIF orientation is meant turned, or as it is stored.

    COLMAP takes pixels as they are stored, and OpenCV turns them. So the size that the camera is
    for decides.

    Raises:
        ValueError: naming the photo, if its size does not say.
    """
    size, orientation = _head(path)
    if orientation not in range(2, 9):
        return False
    turned = (size[1], size[0]) if orientation >= 5 else size
    if wanted is None or turned == size:
        raise wrong(
            path,
            "EXIF orientation",
            f"is {orientation}, and nothing says whether its camera is for the photo as stored, as "
            "COLMAP takes it, or turned, as OpenCV does; turn its pixels (mogrify -auto-orient), "
            "or take the tag away (exiftool -Orientation=)",
        )
    return wanted == turned


def _head(path: Path) -> tuple[tuple[int, int], int]:
    """(height, width) as stored, and the EXIF orientation."""
    try:
        with Image.open(path) as picture:
            orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
            return (picture.height, picture.width), orientation
    except Exception as error:  # Pillow's readers raise anything
        raise wrong(path, "", f"cannot be read as a picture: {error}") from error


def find_picture(folders: Sequence[Path], name: str) -> Path | None:
    """A picture that a file names, perhaps without its suffix, in the first folder that has it."""
    for folder in folders:
        found = first_there(folder, [name, *(name + suffix for suffix in PICTURES)])
        if found is not None:
            return found
    return next((found for folder in folders if (found := find_beside(folder, name))), None)


def first_there(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of these files that a folder has; in other capitals, if it has none so named."""
    for name in names:
        if is_file(folder / name):
            return folder / name
    listed: dict[Path, dict[str, Path]] = {}
    for name in names:
        path = folder / name
        if path.parent not in listed:
            listed[path.parent] = _by_lower_name(path.parent)
        found = listed[path.parent].get(path.name.lower())
        if found is not None and is_file(found):
            return found
    return None


def is_file(path: Path) -> bool:
    """Whether there is such a file, whatever its name."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _by_lower_name(folder: Path) -> dict[str, Path]:
    try:
        return {name.lower(): folder / name for name in sorted(os.listdir(folder), reverse=True)}
    except (OSError, ValueError):
        return {}


def pictures_in(folder: Path) -> list[Path]:
    """All pictures of a folder, in the order of their names."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
