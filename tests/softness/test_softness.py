"""The formulas of the edge softnesses, against scipy, closed forms and finite differences."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import taichi as ti
import torch

import taichi_raster as tr
import twin
from scenes import (
    WIDTHS,
    mlp_weights,
    random_faces,
)
from taichi_raster.runtime.thread import runs_in_runtime_thread
from taichi_raster.softness.distributions import registry
from taichi_raster.softness.network_numpy import logit_and_jacobian
from taichi_raster.softness.network_torch import architecture, network_logit, random_weights

ORACLES = {
    "logistic": scipy.stats.logistic(),
    "gaussian": scipy.stats.norm(),
    "uniform": scipy.stats.uniform(-1, 2),
}


@runs_in_runtime_thread
def in_kernel(formula: Callable[..., Any], x: np.ndarray) -> np.ndarray:
    """(N, 3): value and two slopes of a Taichi function, in the run's precision."""
    real = tr.runtime().ti_float
    xs = ti.field(real, shape=len(x))
    out = ti.Vector.field(3, real, shape=len(x))
    xs.from_numpy(x.astype(np.float64 if real == ti.f64 else np.float32))

    @ti.kernel
    def evaluate():
        for i in xs:
            value, slope, bend = formula(xs[i])
            out[i] = ti.Vector([value, slope, bend])

    evaluate()
    return out.to_numpy().astype(np.float64)


def places(name: str) -> np.ndarray:
    """Numbers that float32 holds exactly."""
    if name == "uniform":
        x = np.array([-3, -1.01, -0.99, -0.5, 0, 0.1, 0.5, 0.9, 0.999])
    else:
        far = np.array([-12, -9, -6, 6, 8, 9, 12, 20, 35])
        x = np.concatenate([np.linspace(-5, 5, 41), [-0.6628, 0.6629, -1e-6, 1e-6], far])
    return x.astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("name", ORACLES)
def test_coverage_and_its_slopes_are_scipys(name: str, dtype: torch.dtype) -> None:
    x, oracle = places(name), ORACLES[name]
    f, slope, bend = in_kernel(registry.find(name).cdf, x).T
    small = 2e-14 if dtype == torch.float64 else 1e-5
    assert np.allclose(f, oracle.cdf(x), rtol=small, atol=1e-36)
    assert np.allclose(slope, oracle.pdf(x), rtol=small, atol=1e-36)
    log_slope = {"logistic": -np.tanh(x / 2), "gaussian": -x, "uniform": 0 * x}[name]
    assert (np.abs(bend - oracle.pdf(x) * log_slope) <= 10 * small * oracle.pdf(x) + 1e-36).all()


@pytest.mark.parametrize("name", ORACLES)
def test_log_survival_and_its_slopes_are_scipys(name: str, dtype: torch.dtype) -> None:
    """Also far inside, where 1 - F is 0 to rounding."""
    x, oracle = places(name), ORACLES[name]
    value, slope, bend = in_kernel(registry.find(name).log_survival, x).T
    small = 2e-13 if dtype == torch.float64 else 1e-5
    hazard = np.exp(oracle.logpdf(x) - oracle.logsf(x))
    # Vulkan promises log(1 + x) for small x only to 2^-21 (Vulkan specification, precision of Log)
    tiny = 2**-21 if tr.runtime().arch == "vulkan" else 1e-30
    assert np.allclose(value, oracle.logsf(x), rtol=small, atol=tiny)
    assert np.allclose(slope, -hazard, rtol=small, atol=1e-30)
    log_slope = {"logistic": -np.tanh(x / 2), "gaussian": -x, "uniform": 0 * x}[name]
    # hazard and log-slope cancel: the error is that of their product
    error = np.abs(bend + hazard * (log_slope + hazard))
    assert (error <= 10 * small * (1e-30 + hazard * (np.abs(log_slope) + hazard))).all()


@pytest.mark.parametrize("name", ORACLES)
def test_reach_is_where_coverage_falls_to_the_threshold(name: str) -> None:
    """Binning relies on it: nothing farther out may count."""
    reach = registry.find(name).reach
    for threshold in (1e-6, 1e-3, 0.1, 0.4):
        assert ORACLES[name].cdf(-reach(threshold)) == pytest.approx(threshold, rel=1e-9)
    assert reach(0.0) == (1.0 if name == "uniform" else math.inf)


@pytest.mark.runs_on(arch="cpu", precision="f64")
@pytest.mark.parametrize("name", ORACLES)
def test_value_for_plots_is_scipys(name: str) -> None:
    edge = tr.Distribution(name, scale=0.2)
    d = torch.linspace(-0.7, 0.7, 29, dtype=torch.float64)
    assert np.allclose(edge.value(d).numpy(), ORACLES[name].cdf(d.numpy() / 0.2), rtol=1e-12)


@pytest.mark.runs_on(arch="cpu", precision="f64")
def test_value_follows_progress() -> None:
    edge = tr.Distribution("logistic", scale=tr.Geometric(0.4, 0.1))
    d = torch.linspace(-0.5, 0.5, 11, dtype=torch.float64)
    assert torch.allclose(edge.value(d, progress=0.5), torch.sigmoid(d / 0.2))
    assert torch.allclose(edge.value(d), torch.sigmoid(d / 0.1))


@pytest.mark.runs_on(arch="cpu", precision="f64")
@pytest.mark.parametrize("asinh", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("residual", [True, False])
def test_network_is_the_documented_formula(residual: bool, bias: bool, asinh: bool) -> None:
    edge = tr.MLPSoftness(
        WIDTHS, residual=residual, bias=bias, input="asinh" if asinh else "plain", scale=0.2
    )
    g = torch.Generator().manual_seed(5)
    with torch.no_grad():
        edge.weights.copy_(torch.randn(edge.weights.shape, generator=g, dtype=torch.float64))
    d = torch.linspace(-0.7, 0.7, 29, dtype=torch.float64)
    formula = twin.mlp(edge.weights.double(), WIDTHS, residual=residual, bias=bias, asinh=asinh)
    expected = formula((d / 0.2).reshape(1, 1, 1, -1))[0].exp().flatten()
    assert torch.allclose(edge.value(d), expected, rtol=1e-6)


@pytest.mark.runs_on(arch="cpu", precision="f64")
def test_a_network_that_depends_on_progress_moves_its_first_biases() -> None:
    edge = tr.MLPSoftness(WIDTHS, scale=0.2, progress=True)
    weights, moves = mlp_weights(8), torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    with torch.no_grad():
        edge.weights.copy_(weights)
        assert edge.progress_weights is not None
        edge.progress_weights.copy_(moves)
    u = torch.tensor([0.0, 0.75], dtype=torch.float64)
    moved = weights.repeat(2, 1)
    moved[:, 3:6] += (2 * u - 1)[:, None] * moves
    vertices, attributes = random_faces(7)
    view = twin.View(image_size=(6, 7), threshold=0.0, near=0.5, far=10.0)
    image = tr.SoftRasterizer(edge=edge, depth=tr.SoftmaxDepth(), **vars(view))(
        vertices, attributes, progress=u
    )
    expected = twin.render(
        vertices, attributes, edge=twin.mlp(moved, WIDTHS), scale=0.2, gamma=1e-2, view=view
    )
    assert (image - expected).abs().max() < 1e-11
    d = torch.linspace(-0.5, 0.5, 11, dtype=torch.float64)
    formula = twin.mlp(moved[1], WIDTHS)((d / 0.2).reshape(1, 1, 1, -1))[0].exp().flatten()
    assert torch.allclose(edge.value(d, progress=0.75), formula, rtol=1e-12)


@pytest.mark.runs_on(arch="cpu", precision="f64")
@pytest.mark.parametrize("name", ORACLES)
def test_a_network_starts_as_the_distribution_it_is_told(name: str) -> None:
    edge = tr.MLPSoftness(WIDTHS, scale=0.2, init=name)
    x = torch.linspace(-3, 3, 61, dtype=torch.float64)
    expected = torch.from_numpy(ORACLES[name].cdf(x.numpy()))
    error = (edge.value(0.2 * x) - expected).abs().max()
    # sigmoid(x + 0) is the logistic; others are regressed onto by a small network
    assert error < (1e-12 if name == "logistic" else 0.05)


@pytest.mark.runs_on(arch="cpu", precision="f64")
def test_a_networks_tails_vanish_whatever_its_weights() -> None:
    """The residual is bounded, so F falls to any threshold and binning stays finite."""
    edge = tr.MLPSoftness(WIDTHS, scale=0.1)
    with torch.no_grad():
        edge.weights.copy_(3 * mlp_weights(7))
    d = torch.tensor([-10.0, 10.0], dtype=torch.float64)
    assert edge.value(d)[0] < 1e-12 and edge.value(d)[1] > 1 - 1e-12


@pytest.mark.runs_on(arch="cpu", precision="f64")
def test_a_seed_gives_the_same_start() -> None:
    weights = [tr.MLPSoftness(WIDTHS, init="logistic", seed=s).weights for s in (1, 1, 2)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.runs_on(arch="cpu", precision="f64")
def test_a_learned_softness_survives_a_file(tmp_path: Path) -> None:
    edge = tr.MLPSoftness(
        WIDTHS, residual=False, bias=False, input="plain", scale=tr.Knots([0.3, 0.1, 0.02])
    )
    with torch.no_grad():
        edge.weights.copy_(torch.linspace(-1, 1, edge.weights.numel()))
    tr.save_softness(tmp_path / "learned.safetensors", edge)
    loaded = tr.load_softness(tmp_path / "learned.safetensors")
    d = torch.linspace(-0.5, 0.5, 11, dtype=torch.float64)
    for progress in (0.0, 0.3, 1.0):
        assert torch.equal(loaded.value(d, progress), edge.value(d, progress))


@pytest.mark.runs_on(arch="cpu", precision="f64")
def test_renderers_survive_pickle_and_deepcopy() -> None:
    import copy
    import pickle

    vertices, attributes = random_faces(3)
    for edge, depth, alpha in [
        (tr.Distribution("levy_rev", 0.05), tr.DistributionDepth("gumbel_min"), ("yager", 2.0)),
        (tr.MLPSoftness(WIDTHS), tr.MLPDepth(), ("probabilistic", None)),
    ]:
        renderer = tr.SoftRasterizer(5, edge, depth, tr.TConorm(*alpha), near=0.5, far=10.0)
        image = renderer(vertices, attributes)
        for other in (pickle.loads(pickle.dumps(renderer)), copy.deepcopy(renderer)):
            assert torch.equal(other(vertices, attributes), image)


@pytest.mark.runs_on(arch="cpu", precision="f64")
def test_shape_shift_and_square_survive_a_file(tmp_path: Path) -> None:
    edge = tr.Distribution("gamma_rev", tr.Geometric(0.1, 0.02), True, shape=1.7, shift=-0.3)
    tr.save_softness(tmp_path / "gamma.safetensors", edge)
    loaded = tr.load_softness(tmp_path / "gamma.safetensors")
    d = torch.linspace(-0.5, 0.5, 11, dtype=torch.float64)
    assert torch.equal(loaded.value(d, 0.3), edge.value(d, 0.3))


@pytest.mark.runs_on(arch="cpu", precision="f64")
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: tr.Distribution("gamma"), "shape"),
        (lambda: tr.Distribution("gamma", shape=-1.0), "shape"),
        (lambda: tr.Distribution("logistic", shape=1.0), "shape"),
        (lambda: tr.Distribution("logistic", shift=float("inf")), "shift"),
        (lambda: tr.Distribution("logistic", scale=torch.ones(2, 2)), "scale"),
        (lambda: tr.DistributionDepth("normal"), "name"),
        (lambda: tr.DistributionDepth("heaviside"), "name"),
        (lambda: tr.DistributionDepth("logistic", gamma=0.0), "gamma"),
        (lambda: tr.DistributionDepth("gamma"), "shape"),
        (lambda: tr.MLPDepth(widths=(0,)), "widths"),
        (lambda: tr.MLPDepth(background_z=-1.0), "background_z"),
        (lambda: tr.SoftRasterizer(8, front="left"), "front"),
        (lambda: tr.SoftRasterizer(8, barycentrics="none"), "barycentrics"),
        (lambda: tr.SoftRasterizer(8, background=torch.zeros(4, 8)), "background"),
    ],
)
def test_bad_softness_arguments_are_named(call, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: "):
        call()


@pytest.mark.runs_on(arch="cpu", precision="f64")
def test_arguments_of_another_type_are_named() -> None:
    for call, name in [
        (lambda: tr.Distribution("logistic", squared=1), "squared"),  # type: ignore[arg-type]
        (lambda: tr.SoftRasterizer(8, orthographic="no"), "orthographic"),  # type: ignore[arg-type]
        (lambda: tr.SoftRasterizer(8, unclipped_alpha=1), "unclipped_alpha"),  # type: ignore[arg-type]
    ]:
        with pytest.raises(TypeError, match=f"^{name}: "):
            call()
    picture = torch.zeros(8, 7, 3, dtype=torch.float64)
    vertices, attributes = random_faces(3)
    with pytest.raises(ValueError, match=r"^background: expected an image of 8 x 8"):
        tr.SoftRasterizer(8, background=picture, near=0.5, far=10.0)(vertices, attributes)


@pytest.mark.parametrize(
    ("widths", "residual", "bias"),
    [
        ((4, 4), True, True),
        ((4, 4, 4, 4), True, False),
        ((3,), False, True),
        ((5, 3, 5), True, True),
    ],
)
def test_the_networks_slopes_in_its_weights_by_hand_are_autograds(
    widths: tuple[int, ...], residual: bool, bias: bool
) -> None:
    net = architecture(widths, residual, bias, "asinh")
    weights, x = random_weights(net, 3), torch.linspace(-3, 3, 7, dtype=torch.float64)
    found, slopes = logit_and_jacobian(net, weights.numpy(), x.numpy())
    expected = torch.func.jacrev(lambda w: network_logit(net, w, x))(weights)
    assert np.allclose(found, network_logit(net, weights, x), rtol=1e-13)
    assert np.allclose(slopes, expected, rtol=1e-12, atol=1e-14)
