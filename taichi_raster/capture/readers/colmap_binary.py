"""COLMAP's binary files, little-endian, by https://colmap.github.io/format.html."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from taichi_raster.capture.readers.colmap_models import (
    intrinsics_of,
    model_of_number,
    parameters_of,
)
from taichi_raster.capture.readers.reading import Intrinsics, size_in_file, wrong


def cameras(path: Path) -> dict[int, Intrinsics]:
    """All cameras of cameras.bin, by their numbers."""
    data, found = _Bytes(path), {}
    for i in range(data.count("the number of cameras", least=24)):
        number, model, width, height = data.take("<IiQQ", f"camera {i} of the file")
        field = f"camera {number}"
        name = model_of_number(path, field, model)
        values = data.take(f"<{len(parameters_of(path, field, name))}d", f"{field}.params")
        size = size_in_file(path, f"{field}.width, height", width, height)
        found[number] = intrinsics_of(path, field, name, size, list(values))
    return found


def images(path: Path) -> list[tuple[int, list[float], list[float], int, str]]:
    """Number, quaternion (w first), translation, camera and name of all in images.bin."""
    data, found = _Bytes(path), []
    for i in range(data.count("the number of images", least=73)):
        number, *values, camera = data.take("<I7dI", f"image {i} of the file")
        name = data.text(f"image {number}.name")
        (points,) = data.take("<Q", f"image {number} ({name}).num_points2D")
        data.skip(24 * points, f"image {number} ({name}).points2D")
        found.append((number, values[:4], values[4:], camera, name))
    return found


def points(path: Path) -> ndarray:
    """(P, 3) of points3D.bin."""
    data, found = _Bytes(path), []
    for i in range(data.count("the number of points", least=51)):
        _, x, y, z, *_, track = data.take("<Q3d3BdQ", f"point {i} of the file")
        data.skip(8 * track, f"point {i} of the file.track")
        if not math.isfinite(x + y + z):
            raise wrong(path, f"point {i} of the file", "holds NaN or infinite numbers")
        found.append((x, y, z))
    return np.array(found, dtype=np.float64).reshape(-1, 3)


class _Bytes:
    """A file read from its start; errors say where it ends too early."""

    def __init__(self, path: Path) -> None:
        self.path, self.data, self.at = path, path.read_bytes(), 0

    def take(self, form: str, field: str) -> tuple[Any, ...]:
        start = self.at
        self.skip(struct.calcsize(form), field)
        return struct.unpack_from(form, self.data, start)

    def skip(self, size: int, field: str) -> None:
        if self.at + size > len(self.data):
            raise wrong(
                self.path,
                field,
                f"the file ends here: {size} bytes at {self.at} are wanted, and it has "
                f"{len(self.data)}. It is cut off; copy it again",
            )
        self.at += size

    def count(self, field: str, least: int) -> int:
        """How many elements follow, of at least so many bytes each."""
        (count,) = self.take("<Q", field)
        if count * least > len(self.data) - self.at:
            raise wrong(
                self.path,
                field,
                f"is {count}, more than {len(self.data)} bytes can hold. The file is cut off, or "
                "no such file of COLMAP's",
            )
        return int(count)

    def text(self, field: str) -> str:
        end = self.data.find(b"\0", self.at)
        if end < 0:
            self.skip(len(self.data) - self.at + 1, field)
        found = self.data[self.at : end].decode("utf-8", errors="replace")
        self.at = end + 1
        return found
