"""`taichi-raster fit`, `texture` and `render`: what they write, and what they say is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import taichi_raster as tr
from paths import ROOT
from taichi_raster.commands.app import main
from turntables import ALL_ROUND, capture_of, mask_of

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")


def folder_of(path: Path, mesh: tr.Mesh | None = None) -> Path:
    """A folder with photos, masks and a transforms.json."""
    mesh = tr.icosphere(2, 0.5) if mesh is None else mesh
    tr.save_capture(path, capture_of(mesh, ALL_ROUND[::2]), "nerfstudio")
    return path


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """In a process of its own, as Taichi is begun in it."""
    return subprocess.run(
        [sys.executable, "-m", "taichi_raster", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_a_folder_becomes_a_mesh_a_report_and_a_turntable(tmp_path: Path) -> None:
    blob = tr.blob(seed=1)
    blob = tr.Mesh(0.5 * blob.vertices / blob.vertices.abs().max(), blob.faces)
    folder, out = folder_of(tmp_path / "blob", blob), tmp_path / "out"
    few = ("--steps", 20, "--cells", 24, "--face-count", 300, "--texture-size", 64)
    done = run("fit", folder, "--out", out, "--hold-out", 1, 4, *few)
    assert done.returncode == 0, done.stderr
    mesh = tr.load_mesh(out / "mesh.glb")
    assert len(mesh.faces) <= 300 and mesh.texture is not None
    assert float((mesh.vertices.amax(0) - blob.vertices.amax(0)).abs().max()) < 0.1
    assert len(tr.load_mesh(out / "mesh.obj").faces) == len(mesh.faces)
    numbers = json.loads((out / "numbers.json").read_text())
    assert numbers["held-out IoU, half size"] > 0.89
    with Image.open(out / "turntable.gif") as gif:
        assert getattr(gif, "n_frames", 1) == 36
    assert "held out" in (out / "report.html").read_text()
    again = run("fit", folder, "--out", out, "--hold-out", 1, 4, *few, "--resume")
    assert again.returncode == 0 and "shape: from" in again.stdout
    assert "texture: from" in again.stdout
    same = tr.load_mesh(out / "mesh.glb")
    assert torch.equal(same.vertices, mesh.vertices) and same.texture is not None
    assert torch.equal(same.texture, mesh.texture)
    other = run("texture", out / "mesh.obj", folder, "--out", tmp_path / "new.glb", "--size", 64)
    assert other.returncode == 0, other.stderr
    assert tr.load_mesh(tmp_path / "new.glb").texture is not None
    drawn = run("render", out / "mesh.glb", "--out", tmp_path / "mesh.png", "--size", 64)
    assert drawn.returncode == 0, drawn.stderr
    with Image.open(tmp_path / "mesh.png") as image:
        assert image.size == (64, 64) and image.convert("L").getextrema()[0] < 200


QUICK = """
import sys
from taichi_raster.commands.app import main
from taichi_raster.fitting import refinement
refinement.ROUNDS = refinement.ROUNDS[:1]
sys.exit(main(sys.argv[1:]))
"""


def test_refined_cameras_are_written_and_kept(tmp_path: Path) -> None:
    """Of held-out photos, too. Beside the photos, they are read again; another run takes them from
    OUT.
    """
    blob = tr.blob(seed=1)
    blob = tr.Mesh(0.5 * blob.vertices / blob.vertices.abs().max(), blob.faces)
    folder, out = folder_of(tmp_path / "blob", blob), tmp_path / "out"
    few = ("--steps", 5, "--cells", 24, "--no-texture", "--refine-cameras", "--hold-out", 3)

    def fit(*more: object) -> str:
        done = subprocess.run(
            [sys.executable, "-c", QUICK, "fit", *map(str, (folder, "--out", out, *few, *more))],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = fit("--face-count", 200)
    assert f"cameras: {out / 'cameras.json'}" in said.replace("\n", "")
    numbers = json.loads((out / "numbers.json").read_text())
    given = tr.load_capture(folder)
    (folder / "transforms.json").rename(tmp_path / "transforms.json")
    (out / "cameras.json").rename(folder / "cameras.json")
    refined = tr.load_capture(folder)
    assert refined.names == given.names
    pairs = zip(given, refined, strict=True)
    turned = torch.cat([a.pose.angle_to(b.pose) for a, b in pairs])
    assert float(turned[3]) > 0.001  # it is held out
    assert float(turned.max()) == pytest.approx(
        numbers["cameras turned by, at most, degrees"], abs=1e-3
    )
    assert 0.001 < float(turned.max()) < 2.0
    (folder / "cameras.json").unlink()
    (tmp_path / "transforms.json").rename(folder / "transforms.json")
    kept = fit("--face-count", 100, "--resume")  # of other settings, the shape is found anew
    assert "cameras: from" in kept and "shape: found anew; checkpoint:" in kept
    assert len(tr.load_mesh(out / "mesh.obj").faces) <= 100


def test_missing_packages_are_named_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("taichi_raster.commands.fit.find_spec", lambda name: None)
    assert main(["fit", "nowhere", "--out", "out"]) == 1
    error = capsys.readouterr().err
    assert "fit needs scikit-image, fast-simplification, xatlas: pip install" in error


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (["--hold-out", "9"], "--hold-out: there is no photo 9; they are 0 to 8"),
        (["--hold-out", *"01234567"], "--hold-out: leaves fewer than two photos"),
        (["--masks", "nowhere"], "nowhere"),
        (["--key", "no colour"], "unknown colour 'no colour'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    change: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = folder_of(tmp_path / "ball"), tmp_path / "out"
    assert main(["fit", str(folder), "--out", str(out), *change]) == 1
    error = capsys.readouterr().err
    assert text in error and error.startswith("taichi-raster: ") and error.count("\n") == 1
    assert not out.exists()


def test_a_photo_that_is_cut_off_is_named_before_the_fit_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = folder_of(tmp_path / "ball"), tmp_path / "out"
    photo = sorted((folder / "images").iterdir())[3]
    photo.write_bytes(photo.read_bytes()[: photo.stat().st_size // 2])
    assert main(["fit", str(folder), "--out", str(out)]) == 1
    assert f"{photo.name}: cannot be read as a picture" in capsys.readouterr().err
    assert not out.exists()


def test_a_folder_without_cameras_or_masks_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["fit", str(tmp_path / "empty"), "--out", str(tmp_path / "out")]) == 1
    assert f"{tmp_path / 'empty'}: has no cameras" in capsys.readouterr().err
    capture = capture_of(tr.icosphere(1, 0.5), ALL_ROUND[:3])
    bare = tr.Capture(tuple(tr.Photo(p.name, p.camera, p.image_size, p.picture) for p in capture))
    tr.save_capture(tmp_path / "bare", bare, "nerfstudio")
    assert main(["fit", str(tmp_path / "bare"), "--out", str(tmp_path / "out")]) == 1
    assert "the photos have no masks; give --masks, or --key" in capsys.readouterr().err


def test_a_pose_is_written_for_other_programs(tmp_path: Path) -> None:
    """Of a wedge seen through a calibration of OpenCV's, without a guess; its mask by colour."""
    corners = [[0, 0, 0], [1, 0, 0], [0, 0.7, 0], [0, 0, 0.4], [1, 0, 0.4], [0, 0.7, 0.4]]
    sides = [[0, 2, 1], [3, 4, 5], [0, 1, 4], [0, 4, 3], [1, 2, 5], [1, 5, 4], [2, 0, 3], [2, 3, 5]]
    mesh = tr.Mesh(torch.tensor(corners), torch.tensor(sides))
    tr.save_mesh(tmp_path / "wedge.obj", mesh)
    placed = tr.Pose.from_rotation_vector([0.7, -0.4, 0.3], [-0.3, -0.2, 3.5])
    camera = tr.conventions.from_opencv(
        placed.rotation,
        placed.translation,
        torch.tensor([[150.0, 0, 60.0], [0, 152.0, 50.0], [0, 0, 1.0]]),
        (96, 128),
    )
    mask = mask_of(mesh, camera, (96, 128), 8)[..., None]
    photo = mask * torch.tensor([0.9, 0.6, 0.2]) + (1 - mask) * torch.tensor([0.1, 0.2, 0.8])
    Image.fromarray((photo * 255).round().byte().numpy()).save(tmp_path / "photo.png")
    (tmp_path / "camera.json").write_text(
        '{"camera_matrix": [[150, 0, 60], [0, 152, 50], [0, 0, 1]], "image_width": 128, '
        '"image_height": 96, "distortion_coefficients": [0, 0, 0, 0, 0]}'
    )
    out = tmp_path / "out"
    given = (tmp_path / "wedge.obj", tmp_path / "photo.png", "--camera", tmp_path / "camera.json")
    done = run("pose", *given, "--key", "auto", "--out", out)
    assert done.returncode == 0, done.stderr + done.stdout
    found = json.loads((out / "pose.json").read_text())
    pose = tr.Pose(torch.tensor(found["rotation"]), torch.tensor(found["translation"]))
    assert float(pose.angle_to(placed)) < 1.0 and found["converged"]
    assert float((pose.translation - placed.translation).norm()) < 0.05
    assert torch.tensor(found["covariance"]).shape == (6, 6)
    assert (out / "report.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["pose", "none.obj", "a.png", "--out", "b"], "none.obj: there is no such mesh file"),
        (["render", "none.obj", "--out", "a.png"], "none.obj: there is no such mesh file"),
        (["render", "none.obj", "--out", "a.bmp"], "--out: must end in .png or .gif"),
        (["texture", "none.obj", ".", "--out", "a.stl"], "--out: must end in .glb, .obj or .ply"),
    ],
)
def test_other_commands_name_the_argument_or_the_file(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    assert text in capsys.readouterr().err


def test_the_textured_views_of_a_mesh_are_its_own_colours() -> None:
    from taichi_raster.commands.views import picture

    mesh = tr.uv_sphere(12, 24, radius=0.5)
    assert mesh.uv is not None
    red = torch.tensor([0.8, 0.2, 0.1]).expand(4, 4, 3)
    coloured = tr.Mesh(mesh.vertices, mesh.faces, mesh.uv, mesh.uv_faces, red)
    camera = tr.PerspectiveCamera(tr.orbit(2.0, 0.0, 0.0))
    middle = picture(coloured, camera, (16, 16))[8, 8]
    torch.testing.assert_close(middle, torch.tensor([0.8, 0.2, 0.1, 1.0]), atol=1e-5, rtol=0)


def test_a_camera_that_looks_away_sees_the_background() -> None:
    """As a photo that was held out may: the report of a whole fit must not fail for it."""
    from taichi_raster.commands.views import picture

    view = tr.orbit(2.0, 0.0, 0.0)
    view[:, 2] = -view[:, 2]
    view[:, 0] = -view[:, 0]
    away = picture(tr.icosphere(1, 0.5), tr.PerspectiveCamera(view), (6, 8), background=0.9)
    expected = torch.tensor([0.9, 0.9, 0.9, 0.0]).expand(6, 8, 4)
    torch.testing.assert_close(away, expected)
