"""What is resumed is of the same photos, masks, cameras and tasks; else it is found anew."""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageOps
from rich.console import Console

import taichi_raster as tr
from meta.commands.learn import Effort, learn
from taichi_raster.capture.masks import AlphaChannel, ColourKey
from taichi_raster.commands import fingerprints, fit
from taichi_raster.commands.app import main
from turntables import ALL_ROUND, capture_of

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[str, list[str]]]:
    """Runs `fit` over and over, with next to no work: what it says, and what it has found anew."""
    monkeypatch.chdir(tmp_path)
    tr.save_capture("photos", capture_of(tr.icosphere(1, 0.5), ALL_ROUND[:6]), "nerfstudio")
    anew: list[str] = []

    def refined(capture: tr.Capture, *_: Any) -> tr.Capture:
        anew.append("cameras")
        return capture

    def shaped(*_: Any, **__: Any) -> Any:
        anew.append("shape")
        return types.SimpleNamespace(mesh=tr.icosphere(1, 0.5))

    def textured(mesh: tr.Mesh, *_: Any, **__: Any) -> Any:
        anew.append("texture")
        uv = mesh.vertices[:, :2]
        made = tr.Mesh(mesh.vertices, mesh.faces, uv, mesh.faces, torch.zeros(4, 4, 3))
        return tr.TextureFit(made, torch.ones(4, 3), torch.ones(4, 4) > 0, 0.0)

    monkeypatch.setattr(fit, "init", lambda *_: None)
    monkeypatch.setattr(fit, "refine_cameras", refined)
    monkeypatch.setattr(fit, "fit_mesh", shaped)
    monkeypatch.setattr(fit, "fit_texture", textured)
    monkeypatch.setattr(fit.Fit, "_judged", lambda *_: {})
    monkeypatch.setattr(fit.Fit, "_write", lambda *_: None)
    monkeypatch.setenv("COLUMNS", "1000")

    def run(capsys: pytest.CaptureFixture[str], *more: str, photos: str = "photos") -> Any:
        anew.clear()
        capsys.readouterr()
        assert main(["fit", photos, "--out", "out", "--refine-cameras", *more]) == 0
        return capsys.readouterr().out, list(anew)

    return run


def other_pixels(path: Path) -> None:
    Image.eval(Image.open(path), lambda value: value // 2).save(path)


def other_mask(path: Path) -> None:
    ImageOps.mirror(Image.open(path)).rotate(180).save(path)


def other_camera(path: Path) -> None:
    content = json.loads(path.read_text())
    content["frames"][2]["fl_x"] += 1e-3
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("file", "change", "said", "anew"),
    [
        ("images/02.png", other_pixels, "the photo images/02.png has changed", "cameras texture"),
        (
            "masks/02.png",
            other_mask,
            "the mask of images/02.png has changed",
            "cameras shape texture",
        ),
        (
            "transforms.json",
            other_camera,
            "the camera of images/02.png has changed",
            "cameras shape texture",
        ),
    ],
)
def test_what_has_changed_is_found_anew_and_said(
    file: str,
    change: Callable[[Path], None],
    said: str,
    anew: str,
    ran: Callable[..., tuple[str, list[str]]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ran(capsys)[1] == ["cameras", "shape", "texture"]
    assert ran(capsys, "--resume")[1] == []
    change(Path("photos") / file)
    text, found = ran(capsys, "--resume")
    assert found == anew.split()
    for part in found:
        assert f"{part}: found anew; since out/{part}.pt was written: {said}" in text
    assert ran(capsys, "--resume")[1] == []


def test_photos_that_come_and_go_are_named(
    ran: Callable[..., tuple[str, list[str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    ran(capsys)
    tr.save_capture("five", tr.load_capture("photos").only([0, 1, 2, 3, 4]), "nerfstudio")
    text, anew = ran(capsys, "--resume", photos="five")
    assert anew == ["cameras", "shape", "texture"]
    assert "the mask of images/05.png is gone" in text
    text, _ = ran(capsys, "--resume")
    assert "the mask of images/05.png is new" in text


def test_another_name_of_the_folder_changes_nothing(
    ran: Callable[..., tuple[str, list[str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    ran(capsys)
    Path("photos").rename("moved")
    assert ran(capsys, "--resume", photos="moved/../moved")[1] == []


def test_a_texture_is_of_its_own_shape(
    ran: Callable[..., tuple[str, list[str]]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran(capsys)
    Path("out/shape.pt").unlink()
    assert ran(capsys, "--resume")[1] == ["shape"]  # the very same, so that its texture stays
    Path("out/shape.pt").unlink()
    other = types.SimpleNamespace(mesh=tr.icosphere(1, 0.6))
    monkeypatch.setattr(fit, "fit_mesh", lambda *_, **__: other)
    text, anew = ran(capsys, "--resume")
    assert anew == ["texture"] and "the shape has changed" in text


def test_parts_that_do_not_say_what_they_are_of_are_found_anew(
    ran: Callable[..., tuple[str, list[str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    ran(capsys)
    state = torch.load("out/shape.pt", weights_only=True)
    del state["given"]
    torch.save(state, "out/shape.pt")
    text, anew = ran(capsys, "--resume")
    assert anew == ["shape"] and "is new, 9 others" in text


def test_fingerprints_see_files_tensors_rules_and_lenses(tmp_path: Path) -> None:
    capture = capture_of(tr.icosphere(1, 0.5), ALL_ROUND[:2])
    first, second = capture
    usual = fingerprints.of_capture(capture)
    assert usual == fingerprints.of_capture(tr.Capture((first, second)))
    assert fingerprints.changes(usual, usual) == ""
    assert isinstance(first.silhouette, torch.Tensor) and isinstance(first.picture, torch.Tensor)
    lens = tr.BrownConradyLens.from_opencv([0.01, 0.0, 0.0, 0.0])
    path = tmp_path / "photo.png"
    Image.new("RGB", (4, 4), "red").save(path)
    for change, names in (
        ({"silhouette": 1 - first.silhouette}, ["the mask of 00"]),
        ({"silhouette": None}, ["the mask of 00"]),
        ({"picture": first.picture + 1e-3}, ["the photo 00"]),
        ({"picture": path}, ["the photo 00"]),
        ({"camera": replace(first.camera, lens=lens)}, ["the camera of 00"]),
        ({"camera": replace(first.camera, skew=1e-3)}, ["the camera of 00"]),
        ({"camera": replace(first.camera, principal=(0.0, 0.0))}, ["the camera of 00"]),
    ):
        now = fingerprints.of_capture(tr.Capture((replace(first, **change), second)))
        assert [name for name in usual if usual[name] != now[name]] == names
    keyed = [
        fingerprints.of_capture(tr.Capture((replace(first, silhouette=rule, picture=picture),)))
        for rule in (ColourKey(), ColourKey((0.0, 1.0, 0.0)), AlphaChannel())
        for picture in (first.picture, second.picture)
    ]
    assert len({found["the mask of 00"] for found in keyed}) == 6


TASK = "class Family:\n    def sample(self, *_): ...\n"


def test_a_task_that_has_changed_is_not_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = tmp_path / "task.py", tmp_path / "out"
    path.write_text(TASK)

    class Ended(Exception):
        pass

    def ended(*_: Any) -> None:
        raise Ended

    monkeypatch.setattr("meta.commands.learn.check", lambda *_: None)
    monkeypatch.setattr("meta.commands.learn._study", ended)
    console = Console(quiet=True)
    for resume in (False, True):
        with pytest.raises(Ended):
            learn(path, None, out, Effort(), 0, resume, console)
    path.write_text(TASK + "# another\n")
    with pytest.raises(ValueError, match=r"^--resume: .*task\.py has changed since"):
        learn(path, None, out, Effort(), 0, True, console)
    with pytest.raises(Ended):
        learn(path, None, out, Effort(), 0, False, console)
