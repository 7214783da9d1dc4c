"""Cameras: where points land, from closed forms; derivatives, from finite differences."""

import math

import pytest
import torch

from taichi_raster.scene.camera import (
    OrthographicCamera,
    PerspectiveCamera,
    PinholeCamera,
    gather_faces,
    lift_triangles,
    look_at,
    orbit,
)

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
F64 = torch.float64


def points(*rows):
    return torch.tensor([rows], dtype=F64)


def test_axes_are_x_right_y_up_z_forward():
    camera = PerspectiveCamera(look_at([0.0, 0.0, 5.0]), fov=90.0)
    x, y, z = camera.project(points([0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]))[0].unbind(-1)
    torch.testing.assert_close(x, torch.tensor([0, 0.2, 0, 0], dtype=F64))
    torch.testing.assert_close(y, torch.tensor([0, 0, 0.2, 0], dtype=F64))
    torch.testing.assert_close(z, torch.tensor([5, 5, 5, 4], dtype=F64))


@pytest.mark.parametrize("fov", [10.0, 30.0, 90.0, 150.0])
def test_a_point_at_half_the_field_of_view_lands_on_the_border(fov):
    half = math.tan(math.radians(fov / 2))
    camera = PerspectiveCamera(look_at([0.0, 0.0, 3.0]), fov=fov)
    ndc = camera.project(points([3 * half, 0, 0], [0, -3 * half, 0]))[0]
    torch.testing.assert_close(ndc, torch.tensor([[1, 0, 3], [0, -1, 3]], dtype=F64))


def test_orbit_puts_the_eye_where_the_angles_say():
    view = orbit(2.0, torch.tensor([0.0, 0.0, 30.0, 90.0], dtype=F64), [0.0, 90.0, 0.0, 0.0])
    eye = -(view[:, :3, :3].mT @ view[:, :3, 3:])[..., 0]
    root3 = math.sqrt(3)
    expected = torch.tensor([[0, 0, 2], [2, 0, 0], [0, 1, root3], [0, 2, 0]], dtype=F64)
    torch.testing.assert_close(eye, expected)


def test_orbit_is_look_at_from_the_same_place():
    target = torch.tensor([0.3, -0.2, 0.1], dtype=F64)
    view = orbit(3.0, torch.tensor([-50.0, 20.0], dtype=F64), [10.0, 200.0], target)
    eye = -(view[:, :3, :3].mT @ view[:, :3, 3:])[..., 0]
    torch.testing.assert_close(view, look_at(eye, target))


def test_views_are_rigid_and_flip_handedness_only():
    view = orbit(2.0, torch.linspace(-90, 90, 7, dtype=F64), torch.linspace(0, 720, 7, dtype=F64))
    rotation = view[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3, dtype=F64).expand(7, 3, 3))
    torch.testing.assert_close(torch.linalg.det(rotation), -torch.ones(7, dtype=F64))


def test_counter_clockwise_to_the_eye_is_counter_clockwise_in_ndc():
    camera = PerspectiveCamera(look_at([0.0, 0.0, 5.0]))
    a, b, c = camera.project(points([0, 0, 0], [1, 0, 0], [0, 1, 0]))[0, :, :2]
    (ux, uy), (vx, vy) = b - a, c - a
    assert ux * vy - uy * vx > 0


def test_points_at_or_behind_the_eye_stay_finite_and_keep_their_depth():
    vertices = points([0, 0, 5], [1, 2, 6], [1, 1, 5]).requires_grad_()
    ndc = PerspectiveCamera(look_at([0.0, 0.0, 5.0])).project(vertices)
    assert ndc.isfinite().all()
    assert (ndc[0, :, 2] <= 0).all()
    (gradient,) = torch.autograd.grad(ndc.sum(), vertices)
    assert gradient.isfinite().all()


def test_projection_is_differentiable_in_points_pose_and_field_of_view():
    generator = torch.Generator().manual_seed(0)
    vertices = torch.randn(1, 4, 3, generator=generator, dtype=F64) * 0.3

    def project(vertices, distance, elevation, azimuth, fov):
        return PerspectiveCamera(orbit(distance, elevation, azimuth), fov).project(vertices)

    inputs = [
        value.clone().requires_grad_()
        for value in (
            vertices,
            torch.tensor([2.0, 3.0], dtype=F64),
            torch.tensor([20.0, -40.0], dtype=F64),
            torch.tensor(70.0, dtype=F64),
            torch.tensor([30.0, 50.0], dtype=F64),
        )
    ]
    assert torch.autograd.gradcheck(project, inputs)
    assert torch.autograd.gradgradcheck(project, inputs)


def test_a_pinhole_of_a_field_of_view_is_the_perspective_camera():
    view = orbit(2.0, torch.tensor([20.0, -40.0], dtype=F64), [30.0, 120.0])
    vertices = torch.randn(1, 5, 3, dtype=F64, generator=torch.Generator().manual_seed(0)) * 0.3
    focal = 1 / math.tan(math.radians(20.0))
    torch.testing.assert_close(
        PinholeCamera(view, (focal, focal)).project(vertices),
        PerspectiveCamera(view, fov=40.0).project(vertices),
    )


def test_a_pinhole_stretches_shears_and_shifts():
    camera = PinholeCamera(look_at([0.0, 0.0, 5.0]), (2.0, 3.0), (0.1, -0.2), skew=0.5)
    x, y, z = camera.project(points([1, 1, 3]))[0, 0].tolist()
    assert (x, y, z) == pytest.approx(((2 + 0.5) / 2 + 0.1, 3 / 2 - 0.2, 2))


def test_orthographic_images_do_not_depend_on_depth():
    view = look_at([0.0, 0.0, 5.0])
    camera = OrthographicCamera(view, half_extent=2.0, centre=(1.0, 0.0))
    ndc = camera.project(points([1, 0, 0], [3, 2, 1], [3, 2, -4]))[0]
    torch.testing.assert_close(ndc, torch.tensor([[0, 0, 5], [1, 1, 4], [1, 1, 9]], dtype=F64))
    wide = OrthographicCamera(view, half_extent=torch.tensor([[4.0, 2.0]]))
    ndc = wide.project(points([4, 2, 0]))[0]
    torch.testing.assert_close(ndc, torch.tensor([[1, 1, 5]], dtype=F64))


def test_the_eye_is_where_the_view_was_made():
    eye = torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.0, 2.0]], dtype=F64)
    camera = PerspectiveCamera(look_at(eye))
    torch.testing.assert_close(camera.eye, eye)
    point = torch.tensor([[[0.5, 0.5, 0.5]]], dtype=F64)
    torch.testing.assert_close(camera.towards_eye(point), eye[:, None] - point)
    parallel = OrthographicCamera(look_at(eye)).towards_eye(point)
    torch.testing.assert_close(parallel, (eye / eye.norm(dim=1, keepdim=True))[:, None])


@pytest.mark.parametrize("kind", ["pinhole", "orthographic"])
def test_every_camera_is_differentiable_in_its_parameters(kind):
    generator = torch.Generator().manual_seed(0)
    vertices = torch.randn(1, 4, 3, generator=generator, dtype=F64) * 0.3

    def project(vertices, elevation, first, second, third):
        view = orbit(2.0, elevation, 30.0)
        if kind == "pinhole":
            return PinholeCamera(view, first, second, third).project(vertices)
        return OrthographicCamera(view, third, second).project(vertices)

    inputs = [
        value.clone().requires_grad_()
        for value in (
            vertices,
            torch.tensor([20.0, -40.0], dtype=F64),
            torch.tensor([[1.5, 2.0], [1.2, 1.1]], dtype=F64),
            torch.tensor([0.1, -0.2], dtype=F64),
            torch.tensor([0.3, 0.4], dtype=F64),
        )
    ]
    if kind == "orthographic":
        inputs[2].requires_grad_(False)
    assert torch.autograd.gradcheck(project, inputs)
    assert torch.autograd.gradgradcheck(project, inputs)


def test_look_at_is_differentiable():
    eye = torch.tensor([[1.0, 2.0, 3.0]], dtype=F64, requires_grad=True)
    target = torch.tensor([0.1, 0.2, 0.3], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(look_at, (eye, target))


@pytest.mark.parametrize("float_dtype", [torch.float32, torch.float64])
def test_the_points_choose_the_dtype(float_dtype):
    camera = PerspectiveCamera(orbit(2.0, 0.0, 0.0))
    assert camera.project(torch.zeros(1, 1, 3, dtype=float_dtype)).dtype == float_dtype


def test_gather_faces_takes_the_vertices_of_each_face():
    vertices = torch.arange(24, dtype=F64).reshape(2, 4, 3).requires_grad_()
    faces = torch.tensor([[0, 1, 2], [3, 2, 1]])
    gathered = gather_faces(vertices, faces)
    assert gathered.shape == (2, 2, 3, 3)
    assert torch.equal(gathered, vertices[:, faces])
    (gradient,) = torch.autograd.grad(gathered.sum(), vertices)
    assert gradient[0, :, 0].tolist() == [1, 2, 2, 1]


def test_padding_faces_are_zero_and_have_no_gradient():
    vertices = torch.arange(1.0, 25.0, dtype=F64).reshape(2, 4, 3).requires_grad_()
    faces = torch.tensor([[[0, 1, 2], [3, 2, 1]], [[1, 2, 3], [-1, -1, -1]]])
    gathered = gather_faces(vertices, faces)
    assert torch.equal(gathered[1, 0], vertices[1, 1:])
    assert (gathered[1, 1] == 0).all()
    (gradient,) = torch.autograd.grad(gathered.sum(), vertices)
    assert gradient[:, :, 0].tolist() == [[1, 2, 2, 1], [0, 1, 1, 1]]


def test_lifted_triangles_lie_flat_at_their_depth():
    xy = torch.rand(2, 3, 3, 2, dtype=F64)
    depth = torch.tensor([1.0, 2.0, 3.0], dtype=F64)
    lifted = lift_triangles(xy, depth)
    assert torch.equal(lifted[..., :2], xy)
    assert torch.equal(lifted[..., 2], depth[None, :, None].expand(2, 3, 3))
    per_item = torch.stack([depth, depth + 1])
    assert torch.equal(lift_triangles(xy, per_item)[1, :, 0, 2], depth + 1)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: look_at([0.0, 0.0]), "eye"),
        (lambda: look_at([0.0, 0.0, 0.0]), "eye"),
        (lambda: look_at([0.0, 2.0, 0.0]), "up"),
        (lambda: look_at(torch.ones(2, 3), torch.zeros(3, 3)), "eye"),
        (lambda: orbit(0.0, 0.0, 0.0), "distance"),
        (lambda: orbit(1.0, torch.zeros(2, 2), 0.0), "elevation"),
        (lambda: PerspectiveCamera(torch.eye(4)), "view"),
        (lambda: PerspectiveCamera(orbit(1.0, 0.0, 0.0), fov=180.0), "fov"),
        (lambda: PerspectiveCamera(orbit(1.0, 0.0, 0.0), fov=float("nan")), "fov"),
        (lambda: PerspectiveCamera(orbit(1.0, 0.0, 0.0), fov=torch.ones(2)), "fov"),
        (lambda: PerspectiveCamera(orbit(1.0, 0.0, 0.0)).project(torch.ones(1, 3)), "vertices"),
        (
            lambda: PerspectiveCamera(orbit(1.0, 0.0, [0.0, 1.0])).project(torch.ones(3, 1, 3)),
            "vertices",
        ),
        (lambda: gather_faces(torch.ones(4, 3), torch.zeros(1, 3, dtype=torch.int64)), "vertices"),
        (lambda: gather_faces(torch.ones(1, 4, 3), torch.tensor([[0, 1, 4]])), "faces"),
        (lambda: gather_faces(torch.ones(1, 4, 3), torch.tensor([[0, 1, -1]])), "faces"),
        (
            lambda: gather_faces(torch.ones(2, 4, 3), torch.zeros(3, 1, 3, dtype=torch.int64)),
            "faces",
        ),
        (lambda: gather_faces(torch.ones(1, 4, 3), torch.tensor([[[0, 1, -1]]])), "faces"),
        (lambda: PerspectiveCamera(torch.full((1, 4, 4), float("nan"))), "view"),
        (lambda: PinholeCamera(orbit(1.0, 0.0, 0.0), (1.0, 0.0)), "focal"),
        (lambda: PinholeCamera(orbit(1.0, 0.0, 0.0), torch.ones(3)), "focal"),
        (lambda: PinholeCamera(orbit(1.0, 0.0, 0.0), principal=(float("nan"), 0.0)), "principal"),
        (lambda: PinholeCamera(orbit(1.0, 0.0, 0.0), skew=torch.ones(2)), "skew"),
        (lambda: OrthographicCamera(orbit(1.0, 0.0, 0.0), -1.0), "half_extent"),
        (lambda: OrthographicCamera(orbit(1.0, 0.0, 0.0), torch.ones(3)), "half_extent"),
        (lambda: OrthographicCamera(orbit(1.0, 0.0, 0.0), centre=torch.ones(3)), "centre"),
        (lambda: lift_triangles(torch.ones(1, 3, 2), torch.ones(1)), "xy"),
        (lambda: lift_triangles(torch.ones(2, 3, 3, 2), torch.ones(2)), "depth"),
        (lambda: lift_triangles(torch.ones(1, 1, 3, 2), torch.zeros(1)), "depth"),
    ],
)
def test_bad_arguments_are_named(call, argument):
    with pytest.raises(ValueError, match=f"^{argument}: "):
        call()


def test_faces_must_be_integers():
    with pytest.raises(TypeError, match=r"^faces: "):
        gather_faces(torch.ones(1, 4, 3), torch.zeros(1, 3))
