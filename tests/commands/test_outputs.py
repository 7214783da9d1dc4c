"""Commands write where they can, say at once where they cannot, and never over what they read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

import taichi_raster as tr
from clips import poses
from taichi_raster.commands import outputs
from taichi_raster.commands.app import main
from turntables import ALL_ROUND, capture_of

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a textured mesh, photos and a pose, that commands are run in."""
    monkeypatch.chdir(tmp_path)
    ball = tr.uv_sphere(6, 8, radius=0.5)
    mesh = tr.Mesh(ball.vertices, ball.faces, ball.uv, ball.uv_faces, torch.rand(4, 4, 3))
    tr.save_mesh("ball.obj", mesh)
    tr.save_mesh("ball.ply", mesh)
    tr.save_capture("photos", capture_of(tr.icosphere(1, 0.5), ALL_ROUND[:4]), "nerfstudio")
    tr.save_capture("colmap", capture_of(tr.icosphere(1, 0.5), ALL_ROUND[:4]), "colmap")
    shutil.copy("photos/images/00.png", "photo.png")
    Path("found").mkdir()
    Path("found/pose.json").write_text(json.dumps(poses(1)[0].to_dict()[0]))
    for name in ("overlay.gif", "report.html", "poses.json", "task_copy.py"):
        shutil.copy("photo.png", f"found/{name}")
    return tmp_path


def everything(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def untouched(here: Path) -> Iterator[None]:
    """All files are as they were, and there are no others."""
    before = everything(here)
    yield
    assert everything(here) == before


POSE = ["pose", "ball.obj", "photo.png", "--focal", "99"]
TRACK = ["track", "ball.obj", "clip.mp4", "--focal", "99", "--start", "found/pose.json"]
READ = "are never overwritten"
OVER = "would be overwritten"


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["fit", "photos", "--out", "photos"], READ),
        (["fit", "photos", "--out", "photos", "--refine-cameras"], READ),
        (["fit", "photos/transforms.json", "--out", "photos"], READ),
        (["fit", "photos", "--out", "photos/images"], READ),
        (["fit", "photos", "--out", "photos/../photos/masks"], READ),
        (["fit", "colmap", "--out", "colmap/sparse/0"], READ),
        (["texture", "ball.obj", "photos", "--out", "ball.obj"], OVER),
        (["texture", "ball.ply", "photos", "--out", "../here/ball.ply"], OVER),
        (["render", "ball.obj", "--out", "ball.png"], OVER),
        (["render", "ball.ply", "--out", "ball_1.png"], OVER),
        ([*POSE, "--start", "found/pose.json", "--out", "found"], OVER),
        ([*POSE[:2], "found/report.html", *POSE[3:], "--out", "found"], OVER),
        ([*TRACK[:2], "found/overlay.gif", *TRACK[3:], "--out", "found"], OVER),
        ([*TRACK, "--camera", "found/poses.json", "--out", "found"], OVER),
        (["learn", "found/task_copy.py", "--out", "found"], OVER),
    ],
)
def test_what_is_read_is_never_overwritten(
    arguments: list[str], text: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [part.replace("../here", f"../{here.name}") for part in arguments]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("taichi-raster: --out: ") and text in error, error
    assert error.count("\n") == 1


COMMANDS = {
    "fit": ["fit", "photos"],
    "texture": ["texture", "ball.obj", "photos"],
    "pose": POSE,
    "track": TRACK,
    "render": ["render", "ball.obj"],
    "learn": ["learn", "task.py"],
}
FILES = {"texture": "a.glb", "render": "a.png"}
"""What --out is called where it is a file."""


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_that_cannot_be_written_is_named_at_once(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = FILES.get(command, "out")
    # A file is where a folder ought to be.
    inside = "photo.png" if name == "out" else f"photo.png/{name}"
    assert main([*COMMANDS[command], "--out", inside]) == 1
    assert "taichi-raster: --out: " in capsys.readouterr().err
    below = "photo.png/deeper" if name == "out" else f"photo.png/deeper/{name}"
    assert main([*COMMANDS[command], "--out", below]) == 1
    assert "taichi-raster: --out: " in capsys.readouterr().err
    # The folder may not be written to. Root may write anywhere, so that the system is asked.
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    assert main([*COMMANDS[command], "--out", name]) == 1
    assert "cannot be written to" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_named() -> None:
    """As where the system only says so when it is tried."""
    with pytest.raises(ValueError, match=r"^--out: \S+ cannot be made: "):
        outputs.made(Path(os.devnull) / "out")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("command", "file"),
    [
        ("fit", "out/mesh.glb"),
        ("fit", "out/cameras.json"),
        ("texture", "a.glb"),
        ("pose", "out/pose.json"),
        ("track", "out/overlay.gif"),
        ("render", "a.png"),
        ("learn", "out/results.md"),
    ],
)
def test_a_folder_in_place_of_a_result_is_named_at_once(
    command: str, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(file).mkdir(parents=True)
    assert main([*COMMANDS[command], "--out", FILES.get(command, "out")]) == 1
    assert f"--out: {file} is a folder, where a file is to be written" in capsys.readouterr().err


@pytest.mark.usefixtures("here")
def test_a_mesh_stands_for_the_files_that_it_names() -> None:
    """Its library of materials and the texture in it; not what only ends in their names."""
    read: dict[str, Path | None] = {"MESH": Path("ball.obj")}
    for name, taken in (("ball.png", True), ("all.png", False), ("other.png", False)):
        if not Path(name).exists():
            Image.new("RGB", (4, 4)).save(name)
        if taken:
            with pytest.raises(ValueError, match=f"--out: {name} is what"):
                outputs.check_file("--out", Path(name), (".png",), read)
        else:
            outputs.check_file("--out", Path(name), (".png",), read)
    Path("sub").mkdir()
    shutil.copy("ball.png", "sub/ball.png")  # the same name elsewhere is another file
    outputs.check_file("--out", Path("sub/ball.png"), (".png",), read)
    Path("a b.gltf").write_text('{"images": [{"uri": "./a%20b.png"}]}')
    shutil.copy("ball.png", "a b.png")
    with pytest.raises(ValueError, match=r"--screenshot: a b\.png is what MESH reads"):
        outputs.check_file("--screenshot", Path("a b.png"), (".png",), {"MESH": Path("a b.gltf")})


def test_warnings_are_said_in_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the place in the code where they arise."""
    given = {"P": [[[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]]], "names": ["images/00.png"]}
    (here / "photos" / "cameras.json").write_text(json.dumps(given))
    assert main(["fit", "photos", "--out", "photos"]) == 1
    first, *_ = capsys.readouterr().err.splitlines()
    assert first.startswith("taichi-raster: photos/cameras.json: the cameras of 1 of 4 photos")
