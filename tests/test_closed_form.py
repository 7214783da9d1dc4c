"""The closed-form vector-Jacobian product equals the reverse pass that Taichi derives."""

from collections.abc import Iterator

import pytest
import torch

import taichi_raster as tr
from taichi_raster.engine import engine

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")


@pytest.fixture(autouse=True)
def restore_choice() -> Iterator[None]:
    yield
    engine().prefer_autodiff = False


@pytest.mark.parametrize("perspective", [True, False])
@pytest.mark.parametrize("depth", ["softmax", "hard"])
@pytest.mark.parametrize("edge", ["logistic", "uniform", "mlp"])
def test_closed_form_is_autodiffs(edge: str, depth: str, perspective: bool) -> None:
    generator = torch.Generator().manual_seed(5)
    draw = {"generator": generator, "dtype": torch.float64}
    xy, z = torch.rand(2, 5, 3, 2, **draw) * 1.6 - 0.8, torch.rand(2, 5, 3, 1, **draw) + 1
    vertices = torch.cat([xy, z], dim=-1).requires_grad_()
    attributes = torch.rand(2, 5, 3, 3, **draw).requires_grad_()
    wanted = [vertices, attributes]
    gamma = torch.tensor(0.1, dtype=torch.float64)
    if edge == "mlp":  # with its weights fixed: the closed form has no gradient to them
        softness: tr.EdgeSoftness = tr.MLPSoftness((3, 3, 3, 3), scale=0.1)
        softness.requires_grad_(False)
        softness.weights.add_(torch.randn(softness.weights.shape, **draw), alpha=0.3)
    else:
        scale = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
        softness = tr.Distribution(edge, scale=scale)
        wanted.append(scale)
        if depth == "softmax":
            wanted.append(gamma.requires_grad_())
    renderer = tr.SoftRasterizer(
        (19, 21),
        edge=softness,
        depth=tr.SoftmaxDepth(gamma) if depth == "softmax" else tr.HardDepth(),
        near=0.5,
        far=3.0,
        perspective_correct=perspective,
    )
    seed = torch.randn(2, 19, 21, 4, **draw)
    gradients = {}
    for autodiff in (False, True):
        engine().prefer_autodiff = autodiff
        loss = (renderer(vertices, attributes) * seed).sum()
        gradients[autodiff] = torch.autograd.grad(loss, wanted)
    for closed, reverse in zip(gradients[False], gradients[True], strict=True):
        assert reverse.norm() > 0
        assert (closed - reverse).norm() < 1e-13 * reverse.norm()
