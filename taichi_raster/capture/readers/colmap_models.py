"""COLMAP's models of cameras: their numbers, names and parameters.

See https://colmap.github.io/cameras.html; the order is that of src/colmap/sensor/models.h.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from taichi_raster.capture.readers.reading import Intrinsics, wrong
from taichi_raster.scene.lenses.base import Lens
from taichi_raster.scene.lenses.brown_conrady import BrownConradyLens
from taichi_raster.scene.lenses.kannala_brandt import KannalaBrandtLens

MODELS = {
    "SIMPLE_PINHOLE": (0, "f cx cy"),
    "PINHOLE": (1, "fx fy cx cy"),
    "SIMPLE_RADIAL": (2, "f cx cy k1"),
    "RADIAL": (3, "f cx cy k1 k2"),
    "OPENCV": (4, "fx fy cx cy k1 k2 p1 p2"),
    "OPENCV_FISHEYE": (5, "fx fy cx cy k1 k2 k3 k4"),
    "FULL_OPENCV": (6, "fx fy cx cy k1 k2 p1 p2 k3 k4 k5 k6"),
    "SIMPLE_RADIAL_FISHEYE": (8, "f cx cy k1"),
    "RADIAL_FISHEYE": (9, "f cx cy k1 k2"),
}
"""Number, and names of the parameters in their order."""

OTHERS = {7: "FOV", 10: "THIN_PRISM_FISHEYE", 11: "RAD_TAN_THIN_PRISM_FISHEYE"}
"""Those that no lens here stands for."""


def model_of_number(path: Path, field: str, number: int) -> str:
    """The name of a model by COLMAP's number."""
    found = next((name for name, (own, _) in MODELS.items() if own == number), None)
    if found is None:
        raise _unknown(path, field, OTHERS.get(number, str(number)))
    return found


def parameters_of(path: Path, field: str, model: str) -> list[str]:
    """The names of a model's parameters."""
    if model not in MODELS:
        raise _unknown(path, field, model)
    return MODELS[model][1].split()


def intrinsics_of(
    path: Path, field: str, model: str, size: tuple[int, int], values: list[float]
) -> Intrinsics:
    """A camera by its model and parameters."""
    names = parameters_of(path, field, model)
    if len(values) != len(names):
        expected = f"must have the {len(names)} numbers {', '.join(names)}, got {len(values)}"
        raise wrong(path, f"{field}.params", expected)
    if not np.isfinite(values).all():
        raise wrong(path, f"{field}.params", "holds NaN or infinite numbers")
    found = dict(zip(names, values, strict=True))
    fx, fy = found.get("fx", found.get("f", 0.0)), found.get("fy", found.get("f", 0.0))
    if fx <= 0 or fy <= 0:
        raise wrong(path, f"{field}.params", f"focal lengths must be positive, got {fx}, {fy}")
    matrix = np.array([[fx, 0.0, found["cx"]], [0.0, fy, found["cy"]], [0.0, 0.0, 1.0]])
    radial = tuple(found.get(f"k{i}", 0.0) for i in range(1, 7))
    lens: Lens | None = None
    if model.endswith("FISHEYE"):
        lens = KannalaBrandtLens(radial[:4])
    elif any(name[0] in "kp" for name in names):
        lens = BrownConradyLens(radial, (found.get("p1", 0.0), found.get("p2", 0.0)))
    return Intrinsics(matrix, size, 0.5, lens)


def _unknown(path: Path, field: str, model: str) -> ValueError:
    return wrong(
        path,
        f"{field}.model",
        f"{model} is not one of {', '.join(MODELS)}; undistort the photos with COLMAP's "
        "image_undistorter, which gives PINHOLE",
    )
