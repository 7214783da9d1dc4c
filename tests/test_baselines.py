"""The search for fixed softnesses: distributions, depth temperatures, a family's own figures."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from meta.inner.unroll import batch_parameters, unroll
from meta.inner.updates import Adam
from meta.outer.checkpoint import CheckpointError
from meta.search.fixed import FixedSoftness, Grid, finer_grid, fixed_method
from meta.search.ranking import ranking_markdown
from meta.search.tuner import BaselineTuner, Rung
from spread_program import EdgeRenderer, PickedBatch, Toys
from taichi_raster.softness import registry
from tasks import Shape2D
from toy_tasks import ToyFamily

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

NAMES = sorted(set(registry.known()) - {"heaviside"})
GRID = Grid(("logistic",), (0.1, 0.4), (), (0.1,), (False,))


def tuner(family=None, grid=GRID, **options):
    return BaselineTuner(
        family or Toys(), EdgeRenderer, Adam(), 5, grid, (Rung(1),), batch_size=4, **options
    )


def test_configurations_without_a_temperature_keep_their_keys():
    config = FixedSoftness("logistic", 0.16, 0.01, 0.1, True)
    assert config.key == "logistic 0.16 0.01 0.1 True"
    assert set(config.parameters()) == {"renderer.edge.scale.log_values", "lr.log_values"}
    assert config.depth() is None


def test_a_temperature_is_one_more_dimension_of_the_grid():
    grid = Grid(("logistic",), (0.1, 0.4), (0.05,), (0.1,), (True,), gammas=(0.01, 0.1))
    configs = grid.configurations()
    assert len(configs) == 8 == len({config.key for config in configs})
    config = configs[1]
    assert (config.gamma, config.title) == (0.1, "logistic 0.1, gamma 0.1, lr 0.1 decaying")
    for u in (0.0, 0.4, 1.0):
        assert config.depth().gamma(torch.tensor(u)).item() == pytest.approx(0.1)


def test_an_order_in_depth_is_tried_beside_the_softmax_or_alone():
    depths = {"gammas": (0.5,), "over_gammas": (None, 0.2), "gamma_ends": (0.1,)}
    grid = Grid(("logistic",), (0.1,), (), (0.1,), (False,), **depths)
    found = [(c.over, c.gamma, c.gamma_end) for c in grid.configurations()]
    assert found == [(False, 0.5, None), (False, 0.5, 0.1), (True, None, None), (True, 0.2, None),
                     (True, 0.2, 0.1)]  # fmt: skip
    assert len({c.key for c in grid.configurations()}) == 5
    assert len({c.kind for c in grid.configurations()}) == 3  # solved side by side
    titles = [c.title for c in grid.configurations()]
    assert titles[2:] == [f"logistic 0.1, over{g}, lr 0.1" for g in
                          ("", " gamma 0.2", " gamma 0.2 -> 0.1")]  # fmt: skip
    assert [c.plain for c in grid.configurations()] == [True, False, False, False, False]
    alone = replace(grid, gammas=())
    assert all(c.over for c in alone.configurations()) and len(alone.configurations()) == 3
    for config in grid.configurations():
        assert FixedSoftness.from_json(config.to_json()) == config
        assert config in finer_grid(config, (0.3, 0.5)).configurations()


def test_temperatures_can_be_annealed_and_conorms_tuned():
    grid = Grid(("logistic",), (0.1,), (), (0.05,), (True,), (0.5, 0.1), (0.2, 0.05),
                (None, ("yager", 1.0)))  # fmt: skip
    configs = grid.configurations()
    assert len({c.key for c in configs}) == len(configs) == 2 * (2 + 3)
    assert sum(c.plain for c in configs) == 2
    for config in configs:
        assert FixedSoftness.from_json(json.loads(json.dumps(config.to_json()))) == config
    title = next(c.title for c in configs if c.gamma_end == 0.05 and c.gamma == 0.5 and c.conorm)
    assert title == "logistic 0.1, gamma 0.5 -> 0.05, yager 1, lr 0.05 decaying"
    renderer = configs[-1].render_by(Shape2D(2, image_size=8).renderer)
    assert renderer.alpha.name == "yager"
    with pytest.raises(ValueError, match="p: 'yager' needs a finite p that is positive"):
        Grid(conorms=(("yager", -1.0),))


@pytest.mark.parametrize("name", NAMES)
def test_every_distribution_but_the_hard_one_can_be_searched(name):
    config = FixedSoftness(name, 0.3, 0.1, 0.05, True, gamma=0.2)
    family = Shape2D(image_size=8)
    method = fixed_method(config, family.renderer, Adam(), 2)
    assert set(method.parameter_dict()) == set(config.parameters())
    if registry.find(name).shaped:
        assert method.renderer.edge.shape(torch.tensor(0.5)).item() == 2.0
    Grid((name,))


def test_softnesses_with_temperatures_solved_together_equal_those_solved_alone():
    family = Shape2D(image_size=10)
    task = family.sample(3, "tune", 0)
    configs = [
        FixedSoftness("gamma", 0.3, 0.1, 0.05, False, gamma=0.02),
        FixedSoftness("gamma", 0.2, 0.2, 0.1, True, gamma=0.5),
    ]
    methods = [fixed_method(config, family.renderer, Adam(), 4) for config in configs]
    together = unroll(
        methods[0],
        task.repeat(2),
        params=batch_parameters([config.parameters() for config in configs], 3),
    ).params
    for i, method in enumerate(methods):
        alone = unroll(method, task).params
        torch.testing.assert_close(together[3 * i : 3 * i + 3], alone, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(together[:3], together[3:])


def test_the_family_says_what_a_failure_is_and_what_is_small():
    result = tuner().run(quiet=True)
    assert result.floor == Toys.error_floor
    for entry in result.ranking:
        task = Toys().sample(4, "tune", 0)
        method = fixed_method(entry.config, EdgeRenderer, Adam(), 5)
        errors = task.true_error(unroll(method, task).params).numpy()
        assert entry.score == pytest.approx(np.log(errors + Toys.error_floor).mean(), rel=1e-9)
        assert entry.failure_rate == (errors > Toys.failure_threshold).mean()
    assert "mean log(error + 0.01)" in ranking_markdown(result)
    plain = tuner(ToyFamily()).run(quiet=True)
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
    result = tuner(FragileFamily(), cache=cache).run(quiet=True)
    assert [entry.config.start for entry in result.ranking] == [0.4, 0.1]
    assert math.isfinite(result.ranking[0].score) and math.isinf(result.ranking[1].score)
    assert result.ranking[1].failure_rate == 1
    assert "logistic 0.1, lr 0.1 diverges on tuning batch 0" in caplog.text
    assert tuner(FragileFamily(), cache=cache, resume=True).run(quiet=True) == result


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"distributions": ("heaviside",)}, "distributions: 'heaviside' has no gradient"),
        ({"distributions": ("normal",)}, "normal"),
        ({"distributions": ()}, "distributions: expected at least one"),
        ({"scales": (0.1, -1.0)}, "scales: expected positive"),
        ({"lrs": ()}, "lrs: expected at least one"),
        ({"gammas": (0.0,)}, "gammas: expected positive"),
        ({"gammas": ()}, "gammas: expected at least one"),
    ],
)
def test_a_grid_out_of_range_is_refused_by_name(change, named):
    with pytest.raises(ValueError, match=named):
        Grid(**change)


@pytest.mark.parametrize("content", [{}, {"settings": None}])
def test_a_cache_that_lacks_something_is_refused(tmp_path, content):
    cache = tmp_path / "tuning.json"
    tuner(cache=cache).run(quiet=True)
    whole = json.loads(cache.read_text())
    cache.write_text(json.dumps({"kind": whole["kind"], **content}))
    with pytest.raises(CheckpointError, match="tuning.json"):
        tuner(cache=cache, resume=True)
    cache.write_text(json.dumps({"kind": whole["kind"], "settings": whole["settings"]}))
    with pytest.raises(CheckpointError, match="holds no errors"):
        tuner(cache=cache, resume=True)
