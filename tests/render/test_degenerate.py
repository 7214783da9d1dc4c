"""Triangles that are none: no NaN in the image, finite first and second gradients, everywhere."""

import pytest
import torch

import taichi_raster as tr
from scenes import (
    DEGENERATE,
    SECOND_ORDER_MODES,
    Case,
    degenerate_faces,
    grad,
    gradients,
    hessian_vector_products,
)


@SECOND_ORDER_MODES
@pytest.mark.parametrize("name", DEGENERATE)
def test_image_and_both_gradients_are_finite(
    name: str, edge: str, depth: str, dtype: torch.dtype
) -> None:
    case = Case(edge, depth).but(image_size=(8, 8))
    x = case.inputs(seed=91, batch=1, faces=2, dtype=dtype)
    x["vertices"], x["attributes"] = degenerate_faces(name, dtype)
    image = case.ours(x)
    assert image.isfinite().all()
    assert image.min() >= -1e-6 and image.max() <= 1 + 1e-6
    for order, derivative in enumerate((gradients, hessian_vector_products), start=1):
        for input_name, value in derivative(case.ours, x).items():
            assert value.isfinite().all(), f"order {order}: {input_name}"


@pytest.mark.parametrize("scale", [1e-1, 1e-3])
@SECOND_ORDER_MODES
def test_no_overflow_at_small_scales(
    edge: str, depth: str, scale: float, dtype: torch.dtype
) -> None:
    """Pixels a thousand scales away, in and out."""
    case = Case(edge, depth).but(image_size=(8, 8), threshold=1e-6)
    x = case.inputs(seed=92, dtype=dtype)
    x["scale"] = torch.tensor(scale, dtype=dtype)
    if depth == "softmax":
        x["gamma"] = torch.tensor(1e-4, dtype=dtype)
    assert case.ours(x).isfinite().all()
    for derivative in (gradients, hessian_vector_products):
        assert all(v.isfinite().all() for v in derivative(case.ours, x).values())


@pytest.mark.parametrize("edge", ["logistic", "mlp"])
def test_no_threshold_and_a_sharp_depth_stay_finite(edge: str, dtype: torch.dtype) -> None:
    """Fragments of coverage 1e-30 whose weight still beats the background's."""
    case = Case(edge).but(image_size=(8, 8), threshold=0.0, near=0.1, far=100.0)
    x = case.inputs(seed=95, batch=1, faces=2)
    x["vertices"] = x["vertices"] * torch.tensor([0.15, 0.15, 1.0], dtype=torch.float64)
    x["scale"] = torch.tensor(0.015, dtype=torch.float64)
    x["gamma"] = torch.tensor(1e-2, dtype=torch.float64)
    x["background_z"] = torch.tensor(2e-3, dtype=torch.float64)
    narrow = {k: v.to(dtype) for k, v in x.items()}
    assert case.ours(narrow).isfinite().all()
    for order, derivative in enumerate((gradients, hessian_vector_products), start=1):
        for name, value in derivative(case.ours, narrow).items():
            assert value.isfinite().all(), f"order {order}: {name}"


def test_a_face_of_no_area_has_no_inside(dtype: torch.dtype) -> None:
    """Hard depth shows the ordinary triangle behind it, and nothing of it."""
    for name in ("a point", "a repeated vertex", "edge-on", "collinear, level"):
        case = Case("logistic", "hard").but(image_size=(8, 8))
        x = case.inputs(seed=93, batch=1, faces=2, dtype=dtype)
        x["vertices"], x["attributes"] = degenerate_faces(name, dtype)
        alone = {**x, "vertices": x["vertices"][:, 1:], "attributes": x["attributes"][:, 1:]}
        assert torch.equal(case.ours(x)[..., :-1], case.ours(alone)[..., :-1]), name


@pytest.mark.parametrize("name", DEGENERATE)
def test_sharp_reference_is_finite(name: str, dtype: torch.dtype) -> None:
    vertices, attributes = degenerate_faces(name, dtype)
    vertices.requires_grad_()
    attributes.requires_grad_()
    image = tr.SharpRasterizer(image_size=8)(vertices, attributes)
    assert image.isfinite().all()
    image.square().sum().backward()
    assert grad(vertices).isfinite().all() and grad(attributes).isfinite().all()


@pytest.mark.parametrize("name", ["a sliver", "tiny", "huge", "right-angled"])
def test_thin_and_extreme_triangles_still_look_like_the_twins(
    name: str, dtype: torch.dtype
) -> None:
    case = Case().but(image_size=(8, 8))
    x = case.inputs(seed=94, batch=1, faces=2)
    x["vertices"], x["attributes"] = (v.double() for v in degenerate_faces(name, dtype))
    error = (case.ours({k: v.to(dtype) for k, v in x.items()}).double() - case.twin(x)).abs()
    small = 1e-9 if dtype == torch.float64 else 2e-3  # 1e4 half-images away, float32 sees 1e-3
    assert error[..., -1].max() < small
    # Which of two edges 1e-9 apart gives the colour is a rounding in float32.
    if dtype == torch.float64 or name in ("huge", "right-angled"):
        assert error.max() < small
