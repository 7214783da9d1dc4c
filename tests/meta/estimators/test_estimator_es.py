"""Antithetic evolution strategies: unbiased, independent of memory, loud about wrong options."""

from typing import Any

import pytest
import torch

from meta.estimators import es_gradient, exact_gradient
from meta.inner.method import Method
from meta.inner.updates import SGD
from meta.outer.loss import OuterLoss
from toy_tasks import One, Quadratic, QuadraticTask, ToyFamily, toy_method

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")


@pytest.fixture
def task():
    return ToyFamily().sample(6, "train", 0)


@pytest.fixture
def quadratic():
    generator = torch.Generator().manual_seed(5)
    task = QuadraticTask(torch.randn((3, 4), generator=generator, dtype=torch.float64))
    renderer = Quadratic()
    method = Method(renderer, SGD(), One(), 1)
    gradient = 2 * task.curvature * (renderer.point.detach() - task.offsets.mean(dim=0))
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
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"pairs": 0}, "pairs"),
        ({"sigma": 0.0}, "sigma"),
        ({"sigma": {"lr.log_rate": 0.1}}, "sigma"),
        ({"directions": "all"}, "directions"),
        ({"max_batch": 0}, "max_batch"),
    ]
    for options, named in wrong:
        with pytest.raises(ValueError, match=named):
            es_gradient(method, task, outer, generator=generator, **options)
    with pytest.raises(ValueError, match="kind"):
        OuterLoss("blurred")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="floor"):
        OuterLoss("true", floor=0)
    for parameter in method.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ValueError, match="no learnable parameter"):
        exact_gradient(method, task, outer)
