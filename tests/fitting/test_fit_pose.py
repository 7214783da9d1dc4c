"""The pose of an object from its mask: whatever the start, the units and the frame."""

from __future__ import annotations

import math

import pytest
import torch

import taichi_raster as tr
from chessboards import away, chessboard
from paths import ROOT
from posed import CLOSE, SIZE, body, camera, mask_of, near_truth, off, painted, photo_of, truth

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_start_thirty_degrees_away_finds_the_pose(seed: int) -> None:
    mesh, pose = body(), truth()
    generator = torch.Generator().manual_seed(seed)
    turn = torch.nn.functional.normalize(torch.randn(3, generator=generator), dim=0)
    shift = torch.tensor([0.5, -0.4, 0.15])
    unknowns = torch.cat([math.radians(30) * turn, shift])[None].double()
    start = pose.moved(unknowns, *tr.centre_and_size(mesh.vertices.double()))
    fit = tr.fit_pose(mesh, camera(), mask_of(mesh, pose), start)
    degrees, distance = off(fit, pose, mesh)
    assert fit.converged and fit.mismatch < 0.01
    assert degrees < 0.3 and distance < 0.003


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1000.0, 250.0)])
def test_no_start_is_needed_and_units_do_not_matter(scale: float, shift: float) -> None:
    mesh, pose = body(scale, shift), truth(scale, shift)
    lines: list[str] = []
    fit = tr.fit_pose(mesh, camera(), mask_of(mesh, pose), done=lines.append)
    degrees, distance = off(fit, pose, mesh)
    assert fit.converged and degrees < 0.3 and distance < 0.003
    assert lines and len(fit.others) > 0 and float(fit.others.min()) >= 0


def test_the_covariance_is_that_of_many_fits_to_noise() -> None:
    """Poses fitted to masks with noise spread by as much as each fit says, within a factor of 2."""
    mesh, pose = body(), truth()
    clean = mask_of(mesh, pose)
    generator = torch.Generator().manual_seed(0)
    found, said = [], []
    frame = tr.centre_and_size(mesh.vertices.double())
    for _ in range(12):
        noisy = clean + 0.25 * torch.randn(SIZE, generator=generator)
        fit = tr.fit_pose(mesh, camera(), noisy.clamp(-1, 2), pose, starts=1)
        assert fit.converged and fit.mismatch > 0.2  # noise is not what would make it doubtful
        unknowns = pose.unknowns_to(fit.pose, *frame)[0]
        found.append(unknowns[:3])
        said.append(fit.covariance.diagonal()[:3])
    spread = torch.stack(found).square().mean(0).sqrt()
    expected = torch.stack(said).mean(0).sqrt()
    assert bool((spread / expected > 0.5).all()) and bool((spread / expected < 2).all())


def test_a_mask_of_something_else_is_not_found() -> None:
    mask = torch.zeros(SIZE)
    mask[10:86, 60:66] = 1  # a thin pole
    assert not tr.fit_pose(body(), camera(), mask, starts=8).converged


def test_bad_masks_are_named() -> None:
    mesh = body()
    for mask, text in (
        (torch.zeros(SIZE), "mask: is empty"),
        (torch.ones(SIZE), "mask: is 1 along the border; it may be inverted"),
        (torch.ones(8, 8), r"mask: must be \(H, W\), 16 or more each, got \(8, 8\)"),
        (torch.full(SIZE, torch.nan), "mask: must be finite"),
    ):
        with pytest.raises(ValueError, match=text):
            tr.fit_pose(mesh, camera(), mask)
    two = tr.Pose(torch.eye(3).expand(2, 3, 3), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="start: expected one pose, got 2"):
        tr.fit_pose(mesh, camera(), mask_of(mesh, truth()), two)
    behind = tr.Pose(truth().rotation, -truth().translation)
    with pytest.raises(ValueError, match="start: the object is behind the camera, at a depth of -"):
        tr.fit_pose(mesh, camera(), mask_of(mesh, truth()), behind)


@pytest.mark.parametrize("masked", [False, True])
def test_the_texture_makes_the_pose_exact(masked: bool) -> None:
    mesh, pose = painted(body()), near_truth()
    start = pose.moved(torch.tensor([[0.04, -0.05, 0.04, 0.03, -0.03, 0.02]]).double())
    mask = mask_of(mesh, pose, CLOSE) if masked else None
    fit = tr.fit_pose(mesh, camera(), mask, start, photo=photo_of(mesh, pose))
    degrees, distance = off(fit, pose, mesh)
    assert fit.converged and fit.correlation > 0.95
    assert degrees < 0.15 and distance < 0.001


def test_photos_that_cannot_be_used_are_named() -> None:
    photo = torch.rand(*SIZE, 3)
    with pytest.raises(ValueError, match="photo: needs a mesh with a texture or colours"):
        tr.fit_pose(body(), camera(), start=truth(), photo=photo)
    with pytest.raises(ValueError, match="mask: give one, or a start and a photo"):
        tr.fit_pose(painted(body()), camera(), photo=photo)
    with pytest.raises(ValueError, match="mask: must be as large as the photo"):
        tr.fit_pose(painted(body()), camera(), torch.ones(20, 20), photo=photo)


@pytest.mark.parametrize("photo", [2, 7])
def test_a_real_chessboard_is_found_through_its_lens(photo: int) -> None:
    folder = ROOT.parent / "shared" / "data" / "chess"
    if not folder.exists():
        pytest.skip(f"{folder} is not there")
    shot, mesh = tr.load_capture(folder)[photo], chessboard()
    start = away(shot.pose, mesh, photo)
    fit = tr.fit_pose(mesh, shot.camera, start=start, photo=shot.image())
    degrees, distance = off(fit, shot.pose, mesh)
    assert fit.converged and degrees < 0.5 and distance < 0.002
