"""The viewer in a browser: the page shows what the descent does, and what it asks for is done."""

import os
import shutil
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
import torch

from fit_photos import make_photos
from viewer.app import App, Pace
from viewer.browser import Browser
from viewer.families import FAMILIES, photos
from viewer.session import Session
from viewer.solids import eye, rotation, solid, stage
from viewer.windows import loop

pytest.importorskip("viser", reason="viser is not installed: pip install 'taichi-raster[browser]'")

# The viewer renders in float32; its kernels are compiled for what the test run was started with.
pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture
def app(tmp_path):
    return App(Session("shape2d", seed=1, steps=12, size=24), tmp_path / "saved")


@pytest.fixture
def page(app):
    """On a port that is free, from 8650 on."""
    browser = Browser(app, port=8650)
    yield browser
    browser.close()


def frame(page):
    """The next one."""
    page.app.tick(0.0)
    page.show(page.app.frame())


def node(page, name):
    return page.server.scene.get_handle_by_name(name)


def test_the_page_is_served_on_this_machine_alone(page):
    with urllib.request.urlopen(page.address, timeout=30) as answer:
        assert answer.status == 200 and b"<html" in answer.read().lower()
    assert page.server.get_host() == "127.0.0.1"


def test_the_descent_waits_for_a_page_then_runs(page):
    session = page.app.session
    for _ in range(3):
        frame(page)
    assert session.taken == 0 and session.paused
    page.buttons[0].value = "pause / go on"  # as a click does
    loop(page.app, page, Pace(), until=lambda: session.taken >= 3)
    assert session.taken >= 3


def test_pictures_mesh_and_plots_follow_the_steps(page):
    frame(page)
    before = [np.array(handle.image) for handle in (*page.pictures, *page.plots)]
    mesh = node(page, "/A/mesh")
    glb = mesh.glb_data
    page.buttons[0].value = "step"
    frame(page)
    assert page.app.session.taken == 1 and "step 1 of 12" in page.status.content
    after = [np.array(handle.image) for handle in (*page.pictures, *page.plots)]
    assert all(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert node(page, "/A/mesh").glb_data != glb
    page.buttons[0].value = "restart"
    frame(page)
    assert page.app.session.taken <= 1 and not page.app.session.paused


def test_settings_reach_the_session_and_come_back(page):
    frame(page)
    session = page.app.session
    page.fields["seed"].value = 5
    page.fields["learning rate"].value = (-40,)  # twenty places a decade
    page.fields["softness"].value = "laplace"
    page.fields["methods"].value = "2"
    frame(page)
    settings = session.runs[0].settings
    assert session.seed == 5 and len(session.runs) == 2
    assert settings.lr == pytest.approx(0.01) and settings.softness == "laplace"
    assert len(page.pictures) == 2 and node(page, "/B/mesh") is not None
    assert page.fields["learning rate"].label == "learning rate: 0.01"

    page.app.set("edit method", "B")  # the page shows the other method's settings
    page.app.set("softness", "uniform")
    frame(page)
    assert page.fields["softness"].value == "uniform"
    assert session.runs[0].settings.softness == "laplace"  # what we write is no change
    page.fields["methods"].value = "1"
    frame(page)
    assert len(page.pictures) == 1 and node(page, "/B/mesh") is None


def test_what_does_not_go_together_is_said_on_the_page(page, monkeypatch):
    frame(page)

    def refuse(*_):
        raise ValueError("softness: does not go with the others")

    monkeypatch.setattr(page.app, "set", refuse)
    page.fields["softness"].value = "laplace"
    frame(page)
    assert "does not go with the others" in page.status.content
    assert page.fields["softness"].value == "gaussian"


def test_pictures_and_parameters_are_saved(page):
    page.buttons[1].value = "picture"
    page.buttons[1].value = "parameters"
    frame(page)
    saved = sorted(path.suffix for path in page.app.out.iterdir())
    assert saved == [".png", ".safetensors"] and "saved" in page.status.content


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_task_has_a_mesh_and_is_seen_from_its_cameras(name, tmp_path):
    families = FAMILIES
    if name == "photos":
        families = {**FAMILIES, name: photos(make_photos(tmp_path, 5, 32))}
    session = Session(name, 1, size=32, families=families)
    task, params = session.task, session.runs[0].params
    mesh, stands = solid(task, params), stage(task)
    assert float(mesh.vertices.abs().max()) < 3  # about 1 in size, around the origin
    for camera in [*stands.eyes, *filter(None, [eye(task, params)])]:
        turn = rotation(camera.view)
        assert np.allclose(turn @ turn.T, np.eye(3), atol=1e-5)
        assert np.linalg.det(turn) == pytest.approx(1, abs=1e-5)
        seen = (np.asarray(mesh.vertices.double()) - np.asarray(camera.place.double())) @ turn
        x, y = (seen[:, :2] / seen[:, 2:] / np.array(camera.half)).T
        assert (seen[:, 2] > 0).all() and np.abs(x).max() < 1.2 and np.abs(y).max() < 1.2


def test_a_camera_sees_the_mesh_where_its_photo_shows_it(tmp_path):
    """The middle of the mesh, by the frustum's axes, is that of the mask in the photo."""
    family = photos(make_photos(tmp_path, 5, 64))
    session = Session("photos", 1, steps=20, size=48, families={**FAMILIES, "photos": family})
    while session.active:
        session.step()
    task, run = session.task, session.runs[0]
    camera = stage(task).eyes[0]
    vertices = np.asarray(solid(task, run.params).vertices.double())
    seen = (vertices - np.asarray(camera.place.double())) @ rotation(camera.view)
    x, y = (seen[:, :2] / seen[:, 2:] / np.array(camera.half)).T
    rows, columns = torch.nonzero(task.photos.masks[task.held] > 0.5).double().T
    height, width = task.photos.shape
    found = ((columns + 0.5) / width * 2 - 1, (rows + 0.5) / height * 2 - 1)
    for drawn, shown in zip((x, y), found, strict=True):
        assert drawn.min() == pytest.approx(float(shown.min()), abs=0.15)
        assert drawn.max() == pytest.approx(float(shown.max()), abs=0.15)


def test_two_methods_stand_side_by_side_over_the_solution(page):
    page.app.set("methods", "2")
    frame(page)
    a, b = (np.array(node(page, f"/{letter}").position) for letter in "AB")
    assert np.linalg.norm(a - b) == pytest.approx(2.6)
    hidden = page.app.session.task.hidden[0].reshape(-1, 2).numpy()
    wire = node(page, "/A/solution")
    assert wire.wireframe and np.allclose(wire.vertices[:, :2], hidden, atol=1e-6)


@pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("TAICHI_RASTER_REQUIRE_BROWSER"),
    reason="there is no Chromium",
)
def test_a_browser_that_opens_the_page_starts_the_descent(page, tmp_path):
    options = ["--headless=new", "--no-sandbox", "--use-angle=swiftshader"]
    options += ["--enable-unsafe-swiftshader", f"--user-data-dir={tmp_path / 'profile'}"]
    assert CHROMIUM, "there is no Chromium"
    with subprocess.Popen(
        [CHROMIUM, *options, page.address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as chromium:
        until = time.monotonic() + 90
        try:
            loop(
                page.app,
                page,
                Pace(),
                until=lambda: page.app.session.taken > 2 or time.monotonic() > until,
            )
        finally:
            chromium.terminate()
    assert page.app.session.taken > 2 and page.app.running


def test_without_viser_it_says_what_to_install(app, monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(ImportError, match=r"pip install 'taichi-raster\[browser\]'"):
        Browser(app)
