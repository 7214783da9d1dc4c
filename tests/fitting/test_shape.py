"""From masks to a mesh: the visual hull and the fit of its silhouettes."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch

import taichi_raster as tr
from paths import ROOT
from turntables import ALL_ROUND, camera, capture_of, mask_of

pytest.importorskip("skimage")
pytest.importorskip("fast_simplification")
pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")


def held_out(mesh: tr.Mesh, truth: tr.Mesh, size: tuple[int, int] = (144, 192)) -> float:
    """The mean IoU of outlines from where no photo was taken."""
    found = []
    for elevation, azimuth in ((20.0, 33.0), (-15.0, 155.0), (10.0, 270.0)):
        eye = camera(elevation, azimuth)
        found.append(tr.outline_iou(mesh, eye, mask_of(truth, eye, size)))
    return sum(found) / len(found)


def test_a_hull_has_the_place_the_size_and_the_holes_of_the_object() -> None:
    torus = tr.torus(0.45, 0.16)
    hull = tr.visual_hull(capture_of(torus, ALL_ROUND), cells=64)
    for side in ("amin", "amax"):
        one, two = getattr(hull.vertices, side)(0), getattr(torus.vertices.double(), side)(0)
        assert float((one - two).abs().max()) < 0.05
    assert held_out(hull, torus) > 0.95
    # Of a torus: V - E + F = 0. It is closed, and larger than the object.
    edges = torch.cat([hull.faces[:, [i, (i + 1) % 3]] for i in range(3)]).sort(1).values
    unique, counts = edges.unique(dim=0, return_counts=True)
    assert bool((counts == 2).all())
    assert len(hull.vertices) - len(unique) + len(hull.faces) == 0
    true = torus.vertices[None].double()
    assert tr.volume(hull.vertices[None], hull.faces) > 0.98 * tr.volume(true, torus.faces)


@pytest.mark.parametrize("scale", [1e-3, 1000.0])
def test_a_hull_does_not_depend_on_units(scale: float) -> None:
    ball = tr.icosphere(2, 0.5)
    plain = tr.visual_hull(capture_of(ball, ALL_ROUND[:6]), cells=24)
    scaled = tr.visual_hull(capture_of(ball, ALL_ROUND[:6], scale=scale), cells=24)
    assert len(plain.vertices) == len(scaled.vertices)
    torch.testing.assert_close(scaled.vertices / scale, plain.vertices, atol=1e-4, rtol=0)


def test_a_wrong_mask_can_be_outvoted() -> None:
    ball = tr.icosphere(2, 0.5)
    capture = capture_of(ball, ALL_ROUND)
    photos = list(capture)
    half = photos[3].mask().clone()
    half[:, :48] = 0
    photos[3] = replace(photos[3], silhouette=half)
    wrong = tr.Capture(tuple(photos))
    assert held_out(tr.visual_hull(wrong, cells=32), ball) < 0.9
    assert held_out(tr.visual_hull(wrong, cells=32, misses=1), ball) > 0.93


def test_cameras_of_another_convention_are_named_as_the_likely_cause() -> None:
    capture = capture_of(tr.icosphere(2, 0.5), ALL_ROUND)
    turned = tr.Capture(
        tuple(
            replace(photo, camera=replace(photo.camera, view=torch.linalg.inv(photo.camera.view)))
            for photo in capture
        )
    )
    with pytest.raises(ValueError, match="the hull is empty: the cameras may be in another conven"):
        tr.visual_hull(turned, cells=16)


def test_photos_from_one_side_alone_leave_a_direction_open() -> None:
    capture = capture_of(tr.icosphere(2, 0.5), [(0.0, 0.0)])
    with pytest.raises(ValueError, match="photos from more sides are needed"):
        tr.visual_hull(capture, cells=16)


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
    for text, arguments in (
        ("cells: expected 8 to 512, got 4", {"cells": 4}),
        ("misses: expected 0 to 2, got 3", {"misses": 3}),
    ):
        with pytest.raises(ValueError, match=text):
            tr.visual_hull(capture, **arguments)
    with pytest.raises(ValueError, match="steps: expected a whole number from 0 on, got -1"):
        tr.fit_mesh(capture, steps=-1)
    with pytest.raises(ValueError, match="needs two photos"):
        tr.fit_mesh(capture.only([0]))
    with pytest.raises(TypeError, match="capture"):
        tr.fit_mesh(tr.icosphere(0))  # type: ignore[arg-type]


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = capture_of(tr.icosphere(1, 0.5), ALL_ROUND[:3])
    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.setitem(sys.modules, "fast_simplification", None)
    with pytest.raises(ImportError, match=r"scikit-image: pip install 'taichi-raster\[photos\]'"):
        tr.visual_hull(capture)
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
    assert sum(ious) / 4 > (0.96 if key is None else 0.95)
