"""The outer trainer: it improves, it resumes to the bit, it refuses what it cannot use."""

import json
import os
import signal
import threading
from dataclasses import replace

import pytest
import torch

from meta.estimators import es_gradient, exact_gradient, first_order_gradient
from meta.inner.method import Method
from meta.inner.updates import Adam
from meta.outer.checkpoint import (
    CheckpointError,
    load_checkpoint,
    save_checkpoint,
    write_atomically,
)
from meta.outer.estimator import Estimator, OuterGradient
from meta.outer.loss import OuterLoss
from meta.outer.settings import TrainerSettings
from meta.outer.trainer import OuterTrainer
from toy_tasks import Rate, ToyFamily, ToyRenderer

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

SETTINGS = TrainerSettings(
    iterations=8,
    batch_size=4,
    lr=0.05,
    validate_every=3,
    validation_batches=2,
    validation_batch_size=4,
    seed=3,
)


def toy_method(rate=0.02):
    return Method(ToyRenderer(), Adam(), Rate(rate), 6)


def toy_trainer(folder=None, settings=SETTINGS, estimator=es_gradient, **changes):
    arguments = {
        "method": toy_method(),
        "family": ToyFamily(),
        "outer": OuterLoss("true"),
        "estimator": estimator,
        "options": {"pairs": 3, "sigma": 0.1} if estimator is es_gradient else {},
        "settings": settings,
        "folder": folder,
    }
    return OuterTrainer(**{**arguments, **changes})


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


class StopsAfter:
    """An estimator that raises once it has answered `count` times."""

    def __init__(self, count, error=KeyboardInterrupt):
        self.left, self.error = count, error
        self.estimator = Estimator("es", es_gradient.outer_kinds, self.answer, "")

    def answer(self, *args, **options):
        if self.left == 0:
            raise self.error
        self.left -= 1
        return es_gradient(*args, **options)


@pytest.mark.parametrize("estimator", [es_gradient, exact_gradient], ids=lambda e: e.name)
def test_training_lowers_the_validation_loss_and_keeps_the_best(estimator):
    trainer = toy_trainer(
        settings=TrainerSettings(iterations=25, batch_size=8, lr=0.1), estimator=estimator
    )
    result = trainer.run(quiet=True)
    assert result.finished and result.best.score < result.start_score - 0.1
    assert same(trainer.method.parameter_dict(), result.best.parameters)
    scores = [score for entry in result.history for score in entry.get("validation", {}).values()]
    assert result.best.score == min([result.start_score, *scores])


def test_the_start_is_kept_when_training_makes_it_worse():
    away = Estimator("away", frozenset({"true"}), _away, "")
    result = toy_trainer(estimator=away).run(quiet=True)
    assert result.best.iteration == 0 and result.best.score == result.start_score


def _away(method, task, outer, **_):
    estimate = exact_gradient(method, task, outer)
    return OuterGradient(estimate.loss, {k: -v for k, v in estimate.grads.items()})


def test_first_order_moves_the_renderer_only():
    trainer = toy_trainer(estimator=first_order_gradient, outer=OuterLoss("soft", "identity"))
    before = trainer.method.parameter_dict()
    trainer.run(quiet=True)
    current = trainer._state.current
    assert torch.equal(current["lr.log_rate"], before["lr.log_rate"])
    assert not torch.equal(current["renderer.log_scale"], before["renderer.log_scale"])


@pytest.mark.parametrize("stopped_at", [1, 3, 5])
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(tmp_path, stopped_at):
    whole = toy_trainer(tmp_path / "whole").run(quiet=True)
    stopping = StopsAfter(stopped_at)
    with pytest.raises(KeyboardInterrupt):
        toy_trainer(
            tmp_path / "halves", estimator=stopping.estimator, options={"pairs": 3, "sigma": 0.1}
        ).run(quiet=True)
    second = toy_trainer(tmp_path / "halves", resume=True)
    assert second.iteration == stopped_at
    resumed = second.run(quiet=True)
    assert same(resumed.best.parameters, whole.best.parameters)
    assert resumed.best.score == whole.best.score
    assert resumed.best.source == whole.best.source

    def numbers(result):
        return [{k: v for k, v in e.items() if k != "seconds"} for e in result.history]

    assert numbers(resumed) == numbers(whole)
    lines = (tmp_path / "halves" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == list(range(1, 9))
    tensors = [
        load_checkpoint(tmp_path / n / "checkpoint.safetensors", "outer-training")[0]
        for n in ("whole", "halves")
    ]
    assert same(*tensors)


def test_a_kill_between_checkpoints_loses_only_what_came_after(tmp_path):
    settings = TrainerSettings(**{**SETTINGS.__dict__, "checkpoint_every": 2})
    whole = toy_trainer(tmp_path / "whole", settings).run(quiet=True)
    stopping = StopsAfter(5, SystemError)  # not an interrupt: nothing is saved on the way out
    with pytest.raises(SystemError):
        toy_trainer(
            tmp_path / "killed",
            settings,
            estimator=stopping.estimator,
            options={"pairs": 3, "sigma": 0.1},
        ).run(quiet=True)
    with open(tmp_path / "killed" / "log.jsonl", "a") as file:
        file.write('{"iteration": 6, "lo')  # torn
    resuming = toy_trainer(tmp_path / "killed", settings, resume=True)
    assert resuming.iteration == 4
    assert same(resuming.run(quiet=True).best.parameters, whole.best.parameters)


def test_a_time_budget_stops_without_changing_a_number(tmp_path):
    whole = toy_trainer().run(quiet=True)
    parts = toy_trainer(tmp_path).run(time_budget=0.0, quiet=True)
    assert not parts.finished and parts.iteration == 0
    resumed = toy_trainer(tmp_path, resume=True).run(time_budget=1e6, quiet=True)
    assert resumed.finished and same(resumed.best.parameters, whole.best.parameters)


def test_running_again_after_the_end_changes_nothing(tmp_path):
    trainer = toy_trainer(tmp_path)
    first, again = trainer.run(quiet=True), trainer.run(quiet=True)
    third = toy_trainer(tmp_path, resume=True).run(quiet=True)
    for other in (again, third):
        assert other.iteration == 8 and same(first.best.parameters, other.best.parameters)


def test_without_resume_an_old_checkpoint_is_not_used(tmp_path):
    toy_trainer(tmp_path).run(quiet=True)
    assert toy_trainer(tmp_path).iteration == 0
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_the_outer_rate_is_given_by_name_and_falls_as_a_cosine():
    settings = TrainerSettings(
        iterations=4,
        batch_size=2,
        lr={"renderer.log_scale": 0.1, "renderer.slope": 0.2, "lr.log_rate": 1e-9},
    )
    trainer = toy_trainer(settings=settings)
    before = trainer.method.parameter_dict()
    history = trainer.run(quiet=True).history
    moved = {k: (v - before[k]).abs().item() for k, v in trainer._state.current.items()}
    assert moved["lr.log_rate"] < 1e-7 < moved["renderer.slope"]
    assert [e["lr_factor"] for e in history] == pytest.approx(
        [1, 0.853553, 0.5, 0.146447], rel=1e-5
    )
    with pytest.raises(ValueError, match="lr: expected a value for each of"):
        toy_trainer(settings=TrainerSettings(lr={"renderer.slope": 0.1}))


def test_a_gradient_that_is_not_finite_is_named():
    broken = Estimator("broken", frozenset({"true"}), _broken, "")
    with pytest.raises(FloatingPointError, match=r"outer iteration 0: .* renderer.slope"):
        toy_trainer(estimator=broken).run(quiet=True)


def _broken(method, _task, _outer, **_):
    grads = {k: torch.zeros_like(v) for k, v in method.parameter_dict().items()}
    grads["renderer.slope"] += float("nan")
    return OuterGradient(0.0, grads)


def test_an_estimator_with_the_wrong_outer_loss_is_refused_at_once():
    with pytest.raises(ValueError, match="first_order"):
        toy_trainer(estimator=first_order_gradient, outer=OuterLoss("sharp"))


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        toy_trainer(tmp_path, resume=True)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "text", "empty"])
def test_a_damaged_checkpoint_is_refused(tmp_path, damage):
    toy_trainer(tmp_path).run(quiet=True)
    path = tmp_path / "checkpoint.safetensors"
    data = bytearray(path.read_bytes())
    if damage == "truncated":
        data = data[: len(data) // 2]
    elif damage == "flipped":
        data[-3] ^= 16
    else:
        data = bytearray(b"not a checkpoint" if damage == "text" else b"")
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"checkpoint.safetensors is damaged"):
        toy_trainer(tmp_path, resume=True)


def test_a_checkpoint_of_other_settings_names_the_difference(tmp_path):
    toy_trainer(tmp_path).run(quiet=True)
    other = TrainerSettings(**{**SETTINGS.__dict__, "batch_size": 5})
    with pytest.raises(CheckpointError, match="batch_size: saved 4, now 5"):
        toy_trainer(tmp_path, other, resume=True)
    with pytest.raises(CheckpointError, match="family: saved 'ToyFamily\\(seed=0\\)', now"):
        toy_trainer(tmp_path, family=ToyFamily(1), resume=True)
    with pytest.raises(CheckpointError, match="method: saved"):
        toy_trainer(tmp_path, method=toy_method(rate=0.03), resume=True)


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, {"x": torch.zeros(2)}, {"kind": "something else"})
    with pytest.raises(CheckpointError, match="expected a checkpoint of kind 'outer-training'"):
        toy_trainer(tmp_path, resume=True)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    monkeypatch.setattr("os.replace", _fails)
    with pytest.raises(OSError, match="disk"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def _fails(*_):
    raise OSError("disk")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"iterations": 0}, "iterations"),
        ({"lr": -1.0}, "lr"),
        ({"lr_policy": "linear"}, "lr_policy"),
        ({"clip": 0.0}, "clip"),
        ({"average": 1.0}, "average"),
        ({"validate_every": 0}, "validate_every"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(change, named):
    with pytest.raises(ValueError, match=named):
        TrainerSettings(**change)


def test_resuming_if_there_is_something_begins_or_goes_on(tmp_path):
    whole = toy_trainer().run(quiet=True)
    first = toy_trainer(tmp_path, resume="auto")
    assert first.iteration == 0
    stopping = StopsAfter(3)
    with pytest.raises(KeyboardInterrupt):
        toy_trainer(
            tmp_path,
            estimator=stopping.estimator,
            options={"pairs": 3, "sigma": 0.1},
            resume="auto",
        ).run(quiet=True)
    second = toy_trainer(tmp_path, resume="auto")
    assert second.iteration == 3
    assert same(second.run(quiet=True).best.parameters, whole.best.parameters)
    with pytest.raises(ValueError, match="resume: expected True, False or 'auto'"):
        toy_trainer(tmp_path, resume="always")


def test_sigterm_leaves_the_last_whole_iteration_and_its_handler_as_it_was(tmp_path):
    settings = replace(SETTINGS, checkpoint_every=100)
    whole = toy_trainer(settings=settings).run(quiet=True)

    def terminate(*args, left=[4], **options):  # noqa: B006 - counts the calls
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return es_gradient(*args, **options)

    killed = Estimator("es", es_gradient.outer_kinds, terminate, "")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        toy_trainer(tmp_path, settings, estimator=killed, options={"pairs": 3, "sigma": 0.1}).run(
            quiet=True
        )
    assert stopped.value.code == 143 and signal.getsignal(signal.SIGTERM) is before
    second = toy_trainer(tmp_path, settings, resume=True)
    assert second.iteration == 3
    assert same(second.run(quiet=True).best.parameters, whole.best.parameters)


def test_training_in_another_thread_leaves_signals_alone():
    results = []
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=lambda: results.append(toy_trainer().run(quiet=True)))
    thread.start()
    thread.join()
    assert results[0].finished and signal.getsignal(signal.SIGTERM) is before


def test_a_checkpoint_from_before_nonfinite_was_a_setting_still_resumes(tmp_path):
    toy_trainer(tmp_path).run(quiet=True)
    path = tmp_path / "checkpoint.safetensors"
    assert "nonfinite" not in load_checkpoint(path, "outer-training")[1]["settings"]
    assert toy_trainer(tmp_path, resume=True).iteration == 8
    with pytest.raises(CheckpointError, match="nonfinite: saved None, now 'skip'"):
        toy_trainer(tmp_path, replace(SETTINGS, nonfinite="skip"), resume=True)


def test_tensorboard_shows_the_numbers_of_the_log(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    history = toy_trainer(tmp_path, tensorboard=True).run(quiet=True).history
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    losses = [(event.step, event.value) for event in events.Scalars("loss")]
    assert [step for step, _ in losses] == [entry["iteration"] for entry in history]
    assert [v for _, v in losses] == pytest.approx([entry["loss"] for entry in history], rel=1e-6)
    assert len(events.Scalars("validation/iterate")) == 3
