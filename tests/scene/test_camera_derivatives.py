"""Every camera converter and view is differentiable twice in all it is given."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import taichi_raster as tr
from opengl import frustum, ortho
from taichi_raster.scene.conventions import from_intrinsics, from_opengl, from_softras

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
F64 = torch.float64
WORLD = torch.tensor([[[0.3, -0.2, 0.1], [-0.4, 0.5, 0.2]]], dtype=F64)
VIEW = tr.look_at(torch.tensor([[1.0, 2.0, 3.0]], dtype=F64))
BACK = torch.tensor([1.0, 1.0, -1.0, 1.0], dtype=F64)[:, None] * VIEW  # OpenGL's z points back
MATRIX = torch.tensor([[61.0, 2.5, 37.0], [0, 73.0, 26.0], [0, 0, 1]], dtype=F64)


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=F64)


def opengl(make: Callable[..., Tensor], column: int) -> Callable[[Tensor, Tensor], tr.Camera]:
    """By changes of the projection's scales, and of its centre in one of its columns."""
    places = torch.zeros(4, 4, 4, dtype=F64)
    for i, (row, at) in enumerate([(0, 0), (1, 1), (0, column), (1, column)]):
        places[i, row, at] = 1

    def camera(view: Tensor, changes: Tensor) -> tr.Camera:
        projection = make(-0.3, 0.5, -0.2, 0.25, 0.5, 40.0)
        return from_opengl(view, projection + torch.einsum("i,ijk->jk", changes, places), (24, 40))

    return camera


CASES: dict[str, tuple[Callable[..., tr.Camera], tuple[Tensor, ...]]] = {
    "opengl, perspective": (opengl(frustum, 2), (BACK, torch.zeros(4, dtype=F64))),
    "opengl, orthographic": (opengl(ortho, 3), (BACK, torch.zeros(4, dtype=F64))),
    "softras": (from_softras, (number(3.0), number(20.0), number(40.0), number(15.0))),
    "intrinsics": (lambda v, m: from_intrinsics(v, m, (24, 40)), (VIEW, MATRIX)),
    "look_at": (
        lambda eye, at, up: tr.PerspectiveCamera(tr.look_at(eye, at, up)),
        (
            torch.tensor([[1.0, 2.0, 3.0]]).double(),
            torch.tensor([[0.1, 0.2, 0.0]]).double(),
            torch.tensor([[0.1, 1.0, 0.2]]).double(),
        ),
    ),
    "orbit": (
        lambda d, e, a: tr.OrthographicCamera(tr.orbit(d, e, a), 1.5),
        (
            torch.tensor([3.0]).double(),
            torch.tensor([20.0]).double(),
            torch.tensor([40.0]).double(),
        ),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_projections_pass_gradcheck_and_gradgradcheck(name: str) -> None:
    make, values = CASES[name]
    inputs = [value.clone().requires_grad_() for value in (WORLD, *values)]

    def project(world: Tensor, *given: Tensor) -> Tensor:
        return make(*given).project(world)

    assert torch.autograd.gradcheck(project, inputs)
    assert torch.autograd.gradgradcheck(project, inputs)
