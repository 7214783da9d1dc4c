"""Outer-gradient estimators against finite differences, definitions and closed forms."""

import pytest
import torch
from torch import nn

from meta.estimators import ESTIMATORS, es_gradient, exact_gradient, first_order_gradient
from meta.method import Method
from meta.outer import OuterLoss
from meta.unroll import unroll
from meta.updates import SGD, Adam, Momentum
from toy_tasks import Rate, ToyFamily, ToyRenderer

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")


def toy_method(rule=None, steps=12):
    return Method(ToyRenderer(), rule or Adam(), Rate(), steps)


@pytest.fixture
def task():
    return ToyFamily().sample(6, "train", 0)


@pytest.mark.parametrize("rule", [SGD(), Momentum(), Adam()], ids=repr)
@pytest.mark.parametrize("outer", [OuterLoss("true"), OuterLoss("sharp", "identity")], ids=repr)
def test_exact_equals_central_differences_of_the_whole_run(task, rule, outer):
    method = toy_method(rule)
    estimate = exact_gradient(method, task, outer)
    centre = method.parameter_dict()
    assert estimate.grads.keys() == centre.keys()

    def loss(name, shift):
        run = unroll(method, task, params={name: centre[name] + shift})
        return outer.per_instance(method, task, run.params).mean().item()

    assert estimate.loss == pytest.approx(loss("lr.log_rate", 0.0), rel=1e-12)
    for name, grad in estimate.grads.items():
        difference = (loss(name, 1e-5) - loss(name, -1e-5)) / 2e-5
        assert grad.item() == pytest.approx(difference, rel=1e-5, abs=1e-9)


def test_first_order_is_the_gradient_of_the_final_soft_loss_alone(task):
    method = toy_method()
    estimate = first_order_gradient(method, task, OuterLoss("soft", "identity"))
    final = unroll(method, task).params
    scale = torch.exp(method.renderer.log_scale + method.renderer.slope).detach()  # progress 1
    q = (final[:, :2] - task.hidden).square()
    # d/ds of s log(1 + q / s), times ds / d(log s) = s; the slope enters with progress 1
    by_log_scale = (scale * (torch.log1p(q / scale) - q / (q + scale))).sum(dim=1).mean()
    assert estimate.grads.keys() == {"renderer.log_scale", "renderer.slope"}
    for grad in estimate.grads.values():
        torch.testing.assert_close(grad, by_log_scale, rtol=1e-12, atol=1e-15)
    expected = (scale * torch.log1p(q / scale)).sum(dim=1).mean().item()
    assert estimate.loss == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", ["sharp", "true"])
def test_first_order_refuses_losses_that_it_cannot_see(task, kind):
    with pytest.raises(ValueError, match="first_order estimator .* identically|gradient is zero"):
        first_order_gradient(toy_method(), task, OuterLoss(kind))


@pytest.mark.parametrize("name", ["exact", "es"])
def test_the_soft_loss_is_refused_where_a_softness_could_hide_errors(task, name):
    with pytest.raises(ValueError, match="hide errors"):
        ESTIMATORS[name](toy_method(), task, OuterLoss("soft"))


class Quadratic(nn.Module):
    """Stands for a renderer; the inner loss below ignores it, the outer one is its quadratic."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.point = nn.Parameter(torch.randn(4, generator=generator, dtype=torch.float64))


class QuadraticTask:
    """One SGD step with rate 1 takes the unknown to the renderer's point."""

    curvature = torch.tensor([1.0, 0.5, 2.0, 3.0], dtype=torch.float64)

    def __init__(self, offsets):
        self.offsets = offsets

    @property
    def batch_size(self):
        return len(self.offsets)

    def start(self):
        return torch.zeros(self.batch_size, 4, dtype=torch.float64)

    def loss(self, params, renderer, progress):
        return 0.5 * (params - renderer.point).square().sum(dim=1)

    def true_error(self, params):
        return (self.curvature * (params - self.offsets).square()).sum(dim=1)

    def repeat(self, copies):
        return QuadraticTask(self.offsets.repeat(copies, 1))


class One(nn.Module):
    def forward(self, progress):
        return torch.ones((), dtype=torch.float64)


@pytest.fixture
def quadratic():
    generator = torch.Generator().manual_seed(5)
    task = QuadraticTask(torch.randn((3, 4), generator=generator, dtype=torch.float64))
    method = Method(Quadratic(), SGD(), One(), 1)
    gradient = 2 * task.curvature * (method.renderer.point.detach() - task.offsets.mean(dim=0))
    return method, task, gradient


@pytest.mark.parametrize("directions", ["shared", "per_task"])
def test_es_is_unbiased_on_a_quadratic_within_its_standard_error(quadratic, directions):
    # Antithetic differences of a quadratic are linear, so the smoothed gradient is the gradient.
    method, task, gradient = quadratic
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack(
        [
            es_gradient(
                method,
                task,
                OuterLoss("true", "identity"),
                generator=generator,
                pairs=4,
                sigma=0.3,
                directions=directions,
            ).grads["renderer.point"]
            for _ in range(2000)
        ]
    )
    error = draws.mean(dim=0) - gradient
    standard_error = draws.std(dim=0) / len(draws) ** 0.5
    assert bool((error.abs() < 4 * standard_error).all())
    assert bool((standard_error < 0.05 * gradient.norm()).all())


def test_a_direction_for_each_task_is_less_noisy_at_equal_cost(quadratic):
    method, task, _ = quadratic

    def spread(directions):
        generator = torch.Generator().manual_seed(0)
        outer = OuterLoss("true", "identity")
        draws = [
            es_gradient(
                method, task, outer, generator=generator, pairs=2, directions=directions
            ).grads["renderer.point"]
            for _ in range(300)
        ]
        return torch.stack(draws).var(dim=0).sum()

    assert spread("per_task") < spread("shared")


def test_es_follows_the_exact_gradient_when_sigma_is_small(task):
    method = toy_method(SGD(), steps=5)
    exact = exact_gradient(method, task, OuterLoss("true")).grads
    es = es_gradient(
        method,
        task,
        OuterLoss("true"),
        generator=torch.Generator().manual_seed(1),
        pairs=4000,
        sigma=1e-3,
        max_batch=48_000,
    )
    ours = torch.stack([es.grads[name] for name in exact])
    wanted = torch.stack(list(exact.values()))
    # the error of the mean over pairs is about norm * sqrt((dimension + 1) / pairs)
    assert (ours - wanted).norm() < 4 * wanted.norm() * (4 / 4000) ** 0.5
    assert es.info["es_noise"] < 0.1


@pytest.mark.parametrize("max_batch", [1, 13, 36, 1000])
def test_es_does_not_depend_on_how_many_runs_fit_in_memory(task, max_batch):
    def estimate(limit):
        generator = torch.Generator().manual_seed(7)
        return es_gradient(
            toy_method(), task, OuterLoss("true"), generator=generator, pairs=5, max_batch=limit
        )

    one, other = estimate(max_batch), estimate(512)
    assert one.loss == other.loss
    assert all(torch.equal(one.grads[name], other.grads[name]) for name in one.grads)


def test_es_scales_its_steps_by_parameter(quadratic):
    method, task, gradient = quadratic
    estimate = es_gradient(
        method,
        task,
        OuterLoss("true", "identity"),
        generator=torch.Generator().manual_seed(0),
        pairs=4000,
        sigma={"renderer.point": 1e-4},
        max_batch=24_000,
    )
    error = estimate.grads["renderer.point"] - gradient
    assert error.norm() < 0.15 * gradient.norm()


def test_wrong_options_are_refused_by_name(task):
    method, outer = toy_method(), OuterLoss("true")
    generator = torch.Generator()
    with pytest.raises(ValueError, match="generator"):
        es_gradient(method, task, outer)
    for options, named in [
        ({"pairs": 0}, "pairs"),
        ({"sigma": 0.0}, "sigma"),
        ({"sigma": {"lr.log_rate": 0.1}}, "sigma"),
        ({"directions": "all"}, "directions"),
        ({"max_batch": 0}, "max_batch"),
    ]:
        with pytest.raises(ValueError, match=named):
            es_gradient(method, task, outer, generator=generator, **options)
    with pytest.raises(ValueError, match="kind"):
        OuterLoss("blurred")
    with pytest.raises(ValueError, match="floor"):
        OuterLoss("true", floor=0)
    for parameter in method.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ValueError, match="no learnable parameter"):
        exact_gradient(method, task, outer)


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_frozen_parameters_are_left_alone(task, name):
    method = toy_method()
    method.renderer.slope.requires_grad_(False)
    outer = OuterLoss("soft" if name == "first_order" else "true")
    grads = ESTIMATORS[name](method, task, outer, generator=torch.Generator()).grads
    assert "renderer.slope" not in grads and "renderer.log_scale" in grads
