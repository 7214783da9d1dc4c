"""COLMAP's sparse model, as text or binary; see https://colmap.github.io/format.html."""

from __future__ import annotations

import struct

from taichi_raster.capture.capture import Capture, Photo
from taichi_raster.capture.readers.colmap_models import MODELS
from taichi_raster.capture.writers.parameters import Parameters, Plan, file_names, parameters_of

_HEAD = "# Written by taichi_raster\n"


def plan(capture: Capture, binary: bool) -> Plan:
    """Photos in `images/`, masks in `masks/` (NAME.png), and the model in `sparse/0/`.

    Raises:
        ValueError: for a camera that the files do not hold.
    """
    names = file_names(capture.photos)
    found = [parameters_of(photo, "COLMAP's format") for photo in capture]
    numbers = {parameters: i for i, parameters in enumerate(dict.fromkeys(found), 1)}
    cameras = [(i, *_model(parameters), parameters) for parameters, i in numbers.items()]
    images = [
        (i, *_pose(photo), numbers[parameters], name)
        for i, (photo, parameters, name) in enumerate(zip(capture, found, names, strict=True), 1)
    ]
    points = [] if capture.points is None else capture.points.detach().double().tolist()
    files = (_binary if binary else _text)(cameras, images, points)
    photos = list(zip(capture, names, strict=True))
    stems = ("cameras", "images", "points3D", "rigs", "frames")
    return Plan(
        {f"images/{name}": photo for photo, name in photos},
        {f"masks/{name}.png": photo for photo, name in photos if photo.silhouette is not None},
        {f"sparse/0/{name}": data for name, data in files.items()},
        [f"sparse/0/{stem}{suffix}" for stem in stems for suffix in (".bin", ".txt")],
    )


_Camera = tuple[int, str, list[float], Parameters]
_Image = tuple[int, list[float], list[float], int, str]


def _text(
    cameras: list[_Camera], images: list[_Image], points: list[list[float]]
) -> dict[str, bytes]:
    def line(*values: object) -> str:
        return " ".join(map(str, values)) + "\n"

    rows = {
        "cameras": [line(i, name, p.width, p.height, *values) for i, name, values, p in cameras],
        "points3D": [line(i, *point, 128, 128, 128, 0.0) for i, point in enumerate(points, 1)],
        "images": [line(i, *q, *t, camera, name) + "\n" for i, q, t, camera, name in images],
    }
    return {f"{name}.txt": (_HEAD + "".join(lines)).encode() for name, lines in rows.items()}


def _binary(
    cameras: list[_Camera], images: list[_Image], points: list[list[float]]
) -> dict[str, bytes]:
    files = {}
    parts = [struct.pack("<Q", len(cameras))]
    for i, name, values, found in cameras:
        parts.append(struct.pack("<IiQQ", i, MODELS[name][0], found.width, found.height))
        parts.append(struct.pack(f"<{len(values)}d", *values))
    files["cameras.bin"] = b"".join(parts)
    parts = [struct.pack("<Q", len(points))]
    parts += [
        struct.pack("<Q3d3BdQ", i, *point, 128, 128, 128, 0.0, 0)
        for i, point in enumerate(points, 1)
    ]
    files["points3D.bin"] = b"".join(parts)
    parts = [struct.pack("<Q", len(images))]
    for i, quaternion, translation, camera, label in images:
        parts.append(struct.pack("<I7dI", i, *quaternion, *translation, camera))
        parts.append(label.encode() + b"\0" + struct.pack("<Q", 0))
    files["images.bin"] = b"".join(parts)
    return files


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
