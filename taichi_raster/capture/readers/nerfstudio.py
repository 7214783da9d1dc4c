"""`transforms.json` of nerfstudio, instant-ngp and the synthetic scenes of NeRF.

`transform_matrix` takes camera to world, with OpenGL's camera: x right, y up, z back. See
https://docs.nerf.studio/quickstart/data_conventions.html.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from taichi_raster.capture.readers.reading import (
    FOLDERS,
    Intrinsics,
    Reading,
    Shot,
    find_picture,
    json_object,
    numbers,
    rigid,
    size_in_file,
    size_of_picture,
    wrong,
)
from taichi_raster.scene.lenses.base import Lens
from taichi_raster.scene.lenses.brown_conrady import BrownConradyLens
from taichi_raster.scene.lenses.kannala_brandt import KannalaBrandtLens

_PINHOLES = ("SIMPLE_PINHOLE", "PINHOLE")
_BROWN = ("SIMPLE_RADIAL", "RADIAL", "OPENCV")


NAMES = ("transforms.json", "transforms_train.json", "transforms_val.json", "transforms_test.json")
"""The first that is there is read: of NeRF's synthetic scenes, the photos to train with."""


def find(folder: Path) -> Path | None:
    """The file in a folder."""
    return next((folder / name for name in NAMES if (folder / name).is_file()), None)


def read(path: Path) -> Reading:
    """The photos of a file.

    Raises:
        ValueError: naming the file and the field.
    """
    data = json_object(path)
    frames = data.get("frames")
    if not isinstance(frames, list) or not frames:
        raise wrong(path, "frames", "must be a list of at least one photo")
    return Reading(path, [_shot(path, i, data, frame) for i, frame in enumerate(frames)])


def _shot(path: Path, i: int, data: dict[str, Any], frame: Any) -> Shot:
    field = f"frames[{i}]"
    if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
        raise wrong(path, field, "must be an object with a file_path")
    field += f" ({frame['file_path']})"
    name = frame["file_path"].removeprefix("./")
    image = find_picture([path.parent, *(path.parent / each for each in FOLDERS)], name)
    mask = frame.get("mask_path")
    if mask is not None and not isinstance(mask, str):
        raise wrong(path, f"{field}.mask_path", f"must be the name of a file, got {mask!r:.80}")
    return Shot(
        name,
        field,
        _intrinsics(path, field, data | frame, image),
        _pose(path, f"{field}.transform_matrix", frame.get("transform_matrix")),
        image,
        None if mask is None else find_picture([path.parent], mask) or path.parent / mask,
    )


def _pose(path: Path, field: str, value: Any) -> ndarray:
    matrix = numbers(path, field, value, (4, 4), (3, 4))
    to_world = rigid(path, field, matrix[:3, :3], matrix[:3, 3])
    return np.linalg.inv(to_world * np.array([1.0, -1.0, -1.0, 1.0]))  # the camera's y and z turned


def _intrinsics(path: Path, field: str, values: dict[str, Any], image: Path | None) -> Intrinsics:
    def get(key: str) -> float | None:
        if values.get(key) is None:
            return None
        return float(numbers(path, f"{field}.{key}", values[key], ()))

    size = None
    if get("w") is not None and get("h") is not None:
        size = size_in_file(path, f"{field}.w, h", values["w"], values["h"])
    known = size or (size_of_picture(image) if image is not None else None)
    focal = [get("fl_x"), get("fl_y")]
    centre = [get("cx"), get("cy")]
    angles = [get("camera_angle_x"), get("camera_angle_y")]
    if known is None and None in (focal[0], *centre):
        raise wrong(path, f"{field}.w, h", "are missing, and there is no photo to measure")
    pixels = (known[1], known[0]) if known is not None else (0, 0)
    for axis in (0, 1):
        angle = angles[axis]
        if focal[axis] is None and angle is not None:
            if not 0 < angle < math.pi:
                where = f"{field}.camera_angle_{'xy'[axis]}"
                raise wrong(path, where, f"must lie between 0 and pi, got {angle}")
            focal[axis] = pixels[axis] / 2 / math.tan(angle / 2)
        if centre[axis] is None:
            centre[axis] = pixels[axis] / 2
    if focal[0] is None:
        raise wrong(path, f"{field}.fl_x", "is missing, and so is camera_angle_x")
    fx, (cx, cy) = focal[0], centre
    fy = focal[1] if focal[1] is not None else fx
    if fx <= 0 or fy <= 0:
        raise wrong(path, f"{field}.fl_x", f"focal lengths must be positive, got {fx}, {fy}")
    matrix = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]], dtype=np.float64)
    return Intrinsics(matrix, size, 0.5, _lens(path, field, values, get))


def _lens(path: Path, field: str, values: dict[str, Any], get: Any) -> Lens | None:
    k = [get(f"k{i}") or 0.0 for i in range(1, 7)]
    p = [get(f"p{i}") or 0.0 for i in (1, 2)]
    model = values.get("camera_model", "OPENCV_FISHEYE" if values.get("is_fisheye") else "OPENCV")
    if model == "OPENCV_FISHEYE":
        return KannalaBrandtLens(tuple(k[:4]))
    if model not in (*_PINHOLES, *_BROWN):
        known = ", ".join((*_PINHOLES, *_BROWN, "OPENCV_FISHEYE"))
        raise wrong(path, f"{field}.camera_model", f"unknown {model!r:.80}; known: {known}")
    if any(k[3:]):
        raise wrong(
            path,
            f"{field}.k4",
            "must be 0 unless the camera is a fisheye: nerfstudio means by it r^8, OpenCV a "
            f"denominator; got {k[3]}",
        )
    if model in _PINHOLES or not any((*k, *p)):
        return None
    return BrownConradyLens(tuple(k[:3]), (p[0], p[1]))
