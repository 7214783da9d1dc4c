"""`transforms.json`, as nerfstudio and instant-ngp read it."""

from __future__ import annotations

import json
from typing import Any

import torch

from taichi_raster.capture.capture import Capture, Photo
from taichi_raster.capture.writers.parameters import Plan, file_names, mask_names, parameters_of


def plan(capture: Capture) -> Plan:
    """Photos in `images/`, masks in `masks/`, and the file that names them.

    Raises:
        ValueError: for a camera that the file does not hold.
    """
    names = file_names(capture.photos)
    frames = [frame(photo, f"images/{name}") for photo, name in zip(capture, names, strict=True)]
    masks = {}
    for each, photo, name in zip(frames, capture, mask_names(names), strict=True):
        if photo.silhouette is not None:
            each["mask_path"] = f"masks/{name}"
            masks[each["mask_path"]] = photo
    pictures = {each["file_path"]: photo for each, photo in zip(frames, capture, strict=True)}
    content = json.dumps({"frames": frames}, indent=1).encode()
    return Plan(pictures, masks, {"transforms.json": content}, masks_are_named=True)


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
