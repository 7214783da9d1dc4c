"""Options of all commands: numbers have ranges, and what is given is used."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import types
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from PIL import Image

import taichi_raster as tr
from clips import painted, poses
from taichi_raster.commands import (
    backends,
    fit,
    learn,
    options,
    pose,
    render,
    texture,
    track,
    view,
    views,
)
from taichi_raster.commands.app import COMMANDS, main
from turntables import camera

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")

REQUIRED = {
    "fit": ["nowhere", "--out", "out"],
    "texture": ["nowhere.obj", "nowhere", "--out", "out.glb"],
    "pose": ["nowhere.obj", "nowhere.png", "--out", "out"],
    "track": ["nowhere.obj", "nowhere.mp4", "--start", "nowhere.json", "--out", "out"],
    "render": ["nowhere.obj", "--out", "out.gif"],
    "view": ["nowhere.obj"],
    "learn": ["nowhere.py", "--out", "out"],
    "backends": [],
}
RANGES = [(name, option) for name, made in COMMANDS.items() for option in options.ranges(made)]  # type: ignore[arg-type]


def hints(command: str) -> dict[str, Any]:
    return get_type_hints(COMMANDS[command], include_extras=True)


def kinds(hint: Any) -> set[Any]:
    """The types that a hint is made of."""
    return {hint}.union(*(kinds(part) for part in get_args(hint)))


@pytest.mark.parametrize("command", COMMANDS)
def test_all_numbers_have_a_range(command: str) -> None:
    numbers = {
        name
        for name, hint in hints(command).items()
        if kinds(hint) & {int, float} and tuple[int, ...] not in kinds(hint)
    }
    assert numbers == set(options.ranges(COMMANDS[command]))  # type: ignore[arg-type]


@pytest.mark.parametrize(("command", "name"), RANGES)
def test_numbers_out_of_range_are_named_before_anything_is_read(
    command: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    within = options.ranges(COMMANDS[command])[name]  # type: ignore[arg-type]
    whole = float not in kinds(hints(command)[name])
    for value in (within.least - 1, 10 * within.most + 1, math.nan, math.inf):
        if whole and not math.isfinite(value):
            continue
        text = str(int(value)) if whole else str(value)
        called = options.option(name)
        assert main([command, *REQUIRED[command], f"{called}={text}"]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"taichi-raster: {called}: expected "), error
        assert error.count("\n") == 1 and "nowhere" not in error


# What is given is used ----------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """To compare calls by."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [plain(getattr(value, field.name)) for field in dataclasses.fields(value)]
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    known = value is None or isinstance(value, str | int | float | Path)
    return str(value) if known else type(value).__name__


class Calls:
    """Stands for functions of a command's module, and remembers what they are called with."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.patch, self.found = patch, list[Any]()

    def to(self, place: Any, name: str, result: Callable[..., Any] = lambda *_, **__: None) -> None:
        def called(*args: Any, **named: Any) -> Any:
            self.found.append([name, plain(args), plain(named)])
            return result(*args, **named)

        self.patch.setattr(place, name, called)

    def of(self, *arguments: object) -> list[Any]:
        """Those of one run."""
        self.found = []
        code = main([str(argument) for argument in arguments])
        return [code, self.found]


def check(calls: Calls, base: Sequence[object], changes: Mapping[str, Sequence[object]]) -> None:
    """That each option of a command changes the calls."""
    command = COMMANDS[str(base[0])]
    assert set(changes) == {field.name for field in dataclasses.fields(command)}  # type: ignore[arg-type]
    usual = calls.of(*base)
    assert usual[0] == 0 and usual == calls.of(*base)
    for name, change in changes.items():
        arguments = list(change) if change and change[0] == base[0] else [*base, *change]
        assert calls.of(*arguments) != usual, name


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    for module in (fit, learn, pose, render, texture, track, view):
        monkeypatch.setattr(module, "init", lambda *_: None)
    return Calls(monkeypatch)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small meshes, photos, masks, poses and a calibration."""
    monkeypatch.chdir(tmp_path)
    mesh = painted()
    tr.save_mesh("a.ply", mesh)
    tr.save_mesh("b.ply", replace(mesh, vertices=2 * mesh.vertices))
    tr.save_mesh("turned.ply", replace(mesh, vertices=mesh.vertices.roll(1, 1)))
    mask = np.zeros((32, 40), np.uint8)
    mask[8:24, 8:32] = 255
    for i, name in enumerate(("a", "b")):
        Image.fromarray(np.roll(mask, i)).save(f"{name}-mask.png")
        colours = np.full((32, 40, 3), 40 * (i + 1), np.uint8)
        colours[mask > 0] = (200, 40, 40)
        Image.fromarray(colours).save(f"{name}-plain.png")
        Image.fromarray(np.dstack([colours, mask])).save(f"{name}.png")
        Path(f"{name}.json").write_text(json.dumps(poses(2)[i].to_dict()[0]))
    Path("camera.json").write_text('{"camera_matrix": [[99, 0, 20], [0, 99, 16], [0, 0, 1]]}')
    return tmp_path


def found(pose_of: tr.Pose | None = None) -> tr.PoseFit:
    pose_of = poses(1)[0] if pose_of is None else pose_of
    return tr.PoseFit(pose_of, torch.eye(6), True, 0.0, torch.zeros(0))


@pytest.mark.usefixtures("files")
def test_each_option_of_pose_is_used(calls: Calls) -> None:
    calls.to(pose, "fit_pose", lambda *_, **__: found())
    calls.to(pose.Pose, "_write")
    start: list[object] = ["--start", "a.json"]
    base = ["pose", "a.ply", "a.png", "--out", "out", "--focal", 99]
    check(
        calls,
        base,
        {
            "mesh": ["pose", "b.ply", *base[2:]],
            "photo": ["pose", "a.ply", "b.png", *base[3:]],
            "out": ["--out", "other"],
            "camera": [*base[:5], "--camera", "camera.json"],
            "focal": ["--focal", 98],
            "mask": ["--mask", "b-mask.png"],
            "key": ["--key", "#282828"],
            "texture": ["--texture"],
            "start": start,
            "starts": ["--starts", 3],
            "seed": ["--seed", 3],
        },
    )
    base[2] = "a-plain.png"
    code, ((name, args, _), *_) = calls.of(*base, *start, "--texture")
    assert code == 0 and name == "fit_pose" and args[2] == "None"
    given = torch.tensor(args[6])
    assert given.shape == (32, 40, 3) and float(given[0, 0, 0]) == pytest.approx(40 / 255)


@pytest.mark.usefixtures("files")
def test_a_pose_by_texture_needs_colours(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    tr.save_mesh("grey.ply", tr.box())
    base = ["pose", "grey.ply", "a.png", "--out", "out", "--focal", 99]
    assert calls.of(*base, "--texture") == [1, []]
    assert "--texture: grey.ply has no texture and no colours" in capsys.readouterr().err


@pytest.mark.usefixtures("files")
def test_each_option_of_track_is_used(calls: Calls) -> None:
    frames = [np.full((32, 40, 3), i, np.uint8) for i in range(9)]
    calls.to(track, "read_video", lambda path, every=1: iter(frames[::every]))
    calls.to(track, "track_pose", lambda *_, **__: iter([]))
    calls.to(track.Track, "_write")
    base = ["track", "a.ply", "a.mp4", "--start", "a.json", "--out", "out", "--focal", 99]
    check(
        calls,
        base,
        {
            "mesh": ["track", "b.ply", *base[2:]],
            "video": ["track", "a.ply", "b.mp4", *base[3:]],
            "start": ["--start", "b.json"],
            "out": ["--out", "other"],
            "camera": [*base[:7], "--camera", "camera.json"],
            "focal": ["--focal", 98],
            "every": ["--every", 2],
            "tries": ["--tries", 3],
            "seed": ["--seed", 3],
        },
    )


@pytest.mark.usefixtures("files")
def test_each_option_of_render_is_used(calls: Calls) -> None:
    def drawn(_mesh: Any, _camera: Any, size: tuple[int, int], *_: Any, **__: Any) -> torch.Tensor:
        return torch.zeros(*size, 4)

    calls.to(views, "picture", drawn)
    calls.to(views, "save_gif")
    base = ["render", "a.ply", "--out", "a.gif", "--size", 8]
    check(
        calls,
        base,
        {
            "mesh": ["render", "turned.ply", *base[2:]],
            "out": ["--out", "b.gif"],
            "size": ["--size", 9],
            "elevation": ["--elevation", 3],
            "azimuth": ["--azimuth", 3],
            "frames": ["--frames", 3],
        },
    )
    for change in (["--elevation", 3], ["--azimuth", 3]):
        still = [*base, "--out", "a.png"]
        assert calls.of(*still) != calls.of(*still, *change)


@pytest.mark.usefixtures("files")
def test_each_option_of_texture_is_used(calls: Calls) -> None:
    class World:
        def given_world(self, mesh: tr.Mesh) -> tr.Mesh:
            return mesh

    def textured(mesh: tr.Mesh, *_: Any, **__: Any) -> Any:
        made = replace(mesh, texture=torch.zeros(4, 4, 3))
        return tr.TextureFit(made, torch.ones(1, 3), torch.ones(4, 4) > 0, 0.0)

    calls.to(texture, "load_capture", lambda *_: World())
    calls.to(texture, "fit_texture", textured)
    calls.to(texture, "save_mesh")
    base = ["texture", "a.ply", "photos", "--out", "a.glb"]
    check(
        calls,
        base,
        {
            "mesh": ["texture", "b.ply", *base[2:]],
            "folder": ["texture", "a.ply", "others", *base[3:]],
            "out": ["--out", "b.glb"],
            "masks": ["--masks", "alpha"],
            "key": ["--key", "auto"],
            "size": ["--size", 64],
        },
    )


@pytest.mark.usefixtures("files")
def test_each_option_of_view_is_used(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    calls.to(view, "_Window", lambda *_: types.SimpleNamespace(loop=loop))
    calls.to(webbrowser, "open", lambda url: True)

    def loop(*args: Any) -> None:
        calls.found.append(plain(args))

    check(
        calls,
        ["view", "a.ply"],
        {
            "what": ["view", "a.ply", "--browser"],
            "browser": ["--browser"],
            "size": ["--size", 99],
            "frames": ["--frames", 3],
            "screenshot": ["--screenshot", "shown.png"],
        },
    )


@pytest.mark.usefixtures("files")
def test_each_option_of_learn_is_used(calls: Calls) -> None:
    learning = importlib.import_module("taichi_raster.meta.commands.learn")
    calls.patch.setattr(learn, "sibling", lambda *_: None)
    calls.to(learning, "learn")
    base: list[object] = ["learn", "a.py", "--out", "out"]
    numbers = ("steps", "iterations", "tasks", "unseen", "minutes", "seed")
    check(
        calls,
        base,
        {
            "task": ["learn", "b.py", *base[2:]],
            "out": ["--out", "other"],
            "family": ["--family", "One"],
            "tiny": ["--tiny"],
            "resume": ["--resume"],
            **{name: [f"--{name}", 3] for name in numbers},
        },
    )


def test_each_option_of_backends_is_used(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    calls.to(backends, "attempt", lambda arch, p, _: backends.Outcome(arch, p, True, ""))
    calls.to(backends, "machine", dict)
    check(calls, ["backends"], {"json": ["backends", "--timeout", 9], "timeout": ["--timeout", 9]})
    capsys.readouterr()
    calls.of("backends", "--json")
    assert json.loads(capsys.readouterr().out)["machine"] == {}


@pytest.mark.usefixtures("files")
def test_each_option_of_fit_is_used(calls: Calls) -> None:
    shots = [
        tr.Photo(f"{i}", camera(0, 60 * i), (32, 40), torch.zeros(32, 40, 4)) for i in range(4)
    ]
    ball = tr.icosphere(1)

    def loaded(*_: Any) -> tr.Capture:
        mask = torch.zeros(32, 40)
        mask[8:24, 8:32] = 1
        return tr.Capture(tuple(replace(shot, silhouette=mask) for shot in shots))

    def shaped(*_: Any, **__: Any) -> Any:
        return types.SimpleNamespace(mesh=ball)

    def textured(mesh: tr.Mesh, *_: Any, **__: Any) -> Any:
        uv = mesh.vertices[:, :2]
        made = tr.Mesh(mesh.vertices, mesh.faces, uv, mesh.faces, torch.zeros(4, 4, 3))
        return tr.TextureFit(made, torch.ones(4, 3), torch.ones(4, 4) > 0, 0.0)

    calls.to(fit, "load_capture", loaded)
    calls.to(fit, "refine_cameras", lambda capture, *_: capture)
    calls.to(fit, "fit_mesh", shaped)
    calls.to(fit, "fit_texture", textured)
    calls.patch.setattr(fit.Fit, "_judged", lambda *_: {})

    def written(self: Any, mesh: Any, capture: Any, *_: Any) -> None:
        calls.found.append([str(self.out), self.hold_out, plain(mesh), len(capture)])

    calls.patch.setattr(fit.Fit, "_write", written)
    base: list[object] = ["fit", "photos", "--out", "out"]
    check(
        calls,
        base,
        {
            "resume": ["--resume"],  # of what the first run has left
            "folder": ["fit", "others", *base[2:]],
            "out": ["--out", "other"],
            "hold_out": ["--hold-out", 1],
            "masks": ["--masks", "alpha"],
            "key": ["--key", "auto"],
            "face_count": ["--face-count", 99],
            "steps": ["--steps", 9],
            "cells": ["--cells", 9],
            "texture": ["--no-texture"],
            "texture_size": ["--texture-size", 64],
            "seed": ["--seed", 3],
            "refine_cameras": ["--refine-cameras"],
            "camera_uncertainty": ["--refine-cameras", "--camera-uncertainty", 3],
        },
    )
    refined = calls.of(*base, "--refine-cameras")
    assert refined != calls.of(*base, "--refine-cameras", "--camera-uncertainty", 3)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["fit", "--camera-uncertainty", "3"], "--camera-uncertainty: is for --refine-cameras"),
        (["fit", "--texture-size", "64", "--no-texture"], "--texture-size: is of the texture"),
        (["fit", "--masks", "a", "--key", "auto"], "--masks, --key: give one of them"),
        (["texture", "--masks", "a", "--key", "auto"], "--masks, --key: give one of them"),
        (["pose", "--mask", "a.png", "--key", "auto"], "--mask, --key: give one of them"),
        (["render", "--out", "a.png", "--frames", "3"], "--frames: are those of a .gif"),
        (["view", "--browser", "--size", "99"], "--size: is for a window"),
        (["view", "--browser", "--frames", "3"], "--frames: is for a window"),
        (["view", "--browser", "--screenshot", "a.png"], "--screenshot: is for a window"),
    ],
)
def test_options_that_would_say_nothing_are_refused(
    arguments: list[str],
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    tr.save_mesh("nowhere.obj", tr.box())
    command, *rest = arguments
    assert main([command, *REQUIRED[command], *rest]) == 1
    assert text in capsys.readouterr().err


@pytest.mark.usefixtures("files")
def test_starts_without_a_mask_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    base = ["pose", "a.ply", "a-plain.png", "--out", "out", "--focal", "99", "--texture"]
    assert main([*base, "--start", "a.json", "--starts", "3"]) == 1
    assert "--starts: are for masks" in capsys.readouterr().err
