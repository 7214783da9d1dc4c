"""The network, its training through the renderer, and its evaluation; all at tiny sizes."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import reconstruct as program
import taichi_raster as tr
from meta.outer.checkpoint import CheckpointError, load_checkpoint
from paths import ROOT
from tasks import reconstruction as rec
from tasks.reconstruction.model import KIND, Decoder
from tasks.reconstruction.softness import SoftnessSettings

pytestmark = [pytest.mark.runs_on(arch="cpu", precision="f32"), pytest.mark.timeout(1800)]

TINY = rec.PRESETS["tiny"]


def deformed(seed, count):
    """Meshes of the tiny decoder, for random codes."""
    decoder = rec.build_model(TINY.model, seed).decoder
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(3)
        return decoder(4 * torch.rand((count, TINY.model.code), generator=generator))


@pytest.fixture(scope="module")
def shapes():
    """(vertices, faces) of the objects of the data set, by class and split."""
    faces = rec.build_model(TINY.model).faces
    names = [(c, s) for c in ("one", "two") for s in rec.SPLITS]
    return {name: deformed(seed, 3) for seed, name in enumerate(names)}, faces


@pytest.fixture(scope="module")
def data(shapes, tmp_path_factory):
    """A data set whose shapes the network can make."""
    folder = tmp_path_factory.mktemp("data")
    for (class_id, split), vertices in shapes[0].items():
        images = np.stack([rec.render_views(tr.Mesh(v, shapes[1])) for v in vertices])
        np.savez(folder / f"{class_id}_{split}_images.npz", images)
        voxels = rec.voxelise(vertices, shapes[1]).numpy()
        np.savez(folder / f"{class_id}_{split}_voxels.npz", voxels)
    (folder / "dataset.json").write_text('{"kind": "reconstruction data", "voxels": "inside"}')
    return folder


def trainer(data, folder=None, softness=None, **changes):
    split = rec.NMRDataset(data, "train", image_size=16)
    model = rec.build_model(TINY.model, 0)
    settings = replace(TINY.training, validate_every=0, **changes)
    return rec.Trainer(model, split, settings, softness, folder)


# The network --------------------------------------------------------------------------------------


def test_the_published_network_has_the_published_layers():
    model = rec.build_model(rec.ModelSettings())
    shapes = [tuple(p.shape) for name, p in model.named_parameters() if p.ndim > 1]
    assert shapes == [
        (64, 4, 5, 5),
        (128, 64, 5, 5),
        (256, 128, 5, 5),
        (1024, 16384),
        (1024, 1024),
        (512, 1024),
        (1024, 512),
        (2048, 1024),
        (3, 2048),
        (1926, 2048),
    ]
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == 3
    assert model.faces.shape == (1280, 3)


def test_the_decoder_follows_the_published_formula():
    decoder = Decoder(TINY.model)
    code = torch.randn((5, TINY.model.code), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        decoder.offsets.weight.mul_(20)
        decoder.centroid.weight.mul_(50)
        x = torch.relu(decoder.second(torch.relu(decoder.first(code))))
        centroid = torch.tanh(0.1 * decoder.centroid(x))[:, None]
        bias = decoder.offsets(x).view(5, -1, 3)
        base = 0.5 * tr.icosphere(TINY.model.subdivisions).vertices
        base = torch.where(base.abs() < 1e-6, torch.zeros(()), base)
        logit = torch.log(base.abs() / (1 - base.abs()))
        v = torch.sigmoid(logit + bias) * torch.sign(base)
        v = torch.relu(v) * (1 - centroid) - torch.relu(-v) * (centroid + 1) + centroid
        assert torch.allclose(decoder(code), 0.5 * v, atol=1e-6)
        assert float(decoder(1e6 * code).abs().max()) <= 0.5


def test_without_offsets_the_decoder_gives_a_sphere_of_radius_a_quarter():
    decoder = Decoder(TINY.model)
    for layer in (decoder.offsets, decoder.centroid):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    radius = decoder(torch.zeros(1, TINY.model.code)).norm(dim=2)
    assert torch.allclose(radius, torch.full_like(radius, 0.25), atol=1e-6)


def test_a_file_gives_the_same_network_back(tmp_path):
    model = rec.build_model(TINY.model, 3)
    images = torch.rand(2, 4, 16, 16)
    rec.save_model(tmp_path / "m.safetensors", model, {"note": "x"})
    loaded, card = rec.load_model(tmp_path / "m.safetensors")
    assert card == {"note": "x"}
    assert torch.equal(loaded(images), model.eval()(images))
    rec.save_model(tmp_path / "half.safetensors", model, half=True)
    half, _ = rec.load_model(tmp_path / "half.safetensors")
    assert torch.allclose(half(images), model(images), atol=2e-3)
    broken = (tmp_path / "m.safetensors").read_bytes()[:-50]
    (tmp_path / "m.safetensors").write_bytes(broken)
    with pytest.raises(CheckpointError, match="damaged"):
        rec.load_model(tmp_path / "m.safetensors")


def test_any_module_can_be_the_encoder(data):
    split = rec.NMRDataset(data, "train", image_size=16)
    layer = nn.Linear(4 * 256, TINY.model.code)
    encoder = nn.Sequential(nn.Flatten(), layer)
    model = rec.Reconstructor(encoder, Decoder(TINY.model))
    before = layer.weight.clone()
    rec.Trainer(model, split, replace(TINY.training, steps=1, validate_every=0)).run()
    assert not torch.equal(before, layer.weight)


def test_an_encoder_of_timm_gives_a_code():
    pytest.importorskip("timm")
    model = rec.build_model(replace(TINY.model, encoder="timm:resnet10t", image_size=64))
    assert model(torch.rand(2, 4, 64, 64)).shape == (2, 42, 3)


# Training -----------------------------------------------------------------------------------------


def test_each_mesh_is_rendered_from_both_views(shapes):
    vertices, faces = shapes[0]["one", "train"][:2], shapes[1]
    renderer = rec.build_softness(SoftnessSettings(), 16).renderer
    views = torch.tensor([[3], [10]])
    seen = rec.cross_renders(vertices, faces, views[0], views[1], renderer, 0.0)
    order = [(0, 0), (1, 0), (0, 1), (1, 1)]  # mesh, view
    for image, (mesh, view) in zip(seen, order, strict=True):
        one = vertices[mesh : mesh + 1]
        camera = rec.cameras(views[view], one)
        alone = renderer.silhouette(tr.gather_faces(camera.project(one), faces), 0.0)
        assert torch.allclose(image, alone[0], atol=1e-6)


def test_the_softness_of_softras_drops_as_published():
    edge = rec.build_softness(SoftnessSettings(), 16).edge
    u = torch.tensor([0.0, 0.59, 0.6, 1.0], dtype=torch.float64)
    assert torch.allclose(edge.scale(u), torch.tensor([1e-4, 1e-4, 3e-5, 3e-5]).double())
    distance = torch.tensor([0.01, -0.02], dtype=torch.float64)
    sigmoid = torch.sigmoid(distance.sign() * distance**2 / 1e-4)
    assert torch.allclose(edge.value(distance, 0.0).double(), sigmoid, atol=1e-6)


def test_training_makes_silhouettes_fit_better(data):
    run = trainer(data, steps=40, lr=3e-3, log_every=8, batch_size=8)
    assert run.run()
    losses = [entry["iou_loss"] for entry in run.log.entries]
    assert losses[-1] < losses[0] - 0.05
    assert all(torch.isfinite(p).all() for p in run.model.parameters())


def test_a_learned_softness_is_frozen_until_late(data, tmp_path):
    softness = SoftnessSettings(kind="learned", unfreeze=0.5, lr=0.01)
    run = trainer(data, tmp_path, softness, steps=4)
    start = [p.clone() for p in run.softness.learnable.parameters()]
    run.run(steps=2)
    held = list(run.softness.learnable.parameters())
    assert all(torch.equal(a, b) for a, b in zip(start, held, strict=True))
    resumed = trainer(data, tmp_path, softness, steps=4)
    assert resumed.run(resume=True)
    moved = list(resumed.softness.learnable.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(start, moved, strict=True))
    softening = tr.load_softening(tmp_path / "softening.safetensors")
    edge = softening.edge
    assert isinstance(edge, tr.MLPSoftness)
    assert torch.equal(edge.weights, resumed.softness.edge.weights)
    # and what was learned serves as a given softness
    given = SoftnessSettings(kind="softening", file=tmp_path / "softening.safetensors")
    rec.build_softness(given, 16)


def test_a_killed_run_ends_with_the_same_numbers(data, tmp_path):
    """SIGKILL in another process, then resumed here, beside a run that was not interrupted."""
    steps = 40
    command = [
        sys.executable,
        "examples/reconstruct.py",
        "train",
        "--preset",
        "tiny",
        "--data",
        str(data),
        "--out",
        str(tmp_path / "killed"),
        "--steps",
        str(steps),
        "--validate-every",
        "0",
        "--quiet",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    log = tmp_path / "killed" / "log.jsonl"
    deadline = time.monotonic() + 1500
    while not (log.is_file() and log.read_text().count("\n") >= 5) and time.monotonic() < deadline:
        assert run.poll() is None, run.communicate()[0].decode()
        time.sleep(0.005)
    run.send_signal(signal.SIGKILL)
    run.wait()
    with open(log, "a") as file:
        file.write('{"iteration": 39, "lo')  # a torn line, as a kill may leave it
    _, content = load_checkpoint(
        tmp_path / "killed" / "checkpoint.safetensors", "reconstruction training"
    )
    assert 4 <= content["step"] < steps
    whole = trainer(data, tmp_path / "whole", steps=steps)
    assert whole.run()
    resumed = trainer(data, tmp_path / "killed", steps=steps)
    assert resumed.run(resume=True)
    same = [
        load_checkpoint(tmp_path / n / "model.safetensors", KIND)[0] for n in ("whole", "killed")
    ]
    assert all(torch.equal(same[0][name], same[1][name]) for name in same[0])
    logs = [
        [
            {**json.loads(line), "seconds": 0}
            for line in (tmp_path / n / "log.jsonl").read_text().splitlines()
        ]
        for n in ("whole", "killed")
    ]
    assert logs[0] == logs[1] and len(logs[0]) == steps


def test_a_signal_stops_a_run_between_two_steps(data, tmp_path):
    run = trainer(data, tmp_path, steps=8)
    step = run._train_step

    def interrupted(batch):
        if run.step == 3:
            signal.raise_signal(signal.SIGTERM)
        step(batch)

    run._train_step = interrupted
    assert not run.run() and run.step == 4
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    path = tmp_path / "checkpoint.safetensors"
    assert load_checkpoint(path, "reconstruction training")[1]["step"] == 4
    assert rec.load_model(tmp_path / "model.safetensors")[1]["step"] == 4


def test_a_folder_of_another_run_is_not_overwritten_or_resumed(data, tmp_path):
    trainer(data, tmp_path, steps=4).run(steps=2)
    with pytest.raises(CheckpointError, match="earlier run"):
        trainer(data, tmp_path, steps=4).run()
    with pytest.raises(CheckpointError, match="lr"):
        trainer(data, tmp_path, steps=4, lr=1.0).run(resume=True)


def test_a_step_is_split_into_its_parts(data):
    times = trainer(data).measure(1)
    assert set(times) == {"data", "network", "renderer", "regularisers", "optimiser"}
    assert all(0 < t.wall < 600 and t.cpu >= 0 for t in times.values())


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: rec.TrainSettings(batch_size=1), "batch_size"),
        (lambda: rec.TrainSettings(lr=-1.0), "lr"),
        (lambda: rec.ModelSettings(encoder="vgg"), "encoder"),
        (lambda: rec.ModelSettings(image_size=48), "image_size"),
        (lambda: SoftnessSettings(kind="softening"), "file"),
        (lambda: SoftnessSettings(edge="heaviside"), "heaviside"),
        (lambda: rec.build_softness(SoftnessSettings(scale=-1.0), 16), "scale"),
    ],
)
def test_bad_settings_are_named(make, word):
    with pytest.raises(ValueError, match=word):
        make()


# Evaluation ---------------------------------------------------------------------------------------


class Oracle(nn.Module):
    """Knows every image of a split, and gives the true vertices."""

    def __init__(self, data, split, shapes):
        super().__init__()
        self.faces = shapes[1]
        self.known, self.answers = [], []
        for class_id in data.classes:
            vertices = shapes[0][class_id, split]
            for index, views in data.each(class_id, tuple(range(24)), 24):
                self.known.append(data.images(class_id, index, views))
                self.answers.append(vertices[torch.from_numpy(index)])

    def forward(self, images):
        distance = torch.cdist(images.flatten(1), torch.cat(self.known).flatten(1))
        return torch.cat(self.answers)[distance.argmin(dim=1)]


def test_a_perfect_prediction_scores_one(data, shapes):
    split = rec.NMRDataset(data, "test")
    scores = rec.evaluate(Oracle(split, "test", shapes), split, views=(0, 5))
    assert scores.mean("voxel_iou") == 1.0
    assert scores.mean("silhouette_iou") > 0.995  # counted to 1/16, stored to 1/255
    assert scores.classes["one"].images == 6


def test_mean_shapes_are_what_one_can_guess(data, tmp_path):
    for split in ("train", "test"):
        for part in ("images", "voxels"):
            with np.load(data / f"one_train_{part}.npz") as file:
                np.savez(tmp_path / f"one_{split}_{part}.npz", file["arr_0"][[0, 0]])
    train, test = (rec.NMRDataset(tmp_path, split) for split in ("train", "test"))
    same = rec.mean_shapes(train, test)  # of equal objects: right
    assert same.overall.mean("voxel_iou") == pytest.approx(1)
    assert same.by_class.mean("silhouette_iou") > 0.95  # a cut has no half covered pixels
    train, test = (rec.NMRDataset(data, split) for split in ("train", "test"))
    guess = rec.mean_shapes(train, test)
    assert 0.1 < guess.overall.mean("voxel_iou") < 0.95


def test_tables_have_the_spread_over_runs(data):
    split = rec.NMRDataset(data, "test")
    one, two = (
        rec.Scores({c: rec.evaluation.ClassScores(v, math.nan, 1) for c in split.classes})
        for v in (0.4, 0.6)
    )
    text = rec.scores_markdown({"fit": [one, two]}, {"mean shape": one}, split)
    assert "| one | 50.0 ± 14.1 | 40.0 |" in text and "Silhouette" not in text


# The program --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    training = replace(TINY.training, steps=4, validate_every=4)
    splits = [rec.NMRDataset(data, name, image_size=16) for name in ("train", "val")]
    run = rec.Trainer(
        rec.build_model(TINY.model), splits[0], training, folder=folder, validation=splits[1]
    )
    assert run.run()
    assert 0 <= run.log.entries[-1]["validation"]["voxel_iou"] <= 1
    return folder


def test_evaluate_writes_a_table_and_a_sheet(data, trained, monkeypatch):
    monkeypatch.setattr(tr, "init", lambda **_: tr.runtime())
    source = program.Source(data)
    program.evaluate(program.Evaluate((f"fit={trained}",), source, views=2, rows=2, quiet=True))
    assert "| **mean** |" in (trained / "results.md").read_text()
    scores = json.loads((trained / "scores.json").read_text())
    assert set(scores) == {str(trained), "mean shape", "mean shape of the class"}
    for name in ("sheet", "curves"):
        with Image.open(trained / f"{name}.png") as drawn:
            assert min(drawn.size) > 200


def test_predict_makes_a_mesh_of_an_image(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(tr, "init", lambda **_: tr.runtime())
    pixels = np.full((48, 64, 3), 250, dtype=np.uint8)
    pixels[10:30, 20:50] = (200, 30, 30)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    image = program.read_image(tmp_path / "image.png", 16)
    assert image.shape == (4, 16, 16)
    assert float(image[3].sum()) == pytest.approx(20 * 30 / 64**2 * 256, rel=1e-5)
    Image.open(tmp_path / "image.png").convert("RGBA").save(tmp_path / "opaque.png")
    assert torch.equal(program.read_image(tmp_path / "opaque.png", 16), image)
    model = trained / "model.safetensors"
    program.predict(program.Predict(tmp_path / "image.png", model, tmp_path))
    assert len(tr.load_mesh(tmp_path / "mesh.obj").vertices) == 42
    assert (tmp_path / "prediction.png").stat().st_size > 3000


def test_a_scale_that_ends_at_zero_is_refused():
    with pytest.raises(ValueError, match="scale_end: must be positive"):
        rec.SoftnessSettings("learned", scale=0.03, scale_end=0.0)


def test_runs_of_one_name_are_not_taken_for_seeds():
    with pytest.raises(ValueError, match="two are called 'small'"):
        program.Evaluate(("out/a/small", "out/b/small")).groups()


def test_the_shipped_model_says_how_it_was_made():
    model, card = rec.load_model(program.SHIPPED)
    assert "examples/reconstruct.py train" in card["command"]
    with torch.no_grad():
        vertices = model.eval()(torch.rand(2, 4, 32, 32))
    assert vertices.shape == (2, 162, 3) and vertices.abs().max() < 1


def test_predict_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such image"):
        program.predict(program.Predict(tmp_path / "none.png"))
    Image.new("RGB", (8, 8)).save(tmp_path / "empty.png")
    with pytest.raises(ValueError, match="background"):
        program.read_image(tmp_path / "empty.png", 16)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match=r"text.png"):
        program.read_image(tmp_path / "text.png", 16)


@pytest.mark.parametrize(
    ("arch", "torch_has_cuda", "expected"),
    [
        ("cuda", True, "cuda:0"),
        ("cuda", False, "cpu"),
        ("cpu", True, "cpu"),
        ("vulkan", True, "cpu"),
    ],
)
def test_scenes_lie_where_the_kernels_and_torch_both_reach_them(
    arch, torch_has_cuda, expected, monkeypatch
):
    """Taichi's CUDA renders tensors of the CPU, too: torch may have been built without it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: torch_has_cuda)
    settings = replace(tr.runtime(), arch=arch)
    assert rec.training.render_device(settings) == torch.device(expected)
