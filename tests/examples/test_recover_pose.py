"""The example runs from a mesh file to its results, and says in one line what is wrong with one."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import recover_pose
import taichi_raster as tr
from tasks.pose_meshes import is_closed, random_body

# The example renders in float32; its kernels are compiled for what the test run was started with.
pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")


@pytest.fixture
def body(tmp_path):
    """A random body, in a file."""
    path = tmp_path / "body.obj"
    tr.save_mesh(path, random_body(np.random.default_rng(2), torch.float32))
    return path


def settings(body, tmp_path, **changes):
    small = dict(poses=4, image_size=24, steps=3, out=tmp_path / "out", arch="cpu")
    return recover_pose.Settings(body, **{**small, **changes})


def test_poses_are_recovered_and_the_results_are_written(body, tmp_path):
    metrics = recover_pose.main(
        settings(body, tmp_path, steps=60, scale=(0.05, 0.01), known_fov=True)
    )
    out = tmp_path / "out"
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert len(metrics["per_pose"]["parameter_error"]) == metrics["poses"] == 4
    assert metrics["published_successes"] == sum(metrics["per_pose"]["published_success"])
    assert np.median(metrics["per_pose"]["parameter_error"]) < 5  # from at least 15
    assert np.asarray(Image.open(out / "poses.png").convert("L")).std() > 10
    assert not (out / "softness.safetensors").exists()


def test_a_softness_learned_online_moves_and_can_be_used_again(body, tmp_path):
    recover_pose.main(settings(body, tmp_path, online=True, scale=(0.05,)))
    path = tmp_path / "out" / "softness.safetensors"
    learned, before = tr.load_softness(path), tr.MLPSoftness()
    assert isinstance(learned, tr.MLPSoftness) and isinstance(learned.scale, tr.Knots)
    assert float((learned.weights - before.weights).detach().abs().max()) > 1e-3
    assert float(learned.scale.log_values.detach().exp()) != pytest.approx(0.05, rel=1e-4)
    metrics = recover_pose.main(settings(body, tmp_path, softness=str(path)))
    assert metrics["poses"] == 4
    again = tr.load_softness(path)
    assert isinstance(again, tr.MLPSoftness)
    assert torch.equal(again.weights, learned.weights)  # used, not trained on


def test_a_reduced_mesh_is_still_closed_and_nearly_the_same():
    sphere = tr.icosphere(3)
    small = recover_pose.reduced(sphere, 300)
    assert is_closed(small) and 298 <= len(small.faces) <= 300
    radius = small.vertices.norm(dim=1)
    assert float(radius.min()) > 0.9 and float(radius.max()) <= 1 + 1e-6
    assert torch.equal(recover_pose.reduced(sphere, 5000).vertices, sphere.vertices)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["absent.obj"], "absent.obj: there is no such mesh file"),
        (["body.obj", "--poses", "0"], "--poses: must be at least 1"),
        (["body.obj", "--learning-rate", "0"], "--learning-rate: must be positive"),
        (["body.obj", "--scale", "-1"], "--scale: must be one or two positive numbers"),
        (["body.obj", "--faces", "2"], "--faces: must be at least 4"),
        (["body.obj", "--online", "--softness", "a.safetensors"], "--online: starts from a distr"),
        (["body.obj", "--arch", "cpu", "--softness", "absent.safetensors"], "absent.safetensors"),
        (["body.obj", "--arch", "cpu", "--softness", "lorenz"], "lorenz"),
    ],
)
def test_bad_arguments_end_in_one_line(body, monkeypatch, capsys, arguments, complaint):
    monkeypatch.chdir(body.parent)
    monkeypatch.setattr("sys.argv", ["recover_pose.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        recover_pose.command_line()
    said = str(stop.value) + capsys.readouterr().err
    assert complaint in said
    assert stop.value.code not in (0, None)
