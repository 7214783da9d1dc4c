"""Real files, where they are there: a toy on a turntable, a chessboard, a fox, a box."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import taichi_raster as tr
from paths import ROOT

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
DATA = ROOT.parent / "shared" / "data"
F64 = torch.float64


def there(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path


def iou(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a > 0.5, b > 0.5
    return float((a & b).sum() / (a | b).sum())


def test_the_dinosaurs_matrices_are_of_a_left_handed_world() -> None:
    folder = there("dino")
    capture = tr.load_capture(folder)
    assert len(capture) == 36 and capture.mirrored and capture.image_size == (576, 720)
    given = torch.tensor(json.loads((folder / "cameras.json").read_text())["P"], dtype=F64)
    points = 0.01 * torch.randn(9, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    image = torch.cat([points, torch.ones(9, 1)], 1) @ given.mT
    u, v = (image[..., :2] / image[..., 2:]).unbind(-1)
    ours = points * torch.tensor([1.0, 1.0, -1.0])
    x, y, z = capture.camera.project(ours.expand(36, -1, -1)).unbind(-1)
    torch.testing.assert_close((x * 576 + 719) / 2, u, atol=1e-6, rtol=0)
    torch.testing.assert_close((575 - y * 576) / 2, v, atol=1e-6, rtol=0)
    assert (z > 0).all()


def test_the_dinosaur_is_found_by_its_colour() -> None:
    folder = there("dino")
    truth, keyed = tr.load_capture(folder), tr.load_capture(folder, key="auto")
    for i in (0, 9, 20):
        assert iou(truth[i].mask(), keyed[i].mask()) > 0.97


def board() -> torch.Tensor:
    """9 x 6 inner corners, 25 mm apart."""
    y, x = torch.meshgrid(torch.arange(6), torch.arange(9), indexing="ij")
    return torch.stack([x, y, 0 * x], -1).reshape(1, -1, 3).double() * 2.5000000372529030e-02


def test_the_chessboards_corners_land_where_opencv_puts_them() -> None:
    capture = tr.load_capture(there("chess"))
    assert len(capture) == 13
    x, y, _ = capture.camera.project(board().expand(13, -1, -1)).unbind(-1)
    found = torch.stack([(x * 480 + 639) / 2, (479 - y * 480) / 2], -1)
    # By cv2.projectPoints of opencv-python-headless 5.0.0, with the file's numbers: the first and
    # the last corner in the photos left01, left05 and left14.
    expected = [
        [[244.46547409, 94.00254553], [510.39673938, 266.22060387]],
        [[436.57661922, 49.7829052], [288.47156186, 431.79435794]],
        [[416.47385505, 57.36370879], [279.7709337, 423.01957316]],
    ]
    torch.testing.assert_close(
        found[[0, 4, 12]][:, [0, -1]], torch.tensor(expected, dtype=F64), atol=1e-6, rtol=0
    )


def test_the_chessboards_corners_are_corners_of_the_photos() -> None:
    """At an inner corner the photo is a saddle: opposite quadrants are alike, neighbours not."""
    capture = tr.load_capture(there("chess"))
    signs = []
    for photo in capture:
        grey = photo.image().mean(-1)
        step = torch.tensor([[0.006, 0.006, 0.0], [-0.006, 0.006, 0.0]], dtype=F64)
        corners = board()
        values = []
        for offset in (step[0], step[1], -step[0], -step[1]):
            x, y, _ = photo.camera.project(corners + offset)[0].unbind(-1)
            column, row = ((x * 480 + 639) / 2).round().long(), ((479 - y * 480) / 2).round().long()
            values.append(grey[row, column])
        a, b, c, d = values
        signs.append(((a + c - b - d).abs() > 2 * (a - c).abs() + 0.1).double().mean())
    assert torch.stack(signs).mean() > 0.95


def test_the_foxs_cameras_look_at_the_fox() -> None:
    path = there("fox")
    capture = tr.load_capture(path, pictures=False)
    assert capture.image_size == (1920, 1080)
    assert isinstance(capture[0].camera.lens, tr.BrownConradyLens)
    rows = capture[0].camera.lens.rows()[0].tolist()
    assert rows == pytest.approx([0.0578421, -0.0805099, 0, 0, 0, 0, -0.000980296, 0.00015575])
    # The point nearest to all axes lies before all cameras, in their images.
    axes, eyes = capture.camera.view[:, 2, :3], capture.camera.eye
    across = torch.eye(3).double() - axes[:, :, None] * axes[:, None]
    point = torch.linalg.solve(across.sum(0), (across @ eyes[..., None]).sum(0))[:, 0]
    x, y, z = capture.camera.project(point.expand(len(capture), 1, 3)).unbind(-1)
    assert (z > 0).all() and (x.abs() < 1).all() and (y.abs() < 16 / 9).all()
    with pytest.raises(FileNotFoundError, match=r"frames\[0\] \(images/0001.jpg\)"):
        tr.load_capture(path)


def test_the_boxs_points_land_on_its_pixels() -> None:
    folder = there("box")
    truth = json.loads((folder / "truth.json").read_text())
    k, pose = truth["intrinsics"], truth["pose_opencv"]
    found = tr.Pose.from_rotation_vector(pose["rotation_vector"], pose["translation"])
    matrix = [[k["fx"], 0.0, k["cx"]], [0.0, k["fy"], k["cy"]], [0.0, 0.0, 1.0]]
    camera = tr.conventions.from_opencv(found.rotation, found.translation, matrix, (480, 718))
    with np.load(folder / "correspondences.npz") as file:
        arrays = [file[name] for name in file.files]
    points = next(torch.tensor(a).double() for a in arrays if a.shape[-1] == 3)
    pixels = next(torch.tensor(a).double() for a in arrays if a.shape[-1] == 2)
    x, y, _ = camera.project(points.reshape(1, -1, 3))[0].unbind(-1)
    ours = torch.stack([(x * 480 + 717) / 2, (479 - y * 480) / 2], -1)
    assert (ours - pixels.reshape(-1, 2)).norm(dim=-1).median() < 0.2
