"""T-conorms whose p is far from 1, in float32: alpha stays in [0, 1], and finite."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import taichi_raster as tr
from scenes import total

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")


def faces() -> Tensor:
    """Faces that overlap, and two that cover the picture, so that some pixels saturate."""
    g = torch.Generator().manual_seed(0)
    found = torch.rand(1, 8, 3, 3, generator=g) * 2 - 1
    found[..., 2] = 2 + found[..., 2] / 2
    cover = torch.tensor([[-3.0, -3.0, 2.3], [3.0, -3.0, 2.3], [0.0, 4.0, 2.3]])
    return torch.cat([found, cover.expand(1, 2, 3, 3)], 1)


def render(name: str, p: Tensor, shown: Tensor) -> Tensor:
    edge = tr.Distribution("gaussian", 0.1)
    return tr.SoftRasterizer(12, edge, alpha=tr.TConorm(name, p), near=0.5, far=5.0).silhouette(
        shown
    )


@pytest.mark.parametrize(
    ("name", "p"),
    [("frank", 1e3), ("frank", 1e6), ("frank", 1e8), ("frank", 1e-6), ("hamacher", 0.0)],
)
def test_alpha_stays_in_range_with_finite_derivatives(name: str, p: float) -> None:
    number = torch.tensor(p, requires_grad=True)
    shown = faces().requires_grad_()
    alpha = render(name, number, shown)
    assert float(alpha.detach().min()) >= 0 and float(alpha.detach().max()) <= 1 + 2e-7
    first = torch.autograd.grad(alpha.sum(), [number, shown], create_graph=True)
    second = torch.autograd.grad(total(v.sum() for v in first), [number, shown])
    for value in (*first, *second):
        assert bool(value.isfinite().all())


@pytest.mark.parametrize("p", [1e3, 1e6])
def test_franks_conorm_of_one_face_is_its_coverage(p: float) -> None:
    """Zero is neutral: A(a, 0) = a."""
    one = faces()[:, :1]
    alpha = render("frank", torch.tensor(p), one)
    alone = tr.SoftRasterizer(
        12, tr.Distribution("gaussian", 0.1), alpha=tr.TConorm("max"), near=0.5, far=5.0
    ).silhouette(one)
    torch.testing.assert_close(alpha, alone, rtol=0, atol=3e-6)
