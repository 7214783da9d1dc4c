"""First derivatives: against the twin's in every precision, against finite differences in float64.

The image is piecewise smooth. `kink_margin` says how far a scene is from a change of piece; scenes
checked by finite differences (steps of 1e-6) keep 1e-4 away.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from scenes import (
    DEPTHS,
    MODES,
    ONLY_F64,
    Case,
    Inputs,
    checkable,
    grad,
    gradients,
    kink_margin,
    leaves,
    like,
    relative,
)


def check(case: Case, x: Inputs, dtype: torch.dtype) -> Inputs:
    """Compares each gradient with the twin's, in norm; returns ours."""
    mine = gradients(case.ours, {k: v.to(dtype) for k, v in x.items()})
    expected = gradients(case.twin, x)
    for name, gradient in mine.items():
        assert gradient.dtype == dtype and gradient.shape == x[name].shape
        error = relative(gradient, expected[name])
        assert error < (1e-9 if dtype == torch.float64 else 1e-3), f"{name}: {error}"
    return mine


@MODES
def test_every_gradient_is_the_twins(edge: str, depth: str, dtype: torch.dtype) -> None:
    case = Case(edge, depth).but(image_size=(11, 14))
    x = case.inputs(seed=41, batch=2, faces=5)
    assert kink_margin(x, case.view, edge) > 1e-6
    mine = check(case, x, dtype)
    for name, gradient in mine.items():
        assert gradient.norm() > 1e-3, f"{name} does nothing in this scene"


@pytest.mark.parametrize(
    ("edge", "depth"),
    [
        ("logistic", "softmax"),
        ("mlp", "softmax"),
        pytest.param("logistic", "hard", marks=ONLY_F64),
        pytest.param("bare mlp", "hard", marks=ONLY_F64),
    ],
)
def test_gradients_of_many_faces_over_many_tiles(edge: str, depth: str, dtype: torch.dtype) -> None:
    case = Case(edge, depth).but(image_size=(21, 35), threshold=1e-6)
    x = case.inputs(seed=42, batch=2, faces=50, size=(0.05, 0.3))
    x["scale"] = torch.tensor(0.03, dtype=torch.float64)
    assert kink_margin(x, case.view, edge) > 0
    check(case, x, dtype)


OPTIONS: dict[str, dict[str, Any]] = {
    "cutoff": {"cutoff": 0.11},
    "threshold": {"threshold": 0.1},
    "near plane": {"near": 2.4},
    "antialias 2": {"antialias": 2},
}


@pytest.mark.parametrize("option", OPTIONS)
def test_gradients_with_option(option: str, dtype: torch.dtype) -> None:
    case = Case("logistic").but(image_size=(7, 6), **OPTIONS[option])
    check(case, case.inputs(seed=43, faces=5), dtype)


@ONLY_F64
def test_gradients_without_backfaces_and_perspective() -> None:
    for depth in DEPTHS:
        case = Case("logistic", depth).but(
            image_size=(7, 6), cull_backfaces=True, perspective_correct=False
        )
        check(case, case.inputs(seed=43, faces=5), torch.float64)


@pytest.mark.runs_on(precision="f64")
@MODES
def test_gradcheck(edge: str, depth: str) -> None:
    case, x = checkable(edge, depth)
    names = list(x)

    def image(*values: Tensor) -> Tensor:
        return case.ours(dict(zip(names, values, strict=True)))

    assert gradcheck(image, [x[k].requires_grad_() for k in names])


def test_saturated_and_empty_pixels_pass_no_gradient_to_alpha(dtype: torch.dtype) -> None:
    case = Case("uniform").but(image_size=(8, 8))
    x = leaves(case.inputs(seed=44, batch=1, faces=3), dtype)
    alpha = case.ours(x)[..., -1]
    flat = (alpha == 0) | (alpha == 1)
    assert (alpha == 0).sum() > 3 and (alpha == 1).sum() > 3 and not flat.all()
    alpha[flat].sum().backward()
    for name in ("vertices", "scale"):
        assert grad(x[name]).abs().max() == 0


def test_colour_keeps_its_gradient_where_alpha_is_saturated(dtype: torch.dtype) -> None:
    case = Case("uniform").but(image_size=(8, 8))
    x = case.inputs(seed=44, batch=1, faces=3)

    def inner_colour(image: Tensor) -> Tensor:
        return (image[..., :-1] * (image[..., -1:] == 1)).sum()

    mine, twins = leaves(x, dtype), leaves(x)
    inner_colour(case.ours(mine)).backward()
    inner_colour(case.twin(twins)).backward()
    for name in ("vertices", "attributes"):
        assert grad(mine[name]).norm() > 0.1
        assert relative(grad(mine[name]), grad(twins[name])) < 1e-3


@ONLY_F64
def test_only_what_requires_a_gradient_gets_one() -> None:
    """Each of the three groups of inputs alone: the kernels differ."""
    case = Case("logistic")
    x = case.inputs(seed=45)
    everything = gradients(case.ours, x)
    for name in ("vertices", "attributes", "scale"):
        alone = {k: v.clone().requires_grad_(k == name) for k, v in x.items()}
        image = case.ours(alone)
        (image * like(image)).sum().backward()
        assert relative(grad(alone[name]), everything[name]) < 1e-12, name
        assert all(v.grad is None for k, v in alone.items() if k != name)
    assert not case.ours(x).requires_grad


def test_parameters_that_require_no_gradient_render_without_a_graph(dtype: torch.dtype) -> None:
    case = Case("logistic")
    x = leaves(case.inputs(seed=46), dtype)
    with torch.no_grad():
        assert not case.ours(x).requires_grad


def test_per_instance_gradients_are_those_of_the_twin(dtype: torch.dtype) -> None:
    for edge in ("uniform", "mlp"):
        case = Case(edge)
        x = case.inputs(seed=47, batch=3)
        x["scale"] = torch.tensor([0.05, 0.1, 0.3], dtype=torch.float64)
        x["gamma"] = torch.tensor([0.05, 0.2, 0.1], dtype=torch.float64)
        x["background_z"] = torch.tensor([0.3, 0.6, 0.9], dtype=torch.float64)
        if edge == "mlp":
            x["weights"] = torch.stack([x["weights"] * s for s in (0.5, 1.0, -1.0)])
        check(case, x, dtype)
