"""What binning leaves out never counts: images of many tiles against the twin, which sees all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import taichi_raster as tr
import twin_modes
from modes import SHAPED, SMOOTH, with_weights

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
SIZE = (77, 130)  # of 10 x 17 tiles, the last ones cut off


def small_faces(seed: int) -> Tensor:
    """(1, 12, 3, 3): small triangles strewn over the image and past its borders."""
    g = torch.Generator().manual_seed(seed)
    centre = (torch.rand(12, 1, 2, generator=g, dtype=torch.float64) - 0.5) * torch.tensor([4, 3])
    corner = 0.15 * torch.randn(12, 3, 2, generator=g, dtype=torch.float64)
    z = 1 + 3 * torch.rand(12, 3, 1, generator=g, dtype=torch.float64)
    return torch.cat([centre + corner, z], -1)[None]


def assert_is_twin(edge: Any, threshold: float, seed: int, **options: Any) -> None:
    faces = small_faces(seed)
    colours = torch.rand(1, 12, 3, 2, generator=torch.Generator().manual_seed(seed)).double()
    renderer = tr.SoftRasterizer(
        SIZE, edge, tr.SoftmaxDepth(0.1, 0.3), threshold=threshold, near=0.5, far=10, **options
    )
    found, expected = renderer(faces, colours), twin_modes.render(renderer, faces, colours)
    assert float(expected[..., -1].max()) > 0.01
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)  # the twin's own tails


@pytest.mark.parametrize("threshold", [0.03, 1e-6, 0.0])
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("name", SMOOTH)
def test_a_distribution_reaches_every_pixel_that_it_should(
    name: str, squared: bool, threshold: float
) -> None:
    shape = 1.7 if name in SHAPED else None
    for seed, shift in enumerate((-2.5, 0.0, 3.0)):
        scale = 1e-3 if squared else 0.02
        edge = tr.Distribution(name, scale, squared, shape, shift)
        assert_is_twin(edge, threshold, seed)


@pytest.mark.parametrize("threshold", [0.03, 1e-6])
@pytest.mark.parametrize("seed", range(6))
def test_a_network_reaches_every_pixel_that_it_should(seed: int, threshold: float) -> None:
    g = torch.Generator().manual_seed(seed)
    edge = tr.MLPSoftness((4, 4), scale=0.02, input="asinh" if seed % 2 else "plain")
    weights = torch.randn(edge.weights.shape, generator=g, dtype=torch.float64)
    assert_is_twin(with_weights(edge, weights), threshold, seed)


@pytest.mark.parametrize(
    "options", [{"cutoff": 0.07}, {"antialias": 2}, {"cull_backfaces": True}], ids=str
)
def test_options_that_change_what_is_binned(options: dict[str, Any]) -> None:
    assert_is_twin(tr.Distribution("laplace", 0.03), 1e-6, 4, **options)


@pytest.mark.parametrize("threshold", [0.2, 0.03, 1e-3, 1e-6])
@pytest.mark.parametrize("seed", range(6))
def test_a_table_reaches_every_pixel_that_it_should(seed: int, threshold: float) -> None:
    g = torch.Generator().manual_seed(seed)
    edge = tr.MLPSoftness((4, 4), scale=0.02, init=None if seed % 2 else "logistic")
    weights = torch.randn(edge.weights.shape, generator=g, dtype=torch.float64)
    sizes = {"octaves": 1 + seed, "subdivision": seed % 4}
    table = tr.tabulate(with_weights(edge, 2 * weights), **sizes)
    assert_is_twin(table, threshold, seed)


@pytest.mark.parametrize("name", ["uniform", "gaussian", "exponential_rev", "cauchy", "gumbel_max"])
def test_the_reach_of_a_table_is_hardly_larger_than_need_be(name: str) -> None:
    """A network's own bound is of its weights alone; the table knows the curve."""
    edge = tr.MLPSoftness(scale=torch.tensor([0.1, 0.2]), init=name)
    x = torch.linspace(0, 100, 100_001, dtype=torch.float64)
    with torch.no_grad():
        needed = 0.2 * float(x[torch.sigmoid(edge.logit(-x)) > 1e-3].max())
    u = torch.ones(2, dtype=torch.float64)
    found = tr.tabulate(edge).at(u, 1e-3).reach
    assert needed <= found < 1.1 * needed
    assert edge.at(u, 1e-3).reach > found
