"""Depth softnesses: what they order, where they start, and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import modes
import taichi_raster as tr
from modes import DEPTHS, Mode

F64 = pytest.mark.runs_on(arch="cpu", precision="f64")
NEAR, FAR = 0.5, 10.0
COVER = [[-1e3, -1e3], [1e3, -1e3], [0.0, 1e3]]  # every pixel lies deep inside


def layers(z: list[float], colours: list[float]) -> tuple[Tensor, Tensor]:
    """Level faces that fill the picture, at depths z, each of one colour."""
    xy = torch.tensor(COVER, dtype=torch.float64)
    faces = [torch.cat([xy, torch.full((3, 1), depth, dtype=torch.float64)], 1) for depth in z]
    shades = torch.tensor(colours, dtype=torch.float64)[None, :, None, None].expand(1, -1, 3, 1)
    return torch.stack(faces)[None], shades


def seen(depth: Any, z: list[float], colours: list[float], background: float = 0.4) -> float:
    edge = tr.Distribution("uniform", 0.1)  # F is 1 exactly
    renderer = tr.SoftRasterizer(1, edge, depth, background=background, near=NEAR, far=FAR)
    return float(renderer(*layers(z, colours))[0, 0, 0, 0])


def softmax(logs: list[float], values: list[float]) -> float:
    peak = max(logs)
    weights = [math.exp(log - peak) for log in logs]
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)


def z_norm(z: float) -> float:
    return (FAR - z) / (FAR - NEAR)


CAUCHY: Callable[[float], float] = lambda x: math.atan(x) / math.pi + 0.5  # noqa: E731
CLOSED_FORMS: dict[str, tuple[Any, Callable[[float], float]]] = {
    "softmax": (tr.SoftmaxDepth(0.1, 0.6), lambda z: z / 0.1),
    "cauchy": (
        tr.DistributionDepth("cauchy", 0.1, 0.6, shift=-4.0),
        lambda z: math.log(CAUCHY(z / 0.1 - 4.0)),
    ),
    "exponential_rev": (  # whose shift counts negatively
        tr.DistributionDepth("exponential_rev", 0.2, 0.6, shift=6.0),
        lambda z: min(z / 0.2 - 6.0, 0.0),
    ),
    "gamma, shape 1": (  # an exponential
        tr.DistributionDepth("gamma", 0.3, 0.6, shape=1.0),
        lambda z: math.log(-math.expm1(-z / 0.3)),
    ),
}


@F64
@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_layers_share_by_their_log_weights(name: str) -> None:
    depth, log_weight = CLOSED_FORMS[name]
    z, colours = [6.0, 2.0, 3.5], [0.9, 0.1, 0.6]
    logs = [log_weight(z_norm(v)) for v in z] + [log_weight(0.6)]
    assert seen(depth, z, colours) == pytest.approx(softmax(logs, [*colours, 0.4]), abs=1e-12)


@F64
def test_hard_shows_the_nearest_and_the_background_where_nothing_is() -> None:
    assert seen(tr.HardDepth(), [6.0, 2.0, 3.5], [0.9, 0.1, 0.6]) == 0.1
    assert seen(tr.HardDepth(), [2.0, 6.0], [0.9, 0.1]) == 0.9
    faces, colours = layers([2.0], [0.9])
    faces[..., 0] += 5e3
    renderer = tr.SoftRasterizer(1, tr.Distribution("uniform", 0.1), tr.HardDepth(), near=NEAR)
    assert float(renderer(faces, colours)[0, 0, 0, 0]) == 0.0


@F64
def test_a_tiny_gamma_is_hard_and_a_huge_one_the_mean() -> None:
    """Weights like exp(1 / gamma) = exp(1e6) overflow no number."""
    z, colours = [6.0, 2.0, 3.5], [0.9, 0.1, 0.6]
    assert seen(tr.SoftmaxDepth(1e-6), z, colours) == pytest.approx(0.1, abs=1e-12)
    mean = (sum(colours) + 0.4) / 4
    assert seen(tr.SoftmaxDepth(1e9), z, colours) == pytest.approx(mean, abs=1e-8)


@F64
@pytest.mark.parametrize("name", [name for name in DEPTHS if name != "none"])
def test_the_order_of_faces_does_not_matter(name: str) -> None:
    mode = DEPTHS[name]
    x = mode.inputs()
    first = mode.render(x)
    order = [2, 0, 1]
    other = {**x, "vertices": x["vertices"][:, order], "colours": x["colours"][:, order]}
    torch.testing.assert_close(mode.render(other), first, rtol=0, atol=1e-13)


def test_a_network_starts_as_softmax(dtype: torch.dtype) -> None:
    x = Mode().inputs(dtype)
    images = [
        tr.SoftRasterizer(5, depth=depth, near=NEAR, far=FAR)(x["vertices"], x["colours"])
        for depth in (tr.MLPDepth(gamma=0.05, background_z=0.5), tr.SoftmaxDepth(0.05, 0.5))
    ]
    torch.testing.assert_close(*images, rtol=0, atol=1e-12 if dtype == torch.float64 else 1e-5)


@F64
def test_a_network_is_a_module_whose_weights_learn() -> None:
    """Its output unit starts at 0, and still all that matters gets a gradient."""
    x = Mode().inputs()
    depth = tr.MLPDepth(gamma=0.2, background_z=0.5)
    assert [name for name, _ in depth.named_parameters()] == ["weights"]
    optimizer = torch.optim.SGD(depth.parameters(), lr=0.5)
    renderer = tr.SoftRasterizer(5, depth=depth, near=NEAR, far=FAR)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = (renderer(x["vertices"], x["colours"])[..., :-1] - 0.8).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 1e-3
    z = torch.linspace(0, 1, 5, dtype=torch.float64)
    assert float((depth.log_weight(z).detach() - z / 0.2).abs().max()) > 1e-3


@F64
def test_gamma_may_follow_progress() -> None:
    x = modes.distribution("logistic").inputs()

    def image(gamma: Any, progress: float | None = None) -> Tensor:
        depth = tr.DistributionDepth("logistic", gamma, 0.5, shift=-5.0)
        renderer = tr.SoftRasterizer(5, depth=depth, near=NEAR, far=FAR)
        return renderer(x["vertices"], x["colours"], progress)

    annealed = tr.Geometric(0.4, 0.1)
    torch.testing.assert_close(image(annealed, 0.5), image(0.2))
    torch.testing.assert_close(image(annealed), image(0.1))


@F64
@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: tr.DistributionDepth("nonesuch"), "^name: .*nonesuch.*gaussian.*logistic"),
        (lambda: tr.DistributionDepth("heaviside"), "^name: .*HardDepth"),
        (lambda: tr.DistributionDepth("gamma"), "^shape: .*gamma.*needs"),
        (lambda: tr.DistributionDepth("gamma", shape=0.0), "^shape: .*positive"),
        (lambda: tr.DistributionDepth("cauchy", shape=2.0), "^shape: .*no shape"),
        (lambda: tr.DistributionDepth("cauchy", 0.0), "^gamma: .*positive"),
        (lambda: tr.DistributionDepth("cauchy", shift=math.nan), "^shift: .*finite"),
        (lambda: tr.DistributionDepth("cauchy", background_z=-0.1), "^background_z: .*>= 0"),
        (lambda: tr.SoftmaxDepth(background_z=math.inf), "^background_z: .*finite"),
        (lambda: tr.MLPDepth(gamma=-1.0), "^gamma: .*positive"),
        (lambda: tr.MLPDepth(widths=(4, 0)), "^widths: "),
        (lambda: tr.MLPDepth(widths=(4, 5)), "^residual: .*as wide"),
        (lambda: tr.MLPDepth(widths=(4,)), "^residual: .*two hidden"),
    ],
)
def test_bad_depths_are_refused(make: Callable[[], Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()


THREE = torch.full((3,), 0.1, dtype=torch.float64)


@F64
@pytest.mark.parametrize(
    ("name", "depth"),
    [
        ("gamma", tr.SoftmaxDepth(THREE)),
        ("background_z", tr.SoftmaxDepth(background_z=THREE)),
        ("background_z", tr.DistributionDepth("cauchy", background_z=THREE)),
        ("shift", tr.DistributionDepth("cauchy", shift=THREE)),
        ("shape", tr.DistributionDepth("gamma", shape=THREE)),
    ],
)
def test_what_does_not_fit_the_batch_is_refused(name: str, depth: Any) -> None:
    x = Mode().inputs()
    renderer = tr.SoftRasterizer(5, depth=depth, near=NEAR, far=FAR)
    with pytest.raises(ValueError, match=name):
        renderer(x["vertices"].expand(2, -1, -1, -1), x["colours"].expand(2, -1, -1, -1))
