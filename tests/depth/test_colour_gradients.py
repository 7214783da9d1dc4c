"""Do colours of the default renderer move as those of the exact picture do?"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import taichi_raster as tr

F64 = pytest.mark.runs_on(arch="cpu", precision="f64")
SIZE = 64


def slopes(renderer: tr.SoftRasterizer | tr.SharpRasterizer, smooth: bool = True) -> Tensor:
    """Of sums of the picture times smooth random ones, along shifts of two balls.

    One ball is in front of the other, and both have smooth colours, or are white on black.
    """
    ball, behind = tr.icosphere(2, 0.35), tr.icosphere(2, 0.8)
    faces = torch.cat([ball.faces, behind.faces + len(ball.vertices)])
    camera = tr.PerspectiveCamera(tr.orbit(2.7, 20.0, 30.0), fov=42.0)
    still = ball.vertices.double() + torch.tensor([0.45, 0.3, 0.55]), behind.vertices.double()
    place = torch.cat([ball.vertices * 2, behind.vertices]).double()
    shades = 0.5 + 0.5 * torch.sin(4 * place)
    if not smooth:
        shades = torch.zeros_like(shades)
        shades[: len(ball.vertices)] = 1.0
    shifts = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    moved = torch.cat([v + shift for v, shift in zip(still, shifts, strict=True)])
    corners = tr.gather_faces(camera.project(moved[None]), faces)
    image = renderer(corners, tr.gather_faces(shades[None], faces))[0, ..., :3]
    g = torch.Generator().manual_seed(0)
    coarse = torch.randn(8, 3, SIZE // 8, SIZE // 8, generator=g, dtype=torch.float64)
    weights = torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bicubic")
    sums = (weights.movedim(1, -1) * image).sum((1, 2, 3))
    found = [torch.autograd.grad(s, shifts, retain_graph=True)[0] for s in sums]
    return torch.stack(found).flatten()


def agreement(found: Tensor, truth: Tensor) -> tuple[float, float]:
    """Cosine, and slope of the one over the other by least squares."""
    along = float((found * truth).sum())
    return along / float(found.norm() * truth.norm()), along / float(truth.square().sum())


def soft(pixels: float, **options: object) -> tr.SoftRasterizer:
    edge = tr.Distribution("gaussian", pixels * 2 / SIZE)
    return tr.SoftRasterizer(SIZE, edge, near=1.0, far=5.0, background=0.4, **options)  # type: ignore[arg-type]


@F64
@pytest.mark.parametrize("smooth", [True, False])
def test_colours_move_as_the_exact_picture_does(smooth: bool) -> None:
    """A quarter pixel does if each pixel is looked at four times, half a pixel nearly does."""
    truth = slopes(tr.SharpRasterizer(SIZE, near=1.0, far=5.0, background=0.4), smooth)
    cosine, slope = agreement(slopes(soft(0.25, antialias=2), smooth), truth)
    assert cosine > 0.99 and 0.95 < slope < 1.05
    once, _ = agreement(slopes(soft(0.25), smooth), truth)
    assert 0.93 < once < cosine
    cosine, slope = agreement(slopes(soft(0.5), smooth), truth)
    assert cosine > 0.97 and 0.95 < slope < 1.05
    softmax, _ = agreement(slopes(soft(0.5, depth=tr.SoftmaxDepth()), smooth), truth)
    assert softmax < 0.9
