"""The viewer on photos: what it fits, what it shows, and how a result turns."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import taichi_raster as tr
from fit_photos import make_photos
from viewer.app import App
from viewer.families import FAMILIES, photos
from viewer.methods import UNTUNED, Library, MethodSettings
from viewer.painter import PICTURE, places
from viewer.photo import PhotoFit
from viewer.session import Session
from viewer.turn import Turn

# The viewer renders in float32; its kernels are compiled for what the test run was started with.
pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    return make_photos(tmp_path_factory.mktemp("photos"), 6, 48)


@pytest.fixture
def app(capture, tmp_path):
    family = photos(capture)
    annealed = MethodSettings(**family.start)
    untuned = replace(annealed, **Library.of().choose(annealed, UNTUNED, family))
    families = {**FAMILIES, "photos": family}
    session = Session("photos", 1, (untuned, annealed), 12, 32, families=families)
    return App(session, tmp_path / "saved")


def part(frame, kind, index=0):
    row = [place for place in places(2) if place.kind == kind][index]
    return frame[row.top : row.top + PICTURE, row.left : row.left + PICTURE]


def test_two_softnesses_fit_the_photos_from_one_start(app):
    session = app.session
    first = [session.task.true_error(run.params) for run in session.runs]
    assert first[0] == first[1]
    while session.active:
        session.step()
    assert [run.step for run in session.runs] == [12, 12]
    assert not any(run.failure for run in session.runs)
    assert session.runs[0].errors[-1][1] < 0.5 * float(first[0])  # in a photo it never saw
    assert not torch.equal(session.runs[0].params, session.runs[1].params)


def test_the_untuned_one_is_what_the_library_chooses_for_these_outlines(app):
    session = app.session
    drawn, masks = session.task.outlines(session.task.start())
    chosen = tr.untuned_softening(drawn, masks, views=len(drawn))
    at_start = torch.zeros((), dtype=torch.float64)
    assert session.scale(0) == pytest.approx(float(chosen.edge.scale(at_start)), rel=1e-6)
    assert session.runs[0].settings.optimiser == "image steps"
    app.set("softness", "logistic")
    assert session.runs[0].settings.optimiser == "adam"


def test_every_other_square_over_the_photo_is_the_fit(app):
    session = app.session
    session.paused = True
    shown = session.pictures(0)
    photo, overlay = shown["target"], shown["sharp"]
    side = 32 // 8
    row, column = torch.meshgrid(torch.arange(32) // side, torch.arange(32) // side, indexing="ij")
    other = (row + column) % 2 == 0
    assert torch.equal(overlay[other], photo[other])
    assert float((overlay - photo)[~other].abs().max()) > 0.1


def test_a_result_turns_with_the_mouse_while_it_stands_still(app):
    session = app.session
    place = next(place for place in places(2) if place.kind == "sharp")
    middle = place.left + PICTURE / 2, place.top + PICTURE / 2

    def dragged():
        app.press(*middle)
        app.move(middle[0] + 40, middle[1])
        app.lift()

    before = app.frame()
    dragged()
    assert session.turn is None and "space pauses" in app.message
    app.key("space")
    params = [run.params.clone() for run in session.runs]
    dragged()
    assert session.turn is not None and session.turn.right > 0
    turned = app.frame()
    for index in range(2):  # both, to be compared
        assert not np.array_equal(part(before, "sharp", index), part(turned, "sharp", index))
        assert np.array_equal(part(before, "error", index), part(turned, "error", index))
        assert torch.equal(params[index], session.runs[index].params)
    app.key("n")
    assert session.turn is None


def test_what_is_near_follows_the_mouse_and_the_middle_stays():
    camera = tr.PinholeCamera(tr.orbit(3.0, 20.0, 30.0).double(), focal=(2.0, 2.0))
    centre = torch.tensor([0.1, -0.2, 0.05], dtype=torch.float64)
    near = centre + 0.3 * torch.nn.functional.normalize(camera.eye[0] - centre, dim=0)
    points = torch.stack([centre, near])[None]
    before = camera.project(points)[0]
    right = camera.project(Turn(right=0.3).applied(points, camera, centre))[0] - before
    up = camera.project(Turn(up=0.3).applied(points, camera, centre))[0] - before
    closer = camera.to_camera(Turn(closer=0.25).applied(points, camera, centre))[0, 0]
    assert right[0].abs().max() < 1e-6 and up[0].abs().max() < 1e-6
    assert right[1, 0] > 0.03 and up[1, 1] > 0.03
    assert closer.norm() == pytest.approx(0.75 * float(camera.to_camera(points)[0, 0].norm()))
    same = Turn().applied(points, camera, centre)
    assert torch.allclose(same, points, atol=1e-6)


def test_a_folder_that_cannot_be_fitted_is_named(tmp_path):
    few = make_photos(tmp_path / "few", 2, 32)
    with pytest.raises(ValueError, match="few: the viewer needs three photos or more"):
        PhotoFit(few, 0, 32).sample(1, "test", 0)
