"""The inner loop: independent instances, equal with and without a graph, loud when it breaks."""

import importlib

import pytest
import torch
from torch import nn

from meta.inner.method import Method
from meta.inner.recompute import graph_bytes, recomputed
from meta.inner.unroll import batch_parameters, trajectory, unroll
from meta.inner.updates import SGD, Adam, Momentum
from toy_tasks import Rate, ToyBatch, ToyFamily, ToyRenderer

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")


def toy_method(rule=None, steps=8, **renderer):
    return Method(ToyRenderer(**renderer), rule or Adam(), Rate(), steps)


@pytest.fixture
def task():
    return ToyFamily().sample(5, "train", 0)


@pytest.mark.parametrize("rule", [SGD(), Momentum(), Adam()], ids=repr)
def test_the_graph_changes_no_value(task, rule):
    method = toy_method(rule)
    plain, graph = unroll(method, task), unroll(method, task, create_graph=True)
    assert torch.equal(plain.params, graph.params) and torch.equal(plain.losses, graph.losses)
    assert not plain.params.requires_grad and graph.params.requires_grad


class Nested:
    """A rule whose state is a nest of everything that a state may hold."""

    def init(self, params):
        return {"mean": [torch.zeros_like(params), None], "count": (0, "steps")}

    def step(self, params, grad, state, lr):
        mean = 0.5 * state["mean"][0] + grad
        count = state["count"][0] + 1
        return params - lr * mean / count, {"mean": [mean, None], "count": (count, "steps")}


@pytest.mark.parametrize(
    "rule", [SGD(), Momentum(), Adam(), Nested()], ids=lambda r: type(r).__name__
)
def test_recomputing_changes_no_outer_gradient(task, rule):
    method = toy_method(rule)
    found = []
    for recompute in (True, False, "auto"):
        run = unroll(method, task, create_graph=True, recompute=recompute)
        outer = task.true_error(run.params).mean()
        found.append(torch.autograd.grad(outer, list(method.learnable().values())))
    assert all(gradient.abs().max() > 1e-6 for gradient in found[0])
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=0)
    torch.testing.assert_close(found[0], found[2], rtol=1e-12, atol=0)


def test_as_many_graphs_are_kept_as_fit(task, monkeypatch):
    """Of eight steps: by default all, in no memory one, in between some."""
    method, made = toy_method(), list[int]()
    module = importlib.import_module("meta.inner.unroll")

    def counted(*arguments):
        made.append(1)
        return recomputed(*arguments)

    monkeypatch.setattr(module, "recomputed", counted)
    first = unroll(method, task, create_graph=True, until=1)
    size = graph_bytes(first.params, (task.start(),))
    assert 8 * task.start().numel() < size < 2**16
    wanted, found = {1: 7, 3 * size: 5, 3 * size - 1: 6, 2**29: 0}, {}
    gradients = []
    for memory in wanted:
        made.clear()
        monkeypatch.setattr(module, "GRAPH_MEMORY", memory)
        run = unroll(method, task, create_graph=True)
        found[memory] = len(made)
        outer = task.true_error(run.params).mean()
        gradients.append(torch.autograd.grad(outer, list(method.learnable().values())))
    assert found == wanted
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0], rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match=r"^recompute: .*'auto'"):
        unroll(method, task, create_graph=True, recompute="some")  # type: ignore[arg-type]


def test_what_a_graph_keeps_is_counted():
    a = torch.ones(1000, requires_grad=True)
    b = a.exp()
    c = (b * b).sin().sum()
    kept = graph_bytes(c, (b,))
    assert kept == 2 * 4000  # b, for the product; the product, for the sine
    assert graph_bytes(c, (a,)) == kept  # exp keeps its result, which is b, once more
    sparse = torch.eye(1000).to_sparse()
    d = torch.sparse.mm(sparse, a[:, None])
    assert graph_bytes(d, (a,)) >= 1000 * (4 + 2 * 8)  # the matrix: values and two indices each


def test_a_recomputed_gradient_is_not_differentiated_again(task):
    method = toy_method(steps=2)
    outer = task.true_error(unroll(method, task, create_graph=True, recompute=True).params).mean()
    learnable = list(method.learnable().values())
    gradient = torch.autograd.grad(outer, learnable, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_a_state_that_cannot_be_kept_is_named(task):
    class Opaque(SGD):
        def init(self, params):
            return object()

    with pytest.raises(TypeError, match="state holds a object"):
        unroll(toy_method(Opaque()), task, create_graph=True)
    unroll(toy_method(Opaque()), task, create_graph=True, recompute=False)


def test_losses_are_those_before_each_step(task):
    method = toy_method(steps=4)
    run, path = unroll(method, task), trajectory(method, task)
    assert path.shape == (5, 5, 3) and torch.equal(path[0], task.start())
    assert torch.equal(path[-1], run.params)
    for step in range(4):
        with torch.no_grad():
            loss = task.loss(path[step], method.renderer, step / 4)
        torch.testing.assert_close(run.losses[step], loss, rtol=0, atol=0)


def test_progress_is_step_over_steps(task):
    seen = []

    class Watching(ToyRenderer):
        def forward(self, distance, progress):
            seen.append(float(progress))
            return super().forward(distance, progress)

    unroll(Method(Watching(), SGD(), Rate(), 4), task)
    assert seen == [0, 0.25, 0.5, 0.75]


def test_instances_do_not_influence_one_another(task):
    method = toy_method()
    together = unroll(method, task).params
    for i in range(task.batch_size):
        alone = unroll(method, ToyBatch(task.hidden[i : i + 1], task.initial[i : i + 1])).params
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=0)


def test_several_softnesses_in_one_run_equal_separate_runs(task):
    methods = [toy_method(log_scale=s, slope=k) for s, k in [(0.3, -1), (-1, 0.5), (0.0, 0.2)]]
    candidates = [method.parameter_dict() for method in methods]
    together = unroll(
        methods[0], task.repeat(3), params=batch_parameters(candidates, task.batch_size)
    )
    separate = torch.cat([unroll(method, task).params for method in methods])
    torch.testing.assert_close(together.params, separate, rtol=0, atol=0)


def test_gradients_of_one_run_per_instance_equal_those_of_separate_runs(task):
    method = toy_method()
    own = {k: v.clone().requires_grad_() for k, v in method.parameter_dict().items()}
    batched = {k: v.detach().repeat(task.batch_size).requires_grad_() for k, v in own.items()}
    end = task.true_error(unroll(method, task, True, params=batched).params)
    together = torch.autograd.grad(end.sum(), list(batched.values()))
    for i in range(task.batch_size):
        single = task.true_error(unroll(method, task, True, params=own).params)[i]
        for name_grad, alone in zip(
            together, torch.autograd.grad(single, list(own.values())), strict=True
        ):
            torch.testing.assert_close(name_grad[i], alone, rtol=1e-12, atol=1e-12)


def test_the_method_is_left_as_it_was(task):
    method = toy_method()
    before = method.parameter_dict()
    unroll(method, task, params={"lr.log_rate": torch.tensor(-1.0)})
    assert all(torch.equal(before[k], v) for k, v in method.named_parameters())
    assert all(parameter.grad is None for parameter in method.parameters())


def test_a_loss_that_is_not_finite_names_step_and_instance(task):
    class Breaks(ToyRenderer):
        def forward(self, distance, progress):
            loss = super().forward(distance, progress)
            bad = torch.zeros_like(loss)
            bad[2] = float("nan") if progress >= 0.5 else 0.0
            return loss + bad

    method = Method(Breaks(), SGD(), Rate(), 4)
    with pytest.raises(FloatingPointError, match=r"inner step 2 of 4: the loss of instance 2 "):
        unroll(method, task)


def test_an_unknown_that_is_not_finite_names_the_step(task):
    method = Method(ToyRenderer(), SGD(), Rate(float("inf")), 4)
    with pytest.raises(FloatingPointError, match="inner step 0 of 4: an unknown"):
        unroll(method, task)


def test_wrong_arguments_are_refused_by_name(task):
    with pytest.raises(ValueError, match=r"params: unknown names \['renderer.scale'\]"):
        unroll(toy_method(), task, params={"renderer.scale": torch.ones(())})
    with pytest.raises(ValueError, match="steps"):
        toy_method(steps=0)
    with pytest.raises(TypeError, match="lr: expected a schedule"):
        Method(ToyRenderer(), SGD(), 0.1, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="rule"):
        Method(ToyRenderer(), nn.Identity(), Rate(), 3)  # type: ignore[arg-type]

    class Summed(ToyRenderer):
        def forward(self, distance, progress):
            return super().forward(distance, progress).sum()

    with pytest.raises(ValueError, match=r"one loss per instance, shape \(5,\), got \(\)"):
        unroll(Method(Summed(), SGD(), Rate(), 3), task)

    class Blind(ToyRenderer):
        def forward(self, distance, progress):
            return super().forward(distance.detach(), progress)

    with pytest.raises(ValueError, match="does not depend on params"):
        unroll(Method(Blind(), SGD(), Rate(), 3), task)


def test_parameters_of_another_method_are_refused():
    method = toy_method()
    with pytest.raises(ValueError, match="another method"):
        method.load({"lr.log_rate": torch.zeros(())})
    with pytest.raises(ValueError, match=r"parameters\['lr.log_rate'\]"):
        method.load(method.parameter_dict() | {"lr.log_rate": torch.zeros(2)})
