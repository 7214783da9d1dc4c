"""A pose by its depth map, with parts hidden, and by everything together."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import taichi_raster as tr
from posed import CLOSE, SIZE, body, camera, mask_of, near_truth, off, painted, photo_of
from posed import truth as true_pose
from taichi_raster.fitting.pose_matching import match
from taichi_raster.fitting.pose_scene import PoseScene

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")

EAST = torch.tensor([0.5, 0.0, -0.5])


def depth_of(mesh: tr.Mesh, pose: tr.Pose, size: tuple[int, int]) -> Tensor:
    """By the planes of faces, in closed form: 1 / z is linear in the picture."""
    seen = camera()
    seen = tr.PinholeCamera(pose.view.double(), focal=seen.focal, principal=seen.principal)
    points = seen.project(mesh.vertices[None].double()).float()
    hard = tr.hard_buffers(tr.gather_faces(points, mesh.faces), size, near=0.1, far=10.0)
    inverse = 1 / points[0, :, 2][mesh.faces[hard.face[0].clamp(min=0)]]
    depth = 1 / (hard.barycentrics[0] * inverse).sum(-1)
    return torch.where(hard.face[0] >= 0, depth, 0.0)


def moved(pose: tr.Pose) -> tr.Pose:
    return pose.moved(torch.tensor([[0.06, -0.05, 0.05, 0.04, -0.05, 0.02]]).double())


def test_distances_alone_find_the_pose_behind_an_occluder() -> None:
    mesh, pose = body(), near_truth()
    depth = depth_of(mesh, pose, CLOSE)
    noise = torch.randn(CLOSE, generator=torch.Generator().manual_seed(0))
    depth = depth + 0.002 * noise * (depth > 0)
    depth[:, 100:112] = 0.9  # a pole
    depth[70:80] = torch.nan
    fit = tr.fit_pose(mesh, camera(), start=moved(pose), depth=depth)
    degrees, distance = off(fit, pose, mesh)
    assert fit.converged and 0.001 < fit.depth_error < 0.004
    assert degrees < 0.4 and distance < 0.002


def test_what_is_unknown_counts_for_nothing() -> None:
    """A third of the object is hidden, and the mask is wrong there."""
    mesh, pose = body(), true_pose()
    mask, seen = mask_of(mesh, pose), mask_of(mesh, pose) > 0.5
    columns = seen.nonzero()[:, 1]
    unknown = torch.zeros(SIZE, dtype=torch.bool)
    edge = int(columns.double().quantile(1 / 3))
    unknown[:, :edge] = True
    assert 0.25 < float((seen & unknown).sum() / seen.sum()) < 0.4
    spoiled = torch.where(unknown, torch.nan, mask)
    fit = tr.fit_pose(mesh, camera(), spoiled, moved(pose), starts=1, unknown=unknown)
    degrees, distance = off(fit, pose, mesh)
    assert fit.converged and degrees < 0.5 and distance < 0.005
    without = tr.fit_pose(mesh, camera(), mask * ~unknown, moved(pose), starts=1)
    assert off(without, pose, mesh)[0] > 2 * degrees


def test_mask_photo_and_depth_together_are_surer_than_each() -> None:
    mesh, pose = painted(body()), near_truth()
    mask, photo = mask_of(mesh, pose, CLOSE), photo_of(mesh, pose)
    noise = torch.randn(CLOSE, generator=torch.Generator().manual_seed(1))
    depth = (depth_of(mesh, pose, CLOSE) + 0.004 * noise) * (mask == 1)
    start = moved(pose)
    together = tr.fit_pose(mesh, camera(), mask, start, 1, photo=photo, depth=depth)
    by_photo = tr.fit_pose(mesh, camera(), start=start, photo=photo)
    degrees, distance = off(together, pose, mesh)
    assert together.converged and degrees < 0.1 and distance < 0.001
    assert together.covariance.trace() < by_photo.covariance.trace()


def test_bad_depths_and_unknowns_are_named() -> None:
    mesh, mask = body(), mask_of(body(), true_pose())
    for depth, text in (
        (torch.zeros(SIZE), "depth: has no distances"),
        (-torch.ones(SIZE), "depth: must be positive"),
        (torch.ones(20, 20), r"mask: must be as large as the depth, \(20, 20\)"),
    ):
        with pytest.raises(ValueError, match=text):
            tr.fit_pose(mesh, camera(), mask, depth=depth)
    with pytest.raises(TypeError, match="unknown: must be a tensor of bool"):
        tr.fit_pose(mesh, camera(), mask, unknown=mask)
    with pytest.raises(ValueError, match="unknown: must be as large as the mask"):
        tr.fit_pose(mesh, camera(), mask, unknown=torch.zeros(5, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="mask: is empty"):
        tr.fit_pose(mesh, camera(), mask, unknown=mask > -1)


def test_exposure_and_blur_are_found_together() -> None:
    """In closed form: what is made of three known shares is taken apart again."""
    generator = torch.Generator().manual_seed(0)
    ours, softer = torch.rand(500, 3, generator=generator), torch.rand(500, 3, generator=generator)
    gain, blur, offset = torch.tensor([[0.8, 0.9, 1.1], [0.3, 0.1, 0.0], [0.1, 0.0, -0.1]])
    theirs = gain * ours + 0.1 * blur * softer + offset
    theirs[::25] = 1.0  # something before it
    shares = match(ours, 0.1 * softer, theirs.double()).shares
    assert torch.allclose(shares, torch.stack([gain, blur, offset]).double(), atol=0.02)


def test_pixels_beside_what_is_hidden_keep_away() -> None:
    """A board before another: pixels of both count, but for three on either side of its edge."""
    square = tr.box(2.0, 2.0, 0.1)
    front = replace(square, vertices=square.vertices * torch.tensor([0.5, 1.0, 1.0]) + EAST)
    mesh = tr.join([square, front])
    view = torch.diag(torch.tensor([1.0, -1.0, 1.0, 1.0]))[None]
    scene = PoseScene.of([mesh], [tr.PinholeCamera(view, (1.0, 1.0))])
    known = torch.ones(64, 64, dtype=torch.bool)
    pose = scene.local(tr.Pose.from_rotation_vector([0.0, 0.0, 0.0], [0.0, 0.0, 2.0]))
    near, all_of_it = (
        scene.surface(pose, 0, (64, 64), known, 3, hiding) for hiding in (True, False)
    )
    assert near is not None and all_of_it is not None
    assert set(all_of_it.column.tolist()) - set(near.column.tolist()) == set(range(29, 35))
