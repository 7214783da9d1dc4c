"""The example of a task of one's own: short, sound, and it runs to the end."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch

import own_task
import taichi_raster as tr
from meta.inner.protocol import TaskBatch, TaskFamily

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")


@pytest.fixture
def task():
    return own_task.Octagons().sample(6, "train", 2)


def test_the_task_is_as_short_as_promised():
    """Both classes, with their blank lines: "under 40 lines" says the file itself."""
    source = Path(own_task.__file__).read_text()
    lengths = {
        node.name: (node.end_lineno or 0) - node.lineno + 2  # with the decorator
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name.startswith("Octagon")
    }
    assert len(lengths) == 2 and sum(lengths.values()) < 40
    assert "under 40 lines" in (ast.get_docstring(ast.parse(source)) or "")


def test_it_meets_the_protocols(task):
    pairs = ((own_task.Octagons(), TaskFamily), (task, TaskBatch))
    assert all(isinstance(x, kind) for x, kind in pairs)
    few = own_task.Octagons().sample(2, "train", 2)
    assert torch.equal(few.hidden, task.hidden[:2]) and torch.equal(few.target, task.target[:2])
    twice = task.repeat(2)
    assert torch.equal(twice.initial, task.initial.repeat(2, 1)) and twice.batch_size == 12
    assert torch.equal(task.select([4, 1]).target, task.target[[4, 1]])


def test_errors_vanish_at_the_solution_and_its_twins_and_have_slopes_there(task):
    x, y, a, b, angle = task.hidden.unbind(1)
    turned = torch.stack([x, y, b, a, angle + np.pi / 2], dim=1)
    for same in (task.hidden, turned):
        metrics = task.metrics(same)
        assert metrics["parameter_error"].max() < 1e-6 and metrics["image_error"].max() < 1e-10
    assert task.true_error(task.start()).min() > 0.02
    params = task.hidden.clone().requires_grad_()
    (task.true_error(params) + task.image_error(params)).sum().backward()
    assert bool(torch.isfinite(params.grad).all())


def test_the_corners_are_those_of_a_turned_and_stretched_octagon():
    """In closed form: the first corner of an unturned one lies at its half-axis."""
    params = torch.tensor([[0.1, -0.2, np.log(0.5), np.log(0.25), 0.0]], dtype=torch.float32)
    first, _, third, *_ = own_task.corners(params)[0]
    assert torch.allclose(first, torch.tensor([0.6, -0.2]))
    assert torch.allclose(third, torch.tensor([0.1, 0.05]), atol=1e-6)
    params[0, 4] = np.pi / 2  # then the long axis points up
    third = own_task.corners(params)[0, 2]
    assert torch.allclose(third, torch.tensor([0.1, 0.3]), atol=1e-6)


def test_it_learns_and_writes_what_it_promises(tmp_path, monkeypatch):
    monkeypatch.setattr(tr, "init", lambda **options: None)  # this run has one already
    options = own_task.Options(
        out=tmp_path / "out", iterations=2, tasks=2, pairs=1, steps=4, unseen=4, quiet=True
    )
    own_task.main(options)
    assert sorted(path.name for path in options.out.iterdir()) == [
        "own_task.safetensors",
        "solved.png",
    ]
    assert (options.out / "solved.png").stat().st_size > 1000
    softening = tr.load_softening(options.out / "own_task.safetensors")
    assert softening.steps == 4 and softening.card["optimiser"]["name"] == "Adam"
    task = own_task.Octagons().sample(2, "test", 0)
    renderer = softening.renderer(own_task.SIZE)
    assert bool(torch.isfinite(task.loss(task.start(), renderer, 0.5)).all())
