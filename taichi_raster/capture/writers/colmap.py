"""COLMAP's sparse model, as text or binary; see https://colmap.github.io/format.html."""

from __future__ import annotations

import struct
from pathlib import Path

from taichi_raster.capture.capture import Capture, Photo
from taichi_raster.capture.readers.colmap_models import MODELS
from taichi_raster.capture.writers.parameters import (
    Parameters,
    file_names,
    parameters_of,
    write_mask,
    write_picture,
)

_HEAD = "# Written by taichi_raster\n"


def write(folder: Path, capture: Capture, binary: bool) -> None:
    """Photos in `images/`, masks in `masks/` (NAME.png), and the model in `sparse/0/`."""
    names = file_names(capture.photos)
    found = [parameters_of(photo, "COLMAP's format") for photo in capture]
    numbers = {parameters: i for i, parameters in enumerate(dict.fromkeys(found), 1)}
    cameras = [(i, *_model(parameters), parameters) for parameters, i in numbers.items()]
    images = [
        (i, *_pose(photo), numbers[parameters], name)
        for i, (photo, parameters, name) in enumerate(zip(capture, found, names, strict=True), 1)
    ]
    points = [] if capture.points is None else capture.points.detach().double().tolist()
    for photo, name in zip(capture, names, strict=True):
        write_picture(folder / "images" / name, photo)
        if photo.silhouette is not None:
            write_mask(folder / "masks" / f"{name}.png", photo)
    model = folder / "sparse" / "0"
    model.mkdir(parents=True, exist_ok=True)
    for stem in ("cameras", "images", "points3D", "rigs", "frames"):  # of another model
        for suffix in (".bin", ".txt"):
            (model / f"{stem}{suffix}").unlink(missing_ok=True)
    (_write_binary if binary else _write_text)(model, cameras, images, points)


_Camera = tuple[int, str, list[float], Parameters]
_Image = tuple[int, list[float], list[float], int, str]


def _write_text(
    model: Path, cameras: list[_Camera], images: list[_Image], points: list[list[float]]
) -> None:
    def line(*values: object) -> str:
        return " ".join(map(str, values)) + "\n"

    rows = [line(i, name, p.width, p.height, *values) for i, name, values, p in cameras]
    (model / "cameras.txt").write_text(_HEAD + "".join(rows), encoding="utf-8")
    rows = [line(i, *q, *t, camera, name) + "\n" for i, q, t, camera, name in images]
    (model / "images.txt").write_text(_HEAD + "".join(rows), encoding="utf-8")
    rows = [line(i, *point, 128, 128, 128, 0.0) for i, point in enumerate(points, 1)]
    (model / "points3D.txt").write_text(_HEAD + "".join(rows), encoding="utf-8")


def _write_binary(
    model: Path, cameras: list[_Camera], images: list[_Image], points: list[list[float]]
) -> None:
    parts = [struct.pack("<Q", len(cameras))]
    for i, name, values, found in cameras:
        parts.append(struct.pack("<IiQQ", i, MODELS[name][0], found.width, found.height))
        parts.append(struct.pack(f"<{len(values)}d", *values))
    (model / "cameras.bin").write_bytes(b"".join(parts))
    parts = [struct.pack("<Q", len(images))]
    for i, quaternion, translation, camera, label in images:
        parts.append(struct.pack("<I7dI", i, *quaternion, *translation, camera))
        parts.append(label.encode() + b"\0" + struct.pack("<Q", 0))
    (model / "images.bin").write_bytes(b"".join(parts))
    parts = [struct.pack("<Q", len(points))]
    parts += [
        struct.pack("<Q3d3BdQ", i, *point, 128, 128, 128, 0.0, 0)
        for i, point in enumerate(points, 1)
    ]
    (model / "points3D.bin").write_bytes(b"".join(parts))


def _model(found: Parameters) -> tuple[str, list[float]]:
    """The plainest model that holds a camera, and its parameters."""
    values = [found.fx, found.fy, found.cx, found.cy]
    if found.fisheye:
        return "OPENCV_FISHEYE", [*values, *found.k]
    if any(found.k[2:]):
        return "FULL_OPENCV", [*values, *found.k[:2], *found.p, *found.k[2:]]
    if any((*found.k, *found.p)):
        return "OPENCV", [*values, *found.k[:2], *found.p]
    return "PINHOLE", values


def _pose(photo: Photo) -> tuple[list[float], list[float]]:
    pose = photo.pose
    quaternion = pose.quaternion("wxyz")[0].detach().double().tolist()
    return quaternion, pose.translation[0].detach().double().tolist()
