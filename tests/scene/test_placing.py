"""Poses: the same in every representation and frame, and moved by unknowns that have no units."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

import taichi_raster as tr

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
F64 = torch.float64
VECTORS = [[0.3, -0.2, 0.5], [0.0, 0.0, 0.0], [2.0, 2.0, -1.0]]
PLACES = torch.tensor([[0.1, 0.2, 3.0], [0.0, 0.0, 1.0], [-1.0, 0.5, 7.0]], dtype=F64)
BY_SCIPY = Rotation.from_rotvec(VECTORS)
POSE = tr.Pose(torch.tensor(BY_SCIPY.as_matrix()), PLACES)
AHEAD = torch.tensor([0.0, 0.0, 1.0])
MESH = tr.torus_knot()


def same(a: tr.Pose, b: tr.Pose) -> None:
    torch.testing.assert_close(a.rotation, b.rotation)
    torch.testing.assert_close(a.translation, b.translation)


def test_rotations_are_scipys_in_and_out() -> None:
    xyzw = torch.tensor(BY_SCIPY.as_quat())
    same(tr.Pose.from_quaternion(2 * xyzw, PLACES, "xyzw"), POSE)
    same(tr.Pose.from_quaternion(xyzw[:, [3, 0, 1, 2]], PLACES, order="wxyz"), POSE)
    same(tr.Pose.from_rotation_vector(torch.tensor(VECTORS, dtype=F64), PLACES), POSE)
    same(tr.Pose.from_six(POSE.six(), PLACES), POSE)
    same(tr.Pose.from_six(POSE.six() * 3, PLACES), POSE)
    torch.testing.assert_close(POSE.rotation_vector(), torch.tensor(BY_SCIPY.as_rotvec()))
    for order, found in (("xyzw", xyzw), ("wxyz", xyzw[:, [3, 0, 1, 2]])):
        quaternion = POSE.quaternion(order)
        sign = (quaternion * found).sum(-1, keepdim=True).sign()
        torch.testing.assert_close(sign * quaternion, found)


def test_frames_differ_by_the_signs_of_their_axes() -> None:
    point = torch.tensor([0.4, -0.3, 0.2, 1.0], dtype=F64)
    x, y, z, _ = (POSE.opencv @ point).unbind(-1)
    torch.testing.assert_close((POSE.opengl @ point)[:, :3], torch.stack([x, -y, -z], -1))
    torch.testing.assert_close((POSE.view @ point)[:, :3], torch.stack([x, -y, z], -1))
    for make, given in (
        (tr.Pose.from_opencv, POSE.opencv),
        (tr.Pose.from_opengl, POSE.opengl),
        (tr.Pose.from_view, POSE.view),
        (tr.Pose.from_opencv, POSE.opencv[:, :3]),
    ):
        same(make(given), POSE)
    same(tr.Pose.from_opengl(POSE.opengl[0].numpy()), tr.Pose(POSE.rotation[:1], PLACES[:1]))


def test_bop_has_rows_and_millimetres() -> None:
    first = POSE.bop(millimetres_per_unit=1000.0)[0]
    assert first["cam_t_m2c"] == pytest.approx([100.0, 200.0, 3000.0])
    assert first["cam_R_m2c"] == pytest.approx(BY_SCIPY.as_matrix()[0].flatten().tolist())
    back = tr.Pose.from_bop(first["cam_R_m2c"], first["cam_t_m2c"], 1000.0)
    torch.testing.assert_close(back.translation.double(), PLACES[:1], atol=1e-6, rtol=0)


def test_a_files_pose_names_its_frame() -> None:
    (first, *_) = json.loads(json.dumps(POSE.to_dict()))
    assert "OpenCV" in first["frame"] and "y down" in first["frame"]
    assert first["translation"] == PLACES[0].tolist()


def test_a_camera_at_a_pose_sees_what_opencv_sees() -> None:
    camera = tr.PinholeCamera(POSE.view, (1.5, 1.5))
    points = torch.tensor([[[0.4, -0.3, 0.2], [0.1, 0.2, -0.1]]], dtype=F64)
    x, y, z = (points @ POSE.rotation.mT + PLACES[:, None]).unbind(-1)
    expected = torch.stack([1.5 * x / z, -1.5 * y / z, z], dim=-1)
    torch.testing.assert_close(camera.project(points), expected)


# Unknowns -----------------------------------------------------------------------------------------

UNKNOWNS = torch.tensor([[0.1, -0.2, 0.3, 0.2, -0.1, 0.4]], dtype=F64)
CENTRE, SIZE = tr.centre_and_size(MESH.vertices.double() + torch.tensor([5.0, -3.0, 2.0]))


def test_unknowns_move_the_centre_and_turn_about_it() -> None:
    moved = POSE.moved(UNKNOWNS, CENTRE, SIZE)
    before = (POSE.rotation @ CENTRE[0]) + PLACES
    after = (moved.rotation @ CENTRE[0]) + moved.translation
    shift = torch.tensor([0.2, -0.1, 0.0], dtype=F64) * SIZE
    torch.testing.assert_close(after, (before + shift) * math.exp(0.4))
    turn = torch.tensor(Rotation.from_rotvec([0.1, -0.2, 0.3]).as_matrix())
    torch.testing.assert_close(moved.rotation, turn @ POSE.rotation)


def test_unknowns_to_is_the_way_back() -> None:
    pose = tr.Pose(POSE.rotation, POSE.translation + torch.tensor([0.0, 0.0, 9.0]))
    moved = pose.moved(UNKNOWNS, CENTRE, SIZE)
    torch.testing.assert_close(pose.unknowns_to(moved, CENTRE, SIZE), UNKNOWNS.expand(3, 6))
    same(pose.moved(torch.zeros(1, 6, dtype=F64), CENTRE, SIZE), pose)


@pytest.mark.parametrize("unit", [1e-3, 1e3])
def test_units_and_origin_do_not_matter(unit: float) -> None:
    """The same object in other units and with another origin moves alike in the picture."""
    offset = torch.tensor([4.0, 1.0, -2.0], dtype=F64)
    vertices = MESH.vertices.double()[None]
    other = (vertices + offset) * unit
    away = POSE.translation + torch.tensor([0.0, 0.0, 5.0])
    here = tr.Pose(POSE.rotation, away)
    there = tr.Pose(POSE.rotation, unit * (away - POSE.rotation @ offset))
    seen = []
    for pose, points in ((here, vertices), (there, other)):
        moved = pose.moved(UNKNOWNS, *tr.centre_and_size(points))
        seen.append(tr.PinholeCamera(moved.view).project(points)[..., :2])
    torch.testing.assert_close(seen[0], seen[1])


def test_each_unknown_moves_the_outline_by_about_its_value_in_sizes() -> None:
    vertices = tr.icosphere(3).vertices.double()[None] * 50
    pose = tr.Pose(torch.eye(3, dtype=F64), 1000 * AHEAD)
    camera = tr.PinholeCamera(pose.view)
    before = camera.project(vertices)[..., :2]
    size = before.norm(dim=-1).max()
    for i in range(6):
        step = torch.zeros(1, 6, dtype=F64)
        step[0, i] = 0.01
        moved = pose.moved(step, *tr.centre_and_size(vertices))
        after = replace(camera, view=moved.view).project(vertices)[..., :2]
        assert 0.005 < (after - before).norm(dim=-1).max() / size < 0.015


@pytest.mark.parametrize("at", [0.0, 0.2])
def test_moving_is_twice_differentiable_at_zero_and_elsewhere(at: float) -> None:
    unknowns = (at * torch.arange(1.0, 7.0, dtype=F64).cos()[None]).requires_grad_()

    def seen(unknowns: Tensor) -> Tensor:
        moved = POSE.moved(unknowns, CENTRE, SIZE)
        return torch.cat([moved.rotation.flatten(1), moved.translation], dim=-1)

    assert torch.autograd.gradcheck(seen, [unknowns])
    assert torch.autograd.gradgradcheck(seen, [unknowns])


@pytest.mark.parametrize("way", ["quaternion", "rotation vector", "six", "matrix"])
def test_representations_are_differentiable_there_and_back(way: str) -> None:
    pose = tr.Pose(POSE.rotation[[0, 2]], PLACES[[0, 2]])
    ways: dict[str, tuple[Tensor, Callable[[Tensor], Tensor]]] = {
        "quaternion": (
            pose.quaternion("wxyz"),
            lambda q: tr.Pose.from_quaternion(q, pose.translation, "wxyz").quaternion("xyzw"),
        ),
        "rotation vector": (
            pose.rotation_vector(),
            lambda v: tr.Pose.from_rotation_vector(v, pose.translation).rotation_vector(),
        ),
        "six": (pose.six(), lambda s: tr.Pose.from_six(s, pose.translation).six()),
        "matrix": (pose.translation, lambda t: tr.Pose(pose.rotation, t).opengl),
    }
    given, through = ways[way]
    assert torch.autograd.gradcheck(through, [given.clone().requires_grad_()])


def test_angles_are_in_degrees() -> None:
    other = tr.Pose.from_rotation_vector(torch.tensor([[0.0, 0.0, math.pi / 3]]), [0.0, 0.0, 1.0])
    still = tr.Pose(torch.eye(3), AHEAD)
    assert float(still.angle_to(other)) == pytest.approx(60.0, abs=1e-3)
    expected = (BY_SCIPY * Rotation.from_matrix(np.eye(3))).magnitude() * 180 / math.pi
    identity = tr.Pose(torch.eye(3, dtype=F64), PLACES)
    np.testing.assert_allclose(identity.angle_to(POSE).numpy(), expected)


def test_centre_and_size_are_of_the_box_and_its_farthest_vertex() -> None:
    centre, size = tr.centre_and_size(torch.tensor([[1.0, 0.0, 0.0], [3.0, 4.0, 0.0]]))
    assert centre.tolist() == [[2.0, 2.0, 0.0]] and float(size) == pytest.approx(math.sqrt(5))


BAD: list[tuple[str, Callable[[], Any]]] = [
    ("rotation: must be", lambda: tr.Pose(torch.eye(4), AHEAD)),
    ("rotation: holds NaN", lambda: tr.Pose(torch.full((3, 3), math.nan), AHEAD)),
    ("translation: holds NaN", lambda: tr.Pose(torch.eye(3), math.nan * AHEAD)),
    ("translation: must be", lambda: tr.Pose(torch.eye(3).expand(2, 3, 3), torch.zeros(3, 3))),
    ("rotation: matrix 0 is not", lambda: tr.Pose(2 * torch.eye(3), AHEAD)),
    ("rotation: matrix 0 mirrors", lambda: tr.Pose.from_opencv(POSE.view)),
    ("quaternion: must not be 0", lambda: tr.Pose.from_quaternion([0.0] * 4, [0.0] * 3, "xyzw")),
    ("quaternion: must be", lambda: tr.Pose.from_quaternion([1.0] * 3, [0.0] * 3, "xyzw")),
    ("order: unknown", lambda: tr.Pose.from_quaternion([1.0] * 4, [0.0] * 3, "wzyx")),
    ("six: the two", lambda: tr.Pose.from_six([1.0, 0.0, 0.0, 2.0, 0.0, 0.0], [0.0] * 3)),
    ("matrix: must be", lambda: tr.Pose.from_opengl(torch.eye(3))),
    ("millimetres_per_unit: must", lambda: POSE.bop(0.0)),
    ("unknowns: must be", lambda: POSE.moved(torch.zeros(1, 7))),
    ("size: must be positive", lambda: POSE.moved(torch.zeros(1, 6), size=0.0)),
    ("other: expected", lambda: POSE.angle_to(3)),  # type: ignore[arg-type]
    ("other: the object's", lambda: POSE.unknowns_to(tr.Pose(POSE.rotation, -PLACES))),
    ("vertices: all are", lambda: tr.centre_and_size(torch.zeros(4, 3))),
    ("vertices: must be", lambda: tr.centre_and_size(torch.zeros(4, 2))),
]


@pytest.mark.parametrize(("message", "make"), BAD)
def test_bad_poses_are_refused_by_name(message: str, make: Callable[[], Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        make()
