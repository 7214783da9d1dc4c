"""COLMAP's sparse models, as text or binary: cameras, images and points3D.

See https://colmap.github.io/format.html. Quaternions have w first; poses take world to camera, in
OpenCV's axes; the centre of the first pixel is at 0.5.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy import ndarray

from taichi_raster.capture.readers import colmap_binary
from taichi_raster.capture.readers.colmap_models import intrinsics_of
from taichi_raster.capture.readers.reading import (
    Intrinsics,
    Reading,
    Shot,
    find_picture,
    rigid,
    size_in_file,
    wrong,
)
from taichi_raster.scene.files.matrices_numpy import matrix_of

_MODELS = ("sparse/0", "sparse", "colmap/sparse/0", "dense/sparse", ".")


@dataclass(frozen=True)
class Image:
    """A line of images.txt: quaternion (w first), translation, camera and name."""

    number: int
    quaternion: Sequence[float]
    translation: Sequence[float]
    camera: int
    name: str


def find(folder: Path) -> Path | None:
    """The images file of a model in a folder; binary before text, as COLMAP does."""
    for place in _MODELS:
        for suffix in (".bin", ".txt"):
            path = folder / place / f"images{suffix}"
            if path.is_file() and (path.parent / f"cameras{suffix}").is_file():
                return path
    return None


def read(path: Path) -> Reading:
    """The photos of a model, by its images.txt or images.bin (or another file of the three).

    Raises:
        ValueError: naming the file and the field.
        FileNotFoundError: if one of its files is missing.
    """
    suffix = path.suffix.lower()
    files = {name: path.parent / f"{name}{suffix}" for name in ("cameras", "images", "points3D")}
    for name in ("cameras", "images"):
        if not files[name].is_file():
            raise FileNotFoundError(f"{files[name]}: there is no such file; a model needs it")
    if suffix == ".bin":
        cameras = colmap_binary.cameras(files["cameras"])
        images = [Image(*row) for row in colmap_binary.images(files["images"])]
    else:
        cameras, images = _cameras(files["cameras"]), list(_images(files["images"]))
    if not images:
        raise wrong(files["images"], "", "has no images: COLMAP registered none")
    points = None
    if files["points3D"].is_file():
        found = files["points3D"]
        points = colmap_binary.points(found) if suffix == ".bin" else _points(found)
    folders = _picture_folders(path.parent)
    shots = [_shot(files["images"], image, cameras, folders) for image in images]
    shots.sort(key=lambda shot: shot.name)
    return Reading(files["images"], shots, points=points)


def _shot(
    path: Path, image: Image, cameras: dict[int, Intrinsics], folders: Sequence[Path]
) -> Shot:
    field = f"image {image.number} ({image.name})"
    if image.camera not in cameras:
        known = ", ".join(map(str, sorted(cameras)[:10]))
        raise wrong(
            path, f"{field}.CAMERA_ID", f"there is no camera {image.camera}; there: {known}"
        )
    quaternion = np.array(image.quaternion)
    for name, values in (("QW..QZ", quaternion), ("TX..TZ", np.array(image.translation))):
        if not np.isfinite(values).all():
            raise wrong(path, f"{field}.{name}", "holds NaN or infinite numbers")
    length = np.linalg.norm(quaternion)
    if not 0.5 < length < 2:
        raise wrong(path, f"{field}.QW..QZ", f"must be a unit quaternion, has length {length:.3g}")
    w, x, y, z = quaternion / length
    rotation = matrix_of({"rotation": (x, y, z, w)})[:3, :3]
    pose = rigid(path, field, rotation, np.array(image.translation))
    found = find_picture(folders, image.name)
    return Shot(image.name, field, cameras[image.camera], pose, found)


def _picture_folders(model: Path) -> list[Path]:
    """Where the photos of a model may be."""
    above = [model, *model.resolve().parents[:3]]
    return [folder / "images" for folder in above] + above


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are no comments, with their numbers."""
    for i, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not line.lstrip().startswith("#"):
            yield i, line.strip()


def _cameras(path: Path) -> dict[int, Intrinsics]:
    found = {}
    for i, line in _lines(path):
        if not line:
            continue
        field, words = f"line {i}", line.split()
        try:
            number, model, width, height = int(words[0]), words[1], words[2], words[3]
            values = [float(word) for word in words[4:]]
        except (ValueError, IndexError) as error:
            raise wrong(path, field, "must be CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]") from error
        size = size_in_file(path, f"{field}.WIDTH, HEIGHT", width, height)
        found[number] = intrinsics_of(path, field, model, size, values)
    return found


def _images(path: Path) -> Iterator[Image]:
    """Two lines each, of which the second, of points, may be empty, or left out if it is."""
    after_image = False
    for i, line in _lines(path):
        if not line or (after_image and _are_points(line)):
            after_image = False
            continue
        words = line.split(maxsplit=9)
        try:
            numbers = [float(word) for word in words[1:8]]
            yield Image(int(words[0]), numbers[:4], numbers[4:], int(words[8]), words[9])
        except (ValueError, IndexError) as error:
            points = "X, Y, POINT3D_ID of each point, or " if after_image else ""
            raise wrong(
                path,
                f"line {i}",
                f"must be {points}IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME, with a "
                "line of points, perhaps empty, after each",
            ) from error
        after_image = True


def _are_points(line: str) -> bool:
    """Whether a line has X, Y, POINT3D_ID of points, and not an image, whose line ends in a name.

    Only the first and the last point are looked at, as there may be thousands.
    """
    words = line.split()
    try:
        for x, y, number in (words[:3], words[-3:]):
            float(x), float(y), int(number)
    except ValueError:
        return False
    return len(words) % 3 == 0


def _points(path: Path) -> ndarray:
    rows = []
    for i, line in _lines(path):
        if line:
            try:
                rows.append([float(word) for word in line.split()[1:4]])
                if len(rows[-1]) != 3 or not np.isfinite(rows[-1]).all():
                    raise ValueError
            except ValueError as error:
                raise wrong(path, f"line {i}", "must be POINT3D_ID, X, Y, Z, ...") from error
    return np.array(rows, dtype=np.float64).reshape(-1, 3)
