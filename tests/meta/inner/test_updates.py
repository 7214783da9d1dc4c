"""Update rules: the values of torch.optim, outer gradients that finite differences confirm."""

import pytest
import torch
from torch import Tensor

from meta.inner.updates import SGD, Adam, Momentum, UpdateRule

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

RULES: list[UpdateRule] = [SGD(), Momentum(0.9), Adam(), Adam(betas=(0.5, 0.95))]
START = torch.tensor([[1.0, -2.0, 0.5], [0.3, 0.8, -1.0]], dtype=torch.float64)
STEPS = 7


def inner_loss(x: Tensor, softness: Tensor) -> Tensor:
    """Curved in x and softness; the last unknown is absent: its gradient is exactly zero."""
    seen = x[:, :2]
    return (softness * torch.log1p(seen.square() / softness) + 0.1 * seen.sin()).sum()


def run(rule: UpdateRule, softness: Tensor, log_rate: Tensor, create_graph: bool) -> Tensor:
    x = START.clone().requires_grad_()
    state = rule.init(x)
    for _ in range(STEPS):
        (grad,) = torch.autograd.grad(inner_loss(x, softness), x, create_graph=create_graph)
        assert bool((grad[:, 2] == 0).all())
        x, state = rule.step(x, grad, state, log_rate.exp())
    return x


def outer_loss(x: Tensor) -> Tensor:
    return (x - 0.2).square().sum()


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_outer_gradient_equals_central_differences_with_a_zero_gradient_entry(rule):
    at = torch.tensor([0.7, -2.0], dtype=torch.float64, requires_grad=True)
    outer_loss(run(rule, at[0], at[1], create_graph=True)).backward()
    step = 1e-5
    for i in range(2):
        bump = step * torch.eye(2, dtype=torch.float64)[i]
        up, down = (
            outer_loss(run(rule, x, log_rate, create_graph=False))
            for x, log_rate in (at.detach() + bump, at.detach() - bump)
        )
        difference = ((up - down) / (2 * step)).item()
        assert at.grad is not None
        assert at.grad[i].item() == pytest.approx(difference, rel=1e-6)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_outer_gradient_can_be_differentiated_again(rule):
    at = torch.tensor([0.7, -2.0], dtype=torch.float64, requires_grad=True)

    def outer(point: Tensor) -> Tensor:
        return outer_loss(run(rule, point[0], point[1], create_graph=True))

    assert torch.autograd.gradgradcheck(outer, (at,), eps=1e-5, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("rule", "optimiser"),
    [
        (SGD(), lambda x: torch.optim.SGD([x], lr=0.05)),
        (Momentum(0.8), lambda x: torch.optim.SGD([x], lr=0.05, momentum=0.8)),
        (Adam(eps_root=1e-30), lambda x: torch.optim.Adam([x], lr=0.05)),
    ],
    ids=["sgd", "momentum", "adam"],
)
def test_values_are_those_of_torch_optim(rule, optimiser):
    softness, rate = torch.tensor(0.7), torch.tensor(0.05, dtype=torch.float64).log()
    ours = run(rule, softness, rate, create_graph=False)
    x = START.clone().requires_grad_()
    theirs = optimiser(x)
    for _ in range(STEPS):
        theirs.zero_grad()
        inner_loss(x, softness).backward()
        theirs.step()
    torch.testing.assert_close(ours, x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_a_rate_for_each_instance_equals_separate_runs(rule):
    rates = torch.tensor([0.1, 0.02], dtype=torch.float64)
    together = run(rule, torch.tensor(0.7), rates.log(), create_graph=False)
    for i, rate in enumerate(rates):
        alone = run(rule, torch.tensor(0.7), rate.log(), create_graph=False)
        torch.testing.assert_close(together[i], alone[i], rtol=0, atol=0)


def test_a_float64_rate_keeps_float32_unknowns():
    x = START.float()
    rate = torch.tensor([0.1, 0.2], dtype=torch.float64)
    for rule in RULES:
        assert rule.step(x, x, rule.init(x), rate)[0].dtype == torch.float32


def test_adam_has_finite_outer_gradients_in_float32_where_a_gradient_is_zero():
    x = torch.ones(1, 2)
    gain = torch.ones((), requires_grad=True)
    rule = Adam()
    state = rule.init(x)
    for _ in range(3):
        x, state = rule.step(x, torch.stack([gain, gain * 0])[None], state, 0.1)
    (first,) = torch.autograd.grad(x.square().sum(), gain, create_graph=True)
    (second,) = torch.autograd.grad(first, gain)
    assert torch.isfinite(first) and torch.isfinite(second)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Adam(betas=(1.0, 0.9)), r"betas\[0\]"),
        (lambda: Adam(betas=(0.9, -0.1)), r"betas\[1\]"),
        (lambda: Adam(betas=(0.9, float("nan"))), r"betas\[1\]"),
        (lambda: Adam(eps=-1), "eps"),
        (lambda: Adam(eps_root=0), "eps_root"),
        (lambda: Momentum(1.5), "momentum"),
    ],
)
def test_numbers_out_of_range_are_refused_by_name(make, named):
    with pytest.raises(ValueError, match=named):
        make()


def test_shapes_that_do_not_fit_are_refused_by_name():
    x = torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"lr: .*shape \(3,\), got \(2,\)"):
        SGD().step(x, x, None, torch.ones(2))
    with pytest.raises(ValueError, match="grad"):
        SGD().step(x, torch.zeros(3, 1), None, 0.1)
