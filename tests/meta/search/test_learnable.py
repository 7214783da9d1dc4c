"""What may be learned: each switch adds its own parameters, and nothing moves at the start."""

from dataclasses import replace

import pytest
import torch

import taichi_raster as tr
from meta.inner.unroll import unroll
from meta.inner.updates import Adam
from meta.search.fixed import FixedSoftness, fixed_method
from meta.search.learnable import (
    KNOTS,
    Learnable,
    learnable_method,
    learnable_schedules,
    learnable_shape,
    lr_knots,
    scale_knots,
)
from tasks import Shape2D

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

FAMILY = Shape2D(triangles=2, image_size=10)
STEPS = 4
ANNEALED = FixedSoftness("logistic", 0.16, 0.01, 0.1, True)
CONSTANT = FixedSoftness("logistic", 0.05, 0.05, 0.06, False)
LOGISTIC = FixedSoftness("logistic", 0.16, 0.02, 0.1, True, gamma=0.05)
NOTHING = Learnable(shape=False, scale=False, lr=False)

SWITCHES = {
    "shape": (Learnable(scale=False, lr=False), {"renderer.edge.weights"}),
    "progress": (
        Learnable(progress=True, scale=False, lr=False),
        {"renderer.edge.weights", "renderer.edge.progress_weights"},
    ),
    "scale": (Learnable(shape=False, lr=False), {"renderer.edge.scale.log_values"}),
    "lr": (Learnable(shape=False, scale=False), {"lr.log_values"}),
    "gamma": (
        Learnable(shape=False, scale=False, lr=False, gamma=True),
        {"renderer.depth.gamma.log_values"},
    ),
    "depth": (
        Learnable(shape=False, scale=False, lr=False, depth=True),
        {"renderer.depth.weights"},
    ),
    "hamacher": (
        Learnable(shape=False, scale=False, lr=False, conorm="hamacher"),
        {"renderer.alpha.p.log_values"},
    ),
    "frank": (
        Learnable(shape=False, scale=False, lr=False, conorm="frank"),
        {"renderer.alpha.p.log_values"},
    ),
    "aczel_alsina": (
        Learnable(shape=False, scale=False, lr=False, conorm="aczel_alsina"),
        {"renderer.alpha.p.log_values"},
    ),
}


def start(learn, config=LOGISTIC, **options):
    return learnable_method(config, FAMILY.renderer, Adam(), STEPS, learn, **options)


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_adds_its_parameters_and_leaves_the_run_as_it_was(switch):
    learn, names = SWITCHES[switch]
    method, task = start(learn), FAMILY.sample(3, "tune", 0)
    assert set(method.learnable()) == names
    fixed = fixed_method(LOGISTIC, FAMILY.renderer, Adam(), STEPS)
    torch.testing.assert_close(
        unroll(method, task).params, unroll(fixed, task).params, rtol=1e-8, atol=1e-10
    )


def test_nothing_learnable_is_the_fixed_method():
    assert start(NOTHING).learnable() == {}


@pytest.mark.parametrize("switch", SWITCHES)
def test_what_is_learned_changes_the_run(switch):
    learn, _ = SWITCHES[switch]
    method, task = start(learn), FAMILY.sample(3, "tune", 0)
    before = unroll(method, task).params
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in method.learnable().values():
            value += torch.randn(value.shape, generator=generator, dtype=value.dtype)
    assert (unroll(method, task).params - before).abs().max() > 1e-4


def test_a_table_learns_the_same_weights_and_draws_the_same():
    learn = Learnable(progress=True, gamma=True)
    plain, table = start(learn), start(learn, table=True)
    assert set(table.learnable()) == {
        name.replace("edge.", "edge.edge.", 1) if "edge" in name else name
        for name in plain.learnable()
    }
    task = FAMILY.sample(3, "tune", 0)
    ends = [unroll(method, task).params for method in (plain, table)]
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-5)


def test_other_distributions_start_near_themselves():
    config = FixedSoftness("gamma", 0.1, 0.1, 0.05, False)
    edge = start(Learnable(), config).renderer.edge
    d = torch.linspace(-0.5, 0.5, 101, dtype=torch.float64)
    assert (edge.value(d, 0.5) - config.edge().value(d, 0.5)).abs().max() < 0.01
    assert isinstance(start(Learnable(shape=False), config).renderer.edge, tr.Distribution)


def test_impossible_switches_are_refused_by_name():
    with pytest.raises(ValueError, match="progress: only a learned shape"):
        Learnable(shape=False, progress=True)
    for name in ("max", "schweizer_sklar"):
        with pytest.raises(ValueError, match=f"conorm: the T-conorm '{name}' has no positive p"):
            Learnable(conorm=name)
    with pytest.raises(ValueError, match="'yager' cannot start as the probabilistic T-conorm"):
        start(Learnable(conorm="yager"))


def test_a_start_keeps_its_conorm_and_its_annealed_temperature():
    config = replace(LOGISTIC, gamma=0.4, gamma_end=0.1, conorm=("yager", 1.5))
    task = FAMILY.sample(3, "tune", 0)
    fixed = unroll(fixed_method(config, FAMILY.renderer, Adam(), STEPS), task).params
    for learn in (NOTHING, replace(NOTHING, gamma=True, conorm="yager")):
        moved = unroll(start(learn, config), task).params
        torch.testing.assert_close(moved, fixed, rtol=1e-8, atol=1e-10)
    other = replace(config, conorm=None)
    assert (unroll(start(NOTHING, other), task).params - fixed).abs().max() > 1e-6
    with pytest.raises(ValueError, match="'frank' cannot start as 'yager'"):
        start(replace(NOTHING, conorm="frank"), config)


def test_a_start_keeps_its_order_in_depth():
    task = FAMILY.sample(3, "tune", 0)
    everything = Learnable(shape=False, gamma=True, conorm="frank")
    for gammas in ((None, None), (0.4, 0.1)):
        config = replace(LOGISTIC, gamma=gammas[0], gamma_end=gammas[1], over=True)
        fixed = unroll(fixed_method(config, FAMILY.renderer, Adam(), STEPS), task).params
        for learn in (NOTHING, everything):
            moved = unroll(start(learn, config), task).params
            torch.testing.assert_close(moved, fixed, rtol=1e-6, atol=1e-8)
    softmax = replace(config, over=False)
    assert (unroll(start(NOTHING, softmax), task).params - fixed).abs().max() > 1e-6
    with pytest.raises(ValueError, match="depth: a network starts as a softmax"):
        start(replace(NOTHING, depth=True), config)


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
