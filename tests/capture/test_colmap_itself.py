"""COLMAP's own library writes models that are read here, and reads those written here.

Skipped where `pycolmap` is not installed; it is no dependency.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import captures
import taichi_raster as tr

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
pycolmap = pytest.importorskip("pycolmap", minversion="3.12")

POINTS = np.random.default_rng(0).uniform(-0.4, 0.4, (20, 3))
PARAMETERS = {
    "SIMPLE_PINHOLE": [70, 33, 23.5],
    "PINHOLE": [70, 72, 33, 23.5],
    "SIMPLE_RADIAL": [70, 33, 23.5, -0.2],
    "RADIAL": [70, 33, 23.5, -0.2, 0.05],
    "OPENCV": [70, 72, 33, 23.5, -0.2, 0.05, 0.002, -0.001],
    "OPENCV_FISHEYE": [70, 72, 33, 23.5, -0.03, 0.01, -0.004, 0.0007],
    "FULL_OPENCV": [70, 72, 33, 23.5, -0.2, 0.05, 0.002, -0.001, 0.01, 0.1, 0.02, 0.01],
    "SIMPLE_RADIAL_FISHEYE": [70, 33, 23.5, -0.02],
    "RADIAL_FISHEYE": [70, 33, 23.5, -0.02, 0.003],
}


def model(name: str) -> Any:
    made = pycolmap.Reconstruction()
    height, width = captures.SIZE
    parameters = PARAMETERS[name]
    camera = pycolmap.Camera(model=name, width=width, height=height, params=parameters, camera_id=1)
    made.add_camera_with_trivial_rig(camera)
    for i, view in enumerate(captures.views(), 1):
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d(view.rotation), view.translation)
        image = pycolmap.Image(name=view.name, camera_id=1, image_id=i)
        made.add_image_with_trivial_frame(image, pose)
    for point in POINTS:
        made.add_point3D(point, pycolmap.Track(), np.zeros(3, dtype=np.uint8))
    return made


def seen_by_colmap(model: Any) -> np.ndarray:
    """(photos, points, 2), in the order of names."""
    found = []
    for image in sorted(model.images.values(), key=lambda image: image.name):
        camera, pose = model.cameras[image.camera_id], image.cam_from_world()
        found.append([np.ravel(camera.img_from_cam(pose * point)) for point in POINTS])
    return np.array(found)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("name", PARAMETERS)
def test_both_see_the_same(name: str, binary: bool, tmp_path: Path) -> None:
    given = model(name)
    (tmp_path / "given" / "sparse").mkdir(parents=True)
    (given.write_binary if binary else given.write_text)(str(tmp_path / "given" / "sparse"))
    captures.write_photos(tmp_path / "given" / "images")
    capture = tr.load_capture(tmp_path / "given")
    x, y, _ = capture.camera.project(torch.tensor(POINTS).expand(4, -1, -1)).unbind(-1)
    height, width = captures.SIZE
    ours = torch.stack([(x * height + width) / 2, (height - y * height) / 2], -1).numpy()
    np.testing.assert_allclose(ours, seen_by_colmap(given), atol=1e-9)
    assert capture.points is not None
    np.testing.assert_array_equal(np.sort(capture.points.numpy(), 0), np.sort(POINTS, 0))

    tr.save_capture(tmp_path / "made", capture, "colmap" if binary else "colmap-text")
    again = pycolmap.Reconstruction(str(tmp_path / "made" / "sparse" / "0"))
    np.testing.assert_allclose(seen_by_colmap(again), ours, atol=1e-9)
    assert len(again.points3D) == len(POINTS)
