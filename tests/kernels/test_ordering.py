"""Sums in a soft order by kernels, against the same products in torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import taichi_raster as tr
from scenes import total
from taichi_raster.depth.over import PixelFragments
from taichi_raster.engine.soft_order import sums_by_torch, sums_in_soft_order
from taichi_raster.kernels import soft_order
from taichi_raster.runtime.device import Runtime
from taichi_raster.runtime.scratch import Scratch
from taichi_raster.runtime.variant import Variant


class Coarse(soft_order.SoftSums):
    """Polynomials of too few nodes."""

    def __init__(self, variant: Variant, scratch: Scratch, runtime: Runtime) -> None:
        super().__init__(variant, scratch, runtime)
        self.digits = 4.0


F64 = pytest.mark.runs_on(arch="cpu", precision="f64")
EVERY = pytest.mark.runs_on(arch=("cpu", "vulkan", "cuda"), precision=("f64", "f32"))


class Fragments:
    """A list in any order of the pixels; it has two attributes."""

    def __init__(self, coverage: Tensor, depth: Tensor, counts: Tensor) -> None:
        self.layers, self.pixels = coverage.shape
        slots = (torch.arange(self.layers)[:, None] < counts).flatten().nonzero()[:, 0]
        generator = torch.Generator().manual_seed(1)
        self.slots = slots[torch.randperm(len(slots), generator=generator)]
        attributes = torch.randn(2, len(slots), generator=generator, dtype=torch.float64)
        shown = torch.stack([values.flatten()[self.slots] for values in (coverage, depth)])
        self.shown = torch.cat([shown, attributes.to(coverage)])
        gamma = torch.rand(self.pixels, generator=generator, dtype=torch.float64)
        self.gamma = (0.5 + gamma).to(coverage)

    def sums(self, shown: Tensor, gamma: Tensor, kernel: bool = True) -> Tensor:
        """(3, P)."""
        fragments = PixelFragments(shown, self.slots, self.layers, self.pixels)
        return (sums_in_soft_order if kernel else sums_by_torch)(fragments, gamma)

    def leaves(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        return (
            self.shown.to(dtype).clone().requires_grad_(),
            self.gamma.to(dtype).clone().requires_grad_(),
        )


def fragments(layers: int, pixels: int, dtype: torch.dtype, hard: bool) -> Fragments:
    """Any; if `hard`, many hide all that is behind them."""
    generator = torch.Generator().manual_seed(layers)
    counts = torch.randint(0, layers + 1, (pixels,), generator=generator).int()
    counts[-1] = layers
    coverage = torch.rand(layers, pixels, generator=generator, dtype=torch.float64)
    depth = torch.randn(layers, pixels, generator=generator, dtype=torch.float64)
    if hard:
        chosen = torch.rand(2, layers, pixels, generator=generator) < 0.4
        coverage = torch.where(chosen[0], 1.0, coverage)
        depth = torch.where(chosen[1], 200 * depth, depth)
    return Fragments(coverage.to(dtype), depth.to(dtype), counts)


@EVERY
@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize(("layers", "pixels"), [(1, 1), (3, 5), (7, 70), (12, 33)])
def test_values_and_both_derivatives_are_those_of_torch(
    layers: int, pixels: int, hard: bool, dtype: torch.dtype
) -> None:
    scene = fragments(layers, pixels, dtype, hard)
    v = torch.linspace(-1, 2, 3 * pixels, dtype=dtype).view(3, pixels)
    found = []
    for kernel in (True, False):
        leaves = scene.leaves(dtype)
        value = scene.sums(*leaves, kernel)
        loss = (v * value).sum() + value.square().sum()
        first = torch.autograd.grad(loss, leaves, create_graph=True)
        again = total((g * torch.linspace(1, 2, g.numel()).view_as(g).to(g)).sum() for g in first)
        found.append([value, *first, *torch.autograd.grad(again, leaves)])
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    for ours, theirs in zip(*found, strict=True):
        assert torch.isfinite(ours).all()
        assert torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance)
    if hard:  # some are hidden wholly: their attributes have no gradient
        hidden = (found[0][1][2:] == 0).all(0) & (scene.shown[0] > 0)
        assert hidden.any() or layers == 1


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
    shape = layers, pixels
    coverage = torch.rand(shape, generator=generator, dtype=torch.float64) ** 4
    if kind == "opaque":
        hidden = torch.rand(shape, generator=generator) < 0.05
        coverage = torch.where(hidden, 1.0, 0.1 * coverage)
    elif kind == "faint":
        coverage = 0.02 * coverage
    depth = span * torch.rand(shape, generator=generator, dtype=torch.float64).sort(0)[0].flip(0)
    scene = Fragments(coverage.to(dtype), (5 + depth).to(dtype), counts)
    v = torch.randn(3, pixels, generator=generator, dtype=torch.float64)
    found = []
    for kernel in (True, False):
        kept = dtype if kernel else torch.float64
        leaves = scene.leaves(kept)
        value = scene.sums(*leaves, kernel)
        first = torch.autograd.grad((v.to(kept) * value).sum(), leaves)
        found.append([x.detach().double() for x in (value, *first)])
    tolerance = 1e-13 if dtype == torch.float64 else 2e-5
    sizes = [float(theirs.abs().max()) for theirs in found[1]]
    sizes[2] = max(sizes[2], 5 * sizes[1])  # the temperature's adds up what depths have
    for ours, theirs, size in zip(*found, sizes, strict=True):
        assert torch.isfinite(ours).all()
        assert (ours - theirs).abs().max() <= tolerance * size


@F64
def test_many_that_are_close_take_fewer_comparisons(monkeypatch: pytest.MonkeyPatch) -> None:
    """With too few nodes the result is wrong: so they are what it comes from."""
    depth = torch.linspace(3, 0, 90, dtype=torch.float64)[:, None]
    scene = Fragments(torch.full_like(depth, 0.05), depth, torch.tensor([90]).int())
    theirs = scene.sums(scene.shown, scene.gamma, kernel=False)
    assert (scene.sums(scene.shown, scene.gamma) - theirs).abs().max() < 1e-14
    monkeypatch.setattr(soft_order, "SoftSums", Coarse)
    coarse = (scene.sums(scene.shown, scene.gamma) - theirs).abs().max()
    assert 1e-7 < coarse < 1e-2


@F64
def test_finite_differences_agree() -> None:
    scene = fragments(4, 3, torch.float64, False)
    inputs = scene.leaves(torch.float64)
    assert torch.autograd.gradcheck(scene.sums, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(scene.sums, inputs)


@F64
def test_no_fragment_at_all_is_nothing() -> None:
    empty = torch.zeros(2, 5, dtype=torch.float64)
    scene = Fragments(empty, empty, torch.zeros(5).int())
    leaves = scene.leaves(torch.float64)
    value = scene.sums(*leaves)
    assert torch.equal(value, torch.zeros(3, 5, dtype=torch.float64))
    assert not any(bool(g.any()) for g in torch.autograd.grad(value.sum(), leaves))


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
