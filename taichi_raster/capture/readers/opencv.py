"""Calibrations of OpenCV: a camera's matrix and distortion, and perhaps the poses of photos.

Written by its sample calibration.cpp and by many others, each with names of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from taichi_raster.capture.readers import opencv_storage
from taichi_raster.capture.readers.reading import (
    Intrinsics,
    Reading,
    Shot,
    intrinsics_matrix,
    numbers,
    pictures_in,
    rigid,
    size_in_file,
    wrong,
)
from taichi_raster.scene.lenses.base import Lens
from taichi_raster.scene.lenses.brown_conrady import BrownConradyLens
from taichi_raster.scene.lenses.kannala_brandt import KannalaBrandtLens

_MATRIX = ("camera_matrix", "cameraMatrix", "Camera_Matrix", "intrinsic_matrix", "mtx", "K", "M1")
_LENS = (
    "distortion_coefficients",
    "distCoeffs",
    "Distortion_Coefficients",
    "dist_coeffs",
    "dist",
    "D",
    "D1",
)
_WIDTH = ("image_width", "image_Width", "width", "imageWidth")
_HEIGHT = ("image_height", "image_Height", "height", "imageHeight")
_POSES = ("extrinsic_parameters", "Extrinsic_Parameters")
_FISHEYE = ("equidistant", "fisheye", "kannala_brandt")


def find(folder: Path) -> Path | None:
    """The only file in a folder that has a camera's matrix."""
    found = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in (".yml", ".yaml", ".xml")
        and path.is_file()
        and _is_calibration(path)
    ]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"{folder}: has several calibrations, {names}: give the path of one")
    return found[0] if found else None


def _is_calibration(path: Path) -> bool:
    text = path.read_text(encoding="utf-8", errors="replace")
    return any(f"{name}:" in text or f"<{name}" in text for name in _MATRIX)


def intrinsics(path: Path) -> Intrinsics:
    """The camera of a file; its first pixel's centre is at 0.

    Raises:
        ValueError: naming the file and the field.
    """
    return _intrinsics(path, opencv_storage.read(path))


def read(path: Path) -> Reading:
    """The photos whose poses a calibration has: those of its folder, in the order of their names.

    Raises:
        ValueError: naming the file and the field; also if it has no poses, or another number of
            them than there are photos.
    """
    import roma  # here, as it takes a second: it imports torch's compiler

    values = opencv_storage.read(path)
    camera = _intrinsics(path, values)
    name, rows = _matrix(path, values, _POSES)
    if rows is None:
        raise wrong(
            path,
            _POSES[0],
            "is missing, so that no photo has a pose; for a camera alone, use tr.load_camera",
        )
    rows = numbers(path, name, rows)
    if rows.ndim != 2 or rows.shape[1] != 6 or len(rows) == 0:
        raise wrong(path, name, f"must have 6 numbers for each photo, got the shape {rows.shape}")
    turns = roma.rotvec_to_rotmat(torch.tensor(rows[:, :3])).numpy()
    photos = pictures_in(path.parent) or pictures_in(path.parent / "photos")
    if photos and len(photos) != len(rows):
        raise wrong(
            path, name, f"has {len(rows)} poses, and there are {len(photos)} photos beside it"
        )
    shots = []
    for i, (turn, row) in enumerate(zip(turns, rows, strict=True)):
        field = f"{name}[{i}]"
        photo = photos[i] if photos else None
        label = photo.name if photo else f"photo {i}"
        shots.append(Shot(label, field, camera, rigid(path, field, turn, row[3:]), photo))
    return Reading(path, shots)


def _named(values: dict[str, Any], names: tuple[str, ...]) -> tuple[str, Any]:
    """The first of these names that is there, and its value; None if there is none."""
    return next(((name, values[name]) for name in names if name in values), (names[0], None))


def _matrix(path: Path, values: dict[str, Any], names: tuple[str, ...]) -> tuple[str, Any]:
    """As `_named`, matrices as arrays."""
    name, value = _named(values, names)
    return name, opencv_storage.matrix(path, name, value)


def _intrinsics(path: Path, values: dict[str, Any]) -> Intrinsics:
    name, matrix = _matrix(path, values, _MATRIX)
    if matrix is None:
        raise wrong(path, name, "is missing: the file is no calibration of OpenCV's")
    matrix = intrinsics_matrix(path, name, matrix)
    (_, width), (_, height) = _named(values, _WIDTH), _named(values, _HEIGHT)
    size = None
    if width is not None and height is not None:
        size = size_in_file(path, "image_width, image_height", width, height)
    return Intrinsics(matrix, size, 0.0, _lens(path, values))


def _lens(path: Path, values: dict[str, Any]) -> Lens | None:
    name, given = _matrix(path, values, _LENS)
    if given is None:
        return None
    found = numbers(path, name, given).ravel()
    if not found.any():
        return None
    model = str(values.get("distortion_model", "")).lower()
    if model in _FISHEYE or bool(values.get("fisheye_model", 0)):
        if len(found) != 4:
            raise wrong(path, name, f"a fisheye has 4 coefficients, got {len(found)}")
        return KannalaBrandtLens(torch.tensor(found))
    try:
        return BrownConradyLens.from_opencv(torch.tensor(found))
    except ValueError as error:
        raise wrong(path, name, str(error).partition(": ")[2]) from error
