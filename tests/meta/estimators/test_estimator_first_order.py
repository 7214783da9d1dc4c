"""The published first-order estimator: its definition, and the losses that it cannot see."""

import pytest
import torch

from meta.estimators import first_order_gradient
from meta.inner.unroll import unroll
from meta.outer.loss import OuterLoss
from toy_tasks import ToyFamily, toy_method

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")


@pytest.fixture
def task():
    return ToyFamily().sample(6, "train", 0)


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
    with pytest.raises(ValueError, match=r"first_order estimator .* identically|gradient is zero"):
        first_order_gradient(toy_method(), task, OuterLoss(kind))
