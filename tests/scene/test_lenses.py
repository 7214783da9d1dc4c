"""Lenses: OpenCV's own numbers, closed forms of the fold, derivatives by finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import taichi_raster as tr

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
F64 = torch.float64

# From opencv-python-headless 5.0.0: cv2.projectPoints and cv2.fisheye.projectPoints of these
# points, with no rotation and translation and this matrix.
POINTS = [[0.1, 0.2, 2.0], [-0.7, 0.5, 1.5], [0.9, -0.8, 1.2], [0.0, 0.0, 1.0]]
MATRIX = [[500.0, 0.0, 320.0], [0.0, 510.0, 240.0], [0.0, 0.0, 1.0]]
OPENCV: dict[str, tuple[tr.Lens, list[list[float]]]] = {
    "five coefficients": (
        tr.BrownConradyLens.from_opencv([-0.28, 0.07, 0.0012, -0.0008, -0.01]),
        [
            [344.91177295, 290.83786682],
            [105.97789609, 396.03582237],
            [610.60523601, -23.23101584],
            [320.0, 240.0],
        ],
    ),
    "rational": (
        tr.BrownConradyLens.from_opencv([0.9, -0.35, 0.0015, -0.002, 0.05, 1.2, -0.1, 0.03]),
        [
            [344.89667287, 290.82427515],
            [106.72863179, 395.39540636],
            [598.235463, -12.40947025],
            [320.0, 240.0],
        ],
    ),
    "fisheye": (
        tr.KannalaBrandtLens((-0.03, 0.01, -0.004, 0.0007)),
        [
            [344.88738658, 290.77026863],
            [109.72904291, 393.19741159],
            [609.56569831, -22.53956647],
            [320.0, 240.0],
        ],
    ),
}
LENSES = {name: lens for name, (lens, _) in OPENCV.items()}


@pytest.mark.parametrize("name", OPENCV)
def test_points_land_where_opencv_puts_them(name: str) -> None:
    lens, pixels = OPENCV[name]
    height, width = 480, 640
    eye, zero = torch.eye(3, dtype=F64)[None], torch.zeros(1, 3, dtype=F64)
    camera = tr.conventions.from_opencv(eye, zero, MATRIX, (height, width), lens=lens)
    x, y, _ = camera.project(torch.tensor([POINTS], dtype=F64))[0].unbind(-1)
    u, v = (x * height + width - 1) / 2, (height - 1 - y * height) / 2  # whole at pixel centres
    torch.testing.assert_close(
        torch.stack([u, v], -1), torch.tensor(pixels, dtype=F64), atol=1e-7, rtol=0
    )


# Derivatives --------------------------------------------------------------------------------------

PLANE = torch.tensor([[[0.3, -0.2], [-0.5, 0.4], [0.0, 0.0], [0.004, 0.003]]], dtype=F64)
MADE: dict[str, tuple[Callable[[Tensor], tr.Lens], list[float]]] = {
    "brown": (
        tr.BrownConradyLens.from_opencv,
        [-0.18, 0.07, 0.012, -0.008, -0.01, 0.05, 0.02, 0.01],
    ),
    "fisheye": (tr.KannalaBrandtLens, [-0.03, 0.01, -0.004, 0.0007]),
}


@pytest.mark.parametrize("way", ["distort", "undistort"])
@pytest.mark.parametrize("name", MADE)
def test_both_ways_are_twice_differentiable_in_points_and_coefficients(name: str, way: str) -> None:
    make, values = MADE[name]
    inputs = [PLANE.clone().requires_grad_(), torch.tensor(values).double().requires_grad_()]

    def bent(points: Tensor, coefficients: Tensor) -> Tensor:
        return getattr(make(coefficients), way)(points)

    assert torch.autograd.gradcheck(bent, inputs)
    assert torch.autograd.gradgradcheck(bent, inputs)


@pytest.mark.parametrize("name", MADE)
def test_beyond_the_radius_derivatives_are_right_too(name: str) -> None:
    make, values = MADE[name]
    lens = make(torch.tensor([*values[:1], *[0.0] * (len(values) - 1)]).double())
    far = (2.3 * lens.radius * torch.tensor([[[0.6, 0.8]]]).double()).requires_grad_()
    assert torch.autograd.gradcheck(lens.distort, [far])
    assert torch.autograd.gradgradcheck(lens.distort, [far])


# The way back -------------------------------------------------------------------------------------


def disc(radius: float, count: int = 500) -> Tensor:
    """Points (1, count, 2) all over a disc."""
    g = torch.Generator().manual_seed(0)
    turn = 2 * math.pi * torch.rand(count, generator=g, dtype=F64)
    r = radius * torch.rand(count, generator=g, dtype=F64).sqrt()
    return torch.stack([turn.cos() * r, turn.sin() * r], dim=-1)[None]


coefficient = st.floats(-0.5, 0.5)


@given(
    k=st.lists(coefficient, min_size=6, max_size=6),
    p1=st.floats(-0.02, 0.02),
    p2=st.floats(-0.02, 0.02),
)
def test_within_its_radius_any_lens_is_one_to_one(k: list[float], p1: float, p2: float) -> None:
    for lens in (tr.BrownConradyLens(tuple(k), (p1, p2)), tr.KannalaBrandtLens(tuple(k[:4]))):
        points = disc(min(float(lens.radius), 3.0))
        back = lens.undistort(lens.distort(points))
        torch.testing.assert_close(back, points, atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("name", LENSES)
def test_the_way_back_keeps_single_precision(name: str) -> None:
    points = disc(0.9).float()
    back = LENSES[name].undistort(LENSES[name].distort(points))
    assert back.dtype == torch.float32
    torch.testing.assert_close(back, points, atol=3e-6, rtol=0)


def test_where_no_ray_arrives_the_way_back_is_nan_without_nan_gradients() -> None:
    lens = tr.BrownConradyLens((-0.3,))
    fold = 1 / math.sqrt(3 * 0.3)  # of r - 0.3 r³, which is 2/3 of it there
    points = torch.tensor([[[0.66 * fold, 0.0], [0.0, 0.68 * fold]]], dtype=F64, requires_grad=True)
    back = lens.undistort(points)
    assert back[0, 0].isfinite().all() and back[0, 1].isnan().all()
    (slope,) = torch.autograd.grad(back[0, 0].sum(), points)
    assert slope.isfinite().all()


# The fold -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lens", "fold"),
    [
        (tr.BrownConradyLens((-0.3,)), 1 / math.sqrt(0.9)),  # 1 - 0.9 r² = 0
        (tr.BrownConradyLens((0.2, -0.1)), math.sqrt((0.6 + math.sqrt(0.36 + 2)) / 1)),
        (tr.BrownConradyLens((0.0,), (0.03, 0.04)), 1 / (6 * 0.05)),  # 1 - 6 r |p| = 0
        (tr.BrownConradyLens((0.0, 0.0, 0.0, -0.25)), 2.0),  # a pole at r² = 4
        (tr.BrownConradyLens((0.0, 0.0, 0.0, 0.25)), 2.0),  # r / (1 + r² / 4)
        (tr.BrownConradyLens((0.1,)), math.inf),
        (tr.KannalaBrandtLens(), math.inf),
    ],
)
def test_the_radius_reaches_almost_to_the_nearest_fold(lens: tr.Lens, fold: float) -> None:
    assert float(lens.radius) == pytest.approx(min(0.99 * fold, 100.0))


def test_a_fisheye_folds_at_an_angle() -> None:
    angle = 0.99 / math.sqrt(3 * 0.5)  # of θ - θ³ / 2
    assert float(tr.KannalaBrandtLens((-0.5,)).radius) == pytest.approx(math.tan(angle))


def test_beyond_the_radius_points_go_on_outwards() -> None:
    lens = tr.BrownConradyLens((-0.3,), (0.001, 0.002))
    steps = torch.linspace(0.01, 5, 400, dtype=F64)[:, None] * torch.tensor([0.6, -0.8]).double()
    distance = lens.distort(steps[None])[0].norm(dim=-1)
    assert (distance.diff() > 0).all()


# Cameras ------------------------------------------------------------------------------------------

VIEW = tr.look_at(torch.tensor([[1.0, 2.0, 3.0], [2.0, -1.0, 4.0]], dtype=F64))
CAMERAS: dict[str, tr.Camera] = {
    "perspective": tr.PerspectiveCamera(VIEW, 50.0),
    "pinhole": tr.PinholeCamera(VIEW, (1.7, 1.9), (0.1, -0.2), 0.03),
    "orthographic": tr.OrthographicCamera(VIEW, 1.3, (0.1, 0.2)),
}


@pytest.mark.parametrize("lens", ["five coefficients", "fisheye"])
@pytest.mark.parametrize("name", CAMERAS)
def test_every_camera_bends_what_it_sees_by_the_lens(name: str, lens: str) -> None:
    camera = CAMERAS[name]
    points = torch.tensor([[[0.3, -0.2, 0.1], [-0.4, 0.5, 0.2]]], dtype=F64)
    bent = replace(camera, lens=LENSES[lens]).project(points)
    # The lens acts on the plane in which a plain camera, of angle 90 or extent 1, has its picture.
    plain: tr.Camera = tr.PinholeCamera(VIEW)
    if name == "orthographic":
        plain = camera
    plane = plain.project(points)[..., :2] * torch.tensor([1.0, -1.0])
    x, y = (LENSES[lens].distort(plane) * torch.tensor([1.0, -1.0])).unbind(-1)
    expected = {
        "perspective": torch.stack([x, y], -1) / math.tan(math.radians(25)),
        "pinhole": torch.stack([1.7 * x + 0.03 * y + 0.1, 1.9 * y - 0.2], -1),
        "orthographic": torch.stack([x, y], -1),
    }[name]
    torch.testing.assert_close(bent[..., :2], expected)
    torch.testing.assert_close(bent[..., 2], camera.project(points)[..., 2])


@pytest.mark.parametrize("lens", [None, *LENSES])
@pytest.mark.parametrize("name", CAMERAS)
def test_from_image_is_the_way_back(name: str, lens: str | None) -> None:
    camera = replace(CAMERAS[name], lens=LENSES[lens] if lens else None)
    points = torch.tensor([[[0.3, -0.2, 2.0], [-0.4, 0.5, 3.0]]] * 2, dtype=F64)
    torch.testing.assert_close(camera.from_image(camera.to_image(points)), points)


def test_a_batch_of_lenses_serves_a_batch_of_cameras() -> None:
    rows = torch.tensor([[-0.2, 0.1], [0.1, -0.05]], dtype=F64)
    points = torch.tensor([[[0.3, -0.2, 0.1], [-0.4, 0.5, 0.2]]], dtype=F64)
    both = tr.PerspectiveCamera(VIEW, 50.0, lens=tr.BrownConradyLens(rows)).project(points)
    for i in (0, 1):
        one = tr.PerspectiveCamera(VIEW[i : i + 1], 50.0, lens=tr.BrownConradyLens(rows[i]))
        torch.testing.assert_close(both[i : i + 1], one.project(points))


def test_lenses_move_with_their_camera() -> None:
    lens = tr.BrownConradyLens(torch.tensor([[-0.2, 0.1]], dtype=F64))
    moved = tr.PerspectiveCamera(VIEW, 50.0, lens=lens).to(torch.float32)
    assert isinstance(moved.lens, tr.BrownConradyLens)
    assert isinstance(moved.lens.radial, Tensor) and moved.lens.radial.dtype == torch.float32


def test_a_mistaken_lens_is_refused_by_name() -> None:
    three = tr.BrownConradyLens(torch.zeros(3, 2))
    cases: list[tuple[str, Callable[[], Any]]] = [
        ("lens: batch", lambda: tr.PerspectiveCamera(VIEW, lens=three)),
        ("lens: expected a Lens", lambda: tr.PerspectiveCamera(VIEW, lens=[0.1])),  # type: ignore[arg-type]
        ("radial: must have 1 to 6", lambda: tr.BrownConradyLens((0.0,) * 7)),
        ("radial: must have 1 to 4", lambda: tr.KannalaBrandtLens((0.0,) * 5)),
        ("radial: must have", lambda: tr.KannalaBrandtLens(torch.zeros(1, 2, 3))),
        ("tangential: must have 2", lambda: tr.BrownConradyLens((0.1,), (0.1,))),  # type: ignore[arg-type]
        ("radial: holds an infinite", lambda: tr.BrownConradyLens((math.nan,))),
        ("coefficients: must be 4, 5", lambda: tr.BrownConradyLens.from_opencv([0.1] * 6)),
        ("coefficients: those of a thin", lambda: tr.BrownConradyLens.from_opencv([0.1] * 12)),
        (
            "tangential: has batch 2",
            lambda: tr.BrownConradyLens(torch.zeros(3, 2), torch.zeros(2, 2)),
        ),
        ("points: must be", lambda: three.distort(torch.zeros(1, 3))),
        ("points: batch", lambda: three.distort(torch.zeros(2, 1, 2))),
        ("points: expected a torch", lambda: three.distort(np.zeros((1, 2)))),  # type: ignore[arg-type]
    ]
    for message, make in cases:
        with pytest.raises((TypeError, ValueError), match=message):
            make()


# Faces --------------------------------------------------------------------------------------------

ONE = torch.tensor([[0, 1, 2]])
BARREL = tr.BrownConradyLens((-0.3,), (0.001, 0.0005))
HOME = tr.look_at(torch.tensor([[0.0, 0.0, 0.0]], dtype=F64), (0.0, 0.0, -1.0))


def test_what_would_fold_back_into_the_image_is_cut_off() -> None:
    # 1.6 - 0.3 * 1.6³ = 0.37: by the bare polynomial, this face lies in the middle of the image.
    face = torch.tensor([[[1.6, 0.0, -1.0], [1.7, 0.0, -1.0], [1.6, 0.1, -1.0]]], dtype=F64)
    camera = tr.PerspectiveCamera(HOME, 60.0, lens=BARREL)
    assert camera.project_faces(face, ONE).source.tolist() == [[-1]]
    beyond = camera.project(face)[..., :2].norm(dim=-1)
    edge = BARREL.distort(torch.tensor([[[float(BARREL.radius), 0.0]]], dtype=F64)).norm()
    assert (beyond > edge / math.tan(math.radians(30))).all()


@pytest.mark.parametrize("depth", [1.0, 3.0])
def test_a_wall_is_cut_at_a_polygon_within_the_radius(depth: float) -> None:
    wall = torch.tensor(
        [[[-9.0, -9.0, -1.0], [9.0, -9.0, -1.0], [9.0, 9.0, -1.0], [-9.0, 9.0, -1.0]]]
    )
    wall = wall.double() * depth
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    attributes = wall[0][faces][None, ..., :2] @ torch.tensor([[1.0, 2.0], [3.0, -1.0]]).double()
    camera = tr.PerspectiveCamera(HOME, 60.0, lens=BARREL)
    cut = camera.project_faces(wall, faces, attributes)
    x, y, z = camera.from_image(cut.vertices.flatten(1, 2)).unbind(-1)
    assert (torch.hypot(x, y) / z <= BARREL.radius * (1 + 1e-9)).all()
    # The polygon of 16 sides: 16 triangles of two sides r and the angle 2 pi / 16 between them.
    corners = torch.stack([x, y], -1).unflatten(1, (-1, 3))
    (ux, uy), (vx, vy) = ((corners[:, :, i] - corners[:, :, 0]).unbind(-1) for i in (1, 2))
    area = (ux * vy - uy * vx).sum() / 2
    expected = 8 * (float(BARREL.radius) * depth) ** 2 * math.sin(math.pi / 8)
    torch.testing.assert_close(area, torch.tensor(expected).double())
    # y is the world's, and the camera looks along -z, so that x is the world's, too.
    at = torch.stack([x, y], -1) @ torch.tensor([[1.0, 2.0], [3.0, -1.0]]).double()
    assert cut.attributes is not None
    torch.testing.assert_close(cut.attributes.flatten(1, 2), at)
    assert set(cut.source.flatten().tolist()) == {0, 1}


def test_an_orthographic_wall_is_cut_at_its_polygon() -> None:
    wall = torch.tensor([[[-9.0, -9.0, -1.0], [9.0, -9.0, -1.0], [0.0, 12.0, -2.0]]]).double()
    camera = tr.OrthographicCamera(HOME, torch.tensor([[2.0, 1.5]]), (0.3, -0.2), lens=BARREL)
    cut = camera.project_faces(wall, ONE)
    bent = cut.vertices[..., :2] * torch.tensor([1.0, -1.0])
    offsets = BARREL.undistort(bent.flatten(1, 2))
    assert offsets.isfinite().all()
    (ux, uy), (vx, vy) = (
        (offsets.unflatten(1, (-1, 3))[:, :, i] - offsets.unflatten(1, (-1, 3))[:, :, 0]).unbind(-1)
        for i in (1, 2)
    )
    area = -float((ux * vy - uy * vx).sum() / 2)  # the lens has y down
    assert area == pytest.approx(8 * float(BARREL.radius) ** 2 * math.sin(math.pi / 8))


def test_faces_within_the_radius_are_left_alone() -> None:
    mesh = tr.icosphere(1)
    vertices = 0.3 * mesh.vertices.double()[None] + torch.tensor([0.0, 0.0, -2.0])
    plain = tr.PerspectiveCamera(HOME, 60.0)
    bent = replace(plain, lens=BARREL)
    found = bent.project_faces(vertices, mesh.faces)
    assert torch.equal(found.source, plain.project_faces(vertices, mesh.faces).source)
    assert torch.equal(found.vertices, tr.gather_faces(bent.project(vertices), mesh.faces))


def test_cutting_is_differentiable() -> None:
    wall = torch.tensor([[[-0.3, -0.4, -1.0], [2.0, -0.1, -1.2], [0.1, 1.8, -0.9]]]).double()
    camera = tr.PerspectiveCamera(HOME, 60.0, lens=tr.BrownConradyLens((-0.3,)))

    def seen(vertices: Tensor) -> Tensor:
        return camera.project_faces(vertices, ONE).vertices

    assert seen(wall).shape[1] > 1
    # On the fold's border itself the slope of the bending jumps.
    inner = replace(camera, lens=tr.BrownConradyLens((-0.3,)))
    assert torch.autograd.gradcheck(
        lambda v: inner.project_faces(v, ONE).vertices.sum((1, 2)),
        [wall.requires_grad_()],
        atol=1e-4,
    )
