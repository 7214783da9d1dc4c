"""From masks to a mesh: the visual hull and the fit of its silhouettes."""

from __future__ import annotations

import sys

import pytest
import torch

import taichi_raster as tr
from paths import ROOT
from turntables import ALL_ROUND, camera, capture_of, mask_of

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")


def held_out(mesh: tr.Mesh, truth: tr.Mesh, size: tuple[int, int] = (144, 192)) -> float:
    """The mean IoU of outlines from where no photo was taken."""
    found = []
    for elevation, azimuth in ((20.0, 33.0), (-15.0, 155.0), (10.0, 270.0)):
        eye = camera(elevation, azimuth)
        found.append(tr.outline_iou(mesh, eye, mask_of(truth, eye, size)))
    return sum(found) / len(found)


def test_a_fit_is_nearer_to_the_object_than_its_hull() -> None:
    """Few photos leave a hull with corners, which no silhouette of theirs can see to be wrong;
    the fit's smoothness takes them off.
    """
    blob = tr.blob(seed=1)
    truth = tr.Mesh(0.5 * blob.vertices / blob.vertices.abs().max(), blob.faces)
    capture = capture_of(truth, ALL_ROUND[::2])
    seen: list[tuple[int, int]] = []
    fit = tr.fit_mesh(
        capture,
        face_count=1500,
        steps=40,
        cells=32,
        done=lambda step, steps, loss: seen.append((step, steps)),
    )
    assert len(fit.mesh.faces) <= 1500 and seen == [(i, 40) for i in range(1, 41)]
    assert float(fit.losses[-5:].mean()) < 0.6 * float(fit.losses[:5].mean())
    before = held_out(tr.simplified(fit.hull, 1500), truth)
    assert held_out(fit.mesh, truth) > max(before, 0.96)
    assert float(fit.ious.min()) > 0.95


def test_no_steps_give_the_hull() -> None:
    capture = capture_of(tr.icosphere(2, 0.5), ALL_ROUND[:6])
    fit = tr.fit_mesh(capture, steps=0, cells=16)
    torch.testing.assert_close(fit.mesh.vertices, fit.hull.vertices.float())


def test_bad_arguments_are_named() -> None:
    capture = capture_of(tr.icosphere(1, 0.5), ALL_ROUND[:3])
    with pytest.raises(ValueError, match="steps: expected a whole number from 0 on, got -1"):
        tr.fit_mesh(capture, steps=-1)
    with pytest.raises(ValueError, match="needs two photos"):
        tr.fit_mesh(capture.only([0]))
    with pytest.raises(TypeError, match="capture"):
        tr.fit_mesh(tr.icosphere(0))  # type: ignore[arg-type]


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fast_simplification", None)
    with pytest.raises(ImportError, match=r"fast-simplification: pip install"):
        tr.simplified(tr.icosphere(2), 10)


@pytest.mark.parametrize("key", [None, "auto"])
def test_the_toy_dinosaurs_hull_fits_photos_that_were_held_out(key: str | None) -> None:
    folder = ROOT.parent / "shared" / "data" / "dino"
    if not folder.exists():
        pytest.skip(f"{folder} is not there")
    held = (4, 13, 22, 31)
    hull = tr.visual_hull(tr.load_capture(folder, key=key).without(held), cells=96)
    truth = tr.load_capture(folder).only(held)
    ious = [tr.outline_iou(hull, p.camera, p.mask((288, 360))) for p in truth]
    assert sum(ious) / 4 > (0.95 if key is None else 0.94)
