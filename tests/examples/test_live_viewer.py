"""The viewer's pictures change when, and only where, they should; its windows open and close."""

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import taichi as ti
import torch
from PIL import Image, ImageSequence
from safetensors import safe_open

import live_viewer
import taichi_raster as tr
from paths import ROOT
from taichi_raster.softness.distributions import registry
from viewer.app import App, Pace
from viewer.controls import HORIZONS
from viewer.families import FAMILIES
from viewer.methods import CONORMS, UNTUNED, Library, MethodSettings
from viewer.painter import HEIGHT, PICTURE, SIDE, WIDTH, places
from viewer.session import Session
from viewer.windows import GGUI, NoWindow, PlainGUI, Window, loop, write_frames

# The viewer renders in float32; its kernels are compiled for what the test run was started with.
pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")


@pytest.fixture
def app(tmp_path):
    return App(Session("shape2d", seed=1, steps=12, size=24), tmp_path / "saved")


def part(frame, kind, methods=1, index=0):
    """One picture of a frame, or what is in its place."""
    row = [place for place in places(methods) if place.kind == kind][index]
    return frame[row.top : row.top + PICTURE, row.left : row.left + PICTURE]


def changed(before, after, methods=1, index=0):
    """Kinds of the pictures that differ."""
    kinds = ("target", "soft", "sharp", "error")
    pairs = ((k, *(part(f, k, methods, index) for f in (before, after))) for k in kinds)
    return {kind for kind, a, b in pairs if not np.array_equal(a, b)}


def pixel(app, corner, kind="soft", index=0):
    """Of a corner, in a picture of the frame."""
    place = next(p for p in places(len(app.session.runs)) if p.kind == kind and p.index == index)
    x, y = corner.tolist()
    return place.left + (x + 1) / 2 * PICTURE, place.top + (1 - y) / 2 * PICTURE


def drain(app, count):
    """Whole steps, as a window's loop takes them."""
    while app.session.taken < count:
        app.tick(0.0)


def test_pictures_follow_what_is_done(app):
    session = app.session
    first = app.frame()
    assert first.shape == (HEIGHT, WIDTH, 4) and first[..., :3].std() > 10

    drain(app, 3)  # it runs
    running = app.frame()
    assert changed(first, running) == {"soft", "sharp", "error"}

    app.key("space")  # pauses
    assert app.tick(0.1) == 0 and session.taken == 3
    paused = app.frame()
    assert not changed(running, paused)
    assert np.array_equal(paused, app.frame())

    app.key("n")  # one step
    assert session.taken == 4 and session.paused
    stepped = app.frame()
    assert "soft" in changed(paused, stepped)

    app.set("softness", "uniform")  # another softness, where it stands
    assert session.taken == 4
    other = app.frame()
    assert changed(stepped, other) == {"soft"}
    app.set("softness", "gaussian")
    assert np.array_equal(part(app.frame(), "soft"), part(stepped, "soft"))
    app.set("scale, last", 0.1)
    assert changed(stepped, app.frame()) == {"soft"}

    app.key("r")  # restarts, and goes on
    assert session.taken == 0 and not session.paused
    restarted = app.frame()
    assert np.array_equal(part(restarted, "sharp"), part(first, "sharp"))

    app.key("]")  # another problem
    assert session.seed == 2
    assert changed(restarted, app.frame()) == {"target", "soft", "sharp", "error"}

    app.key("esc")
    assert not app.running


def test_two_methods_solve_the_same_problem_side_by_side(app):
    app.key("t")
    session = app.session
    assert [run.settings.title for run in session.runs] == ["gaussian 0.1 > 0.02", "gaussian 0.1"]
    app.key("tab")
    app.set("softness", "logistic")
    assert [run.settings.softness for run in session.runs] == ["gaussian", "logistic"]
    drain(app, 3)  # the first is a step ahead
    session.step()
    assert [run.step for run in session.runs] == [3, 3]
    session.step()
    assert [run.step for run in session.runs] == [4, 4]
    a, b = (part(app.frame(), "soft", 2, i) for i in (0, 1))
    assert not np.array_equal(a, b)
    assert not torch.equal(session.runs[0].params, session.runs[1].params)
    app.set("methods", "1")
    assert app.edited == 0 and len(session.runs) == 1


def test_another_task_takes_a_held_corner_from_the_mouse(app):
    app.press(*pixel(app, app.session.corners(0)[1]))
    assert app.held
    app.set("task", "pose")
    assert not app.held
    app.move(400.0, 300.0)  # nothing is held
    app.frame()


def test_the_error_shown_is_that_of_what_was_dragged(app):
    session = app.session
    app.key("space")
    app.frame()
    before = session.runs[0].errors[-1]
    app.press(*pixel(app, session.corners(0)[1]))
    app.move(*pixel(app, torch.tensor([0.8, -0.7])))
    app.frame()
    after = session.runs[0].errors[-1]
    assert after[0] == before[0] and abs(after[1] - before[1]) > 1e-3
    assert after[1] == pytest.approx(float(session.task.true_error(session.runs[0].params)))


def test_a_dragged_corner_follows_the_mouse_and_is_held(app):
    session = app.session
    app.key("space")
    before = app.frame()
    corner = session.corners(0)[1]
    app.press(*pixel(app, corner))
    goal = torch.tensor([0.8, -0.7])
    app.move(*pixel(app, goal))
    assert torch.allclose(session.corners(0)[1], goal, atol=1e-5)
    dragged = app.frame()
    assert changed(before, dragged) == {"soft", "sharp", "error"}
    session.step()  # descent goes on against the hand
    assert torch.allclose(session.corners(0)[1], goal, atol=1e-5)
    app.lift()
    session.step()
    assert not torch.allclose(session.corners(0)[1], goal, atol=1e-5)

    hidden = session.corners(None)[2].clone()  # the target's corner changes the problem
    place = places(1)[0]
    x, y = hidden.tolist()
    app.press(place.left + (x + 1) / 2 * PICTURE, place.top + (1 - y) / 2 * PICTURE)
    app.move(place.left + PICTURE / 2, place.top + PICTURE / 2)
    app.lift()
    assert torch.allclose(session.corners(None)[2], torch.zeros(2), atol=1e-5)
    assert "target" in changed(dragged, app.frame())
    app.press(WIDTH - 5, 5)  # beside the pictures: nothing
    app.move(0, 0)


def test_a_pose_turns_with_the_mouse(tmp_path):
    app = App(Session("pose", size=24), tmp_path)
    session = app.session

    def nearest():
        """Where the vertex nearest to the camera is, with its place in the list."""
        faces = session.task._faces(session.runs[0].params)[0].reshape(-1, 3)
        return int(faces[:, 2].argmin()), faces

    def dragged(right, up):
        k, faces = nearest()
        place = places(1)[1]
        middle = place.left + PICTURE / 2, place.top + PICTURE / 2
        app.press(*middle)
        app.move(middle[0] + right, middle[1] - up)
        app.lift()
        return (nearest()[1][k] - faces[k])[:2]

    assert dragged(20, 0)[0] > 0.01
    assert dragged(0, 20)[1] > 0.01
    before = session.task.family.views(session.runs[0].params)[0, 0]
    app.zoom(places(1)[1].left + 5, places(1)[1].top + 5, 0.1)
    assert session.task.family.views(session.runs[0].params)[0, 0] < before


def test_saves_hold_what_is_shown(app):
    drain(app, 2)
    shown = app.frame()
    picture = app.save_picture()
    assert np.array_equal(np.asarray(Image.open(picture)), shown[..., :3])
    app.key("g")
    for count in (3, 4, 5):
        drain(app, count)
        app.frame()
    gif = Image.open(app.record())
    assert gif.size == (WIDTH // 2, HEIGHT // 2) and len(list(ImageSequence.Iterator(gif))) >= 3
    path = app.save_parameters()
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["viewer"])
        assert torch.equal(file.get_tensor("A.unknowns"), app.session.runs[0].params)
        assert len(file.get_tensor("A.losses")) == 5
        assert file.get_tensor("hidden").shape == (1, 2, 3, 2)
    assert about["task"] == "shape2d" and about["methods"]["A"]["softness"] == "gaussian"
    assert "saved" in app.message


def test_a_run_ends_goes_on_and_anneals_again(app):
    session = app.session
    while not session.paused:
        app.tick(0.5)
    assert session.taken == 12 and "finished" in app.status
    assert session.runs[0].losses[-1] < session.runs[0].losses[0]
    app.key("space")
    assert session.until == 24 and session.runs[0].progress(12) == 1
    app.key("h")
    assert session.runs[0].progress(12) == 0 and session.taken == 12


def test_a_slow_step_is_done_in_pieces(app):
    session = app.session
    assert session.work(0.0) == 0  # the render alone
    session.set_method(0, lr=0.01)  # from outside: what was under way is dropped
    assert [session.work(0.0) for _ in range(2)].count(1) == 1 and session.taken == 1
    session.work(0.0)
    session.step()  # the step that is under way, not one more
    assert session.taken == 2


def test_what_goes_wrong_is_said_and_stops_only_that_method(app):
    app.key("t")
    session = app.session
    session.runs[1].params = session.runs[1].params * float("inf")
    session.step()
    assert session.runs[1].failure and session.runs[0].step == 1
    session.step()
    assert session.runs[0].step == 2 and session.runs[1].step == 0
    session.restart()
    assert session.runs[1].failure is None


def test_every_setting_can_be_chosen(app):
    """Renderers are built, not run: each would compile kernels."""
    session = app.session
    for name in session.library.names:
        app.set("softness", name)
        edge = session.runs[0].renderer.edge
        known = name in registry.known()
        if name == UNTUNED:
            assert edge.distribution == "gaussian"
        else:
            assert edge.distribution == name if known else isinstance(edge, tr.TabulatedSoftness)
    app.set("softness", "logistic")
    for name in CONORMS:
        app.set("T-conorm", name)
        assert session.runs[0].renderer.alpha.name == name
    for row in app.rows[2:]:
        for direction in (1, -1):
            row.nudge(direction)
            assert row.text
    for name in FAMILIES:
        session.set_problem(family=name)
        assert session.tasks.error_name
    with pytest.raises(ValueError, match="softness: unknown 'lorenz'"):
        app.set("softness", "lorenz")
    with pytest.raises(ValueError, match="scale: must be positive"):
        session.set_method(0, scale=-1.0)
    with pytest.raises(ValueError, match="no setting 'colour'"):
        app.set("colour", 1)
    assert session.steps in HORIZONS or session.steps == 12


def test_learned_softnesses_bring_their_own_settings(tmp_path):
    edge = tr.MLPSoftness((2, 2), scale=tr.Knots([0.1, 0.03]))
    tr.save_softness(tmp_path / "edge.safetensors", edge)
    softening = tr.Softening(edge, tr.SoftmaxDepth(0.2), tr.TConorm("yager", 2.0), 0.07, 50)
    tr.save_softening(tmp_path / "all.safetensors", softening)
    library = Library.of((tmp_path / "edge.safetensors", tmp_path / "all.safetensors"))
    app = App(Session(size=24, library=library), tmp_path)
    session = app.session
    app.set("softness", "edge.safetensors")
    texts = dict(app.side.rows)
    assert texts["scale, first"] == "its own" and texts["gamma"] == "0.01"
    app.set("softness", "all.safetensors")
    texts = dict(app.side.rows)
    assert {texts[k] for k in ("scale, last", "gamma", "T-conorm", "learning rate")} == {"its own"}
    renderer = session.runs[0].renderer
    assert float(renderer.depth.gamma(torch.ones(()))) == pytest.approx(0.2)
    assert session.scale(0) == pytest.approx(0.1)
    app.set("softness", "logistic")
    assert "its own" not in dict(app.side.rows).values()
    with pytest.raises((ValueError, OSError)):
        Library.of((tmp_path / "absent.safetensors",))


def test_headless_frames_are_those_of_the_window(tmp_path):
    def fresh():
        return App(Session("shape2d", seed=1, steps=12, size=24), tmp_path)

    write_frames(fresh(), tmp_path / "frames", 3)
    written = sorted((tmp_path / "frames").iterdir())
    names = ["animation.gif", *(f"frame_{i:04d}.png" for i in range(3)), "parameters.safetensors"]
    assert [path.name for path in written] == names
    assert len(list(ImageSequence.Iterator(Image.open(written[0])))) == 3
    app = fresh()
    drain(app, 6)
    assert not changed(np.asarray(Image.open(written[2])), app.frame()[..., :3])


def test_frames_take_only_a_share_of_the_time():
    pace = Pace(share=0.15, longest=0.2)
    for _ in range(50):
        pace.painted(0.02)
    assert 0.02 / (0.02 + pace.seconds) == pytest.approx(0.15, abs=0.01)
    for _ in range(50):
        pace.painted(0.5)
    assert pace.seconds == 0.2  # responsive, however slow the frames


def test_keys_and_mouse_of_the_plain_window_reach_the_viewer(app):
    window = PlainGUI.__new__(PlainGUI)
    Window.__init__(window, app)

    def event(kind, key, x=0.0, y=0.0):
        at = (x / WIDTH, 1 - y / HEIGHT)
        window._event(SimpleNamespace(type=kind, key=key, pos=at, delta=(0, 1)))

    event(ti.GUI.PRESS, " ")
    assert app.session.paused
    event(ti.GUI.PRESS, "Down")
    assert app.rows[app.chosen].name == "scale, first"
    event(ti.GUI.PRESS, "Right")
    assert app.session.runs[0].settings.scale == pytest.approx(0.1 * 10**0.1)
    event(ti.GUI.PRESS, "bracketright")
    assert app.session.seed == 2
    x, y = pixel(app, app.session.corners(0)[0])
    event(ti.GUI.PRESS, ti.GUI.LMB, x, y)
    event(ti.GUI.MOTION, ti.GUI.MOVE, *pixel(app, torch.tensor([0.5, 0.5])))
    event(ti.GUI.RELEASE, ti.GUI.LMB)
    assert torch.allclose(app.session.corners(0)[0], torch.tensor([0.5, 0.5]), atol=1e-4)
    event(ti.GUI.PRESS, "Escape")
    assert not app.running


class Widgets:
    """Stands for GGUI's: gives back what it was given, but for what a test moves or presses."""

    def __init__(self, moved, pressed=()):
        self.moved, self.pressed = moved, pressed

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def sub_window(self, *where):
        return self

    def text(self, text):
        pass

    def button(self, label):
        return label.partition("###")[2] in self.pressed

    def slider(self, label, old, low, high):
        assert low <= old <= high, label
        return self.moved.get(label.partition("###")[2], old)

    slider_int = slider_float = slider

    def checkbox(self, label, old):
        return self.moved.get(label.partition("###")[2], old)


def test_sliders_and_buttons_reach_the_viewer(app):
    window = GGUI.__new__(GGUI)
    Window.__init__(window, app)
    held = [True]
    window._pending, window.window = {}, SimpleNamespace(is_pressed=lambda key: held[0])

    names = app.session.library.names
    window.gui = Widgets(
        {
            "seed": 5,
            "learning rate": -2.0,
            "softness": names.index("laplace"),
            "rate decays": False,
        },
        ("space",),
    )
    window._controls()
    settings = app.session.runs[0].settings
    assert app.session.paused and app.session.seed == 5
    assert settings.lr == pytest.approx(0.01) and settings.softness == "gaussian"
    assert not settings.decay
    held[0] = False  # a choice counts when the slider is let go
    window.gui = Widgets({})
    window._controls()
    assert app.session.runs[0].settings.softness == "laplace"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--task", "shape4d"], "--task: unknown 'shape4d'; known: shape2d"),
        (["--softness", "lorenz"], "softness: unknown 'lorenz'"),
        (["--scale", "0"], "scale: must be positive"),
        (["--share", "1"], "--share: must lie between 0 and 1"),
        (["--frames", "0"], "--frames: must be at least 1"),
        (["--conorm", "sum"], "unknown T-conorm 'sum'"),
        (["--learned", "absent.safetensors"], "absent.safetensors"),
        (["--window", "gui"], "--window: there is no display"),
    ],
)
def test_bad_arguments_end_in_one_line(monkeypatch, capsys, arguments, complaint):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "argv", ["live_viewer.py", "--arch", "cpu", *arguments])
    with pytest.raises(SystemExit) as stop:
        live_viewer.command_line()
    assert complaint in str(stop.value) + capsys.readouterr().err
    assert stop.value.code not in (0, None)


def test_the_loop_ends_with_the_frames_asked_for(app):
    shown, steps = loop(app, NoWindow(app), Pace(), frames=3)
    assert shown == 3 and steps == app.session.taken
    assert MethodSettings().title == "gaussian 0.08 > 0.02"


@pytest.mark.parametrize("kind", ["ggui", "gui"])
def test_a_window_opens_shows_frames_and_closes(kind, tmp_path):
    """In a process of its own, on a virtual display."""
    required = bool(os.environ.get("TAICHI_RASTER_REQUIRE_VULKAN"))
    missing = "" if shutil.which("xvfb-run") else "xvfb-run is not installed"
    if kind == "ggui" and not ti.lang.misc.is_arch_supported(ti.vulkan):
        missing = missing or "there is no Vulkan driver"
    if missing and required:
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)
    shown = tmp_path / "shown.png"
    command = ["xvfb-run", "-a", "-s", "-screen 0 1400x860x24", sys.executable]
    command += ["examples/live_viewer.py", "--window", kind, "--frames", "4", "--image-size", "24"]
    done = subprocess.run(
        [*command, "--screenshot", str(shown)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    image = np.asarray(Image.open(shown).convert("RGB"))
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert image[:, : WIDTH - SIDE].std() > 10 and image[:, WIDTH - SIDE :].std() > 5
