"""A soft order's transmittances by kernels, against the same products in torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import taichi_raster as tr
from scenes import total
from taichi_raster.engine.soft_order import through_by_torch, through_softly

F64 = pytest.mark.runs_on(arch="cpu", precision="f64")
EVERY = pytest.mark.runs_on(arch=("cpu", "vulkan", "cuda"), precision=("f64", "f32"))


def fragments(
    layers: int, pixels: int, dtype: torch.dtype, hard: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Coverages, depths, how many are there; if `hard`, many hide all that is behind them."""
    generator = torch.Generator().manual_seed(layers)
    counts = torch.randint(0, layers + 1, (pixels,), generator=generator).int()
    counts[-1] = layers
    coverage = torch.rand(layers, pixels, generator=generator, dtype=torch.float64)
    depth = torch.randn(layers, pixels, generator=generator, dtype=torch.float64)
    if hard:
        chosen = torch.rand(2, layers, pixels, generator=generator) < 0.4
        coverage = torch.where(chosen[0], 1.0, coverage)
        depth = torch.where(chosen[1], 200 * depth, depth)
    there = torch.arange(layers)[:, None] < counts
    return (coverage * there).to(dtype), depth.to(dtype), counts


@EVERY
@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize(("layers", "pixels"), [(1, 1), (3, 5), (7, 70), (12, 33)])
def test_values_and_both_derivatives_are_those_of_torch(
    layers: int, pixels: int, hard: bool, dtype: torch.dtype
) -> None:
    coverage, depth, counts = fragments(layers, pixels, dtype, hard)
    there = torch.arange(layers)[:, None] < counts
    weights = torch.linspace(-1, 2, layers * pixels).view(layers, pixels).to(dtype)
    found = []
    for through in (lambda a, z: through_softly(a, z, counts), through_by_torch):
        a, z = (t.clone().requires_grad_() for t in (coverage, depth))
        value = through(a, z) * there
        first = torch.autograd.grad(
            (weights * value).sum() + value.square().sum(), (a, z), create_graph=True
        )
        again = total((g * there * weights).sum() for g in first)
        second = torch.autograd.grad(again, (a, z), allow_unused=True, materialize_grads=True)
        found.append([value, *first, *second])
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    for ours, theirs in zip(*found, strict=True):
        assert torch.isfinite(ours).all()
        assert torch.allclose(ours * there, theirs * there, rtol=tolerance, atol=tolerance)
    if hard:
        assert (found[0][0][there] == 0).any() or layers == 1  # some are hidden wholly


@F64
def test_finite_differences_agree() -> None:
    coverage, depth, counts = fragments(4, 3, torch.float64, False)

    def through(a: Tensor, z: Tensor) -> Tensor:
        return through_softly(a, z, counts)

    inputs = (coverage.clone().requires_grad_(), depth.clone().requires_grad_())
    assert torch.autograd.gradcheck(through, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(through, inputs)


@F64
def test_a_render_between_forward_and_backward_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    xy = torch.rand(1, 6, 3, 2, generator=generator, dtype=torch.float64) * 2 - 1
    z = torch.rand(1, 6, 3, 1, generator=generator, dtype=torch.float64) + 1
    faces, colours = torch.cat([xy, z], -1), torch.rand(1, 6, 3, 3, dtype=torch.float64)
    renderer = tr.SoftRasterizer(12, tr.Distribution("logistic", 0.1), tr.OverDepth(0.1))
    gradients = []
    for between in (False, True):
        moved = faces.clone().requires_grad_()
        image = renderer(moved, colours)
        if between:
            renderer(faces.flip(1) + 0.1, colours)
        gradients.append(torch.autograd.grad(image.square().sum(), moved)[0])
    assert torch.equal(*gradients)
