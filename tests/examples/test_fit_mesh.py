"""The example runs from a mesh file to its results, and says in one line what is wrong with one."""

import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

import fit_mesh
from taichi_raster.scene.mesh import Mesh
from taichi_raster.scene.mesh_files import load_mesh, save_mesh
from taichi_raster.scene.procedural import icosphere

# The example renders in float32; its kernels are compiled for what the test run was started with.
pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")


@pytest.fixture
def target(tmp_path):
    """A stretched sphere, in a file."""
    sphere = icosphere(2)
    path = tmp_path / "target.obj"
    save_mesh(path, Mesh(sphere.vertices * torch.tensor([1.0, 0.5, 0.7]), sphere.faces))
    return path


def settings(target, tmp_path, **changes):
    small = dict(views=4, image_size=32, steps=10, faces=400, frames=2)
    return fit_mesh.Settings(target, out=tmp_path / "out", arch="cpu", **{**small, **changes})


def test_the_target_is_found_and_the_results_are_written(target, tmp_path):
    metrics = fit_mesh.main(settings(target, tmp_path))
    assert metrics["training_iou"] > 0.93
    assert metrics["held_out_iou"] > 0.88
    out = tmp_path / "out"
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert 300 <= len(load_mesh(out / "fitted.obj").faces) <= 400
    assert len(list(ImageSequence.Iterator(Image.open(out / "turntable.gif")))) == 2
    picture = np.asarray(Image.open(out / "silhouettes.png").convert("L"))
    assert picture.std() > 10


def test_held_out_views_are_not_training_views():
    views = fit_mesh.view_matrices(24)
    forward = views[:, 2, :3]
    cosine = forward[24:] @ forward[:24].T
    assert views.shape == (24 + fit_mesh.HELD_OUT, 4, 4)
    assert torch.rad2deg(torch.acos(cosine.amax())) > 15


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["absent.obj"], "absent.obj: there is no such mesh file"),
        (["broken.obj"], "broken.obj: "),
        (["target.obj", "--views", "1"], "--views: must be at least 2"),
        (["target.obj", "--steps", "-1"], "--steps: must be at least 0"),
        (["target.obj", "--arch", "abacus"], "abacus"),
    ],
)
@pytest.mark.usefixtures("target")
def test_bad_arguments_end_in_one_line(tmp_path, monkeypatch, capsys, arguments, complaint):
    (tmp_path / "broken.obj").write_bytes(bytes(range(256)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["fit_mesh.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        fit_mesh.command_line()
    said = str(stop.value) + capsys.readouterr().err
    assert complaint in said
    assert stop.value.code not in (0, None)
