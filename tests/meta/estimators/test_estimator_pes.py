"""Persistent evolution strategies: es for one window, unbiased where truncated es is not."""

from typing import Any

import pytest
import torch

from meta.estimators import es_gradient, exact_gradient, pes_gradient
from meta.inner.method import Method
from meta.inner.unroll import unroll
from meta.inner.updates import SGD, Adam, Momentum
from meta.outer.estimator import Shard
from meta.outer.loss import OuterLoss
from toy_tasks import FixedRate, Quadratic, QuadraticTask, ToyFamily, toy_method

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

OUTER = OuterLoss("true")
IDENTITY = OuterLoss("true", "identity")
STEPS, WINDOW, KEEP = 6, 2, 0.7
DIRECTIONS = pytest.mark.parametrize("directions", ["shared", "per_task"])


@pytest.fixture
def task():
    return ToyFamily().sample(6, "train", 0)


@pytest.fixture
def quadratic():
    """SGD at rate 1 - q towards the renderer's point p from zero: x_t = p (1 - q^t)."""
    generator = torch.Generator().manual_seed(5)
    task = QuadraticTask(torch.randn((3, 4), generator=generator, dtype=torch.float64))
    return Method(Quadratic(), SGD(), FixedRate(1 - KEEP), STEPS), task


def closed_form(method, task, end, through):
    """d(outer loss after `end` steps)/d(point), where the last `through` steps follow the point."""
    slope = 2 * task.curvature * (method.renderer.point.detach() * (1 - KEEP**end) - task.offsets)
    return (slope * (1 - KEEP**through)).mean(dim=0)


@DIRECTIONS
@pytest.mark.parametrize("rule", [SGD(), Momentum(), Adam()], ids=repr)
@pytest.mark.parametrize("losses", ["all", "last"])
def test_one_window_of_the_whole_run_is_es_for_the_same_draws(task, rule, losses, directions):
    method = toy_method(rule)
    options = {"pairs": 3, "sigma": 0.1, "directions": directions}
    es = es_gradient(method, task, OUTER, generator=torch.Generator().manual_seed(2), **options)
    ours = pes_gradient(
        method,
        task,
        OUTER,
        generator=torch.Generator().manual_seed(2),
        window=12,
        losses=losses,
        **options,
    )
    assert ours.loss == pytest.approx(es.loss, rel=1e-14)
    for name, gradient in es.grads.items():
        torch.testing.assert_close(ours.grads[name], gradient, rtol=1e-12, atol=1e-15)
    assert ours.info["pes_std"] == pytest.approx(es.info["es_std"], rel=1e-12)
    assert ours.info["pes_noise"] == pytest.approx(es.info["es_noise"], rel=1e-12)


def mean_and_error(draws):
    draws = torch.stack(draws)
    return draws.mean(dim=0), draws.std(dim=0) / len(draws) ** 0.5


@DIRECTIONS
@pytest.mark.parametrize("losses", ["all", "last"])
def test_it_is_unbiased_on_a_linear_run_with_a_quadratic_loss(quadratic, losses, directions):
    # Antithetic differences of a quadratic are linear, so the smoothed gradient is the gradient.
    method, task = quadratic
    generator = torch.Generator().manual_seed(0)
    mean, error = mean_and_error(
        [
            pes_gradient(
                method,
                task,
                IDENTITY,
                generator=generator,
                window=WINDOW,
                losses=losses,
                pairs=60,
                sigma=0.3,
                directions=directions,
                max_batch=1000,
            ).grads["renderer.point"]
            for _ in range(100)
        ]
    )
    ends = (2, 4, 6) if losses == "all" else (6,)
    wanted = torch.stack([closed_form(method, task, end, end) for end in ends]).mean(dim=0)
    exact = exact_gradient(method, task, IDENTITY).grads["renderer.point"]
    if losses == "last":
        torch.testing.assert_close(wanted, exact, rtol=1e-12, atol=0)
    assert bool(((mean - wanted).abs() < 4 * error).all())
    assert bool((error < 0.05 * wanted.norm()).all())


def truncated_es(method, task, generator, pairs, sigma):
    """Es on the last window, from where the unperturbed run was at its start."""
    point = method.renderer.point.detach()
    noise = torch.randn((pairs, 4), generator=generator, dtype=torch.float64)
    repeated = task.repeat(pairs)
    start = unroll(method, repeated, until=STEPS - WINDOW)
    ends = []
    for sign in (1, -1):
        moved = (point + sign * sigma * noise).repeat_interleave(task.batch_size, dim=0)
        run = unroll(method, repeated, params={"renderer.point": moved}, after=start)
        ends.append(repeated.true_error(run.params).reshape(pairs, -1).mean(dim=1))
    return ((ends[0] - ends[1])[:, None] / (2 * sigma) * noise).mean(dim=0)


def test_truncated_es_is_biased_where_it_is_not(quadratic):
    method, task = quadratic
    generator = torch.Generator().manual_seed(0)
    mean, error = mean_and_error(
        [truncated_es(method, task, generator, pairs=60, sigma=0.3) for _ in range(100)]
    )
    truncated = closed_form(method, task, STEPS, WINDOW)
    total = closed_form(method, task, STEPS, STEPS)
    assert bool(((mean - truncated).abs() < 4 * error).all())
    assert ((mean - total) / error).abs().max() > 20


@pytest.mark.parametrize("losses", ["all", "last"])
def test_it_follows_the_exact_gradient_when_sigma_is_small(task, losses):
    method = toy_method(SGD(), steps=6)
    learnable = method.learnable()
    exact = []
    for end in (2, 4, 6) if losses == "all" else (6,):
        run = unroll(method, task, create_graph=True, until=end)
        loss = OUTER.per_instance(method, task, run.params).mean()
        exact.append(torch.stack(torch.autograd.grad(loss, list(learnable.values()))))
    wanted = torch.stack(exact).mean(dim=0)
    ours = pes_gradient(
        method,
        task,
        OUTER,
        generator=torch.Generator().manual_seed(1),
        window=2,
        losses=losses,
        pairs=3000,
        sigma=1e-3,
        max_batch=36_000,
    )
    error = torch.stack([ours.grads[name] for name in learnable]) - wanted
    assert error.norm() < 4 * ours.info["pes_noise"] * wanted.norm()
    assert ours.info["pes_noise"] < 0.1


@pytest.mark.parametrize("max_batch", [1, 13, 36])
def test_it_does_not_depend_on_how_many_runs_fit_in_memory(task, max_batch):
    def estimate(limit):
        return pes_gradient(
            toy_method(),
            task,
            OUTER,
            generator=torch.Generator().manual_seed(7),
            window=5,
            pairs=5,
            max_batch=limit,
        )

    one, other = estimate(max_batch), estimate(512)
    assert one.loss == other.loss
    assert all(torch.equal(one.grads[name], other.grads[name]) for name in one.grads)


@DIRECTIONS
def test_shares_of_a_batch_add_up_to_the_whole(task, directions):
    def estimate(task, shard=None):
        return pes_gradient(
            toy_method(),
            task,
            OUTER,
            generator=torch.Generator().manual_seed(7),
            window=5,
            pairs=4,
            directions=directions,
            shard=shard,
        )

    whole = estimate(task)
    shares = [Shard((0, 1), 6), Shard((2, 3, 4, 5), 6)]
    parts = [estimate(task.select(list(shard.instances)), shard) for shard in shares]
    for name, gradient in whole.grads.items():
        mean = (2 * parts[0].grads[name] + 4 * parts[1].grads[name]) / 6
        torch.testing.assert_close(mean, gradient, rtol=1e-12, atol=1e-15)
    with pytest.raises(ValueError, match="shard"):
        estimate(task, shares[0])


def test_wrong_options_are_refused_by_name(task):
    method, generator = toy_method(), torch.Generator()
    with pytest.raises(ValueError, match="generator"):
        pes_gradient(method, task, OUTER)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"window": 0}, "window"),
        ({"window": 13}, r"window must be an integer in \[1, 12\]"),
        ({"losses": "first"}, "losses"),
        ({"pairs": 0}, "pairs"),
        ({"sigma": -1.0}, "sigma"),
        ({"sigma": {"lr.log_rate": 0.1}}, "sigma"),
        ({"directions": "all"}, "directions"),
        ({"max_batch": 0}, "max_batch"),
    ]
    for options, named in wrong:
        with pytest.raises(ValueError, match=named):
            pes_gradient(method, task, OUTER, generator=generator, **options)
