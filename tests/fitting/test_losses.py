"""Losses: closed-form values, and derivatives by finite differences."""

import math

import pytest
import torch

from taichi_raster.fitting.losses import (
    EdgeLengthLoss,
    FlatteningLoss,
    LaplacianLoss,
    NormalConsistencyLoss,
    coverage_iou_loss,
    mse,
    silhouette_iou_loss,
)
from taichi_raster.scene.procedural import icosphere

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
F64 = torch.float64


def hinge(angle: float) -> torch.Tensor:
    """Two unit right triangles that share an edge on the x axis, `angle` between their planes."""
    return torch.tensor(
        [[[0, 0, 0], [1, 0, 0], [0.3, 1, 0], [0.6, math.cos(angle), math.sin(angle)]]], dtype=F64
    )


HINGE_FACES = torch.tensor([[0, 1, 2], [1, 0, 3]])


def test_iou_of_overlapping_rectangles():
    first, second = torch.zeros(2, 8, 8, dtype=F64)
    first[0:4, 0:4] = 1
    second[2:6, 0:4] = 1
    loss = silhouette_iou_loss(torch.stack([first, first]), torch.stack([second, first]))
    torch.testing.assert_close(loss, torch.tensor([1 - 8 / 24, 0], dtype=F64))


def test_iou_of_soft_masks_is_that_of_independent_events():
    p, t = torch.full((1, 4, 4), 0.25, dtype=F64), torch.full((1, 4, 4), 0.5, dtype=F64)
    expected = 1 - 0.125 / (0.25 + 0.5 - 0.125)
    assert silhouette_iou_loss(p, t).item() == pytest.approx(expected)


def test_iou_of_coverages_is_1_for_equal_ones_alone():
    generator = torch.Generator().manual_seed(0)
    p, t = torch.rand(2, 3, 8, 8, dtype=F64, generator=generator)
    loss = coverage_iou_loss(p, t)
    smaller, larger = p.numpy().clip(max=t.numpy()), p.numpy().clip(min=t.numpy())
    expected = torch.from_numpy(1 - smaller.sum((1, 2)) / larger.sum((1, 2)))
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    assert bool((loss > 0).all())
    same = p.clone().requires_grad_()
    loss = coverage_iou_loss(same, p)
    (gradient,) = torch.autograd.grad(loss.sum(), same)
    torch.testing.assert_close(loss, torch.zeros_like(loss), rtol=0, atol=1e-15)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-15)


def test_two_empty_masks_agree_and_have_finite_gradients():
    p = torch.zeros(1, 4, 4, dtype=F64, requires_grad=True)
    loss = silhouette_iou_loss(p, torch.zeros_like(p))
    assert loss.item() == 0
    (gradient,) = torch.autograd.grad(loss.sum(), p)
    assert gradient.isfinite().all()


def test_mse_is_the_mean_of_each_item():
    p = torch.stack([torch.zeros(3, 3, 2), torch.ones(3, 3, 2)])
    assert mse(p, torch.full_like(p, 0.5)).tolist() == [0.25, 0.25]
    assert mse(p, torch.zeros_like(p)).tolist() == [0, 1]


def test_laplacian_of_a_vertex_lifted_from_its_neighbours():
    # A square fan around vertex 0. Lifting it by h moves it h from the mean of the four others,
    # and each other's mean (of three neighbours) by h / 3.
    square = torch.tensor([[1.0, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]], dtype=F64)
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 1]])
    loss = LaplacianLoss(faces, 5)

    def at(height):
        return loss(torch.cat([torch.tensor([[0, 0, height]], dtype=F64), square])[None]).item()

    assert at(0.6) - at(0.0) == pytest.approx(0.6**2 + 4 * 0.2**2)
    assert at(0.0) == pytest.approx(4 * 1.0**2)  # neighbours' mean is the origin


def test_laplacian_does_not_depend_on_place_and_scales_with_area():
    sphere = icosphere(2, dtype=F64)
    loss = LaplacianLoss(sphere.faces, len(sphere.vertices))
    there = torch.stack([sphere.vertices, sphere.vertices + 3, 2 * sphere.vertices])
    values = loss(there)
    torch.testing.assert_close(values / values[0], torch.tensor([1.0, 1.0, 4.0], dtype=F64))


def test_a_vertex_that_no_face_uses_adds_nothing():
    vertices = torch.randn(1, 4, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    faces = torch.tensor([[0, 1, 2]])
    torch.testing.assert_close(
        LaplacianLoss(faces, 4)(vertices), LaplacianLoss(faces, 3)(vertices[:, :3])
    )


@pytest.mark.parametrize("angle", [0.0, 0.5, math.pi / 2, 2.0, math.pi])
def test_flattening_is_the_dihedral_cosine(angle):
    loss = FlatteningLoss(HINGE_FACES, 4)(hinge(angle))
    assert loss.item() == pytest.approx((1 + math.cos(angle)) ** 2, abs=1e-8)


def test_flattening_counts_inner_edges_only():
    sphere = icosphere(1, dtype=F64)
    assert len(FlatteningLoss(sphere.faces, 42).hinges) == 120  # 3 F / 2
    assert len(FlatteningLoss(sphere.faces[1:], 42).hinges) == 117
    fan = torch.tensor([[0, 1, 2], [1, 0, 3], [0, 1, 4]])
    assert len(FlatteningLoss(fan, 5).hinges) == 0


@pytest.mark.parametrize("float_dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("moved", [{1: 0}, {2: 0}, {2: 0, 3: 1}, {1: 0, 2: 0, 3: 0}], ids=str)
def test_flattening_of_degenerate_faces_is_finite(moved, float_dtype):
    vertices = hinge(1.0).to(float_dtype)
    for index, onto in moved.items():
        vertices[0, index] = vertices[0, onto]
    vertices.requires_grad_()
    loss = FlatteningLoss(HINGE_FACES, 4)(vertices)
    (gradient,) = torch.autograd.grad(loss.sum(), vertices, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), vertices)
    assert loss.isfinite().all() and gradient.isfinite().all() and second.isfinite().all()


def test_derivatives_are_exact():
    generator = torch.Generator().manual_seed(1)
    images = [torch.rand(2, 3, 3, dtype=F64, generator=generator, requires_grad=True) for _ in "ab"]
    sphere = icosphere(0, dtype=F64)
    noise = torch.randn(2, 12, 3, dtype=F64, generator=generator)
    vertices = (sphere.vertices + 0.2 * noise).requires_grad_()
    for function, inputs in (
        (silhouette_iou_loss, images),
        (coverage_iou_loss, images),
        (mse, images),
        (LaplacianLoss(sphere.faces, 12), [vertices]),
        (FlatteningLoss(sphere.faces, 12), [vertices]),
    ):
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: silhouette_iou_loss(torch.ones(4, 4), torch.ones(4, 4)), "predicted"),
        (lambda: silhouette_iou_loss(torch.ones(1, 4, 4), torch.ones(2, 4, 4)), "target"),
        (lambda: coverage_iou_loss(torch.ones(1, 4, 4), torch.ones(2, 4, 4)), "target"),
        (lambda: mse(torch.ones(4), torch.ones(4)), "predicted"),
        (lambda: mse(torch.ones(4, 1), torch.ones(4)), "target"),
        (lambda: LaplacianLoss(HINGE_FACES, 3), "faces"),
        (lambda: LaplacianLoss(HINGE_FACES, 4)(torch.ones(4, 3)), "vertices"),
        (lambda: FlatteningLoss(HINGE_FACES, 3), "faces"),
        (lambda: FlatteningLoss(HINGE_FACES, 4)(torch.ones(1, 5, 3)), "vertices"),
        (lambda: FlatteningLoss(HINGE_FACES, 4, smallest=0.0), "smallest"),
    ],
)
def test_bad_arguments_are_named(call, argument):
    with pytest.raises(ValueError, match=f"^{argument}: "):
        call()


@pytest.mark.parametrize("angle", [0.3, 1.2, math.pi / 2, 2.5, math.pi])
def test_normal_consistency_is_one_minus_the_cosine_between_normals(angle: float) -> None:
    # Planes `angle` apart as pages of a book are: pi is flat, where the normals agree.
    loss = NormalConsistencyLoss(HINGE_FACES, 4)(hinge(angle))
    torch.testing.assert_close(loss, torch.tensor([1 + math.cos(angle)], dtype=F64))


def test_edge_length_loss_is_the_mean_squared_deviation():
    faces, square = (torch.tensor([[0, 1, 2]]), torch.tensor([[[0.0, 0, 0], [3, 0, 0], [3, 4, 0]]]))
    square = square.double()
    assert EdgeLengthLoss(faces, 3)(square).item() == pytest.approx((9 + 16 + 25) / 3)
    assert EdgeLengthLoss(faces, 3, 2.0)(square).item() == pytest.approx((1 + 4 + 9) / 3)
    assert EdgeLengthLoss(faces, 3, None)(square).item() == pytest.approx(2 / 3)


def test_degenerate_faces_have_finite_gradients_in_the_new_losses() -> None:
    vertices = torch.zeros(1, 4, 3, dtype=F64, requires_grad=True)
    for loss in (NormalConsistencyLoss(HINGE_FACES, 4), EdgeLengthLoss(HINGE_FACES, 4, 0.1)):
        (gradient,) = torch.autograd.grad(loss(vertices).sum(), vertices)
        assert bool(gradient.isfinite().all())


def test_the_new_losses_have_first_and_second_derivatives() -> None:
    sphere = icosphere(0, dtype=F64)
    noise = torch.randn(2, 12, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    vertices = (sphere.vertices + 0.1 * noise).requires_grad_()
    for loss in (
        NormalConsistencyLoss(sphere.faces, 12),
        EdgeLengthLoss(sphere.faces, 12, 0.5),
        EdgeLengthLoss(sphere.faces, 12, None),
    ):
        assert torch.autograd.gradcheck(loss, vertices)
        assert torch.autograd.gradgradcheck(loss, vertices)


def test_a_negative_target_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^target: "):
        EdgeLengthLoss(HINGE_FACES, 4, -1.0)
