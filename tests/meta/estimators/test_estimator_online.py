"""Online learning of the softness: its definition as a gradient, and the joint run."""

from typing import Any

import pytest
import torch

from meta.estimators import first_order_gradient, learn_online, online_gradient
from meta.inner.method import Method
from meta.inner.unroll import trajectory, unroll
from meta.inner.updates import SGD, Adam, Momentum
from meta.outer.loss import OuterLoss
from toy_tasks import Rate, ToyFamily, ToyRenderer, toy_method

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

NAMES = {"renderer.log_scale", "renderer.slope"}


@pytest.fixture
def task():
    return ToyFamily().sample(6, "train", 0)


@pytest.mark.parametrize("rule", [SGD(), Momentum(), Adam()], ids=repr)
@pytest.mark.parametrize("transform", ["identity", "log"])
def test_it_is_the_mean_over_steps_of_the_soft_losses_gradient(task, rule, transform):
    method, outer = toy_method(rule), OuterLoss("soft", transform)
    estimate = online_gradient(method, task, outer)
    wanted: dict[str, list[torch.Tensor]] = {"renderer.log_scale": [], "renderer.slope": []}
    losses = []
    for step, unknowns in enumerate(trajectory(method, task)[:-1]):
        u = step / 12
        scale = torch.exp(method.renderer.log_scale + method.renderer.slope * u).detach()
        q = (unknowns[:, :2] - task.hidden).square()
        loss = (scale * torch.log1p(q / scale)).sum(dim=1)
        # d/d(log s) of s log(1 + q / s); log s = log_scale + slope u
        slope = (scale * (torch.log1p(q / scale) - q / (q + scale))).sum(dim=1)
        if transform == "log":
            loss, slope = torch.log(loss + outer.floor), slope / (loss + outer.floor)
        wanted["renderer.log_scale"].append(slope.mean())
        wanted["renderer.slope"].append(slope.mean() * u)
        losses.append(loss.mean())
    assert estimate.grads.keys() == NAMES
    assert estimate.loss == pytest.approx(torch.stack(losses).mean().item(), rel=1e-9)
    for name, parts in wanted.items():
        torch.testing.assert_close(
            estimate.grads[name], torch.stack(parts).mean(), rtol=1e-9, atol=1e-12
        )


def test_it_differs_from_first_order_by_weighing_all_steps(task):
    # With a softness that progress does not move, and a scene that stands still, both are one.
    method = Method(ToyRenderer(slope=0.0), SGD(), Rate(1e-12), 4)
    online = online_gradient(method, task, OuterLoss("soft")).grads["renderer.log_scale"]
    first = first_order_gradient(method, task, OuterLoss("soft")).grads["renderer.log_scale"]
    torch.testing.assert_close(online, first, rtol=1e-9, atol=0)


def test_it_is_biased_nothing_comes_through_the_trajectory(task):
    # The derivative of the mean soft loss along the run, by differences, is another number.
    renderer = ToyRenderer(slope=0.0)
    method = Method(renderer, SGD(), Rate(0.3), 8)
    outer = OuterLoss("soft", "identity")
    ours = online_gradient(method, task, outer).grads["renderer.log_scale"].item()

    def mean_loss(shift):
        moved = {"renderer.log_scale": renderer.log_scale.detach() + shift}
        return unroll(method, task, params=moved).losses.mean().item()

    total = (mean_loss(1e-5) - mean_loss(-1e-5)) / 2e-5
    assert abs(ours - total) > 0.05 * abs(ours)


@pytest.mark.parametrize("kind", ["sharp", "true"])
def test_it_refuses_losses_that_it_cannot_see(task, kind):
    with pytest.raises(ValueError, match="gradient is zero"):
        online_gradient(toy_method(), task, OuterLoss(kind))


def by_hand(task, rule, steps, lr, from_step):
    """The joint run, with torch's Adam and torch's autograd, spelt out."""
    method = toy_method(rule, steps)
    softness = [method.renderer.log_scale, method.renderer.slope]
    adam = torch.optim.Adam(softness, lr=lr)
    unknowns, losses = task.start(), []
    state = rule.init(unknowns)
    for step in range(steps):
        unknowns = unknowns.detach().requires_grad_()
        loss = task.loss(unknowns, method.renderer, step / steps)
        (descent,) = torch.autograd.grad(loss.sum(), unknowns, retain_graph=True)
        adam.zero_grad()
        loss.mean().backward()
        rate = method.lr(step / steps).detach()
        unknowns, state = rule.step(unknowns.detach(), descent, state, rate)
        if step >= from_step:
            adam.step()
        losses.append(loss.detach())
    return unknowns, torch.stack(losses), softness


@pytest.mark.parametrize("rule", [SGD(), Adam()], ids=repr)
@pytest.mark.parametrize("from_step", [0, 7])
def test_a_joint_run_is_two_optimisers_side_by_side(task, rule, from_step):
    method = toy_method(rule)
    run = learn_online(method, task, lr=0.02, from_step=from_step)
    unknowns, losses, softness = by_hand(task, rule, 12, 0.02, from_step)
    torch.testing.assert_close(run.params, unknowns, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(run.losses, losses, rtol=1e-12, atol=1e-13)
    assert run.softness.keys() == NAMES
    for ours, wanted in zip(run.softness.values(), softness, strict=True):
        torch.testing.assert_close(ours, wanted.detach(), rtol=1e-12, atol=1e-13)
    assert torch.equal(method.renderer.log_scale.detach(), run.softness["renderer.log_scale"])
    assert method.lr.log_rate.item() == toy_method().lr.log_rate.item()
    assert all(parameter.grad is None for parameter in method.parameters())


def test_a_joint_run_is_the_same_every_time_and_can_be_watched(task):
    scales, steps = [], []
    method = toy_method()

    def record(step, unknowns):
        steps.append(step)
        assert not unknowns.requires_grad
        scales.append(method.renderer.log_scale.item())

    one = learn_online(method, task, lr=0.02, from_step=3, record=record)
    other = learn_online(toy_method(), task, lr=0.02, from_step=3)
    assert torch.equal(one.params, other.params) and torch.equal(one.losses, other.losses)
    assert all(torch.equal(one.softness[k], other.softness[k]) for k in NAMES)
    assert steps == list(range(13))
    assert scales[0] == scales[3] != scales[4] and scales[-1] == method.renderer.log_scale.item()


def test_until_the_softness_moves_a_joint_run_is_the_plain_one(task):
    run = learn_online(toy_method(), task, from_step=11)
    plain = unroll(toy_method(), task)
    assert torch.equal(run.params, plain.params) and torch.equal(run.losses, plain.losses)


def test_a_softness_that_learns_lowers_the_soft_loss(task):
    learned = learn_online(toy_method(), task, lr=0.05).losses[-1].mean()
    assert learned < unroll(toy_method(), task).losses[-1].mean()


def test_frozen_softness_stays_and_rates_go_by_name(task):
    method = toy_method()
    method.renderer.slope.requires_grad_(False)
    run = learn_online(method, task, lr={"renderer.log_scale": 0.01})
    assert run.softness.keys() == {"renderer.log_scale"} and method.renderer.slope.item() == -0.7


class Breaks(ToyRenderer):
    """Loss or slope of the softness is not finite from progress 0.5 on."""

    def __init__(self, what):
        super().__init__()
        self.what = what

    def forward(self, distance, progress):
        loss = super().forward(distance, progress)
        if progress < 0.5:
            return loss
        if self.what == "loss":
            return loss + torch.tensor([0, 0, float("nan"), 0, 0, 0]).to(loss)
        return loss + 0 * torch.sqrt(0 * self.log_scale)


@pytest.mark.parametrize("solve", [learn_online, online_gradient])
def test_what_is_not_finite_is_named_with_step_and_instance(task, solve):
    arguments = [OuterLoss("soft")] if solve is online_gradient else []
    with pytest.raises(FloatingPointError, match=r"inner step 2 of 4: the loss of instance 2 "):
        solve(Method(Breaks("loss"), SGD(), Rate(), 4), task, *arguments)
    with pytest.raises(FloatingPointError, match="inner step 0 of 4: an unknown"):
        solve(Method(ToyRenderer(), SGD(), Rate(float("inf")), 4), task, *arguments)


def test_a_gradient_of_the_softness_that_is_not_finite_is_named(task):
    with pytest.raises(
        FloatingPointError, match=r"step 2 of 4: the gradient of renderer.log_scale"
    ):
        learn_online(Method(Breaks("slope"), SGD(), Rate(), 4), task)


def test_wrong_options_are_refused_by_name(task):
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"lr": 0.0}, r"lr\['renderer.log_scale'\]"),
        ({"lr": {"renderer.log_scale": 0.1}}, "lr: expected a value for each"),
        ({"from_step": 12}, r"from_step must be an integer in \[0, 12\)"),
        ({"from_step": -1}, "from_step"),
        ({"betas": (0.9, 1.0)}, "beta"),
    ]
    for options, named in wrong:
        with pytest.raises(ValueError, match=named):
            learn_online(toy_method(), task, **options)
    method = toy_method()
    method.renderer.requires_grad_(False)
    with pytest.raises(ValueError, match="no learnable parameter"):
        learn_online(method, task)
    with pytest.raises(ValueError, match="no learnable parameter"):
        online_gradient(method, task, OuterLoss("soft"))
