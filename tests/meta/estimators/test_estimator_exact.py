"""The exact estimator: finite differences of the whole run."""

import pytest

from meta.estimators import exact_gradient
from meta.inner.unroll import unroll
from meta.inner.updates import SGD, Adam, Momentum
from meta.outer.loss import OuterLoss
from toy_tasks import ToyFamily, toy_method

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")


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
