"""The camera that a command is asked for."""

from __future__ import annotations

from pathlib import Path

import torch

from taichi_raster.capture.load import load_camera
from taichi_raster.scene.camera import PinholeCamera


def chosen_camera(camera: Path | None, focal: float | None, size: tuple[int, int]) -> PinholeCamera:
    """From a calibration's file, or a focal length in pixels, for pictures of (height, width).

    Raises:
        ValueError: unless one of the two is given, or for a focal length out of range; what
            `load_camera` raises.
    """
    if (camera is None) == (focal is None):
        raise ValueError("--camera, --focal: give one of them")
    if camera is not None:
        return load_camera(camera, size)
    assert focal is not None
    if not 0 < focal < 1e9:
        raise ValueError(f"--focal: expected a positive number of pixels, got {focal}")
    ndc = 2 * focal / min(size)
    return PinholeCamera(torch.eye(4, dtype=torch.float64)[None], focal=(ndc, ndc))
