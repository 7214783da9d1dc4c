"""float32 keeps its digits where gamma is small: depths are relative to the pixel's nearest."""

import pytest
import torch

import taichi_raster as tr


@pytest.mark.runs_on(precision="f32")
@pytest.mark.parametrize("gamma", [0.03, 0.01, 0.003])
def test_the_derivative_in_a_small_gamma_is_the_closed_form(gamma: float) -> None:
    """One face over its whole picture, at constant depth z: with a = F = 1, colour is
    1 / (1 + exp((b - z_norm) / gamma)) for background depth b and colour 0.
    """
    near, far, z = 1.0, 3.0, 1.5
    z_norm = (far - z) / (far - near)
    b = z_norm - 0.7 * gamma
    xy = torch.tensor([[-9.0, -9.0], [9.0, -9.0], [0.0, 12.0]])
    faces = torch.cat([xy, torch.full((3, 1), z)], dim=1)[None, None]
    g = torch.tensor(gamma, requires_grad=True)
    renderer = tr.SoftRasterizer(
        2, tr.Distribution("logistic", 0.01), tr.SoftmaxDepth(g, b), near=near, far=far
    )
    colour = renderer(faces, torch.ones(1, 1, 3, 1))[..., 0].mean()
    (first,) = torch.autograd.grad(colour, g, create_graph=True)
    (second,) = torch.autograd.grad(first, g)
    exact = torch.tensor(gamma, dtype=torch.float64, requires_grad=True)
    depth = torch.tensor(b, dtype=torch.float64) - z_norm
    expected = torch.sigmoid(-depth / exact)
    (slope,) = torch.autograd.grad(expected, exact, create_graph=True)
    (curve,) = torch.autograd.grad(slope, exact)
    assert float(abs(first - slope) / abs(slope)) < 2e-3 * 0.01 / gamma + 1e-4
    assert float(abs(second - curve) / abs(curve)) < 1e-2 * 0.01 / gamma + 1e-3
