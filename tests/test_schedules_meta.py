"""Schedules, fixed and learned: policies, halving, resuming, and exact outer gradients."""

import json
import math

import pytest
import torch

import taichi_raster as tr
from meta.evaluation.evaluate import candidate_errors
from meta.inner.method import Method
from meta.inner.unroll import batch_parameters, unroll
from meta.inner.updates import Adam
from meta.outer.checkpoint import CheckpointError
from meta.search.fixed import FixedSoftness, Grid, fixed_method
from meta.search.learnable import KNOTS, learnable_schedules, learnable_shape, lr_knots, scale_knots
from meta.search.ranking import ranking_markdown
from meta.search.tuner import BaselineTuner, Rung, tuning_runs
from tasks import Shape2D

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

FAMILY = Shape2D(triangles=2, image_size=10)
STEPS = 6
ANNEALED = FixedSoftness("logistic", 0.16, 0.01, 0.1, True)
CONSTANT = FixedSoftness("logistic", 0.05, 0.05, 0.06, False)
GRID = Grid(("logistic", "uniform"), (0.04, 0.2), (0.02,), (0.05, 0.1), (False, True))
RUNGS = (Rung(1), Rung(2, 4), Rung(3, 1))


def tuner(**changes):
    arguments = {"grid": GRID, "rungs": RUNGS, "batch_size": 3, "max_batch": 24}
    return BaselineTuner(FAMILY, FAMILY.renderer, Adam(), STEPS, **{**arguments, **changes})


@pytest.mark.parametrize("u", [0.0, 0.3, 0.85, 0.9, 1.0])
def test_a_policy_is_what_it_says(u):
    at = torch.tensor(u, dtype=torch.float64)
    scale = ANNEALED.edge().scale
    assert scale(at).item() == pytest.approx(0.16 * (0.01 / 0.16) ** u)
    tenfold = 0.1 * 10 ** -max(0.0, (u - 0.85) / 0.15)
    assert ANNEALED.lr_schedule()(at).item() == pytest.approx(tenfold)
    assert CONSTANT.edge().scale(at).item() == pytest.approx(0.05)
    assert CONSTANT.lr_schedule()(at).item() == pytest.approx(0.06)


def test_titles_tell_policies_apart():
    assert ANNEALED.title == "logistic 0.16 -> 0.01, lr 0.1 decaying"
    assert CONSTANT.title == "logistic 0.05, lr 0.06"


def test_the_default_grid_is_as_large_as_a_careful_expert_would_try():
    configs = Grid().configurations()
    assert {c.distribution for c in configs} == {"logistic", "gaussian", "uniform"}
    for annealed in (False, True):
        ours = [c for c in configs if c.annealed is annealed]
        assert len({c.start for c in ours}) >= 5 + (not annealed)
        assert len({c.lr for c in ours}) >= 4 and {c.decay for c in ours} == {False, True}
    assert len(set(configs)) == len(configs) == len({c.key for c in configs})


def test_parameters_of_a_configuration_make_its_method():
    task = FAMILY.sample(3, "tune", 0)
    host = fixed_method(CONSTANT, FAMILY.renderer, Adam(), STEPS)
    guest = fixed_method(ANNEALED, FAMILY.renderer, Adam(), STEPS)
    parameters = {k: v.expand(3, -1) for k, v in ANNEALED.parameters().items()}
    ours, alone = unroll(host, task, params=parameters).params, unroll(guest, task).params
    torch.testing.assert_close(ours, alone, rtol=1e-9, atol=1e-12)


def test_softnesses_rendered_together_equal_softnesses_rendered_alone():
    task = FAMILY.sample(4, "tune", 1)
    starts = [ANNEALED, FixedSoftness("logistic", 0.3, 0.02, 0.03, False)]
    methods = [learnable_shape(s, FAMILY.renderer, Adam(), STEPS) for s in starts]
    generator = torch.Generator().manual_seed(0)
    for method in methods:
        weights = method.renderer.edge.weights
        with torch.no_grad():
            weights += 0.3 * torch.randn(weights.shape, generator=generator, dtype=weights.dtype)
    candidates = [method.parameter_dict() for method in methods]
    run = unroll(methods[0], task.repeat(2), params=batch_parameters(candidates, 4))
    for i, method in enumerate(methods):
        alone = unroll(method, task).params
        torch.testing.assert_close(run.params[4 * i : 4 * i + 4], alone, rtol=1e-9, atol=1e-12)


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
    with pytest.raises(CheckpointError, match="tuning.json"):
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
    with pytest.raises(ValueError, match="no such configuration"):
        constants = Grid(("logistic",), (0.1,), (), (0.1,), (True,))
        tuner(grid=constants, rungs=(Rung(1),)).run(quiet=True).best(lambda c: c.annealed)


@pytest.mark.parametrize("start", [ANNEALED, CONSTANT], ids=lambda s: s.title)
def test_learned_schedules_begin_exactly_as_the_hand_tuned_ones(start):
    for u in torch.linspace(0, 1, 41, dtype=torch.float64):
        scale = start.start * (start.end / start.start) ** float(u)
        assert scale_knots(start)(u).item() == pytest.approx(scale, rel=1e-9)
        rate = start.lr_schedule()(u).item()
        assert lr_knots(start)(u).item() == pytest.approx(rate, rel=1e-9)
    assert 0.85 in KNOTS


@pytest.mark.parametrize("begin", [learnable_shape, learnable_schedules])
def test_learning_begins_at_the_hand_tuned_softness(begin):
    task = FAMILY.sample(6, "tune", 0)
    method = begin(ANNEALED, FAMILY.renderer, Adam(), STEPS)
    fixed = fixed_method(ANNEALED, FAMILY.renderer, Adam(), STEPS)
    torch.testing.assert_close(
        unroll(method, task).params, unroll(fixed, task).params, rtol=1e-6, atol=1e-7
    )
    learnable = {"renderer.edge.scale.log_values", "lr.log_values"}
    if begin is learnable_shape:
        learnable |= {"renderer.edge.weights"}
    assert set(method.learnable()) == learnable


def outer_gradient_and_differences(method: Method, directions: dict[str, torch.Tensor]):
    """Outer gradients along `directions`, and central differences of the whole inner run."""
    drawn = Shape2D(triangles=(1, 2), image_size=12).sample(9, "train", 0)
    counts = drawn.present.sum(dim=1).tolist()
    task = drawn.select([counts.index(1), counts.index(2)])  # the first has a padded triangle

    def loss(params=None, create_graph=False):
        run = unroll(method, task, create_graph, params=params)
        return task.true_error(run.params).log().mean(), run.params

    value, ends = loss(create_graph=True)
    assert torch.equal(ends[~task.present], task.initial[~task.present])  # its gradient is zero
    gradients = torch.autograd.grad(value, [method.get_parameter(name) for name in directions])
    centre = method.parameter_dict()
    step = 1e-7  # small: the run is smooth only between switches of the nearest edge
    for gradient, (name, direction) in zip(gradients, directions.items(), strict=True):
        up, down = (
            loss({name: centre[name] + sign * step * direction})[0].item() for sign in (1, -1)
        )
        yield (gradient * direction).sum().item(), (up - down) / (2 * step)


def threshold_free(edge):
    return tr.SoftRasterizer(12, edge=edge, near=0.5, far=3.0, threshold=0.0)


@pytest.mark.parametrize("shape", ["logistic", "gaussian", "mlp"])
def test_the_outer_gradient_through_ten_adam_steps_equals_central_differences(shape):
    scale = tr.Knots([0.15, 0.06])
    if shape == "mlp":
        edge = tr.MLPSoftness(scale=scale, seed=1, init=None)
    else:
        edge = tr.Distribution(shape, scale=scale)
    method = Method(threshold_free(edge), Adam(), tr.Knots([0.05, 0.02]), 10)
    generator = torch.Generator().manual_seed(2)
    directions = {
        name: torch.randn(value.shape, generator=generator, dtype=value.dtype)
        for name, value in method.learnable().items()
    }
    checked = list(outer_gradient_and_differences(method, directions))
    assert len(checked) == len(directions)
    for gradient, difference in checked:
        assert math.isfinite(gradient) and abs(difference) > 1e-4
        assert gradient == pytest.approx(difference, rel=1e-5)


def test_each_of_some_single_mlp_weights_has_the_outer_gradient_of_central_differences():
    edge = tr.MLPSoftness(scale=0.1, seed=1, init=None)
    method = Method(threshold_free(edge), Adam(), tr.Constant(0.05), 10)
    name = "renderer.edge.weights"
    size = len(edge.weights)
    for index in (0, size // 2, size - 2):
        direction = torch.zeros(size, dtype=torch.float64)
        direction[index] = 1
        ((gradient, difference),) = outer_gradient_and_differences(method, {name: direction})
        assert gradient == pytest.approx(difference, rel=1e-5, abs=1e-9)


def test_a_plain_scale_parameter_has_the_outer_gradient_of_central_differences():
    scale = torch.nn.Parameter(torch.tensor(0.1, dtype=torch.float64))
    edge = tr.Distribution("logistic", scale=scale)
    method = Method(threshold_free(edge), Adam(), tr.Constant(0.05), 12)
    ((name, value),) = method.learnable().items()
    ((gradient, difference),) = outer_gradient_and_differences(
        method, {name: torch.ones_like(value)}
    )
    assert gradient == pytest.approx(difference, rel=1e-5)
