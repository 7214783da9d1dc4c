"""Bad input of an outer training: named, stopped or left out as asked, never silently used."""

import json
import pickle
from dataclasses import replace
from typing import Any

import pytest
import safetensors.torch
import torch

from meta.estimators import es_gradient, exact_gradient
from meta.inner.method import Method
from meta.inner.unroll import unroll
from meta.inner.updates import Adam
from meta.outer.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from meta.outer.estimator import Estimator, OuterGradient, Shard
from meta.outer.loss import OuterLoss
from meta.outer.settings import TrainerSettings
from meta.outer.trainer import OuterTrainer
from spread_program import PickedBatch, Toys, trainer
from toy_tasks import Rate, ToyRenderer

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

SETTINGS = TrainerSettings(
    iterations=4, batch_size=6, validate_every=4, validation_batches=1, validation_batch_size=4
)
SKIPPING = replace(SETTINGS, nonfinite="skip")
ESTIMATORS = {"es shared": {"directions": "shared"}, "es per_task": {"directions": "per_task"}}


def training(family, settings=SETTINGS, folder=None, name="es per_task", method=None, **options):
    if name == "exact":
        estimator, its_options = exact_gradient, {}
    else:
        estimator, its_options = es_gradient, {"pairs": 3, **ESTIMATORS[name]}
    method = method or Method(ToyRenderer(), Adam(), Rate(0.05), 5)
    return OuterTrainer(
        method, family, OuterLoss("true"), estimator, its_options, settings, folder, **options
    )


@pytest.mark.parametrize("name", ["es shared", "es per_task", "exact"])
def test_an_instance_without_a_finite_loss_is_named_and_stops_the_run(tmp_path, name):
    family = Toys(broken=((2, 4),))
    settings = replace(SETTINGS, checkpoint_every=100)
    with pytest.raises(
        FloatingPointError,
        match=r"outer iteration 2: Toys\(.*stream 'train', batch 2, instance 4: .*is not finite",
    ):
        training(family, settings, tmp_path, name).run(quiet=True)
    content = load_checkpoint(tmp_path / "checkpoint.safetensors", "outer-training")[1]
    assert content["iteration"] == 2
    assert training(family, settings, tmp_path, name, resume=True).iteration == 2


@pytest.mark.parametrize("name", ["es shared", "es per_task", "exact"])
def test_a_skipped_instance_is_counted_named_and_leaves_what_the_others_say(tmp_path, name, caplog):
    broken = training(Toys(broken=((0, 1), (0, 4))), SKIPPING, tmp_path, name)
    history = broken.run(quiet=True).history
    assert [entry.get("skipped") for entry in history] == [2, None, None, None]
    assert history[0]["skipped_instances"] == [1, 4]
    assert "stream 'train', batch 0, instance 1, 4" in caplog.text
    line = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    assert line["skipped_instances"] == [1, 4]

    rest = Shard((0, 2, 3, 5), 6)
    task = rest.of(Toys().sample(6, "train", 0))
    parts = (Method(ToyRenderer(), Adam(), Rate(0.05), 5), task, OuterLoss("true"))
    if name == "exact":
        estimate = exact_gradient(*parts)
    else:
        generator = torch.Generator().manual_seed(SKIPPING.seed)
        options: dict[str, Any] = {"pairs": 3, **ESTIMATORS[name]}
        estimate = es_gradient(*parts, generator=generator, shard=rest, **options)
    assert history[0]["loss"] == pytest.approx(estimate.loss, rel=1e-12)
    norm = sum(float(g.square().sum()) for g in estimate.grads.values()) ** 0.5
    assert history[0]["grad_norm"] == pytest.approx(norm, rel=1e-12)


@pytest.mark.parametrize("name", ["es per_task", "exact"])
def test_more_than_half_of_a_batch_stops_even_a_run_that_skips(name):
    broken = tuple((1, instance) for instance in (0, 1, 3, 5))
    with pytest.raises(FloatingPointError, match=r"instance 0, 1, 3, 5: 4 of 6 .* more than half"):
        training(Toys(broken=broken), SKIPPING, name=name).run(quiet=True)
    everything = tuple((0, instance) for instance in range(6))
    with pytest.raises(FloatingPointError, match="6 of 6"):
        training(Toys(broken=everything), SKIPPING, name=name).run(quiet=True)


class BrokenToValidate(Toys):
    """Instance 1 of each validation batch has no target."""

    def __repr__(self):
        return "BrokenToValidate"

    def sample(self, batch_size, stream, index):
        batch = super().sample(batch_size, stream, index)
        if stream == "train":
            return batch
        hidden = batch.hidden.clone()
        hidden[1] = float("nan")
        return PickedBatch(hidden, batch.initial)


def test_a_broken_validation_instance_is_named_or_left_out():
    with pytest.raises(
        FloatingPointError,
        match=r"validation at outer iteration 0: .*stream 'tune', batch 1000, instance 1: ",
    ):
        training(BrokenToValidate()).run(quiet=True)
    result = training(BrokenToValidate(), SKIPPING).run(quiet=True)
    assert result.history[-1]["validation"]["unsolved"] == 1
    whole = Toys().sample(4, "tune", 1000).select([0, 2, 3])

    class Three(Toys):
        def sample(self, batch_size, stream, index):
            return whole if stream == "tune" else super().sample(batch_size, stream, index)

    alone = training(Three(), replace(SETTINGS, validation_batch_size=3)).run(quiet=True)
    assert result.start_score == pytest.approx(alone.start_score, rel=1e-12)


class Diverges(PickedBatch):
    """Where the unused unknown is 99, the loss is infinite once the others have moved."""

    def loss(self, params, renderer, progress):
        loss = super().loss(params, renderer, progress)
        bad = (params[:, 2] == 99) & (params != self.initial).any(dim=1)
        return torch.where(bad, torch.inf, loss)


class DivergesToValidate(Toys):
    """So does instance 1 of each validation batch."""

    def __repr__(self):
        return "DivergesToValidate"

    def sample(self, batch_size, stream, index):
        batch = super().sample(batch_size, stream, index)
        if stream == "train":
            return batch
        initial = batch.initial.clone()
        initial[1, 2] = 99
        return Diverges(batch.hidden, initial)


def test_a_validation_instance_that_is_not_solved_counts_as_it_was_at_its_start():
    result = training(DivergesToValidate(), SKIPPING).run(quiet=True)
    assert result.history[-1]["validation"]["unsolved"] == 1
    method, outer = Method(ToyRenderer(), Adam(), Rate(0.05), 5), OuterLoss("true")
    task = Toys().sample(4, "tune", 1000)
    losses = outer.of_error(task.true_error(unroll(method, task).params))
    losses[1] = outer.of_error(task.true_error(task.start()))[1]
    assert result.start_score == pytest.approx(losses.mean().item(), rel=1e-12)


@pytest.mark.parametrize("change", ["nan", "inf"])
def test_a_gradient_that_is_not_finite_is_traced_to_its_instance(change):
    def estimate(method, task, outer, **_):
        found = exact_gradient(method, task, outer)
        if bool((task.hidden.sum(dim=1) - target).abs().min() < 1e-12):
            found.grads["renderer.slope"].fill_(float(change))
        return OuterGradient(found.loss, found.grads)

    target = Toys().sample(6, "train", 1).hidden.sum(dim=1)[3]
    broken = Estimator("spiky", frozenset({"true"}), estimate, "")
    method = Method(ToyRenderer(), Adam(), Rate(0.05), 5)
    none: dict[str, Any] = {}
    parts = (method, Toys(), OuterLoss("true"), broken, none)
    with pytest.raises(FloatingPointError, match="batch 1, instance 3: the spiky gradient of rend"):
        OuterTrainer(*parts, SETTINGS).run(quiet=True)
    method.load(Method(ToyRenderer(), Adam(), Rate(0.05), 5).parameter_dict())
    history = OuterTrainer(*parts, SKIPPING).run(quiet=True).history
    assert history[1]["skipped_instances"] == [3]


def test_a_task_that_cannot_be_picked_from_stops_with_all_its_instances_named():
    class Bare:
        def __init__(self, batch):
            self.batch = batch

        def __getattr__(self, name):
            if name == "select":
                raise AttributeError(name)
            return getattr(self.batch, name)

    class Unpicked(Toys):
        def sample(self, batch_size, stream, index):
            return Bare(super().sample(batch_size, stream, index))

    with pytest.raises(FloatingPointError, match=r"batch 0, instance 0, 1, .*is not finite"):
        training(Unpicked(broken=((0, 2),)), SKIPPING).run(quiet=True)


def test_a_family_that_gives_another_number_of_tasks_is_refused():
    class Empty(Toys):
        def sample(self, batch_size, stream, index):
            return super().sample(batch_size, stream, index).select([])

    with pytest.raises(ValueError, match=r"family: sample\(4, 'tune', 1000\) gave 0 instances"):
        training(Empty()).run(quiet=True)
    with pytest.raises(ValueError, match="batch_size must be >= 1, got 0"):
        replace(SETTINGS, batch_size=0)


def test_an_unknown_policy_is_refused():
    with pytest.raises(ValueError, match="nonfinite: expected 'stop' or 'skip', got 'ignore'"):
        replace(SETTINGS, nonfinite="ignore")  # type: ignore[arg-type]


def test_tensorboard_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r"pip install 'taichi-raster\[tensorboard\]'"):
        training(Toys(), folder=tmp_path, tensorboard=True)
    with pytest.raises(ValueError, match="folder"):
        training(Toys(), tensorboard=True)


def rewritten(path, change):
    """A checkpoint with a right digest, but changed by change(tensors, content)."""
    tensors, content = load_checkpoint(path, "outer-training")
    change(tensors, content)
    save_checkpoint(path, tensors, content)


@pytest.mark.parametrize("part", ["current", "average", "best"])
def test_a_checkpoint_with_parameters_of_another_shape_is_refused(tmp_path, part):
    running = trainer(folder=tmp_path)
    running.run(quiet=True)
    wrong = {f"{part}/renderer.slope": torch.zeros(3, dtype=torch.float64)}
    rewritten(running.checkpoint_path, lambda tensors, _: tensors.update(wrong))
    with pytest.raises(CheckpointError, match=r"renderer.slope': \(3,\).*expected"):
        trainer(folder=tmp_path, resume=True)


@pytest.mark.parametrize("missing", ["generator", "iteration", "settings"])
def test_a_checkpoint_that_lacks_something_is_refused(tmp_path, missing):
    running = trainer(folder=tmp_path)
    running.run(quiet=True)
    rewritten(
        running.checkpoint_path,
        lambda tensors, content: (tensors if missing == "generator" else content).pop(missing),
    )
    with pytest.raises(CheckpointError, match=missing):
        trainer(folder=tmp_path, resume=True)


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("code of a file was run",)


def test_foreign_files_are_refused_and_never_run(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError, match="damaged or not a checkpoint"):
        trainer(folder=tmp_path, resume=True)
    torch.save({"x": Bomb()}, path)
    with pytest.raises(CheckpointError, match="damaged or not a checkpoint"):
        trainer(folder=tmp_path, resume="auto")
    safetensors.torch.save_file({"x": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="not a checkpoint of this program"):
        trainer(folder=tmp_path, resume=True)
