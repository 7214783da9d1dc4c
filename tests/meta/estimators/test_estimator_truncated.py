"""Truncated unrolls: exact for one window, and biased by exactly what earlier steps contribute."""

from typing import Any

import pytest
import torch
from torch import nn

from meta.estimators import exact_gradient, truncated_gradient
from meta.inner.method import Method
from meta.inner.unroll import unroll, windows
from meta.inner.updates import SGD, Adam, Momentum
from meta.outer.loss import OuterLoss
from toy_tasks import (
    FixedRate,
    Quadratic,
    QuadraticTask,
    Rate,
    ToyFamily,
    ToyRenderer,
    toy_method,
)

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

OUTER = OuterLoss("true")
RULES = pytest.mark.parametrize("rule", [SGD(), Momentum(), Adam()], ids=repr)


@pytest.fixture
def task():
    return ToyFamily().sample(6, "train", 0)


def assert_equal(ours, wanted, rtol=1e-12):
    assert ours.keys() == wanted.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=rtol, atol=1e-14)


@RULES
@pytest.mark.parametrize("which", ["all", "last"])
def test_one_window_of_the_whole_run_is_the_exact_estimator(task, rule, which):
    method = toy_method(rule)
    exact = exact_gradient(method, task, OUTER)
    ours = truncated_gradient(method, task, OUTER, window=12, windows=which)
    assert ours.loss == pytest.approx(exact.loss, rel=1e-14)
    assert_equal(ours.grads, exact.grads)


class EarlyLate(nn.Module):
    """One module before some progress, another from there on: separate parameters."""

    def __init__(self, early, late, begin):
        super().__init__()
        self.early, self.late, self.begin = early, late, begin

    def at(self, progress):
        return self.late if progress >= self.begin - 1e-9 else self.early


class EarlyLateRenderer(EarlyLate):
    def forward(self, distance, progress):
        return self.at(progress)(distance, progress)


class EarlyLateRate(EarlyLate):
    def forward(self, progress):
        return self.at(progress)(progress)


@RULES
@pytest.mark.parametrize("window", [1, 5, 11])
def test_the_last_window_is_the_derivative_with_early_parameters_held_fixed(task, rule, window):
    ours = truncated_gradient(toy_method(rule), task, OUTER, window=window, windows="last")
    begin = 1 - window / 12
    apart = Method(
        EarlyLateRenderer(ToyRenderer(), ToyRenderer(), begin),
        rule,
        EarlyLateRate(Rate(), Rate(), begin),
        12,
    )

    def loss(name, shift):
        late = name.replace(".", ".late.")
        moved = {late: apart.get_parameter(late).detach() + shift}
        return OUTER.per_instance(apart, task, unroll(apart, task, params=moved).params).mean()

    assert ours.loss == pytest.approx(exact_gradient(toy_method(rule), task, OUTER).loss, rel=1e-12)
    for name, gradient in ours.grads.items():
        difference = (loss(name, 1e-5) - loss(name, -1e-5)).item() / 2e-5
        assert gradient.item() == pytest.approx(difference, rel=1e-5, abs=1e-9)


@RULES
def test_windows_are_those_of_shorter_runs_averaged(task, rule):
    # Steps 12 in windows of 5 end at 2, 7 and 12.
    assert windows(12, 5) == [(0, 2), (2, 7), (7, 12)]
    method = toy_method(rule)
    learnable = method.learnable()
    parts, losses, run = [], [], None
    for end in (2, 7, 12):
        run = unroll(method, task, create_graph=True, after=run and run.detached(), until=end)
        loss = OUTER.per_instance(method, task, run.params).mean()
        parts.append(torch.stack(torch.autograd.grad(loss, list(learnable.values()))))
        losses.append(loss.item())
    for weights in (None, (1.0, 0.0, 3.0)):
        ours = truncated_gradient(method, task, OUTER, window=5, weights=weights)
        shares = torch.tensor(weights or (1.0, 1.0, 1.0), dtype=torch.float64)
        shares = shares / shares.sum()
        wanted = (shares[:, None] * torch.stack(parts)).sum(dim=0)
        assert_equal(ours.grads, dict(zip(learnable, wanted, strict=True)))
        assert ours.loss == pytest.approx(float(shares @ torch.tensor(losses).double()), rel=1e-6)
    last = truncated_gradient(method, task, OUTER, window=5, windows="last")
    assert_equal(
        last.grads, truncated_gradient(method, task, OUTER, window=5, weights=(0, 0, 1)).grads
    )


@pytest.mark.parametrize("window", [1, 2, 4, 6])
def test_the_bias_on_a_quadratic_is_its_closed_form(window):
    # x_T = point (1 - q^T) with q = 1 - lr, and the last K steps alone move it by 1 - q^K.
    steps, keep = 6, 0.7
    offsets = torch.randn((3, 4), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    task = QuadraticTask(offsets)
    quadratic = Quadratic()
    method = Method(quadratic, SGD(), FixedRate(1 - keep), steps)
    outer = OuterLoss("true", "identity")
    end = quadratic.point.detach() * (1 - keep**steps)
    slope = 2 * task.curvature * (end - offsets.mean(dim=0))
    ours = truncated_gradient(method, task, outer, window=window, windows="last")
    torch.testing.assert_close(ours.grads["renderer.point"], slope * (1 - keep**window))
    total = exact_gradient(method, task, outer).grads["renderer.point"]
    bias = -slope * (keep**window - keep**steps)
    torch.testing.assert_close(ours.grads["renderer.point"] - total, bias, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("which", ["all", "last"])
def test_recomputing_changes_nothing(task, which):
    found = [
        truncated_gradient(toy_method(), task, OUTER, window=5, windows=which, recompute=recompute)
        for recompute in (True, False)
    ]
    assert found[0].loss == found[1].loss
    assert_equal(found[0].grads, found[1].grads)


@RULES
@pytest.mark.parametrize("create_graph", [True, False])
def test_a_run_in_pieces_is_the_whole_run(task, rule, create_graph):
    method = toy_method(rule)
    seen = []
    whole = unroll(method, task, create_graph)
    run = unroll(method, task, create_graph, until=5)
    assert run.step == 5 and len(run.losses) == 5
    rest = unroll(method, task, create_graph, after=run, record=lambda t, x: seen.append(t))
    assert torch.equal(rest.params, whole.params) and seen == list(range(5, 13))
    assert torch.equal(torch.cat([run.losses, rest.losses]), whole.losses)
    if create_graph:  # the graph goes through both pieces
        learnable = list(method.learnable().values())
        pieces, one = (
            torch.autograd.grad(task.true_error(r.params).mean(), learnable) for r in (rest, whole)
        )
        torch.testing.assert_close(pieces, one, rtol=1e-12, atol=1e-14)
    assert not run.detached().params.requires_grad


def test_wrong_options_are_refused_by_name(task):
    method = toy_method()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"window": 0}, r"window must be an integer in \[1, 12\]"),
        ({"window": 13}, "window"),
        ({"window": 2.5}, "window"),
        ({"windows": "first"}, "windows"),
        ({"window": 6, "weights": (1.0,)}, "weights: expected one for each of 2"),
        ({"window": 6, "weights": (0.0, 0.0)}, "weights"),
        ({"window": 6, "weights": (1.0, float("nan"))}, "weights"),
        ({"window": 6, "windows": "last", "weights": (0.0, 1.0)}, "weights"),
    ]
    for options, named in wrong:
        with pytest.raises(ValueError, match=named):
            truncated_gradient(method, task, OUTER, **options)
    with pytest.raises(ValueError, match="until"):
        unroll(method, task, until=13)
    with pytest.raises(ValueError, match="none is left"):
        unroll(method, task, after=unroll(method, task))
