"""What all outer-gradient estimators promise; each has a test file of its own beside this one."""

import pytest
import torch

from meta.estimators import ESTIMATORS
from meta.outer.loss import OuterLoss
from toy_tasks import ToyFamily, toy_method

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")


@pytest.fixture
def task():
    return ToyFamily().sample(6, "train", 0)


@pytest.mark.parametrize("name", ["exact", "truncated", "es", "pes"])
def test_the_soft_loss_is_refused_where_a_softness_could_hide_errors(task, name):
    with pytest.raises(ValueError, match="hide errors"):
        ESTIMATORS[name](toy_method(), task, OuterLoss("soft"))


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_frozen_parameters_are_left_alone(task, name):
    method = toy_method()
    method.renderer.slope.requires_grad_(False)
    outer = OuterLoss("soft" if "soft" in ESTIMATORS[name].outer_kinds else "true")
    grads = ESTIMATORS[name](method, task, outer, generator=torch.Generator()).grads
    assert "renderer.slope" not in grads and "renderer.log_scale" in grads
