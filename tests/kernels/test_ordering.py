"""A soft order's transmittances by kernels, against the same products in torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import taichi_raster as tr
from scenes import total
from taichi_raster.engine import soft_order
from taichi_raster.engine.soft_order import through_by_torch, through_softly
from taichi_raster.kernels.soft_order import Transmittance
from taichi_raster.runtime.device import Runtime
from taichi_raster.runtime.scratch import Scratch
from taichi_raster.runtime.variant import Variant


class Coarse(Transmittance):
    """Polynomials of too few nodes."""

    def __init__(self, variant: Variant, scratch: Scratch, runtime: Runtime) -> None:
        super().__init__(variant, scratch, runtime)
        self.digits = 4.0


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


@EVERY
@pytest.mark.parametrize("span", [0.0, 0.01, 1.0, 3.9, 30.0])
@pytest.mark.parametrize("kind", ["any", "opaque", "faint"])
def test_many_that_are_close_in_depth_are_as_right_as_few(
    kind: str, span: float, dtype: torch.dtype
) -> None:
    """They go by polynomials, which differ from products by rounding alone."""
    layers, pixels = 90, 35
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(layers // 3, layers + 1, (pixels,), generator=generator).int()
    there = torch.arange(layers)[:, None] < counts
    shape = layers, pixels
    coverage = torch.rand(shape, generator=generator, dtype=torch.float64) ** 4
    if kind == "opaque":
        hidden = torch.rand(shape, generator=generator) < 0.05
        coverage = torch.where(hidden, 1.0, 0.1 * coverage)
    elif kind == "faint":
        coverage = 0.02 * coverage
    depth = span * torch.rand(shape, generator=generator, dtype=torch.float64).sort(0)[0].flip(0)
    depth = torch.where(there, 5 + depth, 0.0)  # whatever is not there lies elsewhere
    coverage, depth = ((x * there).to(dtype).double() for x in (coverage, depth))
    v = torch.randn(shape, generator=generator, dtype=torch.float64) * there
    found = []
    for kernel in (True, False):
        kept = dtype if kernel else torch.float64
        a, z = (x.to(kept).requires_grad_() for x in (coverage, depth))
        value = through_softly(a, z, counts) if kernel else through_by_torch(a, z)
        first = torch.autograd.grad((v.to(kept) * value).sum(), (a, z))
        found.append([x.detach().double() * there for x in (value, *first)])
    tolerance = 1e-13 if dtype == torch.float64 else 2e-5
    for ours, theirs in zip(*found, strict=True):
        assert torch.isfinite(ours).all()
        assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


@F64
def test_many_that_are_close_take_fewer_comparisons(monkeypatch: pytest.MonkeyPatch) -> None:
    """With too few nodes the result is wrong: so they are what it comes from."""
    depth = torch.linspace(3, 0, 90, dtype=torch.float64)[:, None]
    coverage, counts = torch.full_like(depth, 0.05), torch.tensor([90]).int()
    theirs = through_by_torch(coverage, depth)
    assert (through_softly(coverage, depth, counts) - theirs).abs().max() < 1e-14
    monkeypatch.setattr(soft_order, "Transmittance", Coarse)
    coarse = (through_softly(coverage, depth, counts) - theirs).abs().max()
    assert 1e-7 < coarse < 1e-2


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
