"""Smoothed offsets and uniform Adam: the equations that they stand for."""

import pytest
import torch

from taichi_raster.fitting.deformation import SmoothOffsets, UniformAdam
from taichi_raster.scene.procedural import icosphere

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
F64 = torch.float64


def test_offsets_solve_the_smoothing_equation():
    sphere = icosphere(1, dtype=F64)
    surface = SmoothOffsets(sphere, smoothing=3.0)
    assert torch.equal(surface(), sphere.vertices)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(42, 3, dtype=F64, generator=generator)
    with torch.no_grad():
        surface.offsets.copy_(x)
    moved = surface() - sphere.vertices
    edges = (
        sphere.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2).sort(dim=1).values.unique(dim=0)
    )
    laplacian = torch.zeros(42, 3, dtype=F64)
    for i, j in edges.tolist():
        laplacian[i] += moved[i] - moved[j]
        laplacian[j] += moved[j] - moved[i]
    torch.testing.assert_close(moved + 3.0 * laplacian, x)


def test_a_uniform_shift_is_not_smoothed_away():
    surface = SmoothOffsets(icosphere(1, dtype=F64), smoothing=10.0)
    with torch.no_grad():
        surface.offsets.fill_(0.25)
    torch.testing.assert_close(surface() - surface.start, torch.full((42, 3), 0.25, dtype=F64))


def test_without_smoothing_each_vertex_moves_on_its_own():
    surface = SmoothOffsets(icosphere(0, dtype=F64), smoothing=0.0)
    torch.testing.assert_close(surface.spread, torch.eye(12, dtype=F64))
    with pytest.raises(ValueError, match=r"^smoothing: "):
        SmoothOffsets(icosphere(0), smoothing=-1.0)


def test_uniform_adam_keeps_the_proportions_of_a_constant_gradient():
    x = torch.zeros(3, dtype=F64)
    adam = UniformAdam(x)
    gradient = torch.tensor([1.0, -0.1, 0.0], dtype=F64)
    for _ in range(5):
        adam.step(7.0 * gradient, 0.01)
    torch.testing.assert_close(x, -0.05 * gradient)


def test_uniform_adam_finds_a_minimum_and_survives_a_zero_gradient():
    x = torch.tensor([1.0, -2.0], dtype=F64)
    adam = UniformAdam(x)
    for step in range(300):
        adam.step(2 * x, 0.1 * 0.98**step)
    assert x.abs().max() < 1e-2
    still = torch.ones(2, dtype=F64)
    UniformAdam(still).step(torch.zeros(2, dtype=F64), 0.1)
    assert torch.equal(still, torch.ones(2, dtype=F64))
