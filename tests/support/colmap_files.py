"""COLMAP's files by the letter of https://colmap.github.io/format.html, and by nothing of ours."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

# https://github.com/colmap/colmap/blob/main/src/colmap/sensor/models.h
NUMBERS = {
    "SIMPLE_PINHOLE": 0,
    "PINHOLE": 1,
    "SIMPLE_RADIAL": 2,
    "RADIAL": 3,
    "OPENCV": 4,
    "OPENCV_FISHEYE": 5,
    "FULL_OPENCV": 6,
    "FOV": 7,
}


class Camera(NamedTuple):
    id: int
    model: str
    width: int
    height: int
    params: tuple[float, ...]


class Image(NamedTuple):
    id: int
    qvec: tuple[float, float, float, float]  # w first
    tvec: tuple[float, float, float]
    camera_id: int
    name: str
    points2D: tuple[tuple[float, float, int], ...] = ()


class Point(NamedTuple):
    id: int
    xyz: tuple[float, float, float]
    track: tuple[tuple[int, int], ...] = ()


def write_text(
    folder: Path, cameras: list[Camera], images: list[Image], points: list[Point]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["# Camera list with one line of data per camera:"]
    lines += [
        f"{c.id} {c.model} {c.width} {c.height} {' '.join(map(repr, c.params))}" for c in cameras
    ]
    (folder / "cameras.txt").write_text("\n".join(lines) + "\n")
    lines = ["# Image list with two lines of data per image:", "# IMAGE_ID, QW, ..."]
    for i in images:
        numbers = " ".join(map(repr, (*i.qvec, *i.tvec)))
        lines.append(f"{i.id} {numbers} {i.camera_id} {i.name}")
        lines.append(" ".join(f"{x!r} {y!r} {point}" for x, y, point in i.points2D))
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    lines = ["# 3D point list with one line of data per point:"]
    for p in points:
        track = " ".join(f"{image} {at}" for image, at in p.track)
        lines.append(f"{p.id} {' '.join(map(repr, p.xyz))} 10 20 30 0.5 {track}")
    (folder / "points3D.txt").write_text("\n".join(lines) + "\n")


def write_binary(
    folder: Path, cameras: list[Camera], images: list[Image], points: list[Point]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "cameras.bin").open("wb") as file:
        file.write(struct.pack("<Q", len(cameras)))
        for c in cameras:
            file.write(struct.pack("<iiQQ", c.id, NUMBERS[c.model], c.width, c.height))
            for value in c.params:
                file.write(struct.pack("<d", value))
    with (folder / "images.bin").open("wb") as file:
        file.write(struct.pack("<Q", len(images)))
        for i in images:
            file.write(struct.pack("<idddddddi", i.id, *i.qvec, *i.tvec, i.camera_id))
            file.write(i.name.encode() + b"\x00")
            file.write(struct.pack("<Q", len(i.points2D)))
            for x, y, point in i.points2D:
                file.write(struct.pack("<ddq", x, y, point))
    with (folder / "points3D.bin").open("wb") as file:
        file.write(struct.pack("<Q", len(points)))
        for p in points:
            file.write(struct.pack("<QdddBBBd", p.id, *p.xyz, 10, 20, 30, 0.5))
            file.write(struct.pack("<Q", len(p.track)))
            for image, at in p.track:
                file.write(struct.pack("<ii", image, at))
