"""In the usual case one function makes a picture of sums, with the derivatives of the general."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import taichi_raster as tr
from scenes import random_faces
from taichi_raster.render import mixing

DEPTHS: dict[str, Callable[[], tr.DepthSoftness]] = {
    "softmax": lambda: tr.SoftmaxDepth(0.1),
    "in order": tr.OverDepth,
    "product": lambda: tr.OverDepth(union="product"),
}


def derivatives(renderer: tr.SoftRasterizer) -> list[Tensor]:
    """The picture, its gradients, and the gradients of their squares."""
    dtype = tr.runtime().dtype
    leaves = [x.to(dtype).requires_grad_() for x in random_faces(seed=5)]
    image = renderer(*leaves)
    first = torch.autograd.grad(image.square().sum(), leaves, create_graph=True)
    squares = torch.stack([x.square().sum() for x in first])
    second = torch.autograd.grad(squares.sum(), leaves)
    return [x.detach() for x in (image, *first, *second)]


@pytest.mark.runs_on(arch=("cpu", "cuda"))
@pytest.mark.parametrize(  # a uniform saturates; both orders have one function
    ("depth", "edge"),
    [("softmax", "logistic"), ("softmax", "uniform"), ("in order", "uniform")]
    + [("product", "logistic")],
)
def test_the_usual_case_has_the_derivatives_of_the_general_one(
    depth: str, edge: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []
    for name in ("by_softmax", "in_order"):
        function = getattr(mixing, name)

        def noting(*arguments: Any, name: str = name, function: Any = function) -> Tensor:
            used.append(name)
            return function(*arguments)

        monkeypatch.setattr(mixing, name, noting)
    renderer = tr.SoftRasterizer(12, tr.Distribution(edge, 0.1), DEPTHS[depth]())
    found = derivatives(renderer)
    if tr.runtime().arch == "cpu":
        assert used == ["by_softmax" if depth == "softmax" else "in_order"]
    monkeypatch.setattr(mixing, "known", lambda *_: False)
    expected = derivatives(renderer)
    assert len(used) <= 1
    small = 1e-10 if tr.runtime().precision == "f64" else 1e-4
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).abs().max()) <= small * float(other.abs().max())
        assert float(other.abs().max()) > 0


@pytest.mark.runs_on(precision="f64")
@pytest.mark.parametrize("full", [True, False])
def test_both_functions_are_differentiated_right_twice(full: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.rand(5, 1, 2, 3, generator=generator, dtype=torch.float64).requires_grad_()
    rest = torch.rand(1, 2, 3, generator=generator, dtype=torch.float64)
    where = torch.rand(1, 2, 3, generator=generator) > 0.5 if full else None
    functions: list[Callable[[Tensor], Tensor]] = [
        lambda y: mixing.by_softmax(y, rest, where),
        lambda y: mixing.in_order(y, where),
    ]
    for function in functions:
        assert torch.autograd.gradcheck(function, (y,))
        assert torch.autograd.gradgradcheck(function, (y,))


@pytest.mark.runs_on(precision="f64")
def test_a_pixel_without_weight_passes_nothing_to_it() -> None:
    y = torch.zeros(4, 1, 1, 1, dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(mixing.in_order(y, None).sum(), y)
    assert found[:3].flatten().tolist() == [1.0, 0.0, 0.0]


def test_it_is_not_used_where_more_is_differentiated() -> None:
    value = torch.tensor(1.0, requires_grad=True)
    assert mixing.known() and mixing.known(value.detach())
    assert not mixing.known(value)
    with torch.autograd.forward_ad.dual_level():
        assert not mixing.known()
    with torch.inference_mode():
        assert not mixing.known()
