"""Cameras of other conventions: an independent few lines of each, and the same picture."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import taichi_raster as tr
from taichi_raster import conventions

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
F64 = torch.float64
SIZE = (20, 30)


def points() -> Tensor:
    return torch.randn(1, 8, 3, generator=torch.Generator().manual_seed(0), dtype=F64)


def pose() -> tuple[Tensor, Tensor]:
    """A rotation of determinant 1, and a translation that puts the points in front (+z)."""
    g = torch.Generator().manual_seed(1)
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=g, dtype=F64))
    return q * torch.linalg.det(q).sign(), torch.tensor([0.2, -0.3, 6.0], dtype=F64)


def ndc(u: Tensor, v: Tensor) -> Tensor:
    """Pixels from the top left border to NDC."""
    height, width = SIZE
    return torch.stack([(2 * u - width) / height, (height - 2 * v) / height], dim=-1)


def test_opencv_cameras_land_points_where_opencv_does() -> None:
    rotation, translation = pose()
    k = torch.tensor([[25.0, 0.7, 14.0], [0, 27.0, 9.0], [0, 0, 1]], dtype=F64)
    camera = conventions.from_opencv(rotation[None], translation[None], k, SIZE)
    homogeneous = (points()[0] @ rotation.T + translation) @ k.T
    pixels = homogeneous[:, :2] / homogeneous[:, 2:]
    expected = ndc(pixels[:, 0] + 0.5, pixels[:, 1] + 0.5)  # whole numbers are pixels' centres
    ours = camera.project(points())[0]
    torch.testing.assert_close(ours[:, :2], expected)
    torch.testing.assert_close(ours[:, 2], homogeneous[:, 2])


@pytest.mark.parametrize("kind", ["frustum", "ortho"])
def test_opengl_cameras_land_points_where_opengl_does(kind: str) -> None:
    rotation, translation = pose()
    view = torch.eye(4, dtype=F64)
    view[:3, :3], view[:3, 3] = rotation, translation * torch.tensor([1, 1, -1])
    n, f, left, right, bottom, top = 1.0, 20.0, -1.0, 1.7, -0.8, 1.1
    projection = torch.zeros(4, 4, dtype=F64)
    w, h, d = right - left, top - bottom, f - n
    if kind == "frustum":
        projection[0, 0], projection[0, 2] = 2 * n / w, (right + left) / w
        projection[1, 1], projection[1, 2] = 2 * n / h, (top + bottom) / h
        projection[2, 2], projection[2, 3], projection[3, 2] = -(f + n) / d, -2 * f * n / d, -1
    else:
        projection[0, 0], projection[0, 3] = 2 / w, -(right + left) / w
        projection[1, 1], projection[1, 3] = 2 / h, -(top + bottom) / h
        projection[2, 2], projection[2, 3], projection[3, 3] = -2 / d, -(f + n) / d, 1
    camera = conventions.from_opengl(view[None], projection, SIZE)
    eye = torch.cat([points()[0], torch.ones(8, 1, dtype=F64)], dim=1) @ view.T
    clip = eye @ projection.T
    device = clip[:, :2] / clip[:, 3:]  # -1 to 1 over the viewport, each way
    expected = device * torch.tensor([SIZE[1] / SIZE[0], 1.0], dtype=F64)
    ours = camera.project(points())[0]
    torch.testing.assert_close(ours[:, :2], expected)
    torch.testing.assert_close(ours[:, 2], -eye[:, 2])


@pytest.mark.parametrize("kind", ["fov", "ndc", "screen"])
def test_pytorch3d_cameras_land_points_where_pytorch3d_does(kind: str) -> None:
    rotation, translation = pose()
    camera_space = points()[0] @ rotation + translation  # rows; x left, y up, z forward
    x, y, z = camera_space.unbind(-1)
    height, width = SIZE
    if kind == "fov":
        camera = conventions.from_pytorch3d(rotation[None], translation[None], fov=50.0)
        tangent = math.tan(math.radians(25))
        expected = torch.stack([-x / z / tangent, y / z / tangent], dim=-1)
    elif kind == "ndc":
        camera = conventions.from_pytorch3d(
            rotation[None], translation[None], None, torch.tensor([2.0, 2.2]).double(), (0.3, -0.2)
        )
        expected = torch.stack([-(2.0 * x / z + 0.3), 2.2 * y / z - 0.2], dim=-1)
    else:
        camera = conventions.from_pytorch3d(
            rotation[None], translation[None], None, 22.0, (13.0, 8.0), False, SIZE
        )
        # Their screen: x right and y down, with NDC's axes turned round.
        expected = ndc(13.0 - 22.0 * x / z, 8.0 - 22.0 * y / z)
    torch.testing.assert_close(camera.project(points())[0, :, :2], expected)


def test_softras_cameras_land_points_where_softras_does() -> None:
    d, e, a = 3.0, math.radians(20.0), math.radians(50.0)
    eye = torch.tensor(
        [d * math.cos(e) * math.sin(a), d * math.sin(e), -d * math.cos(e) * math.cos(a)], dtype=F64
    )
    z_axis = -eye / eye.norm()
    x_axis = torch.linalg.cross(torch.tensor([0.0, 1.0, 0.0], dtype=F64), z_axis)
    x_axis = x_axis / x_axis.norm()
    y_axis = torch.linalg.cross(z_axis, x_axis)
    seen = (points()[0] * 0.5 - eye) @ torch.stack([x_axis, y_axis, z_axis]).T
    tangent = math.tan(math.radians(15.0))
    expected = seen[:, :2] / seen[:, 2:] / tangent
    angles = [torch.tensor(v, dtype=F64) for v in (3.0, 20.0, 50.0)]
    camera = conventions.from_softras(*angles, viewing_angle=15.0)
    torch.testing.assert_close(camera.project(points() * 0.5)[0, :, :2], expected)


def same_camera() -> dict[str, Callable[[], tr.Camera]]:
    """One camera, said in each convention: at (0, 0, 4), looking down -z, 40 degrees across."""
    f = 1 / math.tan(math.radians(20))
    turn = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=F64))
    at = torch.tensor([[0.0, 0.0, 4.0]], dtype=F64)
    pixels = torch.tensor([[f * 10, 0, 15.0], [0, f * 10, 10.0], [0, 0, 1]], dtype=F64)
    gl_view = torch.eye(4, dtype=F64)
    gl_view[2, 3] = -4.0
    gl = torch.diag(torch.tensor([f * 20 / 30, f, -1.0, 0.0], dtype=F64))
    gl[3, 2] = -1.0
    p3d = torch.diag(torch.tensor([-1.0, 1.0, -1.0], dtype=F64))[None]
    view = tr.look_at(torch.tensor([[0.0, 0.0, 4.0]], dtype=F64))
    return {
        "own": lambda: tr.PerspectiveCamera(view, 40.0),
        "intrinsics": lambda: conventions.from_intrinsics(view, pixels, SIZE),
        "opencv": lambda: conventions.from_opencv(turn[None], at, pixels, SIZE, first_centre=0.5),
        "opengl": lambda: conventions.from_opengl(gl_view[None], gl, SIZE),
        "pytorch3d": lambda: conventions.from_pytorch3d(p3d, at, fov=40.0),
        "pytorch3d focal": lambda: conventions.from_pytorch3d(p3d, at, focal_length=f),
    }


@pytest.mark.parametrize("name", [n for n in same_camera() if n != "own"])
def test_the_same_scene_gives_the_same_picture(name: str) -> None:
    mesh = tr.icosphere(1, 0.8, dtype=F64)
    colours = tr.gather_faces(mesh.vertices[None] * 0.5 + 0.5, mesh.faces)
    renderer = tr.SoftRasterizer(SIZE, tr.Distribution("logistic", 0.05), near=1.0, far=6.0)
    images = []
    for camera in (same_camera()["own"](), same_camera()[name]()):
        faces = tr.gather_faces(camera.project(mesh.vertices[None]), mesh.faces)
        images.append(renderer(faces, colours))
    assert images[0][..., 3].max() > 0.9
    torch.testing.assert_close(images[1], images[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["perspective", "pinhole", "orthographic"])
def test_cameras_have_first_and_second_derivatives(kind: str) -> None:
    vertices = points()[:, :3] * 0.4
    view = tr.look_at(torch.tensor([[0.0, 0.5, 4.0]], dtype=F64))

    def perspective(v: Tensor, w: Tensor, fov: Tensor) -> Tensor:
        return tr.PerspectiveCamera(w, fov * 30).project(v)

    def pinhole(v: Tensor, w: Tensor, f: Tensor) -> Tensor:
        focal = torch.stack([f, f * 1.1], dim=-1)
        return tr.PinholeCamera(w, focal, focal * 0.1, f[0] * 0.05).project(v)

    def orthographic(v: Tensor, w: Tensor, extent: Tensor) -> Tensor:
        return tr.OrthographicCamera(w, extent, torch.stack([extent, -extent], -1)).project(v)

    function = {"perspective": perspective, "pinhole": pinhole, "orthographic": orthographic}[kind]
    one = torch.ones(1, dtype=F64, requires_grad=True)
    inputs = (vertices.requires_grad_(), view.requires_grad_(), one)
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


def test_an_orthographic_picture_does_not_shrink_with_depth() -> None:
    view = tr.look_at(torch.tensor([[0.0, 0.0, 5.0]], dtype=F64))
    camera = tr.OrthographicCamera(view, 2.0)
    ndc = camera.project(torch.tensor([[[1.0, 0.5, 0.0], [1.0, 0.5, -3.0]]], dtype=F64))[0]
    torch.testing.assert_close(ndc, torch.tensor([[0.5, 0.25, 5], [0.5, 0.25, 8]], dtype=F64))


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda v: tr.PinholeCamera(v, (1.0, -1.0)), "focal"),
        (lambda v: tr.PinholeCamera(v, torch.ones(3)), "focal"),
        (lambda v: tr.OrthographicCamera(v, 0.0), "half_extent"),
        (lambda v: tr.OrthographicCamera(v, 1.0, (1.0, 2.0, 3.0)), "centre"),
        (lambda v: conventions.from_intrinsics(v, torch.eye(4), 8), "matrix"),
        (lambda v: conventions.from_opengl(v, torch.zeros(4, 4), 8), "projection"),
        (lambda v: conventions.from_pytorch3d(v[:, :3, :3], v[:, :3, 3]), "fov"),
        (
            lambda v: conventions.from_pytorch3d(
                v[:, :3, :3], v[:, :3, 3], focal_length=3.0, in_ndc=False
            ),
            "image_size",
        ),
    ],
)
def test_bad_cameras_are_refused_by_name(call: Callable[[Tensor], object], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        call(tr.look_at([0.0, 0.0, 3.0]))
