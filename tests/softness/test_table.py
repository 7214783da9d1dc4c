"""Tabulated softnesses: how near they come, what they pass on, and what they refuse.

That the kernels render them, first and second derivatives included, test_agreement checks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicHermiteSpline
from torch import Tensor

import taichi_raster as tr
from modes import Mode
from scenes import grad

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
X = torch.cat([torch.linspace(-40, 40, 16_001), torch.linspace(-500, 500, 2_001)]).double()
ONE = torch.ones(())


def learned(seed: int, **options: Any) -> tr.MLPSoftness:
    edge = tr.MLPSoftness((4, 4, 4, 4), scale=0.1, **options)
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        edge.weights.add_(0.5 * torch.randn(edge.weights.shape, generator=g, dtype=torch.float64))
    return edge


def derivatives(function: Callable[[Tensor], Tensor], x: Tensor, order: int) -> list[Tensor]:
    """The function and its derivatives, up to `order`."""
    x = x.clone().requires_grad_()
    found = [function(x)]
    for _ in range(order):
        found.append(torch.autograd.grad(found[-1].sum(), x, create_graph=True)[0])
    return [f.detach() for f in found]


@pytest.mark.parametrize("seed", range(4))
def test_errors_are_within_the_stated_bounds(seed: int) -> None:
    """In each cell, with the fourth derivative's maximum over a fine grid of it, plus a tenth."""
    edge = learned(seed)
    table = tr.tabulate(edge)
    at = table.positions
    for sign in (1.0, -1.0):
        fine = torch.linspace(0, 1, 41, dtype=torch.float64)
        h = at.diff()[:, None]
        x = sign * (at[:-1, None] + fine * h)
        exact = derivatives(edge.logit, x, 4)
        m = 1.1 * exact[4].abs().amax(1, keepdim=True)
        inner = slice(1, -1)  # on a knot the curvature is one-sided
        found = table.logit(x[:, inner])
        bounds = h**4 * m / 384, 3**0.5 * h**3 * m / 216, h**2 * m / 12
        for value, truth, bound in zip(found, exact, bounds, strict=False):
            error = (value - truth[:, inner]).abs()
            assert bool((error <= bound + 1e-12).all())


@pytest.mark.parametrize("seed", range(4))
def test_the_default_is_fine_enough_to_be_taken_for_the_network(seed: int) -> None:
    edge = learned(seed)
    value, slope, curvature = tr.tabulate(edge).logit(X)
    exact = derivatives(edge.logit, X, 2)
    assert float((value - exact[0]).abs().max()) < 2e-6
    assert float((slope - exact[1]).abs().max()) < 1e-3
    assert float((curvature - exact[2]).abs().max()) < 0.1


def test_it_is_the_cubic_hermite_spline_with_tangents_beyond() -> None:
    edge = learned(7)
    table = tr.tabulate(edge, width=2.0, octaves=5, subdivision=2)
    at = table.positions
    assert len(at) == 5 * 4 + 1 and float(at[-1]) == 2.0 * (2**5 - 1)
    knots = torch.cat([-at.flip(0), at[1:]])
    values, slopes = derivatives(edge.logit, knots, 1)
    spline = CubicHermiteSpline(knots, values, slopes)
    inside = torch.linspace(-61.9, 61.9, 4001, dtype=torch.float64)
    for order, found in enumerate(table.logit(inside)):
        np.testing.assert_allclose(found, spline(inside, order), rtol=0, atol=1e-11)
    beyond = torch.tensor([62.0, 70.0, 1e4, -62.0, -70.0, -1e4], dtype=torch.float64)
    sides = torch.tensor([-1, -1, -1, 0, 0, 0])
    expected = values[sides] + slopes[sides] * (beyond - knots[sides])
    np.testing.assert_allclose(table.logit(beyond)[0], expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["logistic", "gaussian", "laplace", "cauchy", "reciprocal"])
def test_distributions_can_be_tabulated(name: str) -> None:
    edge = tr.Distribution(name, 0.1, shift=0.3)
    d = torch.linspace(-0.3, 0.3, 301, dtype=torch.float64)
    # The logits of two have kinks at their middle, which lies between two knots here.
    slack = {"laplace": 1e-3, "reciprocal": 1e-5}.get(name, 1e-6)
    assert float((tr.tabulate(edge).value(d) - edge.value(d)).abs().max()) < slack


def test_a_table_renders_almost_as_the_network_does() -> None:
    edge = learned(1)
    x = Mode().inputs()
    images = [
        tr.SoftRasterizer(16, e, tr.SoftmaxDepth(0.1), near=0.5, far=10)(
            x["vertices"], x["colours"]
        )
        for e in (edge, tr.tabulate(edge))
    ]
    assert float((images[0] - images[1]).detach().abs().max()) < 1e-5


def test_gradients_reach_weights_progress_weights_and_scale() -> None:
    scale = torch.nn.Parameter(torch.tensor(0.1, dtype=torch.float64))
    edge = tr.MLPSoftness((4, 4), scale=scale, progress=True)
    module = tr.tabulate(edge)
    x = Mode().inputs()
    renderer = tr.SoftRasterizer(8, module, tr.SoftmaxDepth(0.1), near=0.5, far=10)

    def gradients(renderer: tr.SoftRasterizer) -> dict[str, Tensor]:
        renderer.zero_grad()
        renderer(x["vertices"], x["colours"], 0.3).square().sum().backward()
        return {k.split(".")[-1]: grad(v).clone() for k, v in renderer.named_parameters()}

    with torch.no_grad():
        edge.weights.add_(0.1)
    found = gradients(renderer)
    renderer.edge = edge
    for name, value in gradients(renderer).items():
        assert float(value.norm()) > 1e-3, name
        assert float((found[name] - value).norm() / value.norm()) < 1e-3, name


def test_nothing_is_learned_without_gradients() -> None:
    with torch.no_grad():
        assert not tr.tabulate(learned(0)).cells(ONE).requires_grad
    frozen = learned(0).requires_grad_(False)
    assert not tr.tabulate(frozen).cells(ONE).requires_grad


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: tr.tabulate(tr.HardDepth()), TypeError, "^edge: .*HardDepth"),  # type: ignore[arg-type]
        (lambda: tr.tabulate(tr.Distribution("uniform")), ValueError, "^edge: 'uniform' reaches"),
        (lambda: tr.tabulate(tr.Distribution("logistic", squared=True)), ValueError, "squared"),
        (lambda: tr.tabulate(tr.Distribution("gamma", shape=1.0)), ValueError, "^edge: 'gamma'"),
        (lambda: tr.tabulate(tr.Distribution("cauchy", shift=ONE.expand(2))), ValueError, "shift"),
        (lambda: tr.tabulate(tr.MLPSoftness(), width=0.0), ValueError, "^width: .*positive"),
        (lambda: tr.tabulate(tr.MLPSoftness(), octaves=0), ValueError, "^octaves: .*1 to 20"),
        (lambda: tr.tabulate(tr.MLPSoftness(), subdivision=2.0), ValueError, "^subdivision: "),  # type: ignore[arg-type]
    ],
)
def test_bad_tables_are_refused(make: Callable[[], Any], error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        make()


def test_a_shift_that_follows_progress_is_refused() -> None:
    with pytest.raises(ValueError, match="one shift"):
        tr.tabulate(tr.Distribution("logistic", 0.1, shift=tr.Geometric(0.1, 2.0)))
    with pytest.raises(ValueError, match="width"):
        tr.tabulate(tr.Distribution("logistic", 0.1), width=float("inf"))
