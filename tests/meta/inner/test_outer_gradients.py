"""The derivative of a whole rendered inner run is exact: it equals central differences."""

import math

import pytest
import torch

import taichi_raster as tr
from meta.inner.method import Method
from meta.inner.unroll import unroll
from meta.inner.updates import Adam
from tasks import Shape2D

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")


def outer_gradient_and_differences(method: Method, directions: dict[str, torch.Tensor]):
    """Outer gradients along `directions`, and central differences of the whole inner run."""
    drawn = Shape2D(triangles=(1, 2), image_size=12).sample(9, "train", 0)
    counts = drawn.present.sum(dim=1).tolist()
    task = drawn.select([counts.index(1), counts.index(2)])  # the first has a padded triangle

    def loss(params=None, create_graph=False):
        run = unroll(method, task, create_graph, params=params)
        return task.true_error(run.params).log().mean(), run.params

    value, ends = loss(create_graph=True)
    assert torch.equal(ends[~task.present], task.initial[~task.present])  # its gradient is zero
    gradients = torch.autograd.grad(value, [method.get_parameter(name) for name in directions])
    centre = method.parameter_dict()
    step = 1e-7  # small: the run is smooth only between switches of the nearest edge
    for gradient, (name, direction) in zip(gradients, directions.items(), strict=True):
        up, down = (
            loss({name: centre[name] + sign * step * direction})[0].item() for sign in (1, -1)
        )
        yield (gradient * direction).sum().item(), (up - down) / (2 * step)


def threshold_free(edge):
    """A distribution's triangles are in order, a network's share by a softmax."""
    softmax = isinstance(edge, tr.MLPSoftness)
    depth = tr.SoftmaxDepth(0.1) if softmax else tr.OverDepth()
    return tr.SoftRasterizer(12, edge, depth, near=0.5, far=3.0, threshold=0.0)


def network(scale):
    """A small one: a larger one is as exact, and takes longer to compile."""
    return tr.MLPSoftness((3, 3), scale=scale, seed=1, init=None)


@pytest.mark.parametrize("shape", ["logistic", "mlp"])  # other distributions: test_agreement.py
def test_the_outer_gradient_through_ten_adam_steps_equals_central_differences(shape):
    scale = tr.Knots([0.15, 0.06])
    edge = network(scale) if shape == "mlp" else tr.Distribution(shape, scale=scale)
    method = Method(threshold_free(edge), Adam(), tr.Knots([0.05, 0.02]), 10)
    generator = torch.Generator().manual_seed(2)
    directions = {
        name: torch.randn(value.shape, generator=generator, dtype=value.dtype)
        for name, value in method.learnable().items()
    }
    checked = list(outer_gradient_and_differences(method, directions))
    assert len(checked) == len(directions)
    for gradient, difference in checked:
        assert math.isfinite(gradient) and abs(difference) > 1e-4
        assert gradient == pytest.approx(difference, rel=1e-5)


def test_each_of_some_single_mlp_weights_has_the_outer_gradient_of_central_differences():
    edge = network(0.1)
    method = Method(threshold_free(edge), Adam(), tr.Constant(0.05), 10)
    name = "renderer.edge.weights"
    size = len(edge.weights)
    for index in (0, size // 2, size - 2):
        direction = torch.zeros(size, dtype=torch.float64)
        direction[index] = 1
        ((gradient, difference),) = outer_gradient_and_differences(method, {name: direction})
        assert gradient == pytest.approx(difference, rel=1e-5, abs=1e-9)


def test_a_plain_scale_parameter_has_the_outer_gradient_of_central_differences():
    scale = torch.nn.Parameter(torch.tensor(0.1, dtype=torch.float64))
    edge = tr.Distribution("logistic", scale=scale)
    method = Method(threshold_free(edge), Adam(), tr.Constant(0.05), 12)
    ((name, value),) = method.learnable().items()
    ((gradient, difference),) = outer_gradient_and_differences(
        method, {name: torch.ones_like(value)}
    )
    assert gradient == pytest.approx(difference, rel=1e-5)
