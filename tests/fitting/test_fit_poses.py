"""Poses by several photos, and of several objects, against the truth."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import taichi_raster as tr
from posed import SIZE, body

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")


def cameras() -> list[tr.PinholeCamera]:
    views = tr.orbit(3.0, [20.0, 10.0], [10.0, 100.0]).double()
    return [tr.PinholeCamera(view[None], (2.6, 2.5)) for view in views]


def placed(turn: list[float], place: list[float]) -> tr.Pose:
    pose = tr.Pose.from_rotation_vector(turn, place)
    return tr.Pose(pose.rotation.double(), pose.translation.double())


def in_world(mesh: tr.Mesh, pose: tr.Pose) -> tr.Mesh:
    vertices = mesh.vertices.double() @ pose.rotation[0].T + pose.translation[0]
    return replace(mesh, vertices=vertices.float())


def labels_of(meshes: list[tr.Mesh], camera: tr.PinholeCamera) -> tuple[Tensor, Tensor]:
    """(labels by the nearest face of each pixel's centre, coverage of all)."""
    faces = [tr.gather_faces(camera.project(m.vertices[None]).float(), m.faces) for m in meshes]
    owner = torch.cat([torch.full((f.shape[1],), k + 1) for k, f in enumerate(faces)])
    whole = torch.cat(faces, dim=1)
    seen = tr.hard_buffers(whole, SIZE).face[0]
    coverage = tr.sampled_picture(whole, None, SIZE, 8)[0, ..., 0]
    return torch.where(seen >= 0, owner[seen.clamp(min=0)], 0), coverage


def off(found: tr.Pose, truth: tr.Pose, mesh: tr.Mesh) -> tuple[float, float]:
    """(degrees, shift of the centre)."""
    centre = tr.centre_and_size(mesh.vertices.double())[0][0]
    one, two = (p.rotation[0].double() @ centre + p.translation[0] for p in (found, truth))
    return float(found.angle_to(truth)), float((one - two).norm())


def test_two_photos_place_an_object_better_than_one() -> None:
    mesh, truth = body(), placed([0.5, -0.3, 0.4], [0.1, 0.0, -0.1])
    masks = [labels_of([in_world(mesh, truth)], camera)[1] for camera in cameras()]
    start = placed([0.6, -0.35, 0.3], [0.15, -0.05, -0.05])
    both = tr.fit_poses(mesh, cameras(), masks, start)
    one = tr.fit_poses(mesh, cameras()[:1], masks[:1], start)
    degrees, shift = off(both.poses, truth, mesh)
    assert both.converged and degrees < 0.2 and shift < 0.003
    assert both.covariance.shape == (6, 6) and both.mismatches.shape == (2,)
    assert both.covariance[3:, 3:].trace() < one.covariance[3:, 3:].trace()


def test_two_objects_of_which_one_hides_the_other() -> None:
    meshes = [body(), tr.box(0.5, 0.6, 0.3)]
    truths = [placed([0.5, -0.3, 0.4], [0.1, 0.0, -0.1]), placed([0.2, 0.7, 0.1], [0.3, -0.1, 0.7])]
    world = [in_world(mesh, truth) for mesh, truth in zip(meshes, truths, strict=True)]
    labels = labels_of(world, cameras()[0])[0]
    alone = labels_of(world[:1], cameras()[0])[0]
    assert float(((labels == 1) & (alone == 1)).sum() / (alone == 1).sum()) < 0.85
    first = [placed([0.55, -0.35, 0.35], [0.13, -0.02, -0.1])]
    first.append(placed([0.25, 0.65, 0.15], [0.28, -0.08, 0.7]))
    start = tr.Pose(
        torch.cat([pose.rotation for pose in first]),
        torch.cat([pose.translation for pose in first]),
    )
    fit = tr.fit_poses(meshes, cameras()[0], [labels], start)
    assert fit.converged and fit.covariance.shape == (12, 12) and len(fit.poses) == 2
    for k, (mesh, truth) in enumerate(zip(meshes, truths, strict=True)):
        found = tr.Pose(fit.poses.rotation[k], fit.poses.translation[k])
        degrees, shift = off(found, truth, mesh)
        assert degrees < 1.5 and shift < 0.03  # labels are whole pixels


def test_what_is_wrong_is_named_with_its_photo() -> None:
    mesh, mask = body(), torch.zeros(SIZE)
    mask[30:60, 40:80] = 1
    here = cameras()[0]
    for arguments, text in (
        (([], here, [mask]), "meshes: expected at least one"),
        ((mesh, cameras(), [mask]), "masks: expected 2, one for each camera, got 1"),
        ((mesh, cameras(), [mask, None]), "masks, photos, depths: photo 1 has none of them"),
        ((mesh, cameras(), [mask, 0 * mask]), "mask 1: is empty"),
        (([mesh, mesh], here, [mask]), "start: give one, or labels"),
        ((mesh, here, [3 * mask.long()]), "masks: of photo 0, labels must be"),
    ):
        with pytest.raises(ValueError, match=text):
            tr.fit_poses(*arguments)
    with pytest.raises(TypeError, match="masks: expected a list, one for each camera"):
        tr.fit_poses(mesh, here, mask)  # type: ignore[arg-type]
