"""Cameras that are off by a little are put right by what their photos show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import taichi_raster as tr
from taichi_raster.fitting import refinement
from taichi_raster.fitting.bundle import Bundle, Given
from taichi_raster.fitting.photo_level import Level
from taichi_raster.fitting.refinement import in_given_world
from turntables import camera, mask_of

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")

SIZE = (96, 96)
RADIUS = 0.75


def toy() -> tr.Mesh:
    """A lump with a pattern that no turn or shift maps to itself."""
    lump = tr.blob(seed=1, subdivisions=4)
    vertices = RADIUS * lump.vertices / lump.vertices.abs().max()
    x, y, z = (vertices / RADIUS).unbind(1)
    waves = torch.stack(
        [
            (7 * x + 3 * y * z).sin() + (11 * z - 4 * x).sin(),
            (8 * y - 5 * z + 2 * x * x).sin() + (13 * x + 3 * z).sin(),
            (9 * z + 4 * x - 3 * y).sin() + (12 * y + x).sin(),
        ],
        dim=1,
    )
    return tr.Mesh(vertices, lump.faces, colours=0.5 + 0.2 * waves)


def photos_of(mesh: tr.Mesh, count: int) -> tr.Capture:
    """On a circle, from 20 degrees above."""
    assert mesh.colours is not None
    photos = []
    for i in range(count):
        eye = camera(20.0, 360.0 * i / count)
        faces = tr.gather_faces(eye.project(mesh.vertices[None].double()).float(), mesh.faces)
        colours = tr.gather_faces(mesh.colours[None], mesh.faces)
        seen = tr.sampled_picture(faces, colours, SIZE, 4, near=0.5, far=10.0)[0, ..., :3]
        photos.append(tr.Photo(f"{i:02d}", eye, SIZE, seen, mask_of(mesh, eye, SIZE)))
    return tr.Capture(tuple(photos))


def moved(capture: tr.Capture, degrees: float, only: Sequence[int] | None = None) -> tr.Capture:
    """Cameras turned by so much, and shifted by as many percent of the object's size."""
    generator = torch.Generator().manual_seed(3)
    photos = []
    for i, photo in enumerate(capture):
        row = torch.randn(1, 6, generator=generator, dtype=torch.float64)
        row[:, :3] *= math.radians(degrees) / row[:, :3].norm()
        row[:, 3:] *= 0.01 * degrees
        if only is not None and i not in only:
            row = 0 * row
        view = photo.pose.moved(row, size=RADIUS).view
        photos.append(replace(photo, camera=replace(photo.camera, view=view)))
    return tr.Capture(tuple(photos))


def unit(pose: tr.Pose) -> tr.Pose:
    """Of the object in units of its size."""
    return tr.Pose(pose.rotation, pose.translation / RADIUS)


def after(
    capture: tr.Capture, mesh: tr.Mesh, steps: int, degrees: float, shift: float, outline: float
) -> list[tr.Pose]:
    """The poses after some steps on this surface, in units of its size."""
    surface = tr.Mesh(mesh.vertices / RADIUS, mesh.faces)
    poses = [unit(photo.pose) for photo in capture]
    given = Given.within(poses, degrees, shift)
    levels = [Level.of(photo, 96) for photo in capture]
    bundle = Bundle.of(surface, [p.camera for p in capture], levels, outline, 20.0, given, 0)
    for _ in range(steps):
        bundle, poses = bundle.stepped(poses)
    return poses


def angles(poses: Sequence[tr.Pose], truth: tr.Capture) -> Tensor:
    return torch.cat([a.angle_to(b.pose) for a, b in zip(poses, truth, strict=True)])


def shifts(poses: Sequence[tr.Pose], truth: tr.Capture) -> Tensor:
    """How far the object's centre is off, right and down, in its sizes."""
    rows = [unit(b.pose).unknowns_to(a) for a, b in zip(poses, truth, strict=True)]
    return torch.cat(rows)[:, 3:5].norm(dim=1)


@pytest.fixture(scope="module")
def truth() -> tr.Capture:
    return photos_of(toy(), 12)


def test_true_cameras_stay_where_they_are(truth: tr.Capture) -> None:
    """Hardly held by what was given; 0.3 degrees are 0.15 pixels of the outline."""
    poses = after(truth, toy(), 3, degrees=5.0, shift=0.2, outline=6.0)
    aligned = in_given_world(poses, [unit(photo.pose) for photo in truth])
    assert float(angles(aligned, truth).max()) < 0.4


def test_cameras_that_were_moved_come_nearer(truth: tr.Capture) -> None:
    off = moved(truth, 1.0)
    wanted = [unit(photo.pose) for photo in truth]
    given = in_given_world([unit(photo.pose) for photo in off], wanted)
    poses = in_given_world(after(off, toy(), 3, 1.0, 0.03, 3.0), wanted)
    assert float(angles(given, truth).mean()) > 0.9
    assert float(angles(poses, truth).mean()) < 0.6
    assert float(shifts(poses, truth).mean()) < 0.5 * float(shifts(given, truth).mean())


def test_what_no_photo_shows_stays_as_it_was_given() -> None:
    """Of a grey ball, no photo tells how it is turned; but all tell where it is."""
    ball = tr.icosphere(4, RADIUS)
    ball = tr.Mesh(ball.vertices, ball.faces, colours=torch.full_like(ball.vertices, 0.5))
    truth = photos_of(ball, 6)
    off = moved(truth, 1.0)
    poses = after(off, ball, 3, 1.0, 0.03, 3.0)
    assert float(angles(poses, off).max()) < 0.01
    before = shifts([unit(photo.pose) for photo in off], truth)
    assert float(shifts(poses, truth).max()) < 0.1 * float(before.max())


def test_the_world_is_the_one_that_was_given(truth: tr.Capture) -> None:
    """Turn, shift and scale of all cameras together are undone exactly."""
    given = [photo.pose for photo in truth]
    turn = tr.Pose.from_rotation_vector([0.3, -0.2, 0.5], [0.4, 0.1, -0.7])
    other = []
    for pose in given:
        rotation = pose.rotation.double() @ turn.rotation.double()
        place = 1.7 * pose.translation + (rotation @ turn.translation.double()[..., None])[..., 0]
        other.append(tr.Pose(rotation, place))
    for pose, wanted in zip(in_given_world(other, given), given, strict=True):
        torch.testing.assert_close(pose.view, wanted.view, atol=1e-6, rtol=0)


def test_the_whole_refinement_keeps_photos_names_and_lenses(
    truth: tr.Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refinement, "ROUNDS", refinement.ROUNDS[:1])
    said: list[str] = []
    off = moved(truth, 0.5)
    found = tr.refine_cameras(off, 0.5, done=said.append)
    assert found.names == off.names
    assert sum("features of photo" in line for line in said) == len(off.photos)
    assert sum("120 pixels" in line for line in said) == 4  # too few features
    assert all(a.picture is b.picture for a, b in zip(found, off, strict=True))
    assert all(a.camera.focal is b.camera.focal for a, b in zip(found, off, strict=True))
    turned = torch.cat([a.pose.angle_to(b.pose) for a, b in zip(found, off, strict=True)])
    assert 0.05 < float(turned.max()) < 1.0
    fit = tr.fit_mesh(off, face_count=300, steps=1, cells=16, refine_cameras=True)
    torch.testing.assert_close(fit.capture.camera.view, found.camera.view, atol=0.1, rtol=0)
    assert not torch.equal(fit.capture.camera.view, off.camera.view)


def test_bad_arguments_are_named(truth: tr.Capture) -> None:
    with pytest.raises(ValueError, match="takes three photos or more"):
        tr.refine_cameras(truth.only([0, 1]))
    with pytest.raises(ValueError, match="uncertainty: must be positive"):
        tr.refine_cameras(truth, 0.0)
    with pytest.raises(TypeError, match="capture"):
        tr.refine_cameras(toy())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="refine_cameras: expected True or False"):
        tr.fit_mesh(truth, refine_cameras=1)  # type: ignore[arg-type]
