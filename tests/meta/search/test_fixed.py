"""Fixed softnesses and their grids are what they say, and are solved side by side as alone."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

import taichi_raster as tr
from meta.inner.unroll import batch_parameters, unroll
from meta.inner.updates import Adam
from meta.search.fixed import FixedSoftness, Grid, finer_grid, fixed_method
from meta.search.learnable import learnable_shape
from meta.study.plan import soft_renderer
from taichi_raster.softness.distributions import registry
from tasks import Shape2D

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

NAMES = sorted(set(registry.known()) - {"heaviside"})
FAMILY = Shape2D(triangles=2, image_size=10)
STEPS = 6
ANNEALED = FixedSoftness("logistic", 0.16, 0.01, 0.1, True)
CONSTANT = FixedSoftness("logistic", 0.05, 0.05, 0.06, False)


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
        depth = config.depth()
        assert isinstance(depth, tr.SoftmaxDepth)
        assert depth.gamma(torch.tensor(u)).item() == pytest.approx(0.1)


def test_an_order_in_depth_is_tried_beside_the_softmax_or_alone():
    grid = Grid(
        ("logistic",),
        (0.1,),
        (),
        (0.1,),
        (False,),
        gammas=(0.5,),
        over_gammas=(None, 0.2),
        gamma_ends=(0.1,),
    )
    found = [(c.over, c.gamma, c.gamma_end) for c in grid.configurations()]
    assert found == [
        (False, 0.5, None),
        (False, 0.5, 0.1),
        (True, None, None),
        (True, 0.2, None),
        (True, 0.2, 0.1),
    ]
    assert len({c.key for c in grid.configurations()}) == 5
    assert len({c.kind for c in grid.configurations()}) == 3  # solved side by side
    titles = [c.title for c in grid.configurations()]
    assert titles[2:] == [
        f"logistic 0.1, over{g}, lr 0.1" for g in ("", " gamma 0.2", " gamma 0.2 -> 0.1")
    ]
    assert [c.plain for c in grid.configurations()] == [True, False, False, False, False]
    alone = replace(grid, gammas=())
    assert all(c.over for c in alone.configurations()) and len(alone.configurations()) == 3
    for config in grid.configurations():
        assert FixedSoftness.from_json(config.to_json()) == config
        assert config in finer_grid(config, (0.3, 0.5)).configurations()


def test_temperatures_can_be_annealed_and_conorms_tuned():
    grid = Grid(
        ("logistic",), (0.1,), (), (0.05,), (True,), (0.5, 0.1), (0.2, 0.05), (None, ("yager", 1.0))
    )
    configs = grid.configurations()
    assert len({c.key for c in configs}) == len(configs) == 2 * (2 + 3)
    assert sum(c.plain for c in configs) == 2
    for config in configs:
        assert FixedSoftness.from_json(json.loads(json.dumps(config.to_json()))) == config
    title = next(c.title for c in configs if c.gamma_end == 0.05 and c.gamma == 0.5 and c.conorm)
    assert title == "logistic 0.1, gamma 0.5 -> 0.05, yager 1, lr 0.05 decaying"
    renderer = configs[-1].render_by(Shape2D(2, image_size=8).renderer)
    assert isinstance(renderer, tr.SoftRasterizer) and renderer.alpha.name == "yager"
    with pytest.raises(ValueError, match="p: 'yager' needs a finite p that is positive"):
        Grid(conorms=(("yager", -1.0),))


@pytest.mark.parametrize("name", NAMES)
def test_every_distribution_but_the_hard_one_can_be_searched(name):
    config = FixedSoftness(name, 0.3, 0.1, 0.05, True, gamma=0.2)
    family = Shape2D(image_size=8)
    method = fixed_method(config, family.renderer, Adam(), 2)
    assert set(method.parameter_dict()) == set(config.parameters())
    if registry.find(name).shaped:
        edge = soft_renderer(method).edge
        assert isinstance(edge, tr.Distribution)
        assert edge.shape(torch.tensor(0.5)).item() == 2.0
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
        edge: Any = method.renderer.edge
        weights = edge.weights
        with torch.no_grad():
            weights += 0.3 * torch.randn(weights.shape, generator=generator, dtype=weights.dtype)
    candidates = [method.parameter_dict() for method in methods]
    run = unroll(methods[0], task.repeat(2), params=batch_parameters(candidates, 4))
    for i, method in enumerate(methods):
        alone = unroll(method, task).params
        torch.testing.assert_close(run.params[4 * i : 4 * i + 4], alone, rtol=1e-9, atol=1e-12)


def test_the_finer_grid_surrounds_a_configuration():
    grid = finer_grid(FixedSoftness("cauchy", 0.1, 0.02, 0.06, True), (0.01, 0.1))
    configs = grid.configurations()
    assert {c.distribution for c in configs} == {"cauchy"} and {c.gamma for c in configs} == {
        0.01,
        0.1,
    }
    assert any(c.start == 0.1 and c.end == 0.02 and c.lr == 0.06 for c in configs)
    assert finer_grid(FixedSoftness("cauchy", 0.1, 0.1, 0.06, True)).ends == ()
    cold = FixedSoftness("cauchy", 0.1, 0.02, 0.06, True, 0.003)
    assert cold in finer_grid(cold).configurations()  # at its own temperature
    wide = FixedSoftness("cauchy", 0.1, 0.02, 0.06, True, 0.5, 0.1, ("yager", 1.0))
    configs = finer_grid(wide, (0.01, 0.1)).configurations()
    assert wide in configs and {c.conorm for c in configs} == {("yager", 1.0)}
    assert len({c.gamma for c in configs}) == len({c.gamma_end for c in configs} - {None}) == 3
