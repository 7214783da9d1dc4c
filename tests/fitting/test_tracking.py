"""The pose through a video: followed, lost and found again, and honest about it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import taichi_raster as tr
from clips import SIZE, camera, drawn, painted, poses
from taichi_raster.fitting.pose_problem import Problem
from taichi_raster.fitting.window import window_about

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")


def off(found: tr.TrackedPose, truth: tr.Pose) -> tuple[float, float]:
    """(degrees, distance of the origins), which are the box's centres."""
    shift = (found.pose.translation - truth.translation).norm()
    return float(found.pose.angle_to(truth)), float(shift)


def test_a_moving_object_is_followed_from_a_rough_start() -> None:
    mesh, truth = painted(), poses(5)
    start = truth[0].moved(torch.tensor([[0.06, -0.05, 0.04, 0.04, -0.03, 0.02]]).double())
    frames = [(drawn(mesh, pose) * 255).byte().numpy() for pose in truth]
    for found, pose in zip(tr.track_pose(mesh, frames, camera(), start), truth, strict=True):
        degrees, distance = off(found, pose)
        assert found.converged and not found.reason and found.agreement > 0.8
        assert degrees < 0.5 and distance < 0.02
        assert bool((torch.linalg.eigvalsh(found.covariance) > 0).all())


def test_what_cannot_be_judged_says_so_and_the_object_is_found_again() -> None:
    """Black frames, noise, then the object some way on: nothing is claimed that is not seen."""
    mesh, truth = painted(), poses(6)
    noise = torch.rand(*SIZE, 3, generator=torch.Generator().manual_seed(0))
    frames = [
        drawn(mesh, truth[0]),
        torch.zeros(*SIZE, 3),
        noise,
        drawn(mesh, truth[4]),
        drawn(mesh, truth[5]),
    ]
    found = list(tr.track_pose(mesh, frames, camera(), truth[0], tries=60))
    assert [one.converged for one in found] == [True, False, False, True, True]
    assert found[1].reason == "the picture is blank"
    assert found[2].reason == "the picture does not agree with the mesh"
    for one in found[1:3]:  # held, not extrapolated
        assert torch.equal(one.pose.rotation, found[0].pose.rotation)
        assert bool(one.covariance.isnan().all())
    assert off(found[3], truth[4])[0] < 0.5 and off(found[4], truth[5])[0] < 0.5


def test_an_object_half_hidden_is_still_followed() -> None:
    mesh, pose = painted(), poses(1)[0]
    frame = drawn(mesh, pose)
    frame[:, 70:95] = torch.tensor([0.2, 0.6, 0.3])
    start = pose.moved(torch.tensor([[0.03, 0.02, -0.02, 0.01, 0.0, 0.01]]).double())
    (found,) = tr.track_pose(mesh, [frame], camera(), start)
    assert found.converged and 0.4 < found.agreement < 0.95
    assert off(found, pose)[0] < 1.0


def test_out_of_the_picture_is_a_reason_of_its_own() -> None:
    mesh, pose = painted(), poses(1)[0]
    away = tr.Pose(pose.rotation, pose.translation + torch.tensor([9.0, 0.0, 0.0]))
    (found,) = tr.track_pose(mesh, [drawn(mesh, pose)], camera(), away, tries=4)
    assert not found.converged and "out of the picture" in found.reason


def test_masks_alone_are_followed() -> None:
    body = tr.join([tr.box(1.0, 0.7, 0.4), _moved(tr.box(0.3, 0.3, 0.5), (0.4, 0.3, 0.3))])
    truth = poses(2)
    masks, frames = [], [torch.rand(*SIZE, 3)] * 3
    for pose in truth:
        seen = replace(camera(), view=pose.view).project(body.vertices[None].double()).float()
        faces = tr.gather_faces(seen, body.faces)
        masks.append(tr.sampled_picture(faces, None, SIZE, 4)[0, ..., 0])
    masks.append(torch.zeros(SIZE))
    found = list(tr.track_pose(body, frames, camera(), truth[0], masks))
    assert [one.converged for one in found] == [True, True, False]
    assert found[2].reason == "the mask is empty" and math.isnan(found[2].mismatch)
    assert off(found[1], truth[1])[0] < 1.0 and found[1].mismatch < 0.02


def _moved(mesh: tr.Mesh, shift: tuple[float, float, float]) -> tr.Mesh:
    return replace(mesh, vertices=mesh.vertices + torch.tensor(shift))


def test_a_window_sees_what_the_frame_sees_there() -> None:
    """Points of the object, in the pixels of the window and in those of the frame."""
    mesh, pose = painted(), poses(1)[0]
    problem = Problem.of(mesh, camera(), torch.ones(1, 1))
    local = problem.local(pose)
    frame = torch.stack(torch.meshgrid(*map(torch.arange, (240, 320)), indexing="ij"), -1).float()
    frame = torch.cat([frame, frame[..., :1]], -1)  # each pixel holds its row and its column
    window = window_about(problem, frame, local, 32)
    assert window is not None
    height, width = window.picture.shape[:2]
    for points, size, picture in (
        (window.problem.points(local, mesh)[0], (height, width), window.picture),
    ):
        short = min(size)
        column, row = (
            (points[:, 0] * short + size[1] - 1) / 2,
            (size[0] - 1 - points[:, 1] * short) / 2,
        )
        whole = problem.points(local, mesh)[0]
        expected = torch.stack(
            [(239 - whole[:, 1] * 240) / 2, (319 + whole[:, 0] * 240) / 2], dim=1
        )
        i, j = row.floor().long(), column.floor().long()
        v, u = (row - i)[:, None], (column - j)[:, None]
        found = (1 - v) * ((1 - u) * picture[i, j] + u * picture[i, j + 1])
        found = found + v * ((1 - u) * picture[i + 1, j] + u * picture[i + 1, j + 1])
        torch.testing.assert_close(found[:, :2].double(), expected.double(), atol=1e-3, rtol=0)


def test_bad_input_is_named() -> None:
    mesh, pose = painted(), poses(1)[0]
    plain = tr.Mesh(mesh.vertices, mesh.faces)
    frame = np.zeros((*SIZE, 3), np.uint8)
    with pytest.raises(ValueError, match="mesh: needs a texture or colours; or give masks"):
        tr.track_pose(plain, [frame], camera(), pose)
    with pytest.raises(ValueError, match="start: the object is behind the camera"):
        tr.track_pose(mesh, [frame], camera(), tr.Pose(pose.rotation, -pose.translation))
    with pytest.raises(TypeError, match="frames: expected something to iterate over"):
        tr.track_pose(mesh, 3, camera(), pose)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tries: expected a positive integer"):
        tr.track_pose(mesh, [frame], camera(), pose, tries=0)
    for second, text in (
        (frame[:-1], r"frames\[1\]: must be \(120, 160\), as the first, got \(119, 160\)"),
        (frame[..., 0], r"frames\[1\]: must be \(H, W, 3\)"),
        (frame.astype(np.float64) * np.nan, r"frames\[1\]: must be finite"),
    ):
        tracked = tr.track_pose(mesh, [frame, second], camera(), pose, tries=1)
        next(tracked)
        with pytest.raises(ValueError, match=text):
            next(tracked)
