"""The oracle itself against closed forms and finite differences, so that it can be trusted."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import twin
from scenes import Case, Inputs, kink_margin, random_faces

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

VIEW = twin.View(image_size=(5, 7), threshold=0.0, near=0.5, far=10.0)
HALF_PLANE = [[-1e3, -0.1, 2.0], [1e3, -0.1, 2.0], [0.0, 1e3, 2.0]]  # y > -0.1


def tensor(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_pixel_centres_follow_the_convention() -> None:
    p = twin.pixel_centres(4, 6, tensor(0.0))
    assert p[0, 0].tolist() == pytest.approx([-5 / 4, 3 / 4])
    assert p[3, 5].tolist() == pytest.approx([5 / 4, -3 / 4])


@pytest.mark.parametrize("kind", twin.DISTRIBUTIONS)
def test_alpha_of_a_half_plane_is_the_distribution_of_the_height(kind: str) -> None:
    image = twin.render(
        tensor([[HALF_PLANE]]),
        torch.ones(1, 1, 3, 1, dtype=torch.float64),
        edge=twin.DISTRIBUTIONS[kind],
        scale=0.3,
        gamma=0.1,
        view=VIEW,
    )
    x = (twin.pixel_centres(5, 7, image)[..., 1] + 0.1) / 0.3
    expected = {
        "logistic": 1 / (1 + torch.exp(-x)),
        "gaussian": 0.5 * (1 + torch.erf(x / math.sqrt(2))),
        "uniform": ((1 + x) / 2).clamp(0, 1),
    }[kind]
    assert torch.allclose(image[0, ..., 1], expected, atol=1e-9)


def test_colour_and_alpha_of_two_half_planes_are_the_formulas_of_the_paper() -> None:
    faces = tensor([[HALF_PLANE, [[x, y, 3.0] for x, y, _ in HALF_PLANE]]])
    colours = tensor([0.9, 0.2]).reshape(1, 2, 1, 1).expand(1, 2, 3, 1)
    image = twin.render(
        faces,
        colours,
        edge=twin.logistic,
        scale=0.3,
        gamma=0.2,
        background_z=0.7,
        background=0.4,
        view=VIEW,
    )
    y = twin.pixel_centres(5, 7, image)[..., 1]
    a = 1 / (1 + torch.exp(-(y + 0.1) / 0.3))
    near, far, bg = (math.exp(v / 0.2) for v in ((10 - 2) / 9.5, (10 - 3) / 9.5, 0.7))
    colour = (a * near * 0.9 + a * far * 0.2 + bg * 0.4) / (a * near + a * far + bg)
    assert torch.allclose(image[0, ..., 0], colour, atol=1e-9)
    assert torch.allclose(image[0, ..., 1], 1 - (1 - a) ** 2, atol=1e-9)


def test_depth_is_that_of_the_plane_seen_through_the_pixel() -> None:
    """A pinhole at the origin: NDC (x, y) at depth z is the point (x z, y z, z)."""
    faces = tensor([[[[-1.5, -1.2, 2.0], [1.6, -1.1, 3.0], [0.1, 1.7, 5.0]]]])
    pair = twin.pairs(faces, 9, 9)
    v = faces[0, 0]
    points = torch.cat([v[:, :2] * v[:, 2:], v[:, 2:]], -1)
    normal = torch.linalg.cross(points[1] - points[0], points[2] - points[0])
    p = twin.pixel_centres(9, 9, faces)
    rays = torch.cat([p, torch.ones_like(p[..., :1])], -1)
    z = (points[0] @ normal) / (rays @ normal)
    inside = pair.distance[0, ..., 0] > 0
    assert 20 < inside.sum() < 81
    assert torch.allclose(pair.z[0, ..., 0][inside], z[inside], rtol=1e-12)
    barycentric = torch.einsum("hwi,id->hwd", pair.weights[0, ..., 0, :], v[:, :2])
    assert torch.allclose(barycentric[inside], p[inside], atol=1e-12)


def test_outside_the_nearest_point_is_the_nearest_of_many() -> None:
    vertices, _ = random_faces(3, batch=1, faces=3)
    pair = twin.pairs(vertices, 6, 6)
    steps = torch.linspace(0, 1, 20001, dtype=torch.float64)[:, None]
    for face in range(3):
        a = vertices[0, face, :, :2]
        border = torch.cat([a[k] + steps * (a[(k + 1) % 3] - a[k]) for k in range(3)])
        p = twin.pixel_centres(6, 6, vertices).reshape(-1, 2)
        gap, index = torch.cdist(p, border).min(-1)
        distance = pair.distance[0, ..., face].reshape(-1)
        assert torch.allclose(distance.abs(), gap, atol=1e-4)
        nearest = torch.einsum("nk,kd->nd", pair.weights[0, ..., face, :].reshape(-1, 3), a)
        outside = distance < 0
        assert torch.allclose(nearest[outside], border[index][outside], atol=1e-3)


def test_winding_changes_nothing_but_the_side() -> None:
    vertices, attributes = random_faces(5)
    soft: dict[str, Any] = {"edge": twin.gaussian, "scale": 0.1, "gamma": 0.1, "view": VIEW}
    one = twin.render(vertices, attributes, **soft)
    other = twin.render(vertices.flip(2), attributes.flip(2), **soft)
    assert torch.allclose(one, other, atol=1e-12)
    assert torch.equal(
        twin.pairs(vertices, 5, 7).area > 0, twin.pairs(vertices.flip(2), 5, 7).area < 0
    )


@pytest.mark.parametrize(
    ("kind", "depth"), [("logistic", "softmax"), ("uniform", "softmax"), ("gaussian", "hard")]
)
def test_twin_passes_gradcheck_and_gradgradcheck(kind: str, depth: str) -> None:
    case = Case(kind, depth).but(image_size=(2, 3))
    x = case.inputs(seed=11, batch=1, faces=2)
    assert kink_margin(x, case.view, kind) > 1e-4
    names = list(x)

    def image(*values: Tensor) -> Tensor:
        inputs: Inputs = dict(zip(names, values, strict=True))
        return case.twin(inputs)

    values = [x[k].requires_grad_() for k in names]
    assert gradcheck(image, values)
    assert gradgradcheck(image, values)
