"""A tuning keeps the best of each class, can be resumed, and refuses what is not its own."""

import json
import math

import numpy as np
import pytest
import torch

from meta.evaluation.evaluate import candidate_errors
from meta.inner.unroll import unroll
from meta.inner.updates import Adam
from meta.outer.checkpoint import CheckpointError
from meta.search.fixed import FixedSoftness, Grid, fixed_method
from meta.search.ranking import ranking_markdown
from meta.search.tuner import BaselineTuner, Rung, tuning_runs
from spread_program import EdgeRenderer, PickedBatch, Toys
from tasks import Shape2D
from toy_tasks import ToyFamily

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

FAMILY = Shape2D(triangles=2, image_size=10)
STEPS = 6
ANNEALED = FixedSoftness("logistic", 0.16, 0.01, 0.1, True)
CONSTANT = FixedSoftness("logistic", 0.05, 0.05, 0.06, False)
GRID = Grid(("logistic", "uniform"), (0.04, 0.2), (0.02,), (0.05, 0.1), (False, True))
RUNGS = (Rung(1), Rung(2, 4), Rung(3, 1))
TOY_GRID = Grid(("logistic",), (0.1, 0.4), (), (0.1,), (False,))


def tuner(**changes):
    arguments = {"grid": GRID, "rungs": RUNGS, "batch_size": 3, "max_batch": 24}
    return BaselineTuner(FAMILY, FAMILY.renderer, Adam(), STEPS, **{**arguments, **changes})


def test_halving_keeps_the_best_of_each_class_and_ranks_by_mean_log_error():
    result = tuner().run(quiet=True)
    assert len(result.ranking) == len(GRID.configurations()) == 32
    by_tasks = {n: [e for e in result.ranking if e.tasks == n] for n in (3, 6, 9)}
    assert [len(by_tasks[n]) for n in (9, 6, 3)] == [2, 6, 24]
    assert result.ranking[:2] == sorted(by_tasks[9], key=lambda e: e.score)
    assert {e.config.annealed for e in by_tasks[9]} == {True, False}
    for entry in (result.best_constant, result.best_annealed):
        assert entry.tasks == 9
        method = fixed_method(entry.config, FAMILY.renderer, Adam(), STEPS)
        tasks = [FAMILY.sample(3, "tune", index) for index in range(3)]
        errors = torch.cat([t.true_error(unroll(method, t).params) for t in tasks])
        assert entry.score == pytest.approx(float((errors + 1e-3).log().mean()), rel=1e-6)
        assert entry.mean == pytest.approx(float(errors.mean()), rel=1e-6)
        assert entry.failure_rate == pytest.approx(float((errors > 0.1).double().mean()))
    text = ranking_markdown(result, 3)
    assert result.best_annealed.config.title in text and len(text.splitlines()) == 5


def test_the_amount_of_work_is_known_beforehand(monkeypatch):
    runs = []

    def counted(method, candidates, task, *args, **options):
        runs.append(len(candidates) * task.batch_size)
        return candidate_errors(method, candidates, task, *args, **options)

    monkeypatch.setattr("meta.search.tuner.candidate_errors", counted)
    tuner().run(quiet=True)
    assert sum(runs) == tuning_runs(GRID, RUNGS, 3)


def test_an_interrupted_tuning_goes_on_and_gives_the_same(tmp_path, monkeypatch):
    whole = tuner().run(quiet=True)
    left = [5]

    def stopping(*args, **options):
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return candidate_errors(*args, **options)

    cache = tmp_path / "tuning.json"
    with monkeypatch.context() as patch:
        patch.setattr("meta.search.tuner.candidate_errors", stopping)
        with pytest.raises(KeyboardInterrupt):
            tuner(cache=cache).run(quiet=True)
    assert json.loads(cache.read_text())["errors"]
    assert tuner(cache=cache, resume=True).run(quiet=True) == whole
    with monkeypatch.context() as patch:  # everything is known now
        patch.setattr("meta.search.tuner.candidate_errors", lambda *_: pytest.fail("solved again"))
        assert tuner(cache=cache, resume=True).run(quiet=True) == whole


def test_results_beyond_a_round_do_not_decide_it(tmp_path):
    cache = tmp_path / "tuning.json"
    tuner(cache=cache, rungs=(Rung(3),)).run(quiet=True)  # more is known of all than is needed
    assert tuner(cache=cache, resume=True).run(quiet=True) == tuner().run(quiet=True)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"kind": "other"}'])
def test_a_damaged_cache_is_refused(tmp_path, text):
    cache = tmp_path / "tuning.json"
    cache.write_text(text)
    with pytest.raises(CheckpointError, match=r"tuning.json"):
        tuner(cache=cache, resume=True)


def test_a_cache_of_other_settings_names_the_difference(tmp_path):
    cache = tmp_path / "tuning.json"
    tuner(cache=cache, rungs=(Rung(1),)).run(quiet=True)
    with pytest.raises(CheckpointError, match="batch_size: saved 3, now 4"):
        tuner(cache=cache, resume=True, batch_size=4)


def test_wrong_rungs_are_refused():
    with pytest.raises(ValueError, match="rungs: the first"):
        tuner(rungs=(Rung(1, 3),))
    with pytest.raises(ValueError, match="rungs: batches"):
        tuner(rungs=(Rung(2), Rung(1, 3)))
    constants = Grid(("logistic",), (0.1,), (), (0.1,), (True,))
    result = tuner(grid=constants, rungs=(Rung(1),)).run(quiet=True)
    with pytest.raises(ValueError, match="no such configuration"):
        result.best(lambda c: c.annealed)


def toy_tuner(family=None, grid=TOY_GRID, **options):
    return BaselineTuner(
        family or Toys(), EdgeRenderer, Adam(), 5, grid, (Rung(1),), batch_size=4, **options
    )


def test_the_family_says_what_a_failure_is_and_what_is_small():
    result = toy_tuner().run(quiet=True)
    assert result.floor == Toys.error_floor
    for entry in result.ranking:
        task = Toys().sample(4, "tune", 0)
        method = fixed_method(entry.config, EdgeRenderer, Adam(), 5)
        errors = task.true_error(unroll(method, task).params).numpy()
        assert entry.score == pytest.approx(np.log(errors + Toys.error_floor).mean(), rel=1e-9)
        assert entry.failure_rate == (errors > Toys.failure_threshold).mean()
    assert "mean log(error + 0.01)" in ranking_markdown(result)
    plain = toy_tuner(ToyFamily()).run(quiet=True)
    assert plain.floor == 1e-3 and "mean log(error + 0.001)" in ranking_markdown(plain)


class Fragile(PickedBatch):
    """Its loss is infinite where the scale is below 0.2."""

    def loss(self, params, renderer, progress):
        loss = super().loss(params, renderer, progress)
        return torch.where(renderer.edge.scale(progress) < 0.2, torch.inf, loss)


class FragileFamily(Toys):
    def sample(self, batch_size, stream, index):
        batch = super().sample(batch_size, stream, index)
        return Fragile(batch.hidden, batch.initial)


def test_a_configuration_that_diverges_comes_last_and_is_named(tmp_path, caplog):
    cache = tmp_path / "tuning.json"
    result = toy_tuner(FragileFamily(), cache=cache).run(quiet=True)
    assert [entry.config.start for entry in result.ranking] == [0.4, 0.1]
    assert math.isfinite(result.ranking[0].score) and math.isinf(result.ranking[1].score)
    assert result.ranking[1].failure_rate == 1
    assert "logistic 0.1, lr 0.1 diverges on tuning batch 0" in caplog.text
    assert toy_tuner(FragileFamily(), cache=cache, resume=True).run(quiet=True) == result


@pytest.mark.parametrize("content", [{}, {"settings": None}])
def test_a_cache_that_lacks_something_is_refused(tmp_path, content):
    cache = tmp_path / "tuning.json"
    toy_tuner(cache=cache).run(quiet=True)
    whole = json.loads(cache.read_text())
    cache.write_text(json.dumps({"kind": whole["kind"], **content}))
    with pytest.raises(CheckpointError, match=r"tuning.json"):
        toy_tuner(cache=cache, resume=True)
    cache.write_text(json.dumps({"kind": whole["kind"], "settings": whole["settings"]}))
    with pytest.raises(CheckpointError, match="holds no errors"):
        toy_tuner(cache=cache, resume=True)
