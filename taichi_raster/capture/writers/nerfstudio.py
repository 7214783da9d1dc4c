"""`transforms.json`, as nerfstudio and instant-ngp read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from taichi_raster.capture.capture import Capture, Photo
from taichi_raster.capture.writers.parameters import (
    file_names,
    parameters_of,
    write_mask,
    write_picture,
)


def write(folder: Path, capture: Capture) -> None:
    """Photos in `images/`, masks in `masks/`, and the file that names them, which comes last."""
    names = file_names(capture.photos)
    frames = [frame(photo, f"images/{name}") for photo, name in zip(capture, names, strict=True)]
    for each, photo, name in zip(frames, capture, names, strict=True):
        write_picture(folder / "images" / name, photo)
        if photo.silhouette is not None:
            each["mask_path"] = str(Path("masks", name).with_suffix(".png"))
            write_mask(folder / each["mask_path"], photo)
    (folder / "transforms.json").write_text(json.dumps({"frames": frames}, indent=1))


def frame(photo: Photo, path: str) -> dict[str, Any]:
    """A photo at this path, with its camera."""
    found = parameters_of(photo, "transforms.json")
    if not found.fisheye and any(found.k[3:]):
        raise ValueError(
            f"{photo.name}: camera.lens: its k4 to k6 are not 0, which transforms.json does not "
            "hold; write COLMAP's format, or use tr.undistort"
        )
    to_world = torch.linalg.inv(photo.pose.opengl[0].detach().double())
    lens = {f"k{i}": k for i, k in enumerate(found.k[: 4 if found.fisheye else 3], 1)}
    if not found.fisheye:
        lens |= {"p1": found.p[0], "p2": found.p[1]}
    return {
        "file_path": path,
        "camera_model": "OPENCV_FISHEYE" if found.fisheye else "OPENCV",
        "w": found.width,
        "h": found.height,
        "fl_x": found.fx,
        "fl_y": found.fy,
        "cx": found.cx,
        "cy": found.cy,
        **lens,
        "transform_matrix": to_world.tolist(),
    }
