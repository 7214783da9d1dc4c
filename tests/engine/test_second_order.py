"""Second derivatives: exact against the twin's double backward and against finite differences.

As in `test_gradients`, scenes for finite differences keep away from kinks (`kink_margin`).
"""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradgradcheck

from scenes import (
    ONLY_F64,
    SECOND_ORDER_MODES,
    Case,
    Inputs,
    checkable,
    hessian_vector_products,
    kink_margin,
    leaves,
    relative,
)


def check(case: Case, x: Inputs, dtype: torch.dtype) -> Inputs:
    mine = hessian_vector_products(case.ours, {k: v.to(dtype) for k, v in x.items()})
    expected = hessian_vector_products(case.twin, x)
    for name, product in mine.items():
        error = relative(product, expected[name])
        assert error < (1e-8 if dtype == torch.float64 else 1e-3), f"{name}: {error}"
    return mine


@SECOND_ORDER_MODES
def test_hessian_vector_product_is_the_twins(edge: str, depth: str, dtype: torch.dtype) -> None:
    case = Case(edge, depth).but(image_size=(11, 14))
    x = case.inputs(seed=41, batch=2, faces=5)
    assert kink_margin(x, case.view, edge) > 1e-6
    mine = check(case, x, dtype)
    for name, product in mine.items():
        assert product.norm() > 1e-3, f"{name} does nothing in this scene"


@pytest.mark.parametrize("edge", ["logistic", "mlp"])
def test_hessian_vector_product_over_many_tiles(edge: str, dtype: torch.dtype) -> None:
    case = Case(edge).but(image_size=(19, 29), threshold=1e-6)
    x = case.inputs(seed=62, batch=2, faces=30, size=(0.1, 0.4))
    x["scale"] = torch.tensor(0.05, dtype=torch.float64)
    assert kink_margin(x, case.view, edge) > 0
    check(case, x, dtype)


@pytest.mark.parametrize(
    "option",
    [
        {"antialias": 2},
        {"cutoff": 0.11},
        pytest.param({"perspective_correct": False, "cull_backfaces": True}, marks=ONLY_F64),
    ],
)
def test_hessian_vector_product_with_option(option: dict[str, object], dtype: torch.dtype) -> None:
    case = Case("logistic").but(image_size=(7, 6), **option)
    check(case, case.inputs(seed=43, faces=5), dtype)


@pytest.mark.runs_on(precision="f64")
@SECOND_ORDER_MODES
def test_gradgradcheck(edge: str, depth: str) -> None:
    """Vertices (x, y, z), attributes, scale, weights, gamma, background and its z, all at once."""
    case, x = checkable(edge, depth)
    names = list(x)

    def image(*values: Tensor) -> Tensor:
        return case.ours(dict(zip(names, values, strict=True)))

    assert gradgradcheck(image, [x[k].requires_grad_() for k in names])


@pytest.mark.runs_on(precision="f64")
def test_gradgradcheck_of_per_instance_parameters() -> None:
    case = Case("mlp").but(image_size=(4, 5))
    x = case.inputs(seed=63, batch=2, faces=3)
    x["scale"] = torch.tensor([0.1, 0.3], dtype=torch.float64)
    x["gamma"] = torch.tensor([0.05, 0.2], dtype=torch.float64)
    x["background_z"] = torch.tensor([0.3, 0.6], dtype=torch.float64)
    x["weights"] = torch.stack([x["weights"], -x["weights"]])
    assert kink_margin(x, case.view, "mlp") > 1e-4
    check(case, x, torch.float64)
    names = list(x)

    def image(*values: Tensor) -> Tensor:
        return case.ours(dict(zip(names, values, strict=True)))

    assert gradgradcheck(image, [x[k].requires_grad_() for k in names], fast_mode=True)


def test_full_hessian_is_symmetric_and_the_twins(dtype: torch.dtype) -> None:
    case = Case("logistic").but(image_size=(7, 6))
    x = case.inputs(seed=64, batch=1, faces=2)

    def hessian(render: object, dtype: torch.dtype) -> Tensor:
        fixed = leaves(x, dtype)

        def loss(vertices: Tensor) -> Tensor:
            return render({**fixed, "vertices": vertices}).square().sum()  # type: ignore[operator]

        return torch.autograd.functional.hessian(loss, fixed["vertices"]).reshape(18, 18)

    mine = hessian(case.ours, dtype)
    small = 1e-8 if dtype == torch.float64 else 1e-3
    assert relative(mine, mine.T) < small
    assert relative(mine, hessian(case.twin, torch.float64)) < small


def test_third_derivative_is_refused(dtype: torch.dtype) -> None:
    case = Case()
    x = leaves(case.inputs(seed=65), dtype)
    first = torch.autograd.grad(case.ours(x).square().sum(), x["vertices"], create_graph=True)[0]
    second = torch.autograd.grad(first.square().sum(), x["vertices"], create_graph=True)[0]
    with pytest.raises(RuntimeError, match=r"(?i)third"):
        torch.autograd.grad(second.square().sum(), x["vertices"])


def test_first_gradients_are_the_same_with_and_without_a_graph(dtype: torch.dtype) -> None:
    case = Case("mlp")
    x = leaves(case.inputs(seed=66), dtype)
    values = list(x.values())
    plain = torch.autograd.grad(case.ours(x).square().sum(), values)
    graph = torch.autograd.grad(case.ours(x).square().sum(), values, create_graph=True)
    for name, a, b in zip(x, plain, graph, strict=True):
        assert relative(a, b) < 1e-5, name


def test_gradient_through_an_inner_gradient_step(dtype: torch.dtype) -> None:
    """What meta-learning asks: d/d(scale, weights) of the loss after one step of the vertices."""
    case = Case("mlp").but(image_size=(7, 6))
    start = case.inputs(seed=67)
    target = case.twin(case.inputs(seed=68))

    def outer(render: object, dtype: torch.dtype) -> tuple[Tensor, ...]:
        x = leaves(start, dtype)

        def loss(vertices: Tensor) -> Tensor:
            image = render({**x, "vertices": vertices})  # type: ignore[operator]
            return (image - target.to(dtype)).square().sum()

        (g,) = torch.autograd.grad(loss(x["vertices"]), x["vertices"], create_graph=True)
        after = loss(x["vertices"] - 1e-3 * g)
        return torch.autograd.grad(after, [x["scale"], x["weights"], x["gamma"]])

    mine, expected = outer(case.ours, dtype), outer(case.twin, torch.float64)
    for name, a, b in zip(("scale", "weights", "gamma"), mine, expected, strict=True):
        assert relative(a, b) < (1e-8 if dtype == torch.float64 else 1e-3), name
