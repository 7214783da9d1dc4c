"""Losses and metrics far from the origin, in other units of length, and of nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from torch import Tensor

import taichi_raster as tr
from taichi_raster.fitting.deformation import SmoothOffsets
from tasks.silhouettes import mean_iou

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

BODY = tr.blob(2, 0.3, 2, dtype=torch.float64)
COUNT = len(BODY.vertices)
GENERATOR = torch.Generator().manual_seed(0)
POINTS = BODY.vertices[None] + 0.1 * torch.randn(1, COUNT, 3, generator=GENERATOR).double()
PADDED = torch.cat([BODY.faces, torch.full((3, 3), -1)])[None]
GREY = torch.full((1, len(BODY.faces), 3, 3), 0.5, dtype=torch.float64)

Measure = Callable[[Tensor, Tensor], Tensor]

MEASURES: dict[str, Measure] = {
    "chamfer_distance": lambda v, p: tr.chamfer_distance(p, v),
    "surface_distance": lambda v, p: tr.surface_distance(p, v, BODY.faces),
    "surface_distance, padded": lambda v, p: tr.surface_distance(p, v, PADDED),
    "sample_surface": lambda v, p: (
        tr.sample_surface(v, BODY.faces, 50, torch.Generator().manual_seed(1)) - p[:, :50]
    ),
    "volume": lambda v, p: tr.volume(v, BODY.faces),
    "volume, padded": lambda v, p: tr.volume(v, PADDED),
    "LaplacianLoss": lambda v, p: tr.LaplacianLoss(BODY.faces, COUNT).to(v.dtype)(v),
    "FlatteningLoss": lambda v, p: tr.FlatteningLoss(BODY.faces, COUNT)(v),
    "NormalConsistencyLoss": lambda v, p: tr.NormalConsistencyLoss(BODY.faces, COUNT)(v),
    "EdgeLengthLoss": lambda v, p: tr.EdgeLengthLoss(BODY.faces, COUNT)(v),
    "EdgeLengthLoss, own mean": lambda v, p: tr.EdgeLengthLoss(BODY.faces, COUNT, None)(v),
    "mse": tr.mse,
    "face_normals": lambda v, p: tr.face_normals(tr.gather_faces(v, BODY.faces)),
    "vertex_normals": lambda v, p: tr.vertex_normals(v, BODY.faces),
    "vertex_normals, by angle": lambda v, p: tr.vertex_normals(v, BODY.faces, "angle"),
    "normalise": lambda v, p: tr.normalise(tr.Mesh(v[0], BODY.faces)).vertices,
    "subdivide": lambda v, p: tr.subdivide(tr.Mesh(v[0], BODY.faces)).vertices[COUNT:] - p[0, :1],
    "SmoothOffsets": lambda v, p: SmoothOffsets(tr.Mesh(v[0], BODY.faces), 2.0)() - p[0],
    "shade_gouraud": lambda v, p: tr.shade_gouraud(
        v,
        BODY.faces,
        GREY.to(v),
        [tr.PointLight(p[0, 0] + 3)],
        p[0, 1] + 5,
        tr.Material(0.2, two_sided=True),
    ),
    "look_at": lambda v, p: tr.PerspectiveCamera(tr.look_at(p[0, 0] + 4, p[0, 1])).project(v),
    "orbit": lambda v, p: tr.PerspectiveCamera(tr.orbit(6.0, 20.0, 30.0, p[0, 0])).project(v),
}

OFFSETS = [
    ((1e3, 1e3, 0.0), torch.float32),
    ((1e3, -1e3, 1e3), torch.float32),
    ((5e5, 4e6, 0.0), torch.float64),
]


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize(("offset", "dtype"), OFFSETS)
def test_a_translation_changes_what_rounding_of_the_inputs_explains(
    name: str, offset: tuple[float, ...], dtype: torch.dtype
) -> None:
    """The moved inputs, moved back exactly, give the same values and gradients."""
    shift = torch.tensor(offset, dtype=torch.float64)
    moved = [(values + shift).to(dtype) for values in (BODY.vertices[None], POINTS)]
    # What the inputs are after rounding, around the origin: in float64, hardly rounded again.
    home = [(values.double() - shift).requires_grad_() for values in moved]
    moved = [values.requires_grad_() for values in moved]
    found, expected = MEASURES[name](*moved), MEASURES[name](*home)
    # Results may be rounded as coordinates are, and be sums of a few of them.
    unit = torch.finfo(dtype).eps * shift.abs().max()
    size = 1 + expected.abs().max()
    assert (found.double() - expected).abs().max() < 4 * unit * size
    weights = torch.linspace(-1, 1, expected.numel()).double().view(expected.shape)
    slopes = [
        torch.autograd.grad((values * weights.to(values)).sum(), inputs, allow_unused=True)
        for values, inputs in ((found, moved), (expected, home))
    ]
    for ours, exact in zip(*slopes, strict=True):
        if exact is not None:
            assert ours is not None
            worst = 40 * unit * (1 + exact.abs().max())
            assert (ours.double() - exact).abs().max() < worst


POWERS = {  # of the unit of length; of others, a light or a camera stands at a given place
    **dict.fromkeys(["volume", "volume, padded"], 3),
    **dict.fromkeys(["LaplacianLoss", "EdgeLengthLoss", "EdgeLengthLoss, own mean", "mse"], 2),
    **dict.fromkeys(["chamfer_distance", "surface_distance", "surface_distance, padded"], 1),
    **dict.fromkeys(["sample_surface", "SmoothOffsets"], 1),
    **dict.fromkeys(["FlatteningLoss", "NormalConsistencyLoss", "face_normals"], 0),
    **dict.fromkeys(["vertex_normals", "vertex_normals, by angle", "normalise"], 0),
}


@pytest.mark.parametrize("name", POWERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [2.0**-30, 2.0**-10, 2.0**30])
def test_another_unit_of_length_changes_nothing_else(
    name: str, dtype: torch.dtype, scale: float
) -> None:
    """Powers of two round nothing: values and slopes agree to the last digits."""
    found = []
    for size in (1.0, scale):
        inputs = [(size * v).to(dtype).requires_grad_() for v in (BODY.vertices[None], POINTS)]
        values = MEASURES[name](*inputs)
        weights = torch.linspace(-1, 1, values.numel()).view(values.shape).to(values)
        slopes = torch.autograd.grad((values * weights).sum(), inputs, allow_unused=True)
        power = POWERS[name]
        found.append(
            [values / size**power, *(size ** (1 - power) * s for s in slopes if s is not None)]
        )
    for one, other in zip(*found, strict=True):
        worst = 100 * torch.finfo(dtype).eps * one.abs().max()
        torch.testing.assert_close(other, one, atol=float(worst), rtol=0)


@pytest.mark.parametrize(("offset", "dtype"), OFFSETS)
def test_chamfer_distance_is_a_k_d_trees(offset: tuple[float, ...], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    a, b = (torch.rand(n, 3, generator=generator, dtype=torch.float64) for n in (300, 400))
    a, b = ((points + torch.tensor(offset)).to(dtype) for points in (a, b))
    there, back = (
        cKDTree(other.double().numpy()).query(points.double().numpy())[0].mean()
        for points, other in ((a, b), (b, a))
    )
    found = float(tr.chamfer_distance(a[None], b[None]))
    assert found == pytest.approx((there + back) / 2, rel=1e-5)


def test_surface_distance_finds_the_nearest_face_in_float32() -> None:
    """Of points on the surface it is 0, as far as their rounding allows."""
    sphere = tr.icosphere(3, dtype=torch.float32)
    points = tr.sample_surface(
        sphere.vertices[None], sphere.faces, 500, torch.Generator().manual_seed(0)
    )
    assert tr.surface_distance(points, sphere.vertices[None], sphere.faces).max() < 3e-7


ONE, POINT = torch.tensor([[0, 1, 2]]), torch.tensor([[0, 0, 0]])
NOTHING: dict[str, Callable[[Tensor], Tensor]] = {
    "NormalConsistencyLoss, one triangle": tr.NormalConsistencyLoss(ONE, 6),
    "NormalConsistencyLoss, unwelded": tr.NormalConsistencyLoss(torch.arange(6).view(2, 3), 6),
    "FlatteningLoss": tr.FlatteningLoss(ONE, 6),
    "LaplacianLoss, no edges": tr.LaplacianLoss(POINT, 6),
    "EdgeLengthLoss, edges of no length": tr.EdgeLengthLoss(POINT, 6),
    "EdgeLengthLoss, their own mean": tr.EdgeLengthLoss(POINT, 6, None),
    "mse": lambda v: tr.mse(v[:, :0], v[:, :0]),
    "coverage_iou_loss, two empty": lambda v: tr.coverage_iou_loss(0 * v, 0 * v),
    "silhouette_iou_loss, no pixels": lambda v: tr.silhouette_iou_loss(v[:, :0], v[:, :0]),
    "silhouette_iou_loss, two empty": lambda v: tr.silhouette_iou_loss(0 * v, 0 * v),
    "volume, of padding": lambda v: tr.volume(v, torch.full((2, 4, 3), -1)),
    "face_normals, of points": lambda v: tr.face_normals(0 * v.view(2, 2, 3, 3)).sum((1, 2)),
    "vertex_normals, of padding": lambda v: tr.vertex_normals(v, torch.full((2, 4, 3), -1)).sum(
        (1, 2)
    ),
    "vertex_normals, by angle": lambda v: tr.vertex_normals(0 * v, ONE, "angle").sum((1, 2)),
    "illuminate, at the light": lambda v: tr.illuminate(
        torch.ones_like(v), v, 0 * v, [tr.PointLight((0.0, 0.0, 0.0), 1.0, (0.0, 0.0, 1.0))]
    ).sum((1, 2)),
    "mean_iou, of two empty": lambda v: 1 - mean_iou(0 * v[:, None], 0 * v[:, None]),
}


@pytest.mark.parametrize("name", NOTHING)
def test_of_nothing_it_is_0_with_finite_gradients(name: str) -> None:
    generator = torch.Generator().manual_seed(5)
    vertices = torch.randn(2, 6, 3, generator=generator, dtype=torch.float64).requires_grad_()
    value = NOTHING[name](vertices)
    assert torch.equal(value, torch.zeros(2, dtype=torch.float64))
    if value.requires_grad:
        (slope,) = torch.autograd.grad(value.sum(), vertices, allow_unused=True)
        assert slope is None or slope.isfinite().all()


def test_what_has_no_answer_is_refused() -> None:
    vertices = torch.zeros(2, 6, 3)
    faces = torch.tensor([[[0, 1, 2]], [[-1, -1, -1]]])
    with pytest.raises(ValueError, match=r"^faces: a batch item holds padding alone"):
        tr.surface_distance(vertices, vertices, faces)
    dark = tr.PointLight(attenuation=(0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match=r"^attenuation: must not be 0 in all"):
        tr.illuminate(vertices, vertices, vertices, [dark])


def test_a_light_from_afar_may_have_a_short_direction() -> None:
    normals = torch.tensor([[[0.0, 0.0, 1.0]]])
    light = tr.DirectionalLight((0.0, 0.0, 1e-12), 1.0)
    lit = tr.illuminate(torch.ones_like(normals), normals, 0 * normals, [light])
    np.testing.assert_allclose(lit, 1.0, rtol=1e-6)
