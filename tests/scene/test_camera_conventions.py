"""Cameras of other software, against a few lines of each one's documented mathematics."""

import math

import pytest
import torch

import taichi_raster as tr
from opengl import frustum, ortho
from taichi_raster.scene.camera import OrthographicCamera, PerspectiveCamera, look_at, orbit
from taichi_raster.scene.conventions import (
    from_intrinsics,
    from_opencv,
    from_opengl,
    from_pytorch3d,
    from_softras,
)

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
F64 = torch.float64
HEIGHT, WIDTH = 48, 80


def rotations(count=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    q, r = torch.linalg.qr(torch.randn(count, 3, 3, generator=generator, dtype=F64))
    q = q * r.diagonal(dim1=1, dim2=2).sign()[:, None]
    return q * torch.linalg.det(q)[:, None, None]


def scene(rotation, translation, sign, seed=1):
    """World points that a camera x = R world + t sees in front, where z has this sign."""
    generator = torch.Generator().manual_seed(seed)
    camera = torch.randn(len(rotation), 9, 3, generator=generator, dtype=F64)
    camera[..., 2] = sign * (3 + camera[..., 2].abs())
    return (camera - translation[:, None]) @ rotation


def to_pixels(ndc):
    """From our NDC to u right and v down, in pixels from the image's upper left corner."""
    short = min(HEIGHT, WIDTH)
    return torch.stack(
        [(ndc[..., 0] * short + WIDTH) / 2, (HEIGHT - ndc[..., 1] * short) / 2], dim=-1
    )


ROTATION = rotations()
TRANSLATION = torch.tensor([[0.1, -0.2, 0.3], [0.4, 0.0, -0.1]], dtype=F64)
MATRIX = torch.tensor([[61.0, 2.5, 37.0], [0, 73.0, 26.0], [0, 0, 1]], dtype=F64)


def test_opencv():
    # docs.opencv.org, calib3d: s (u, v, 1) = A [R|t] (X, Y, Z, 1); pixel centres are whole numbers.
    world = scene(ROTATION, TRANSLATION, 1)
    homogeneous = torch.einsum("ij,bjk,bnk->bni", MATRIX, ROTATION, world) + torch.einsum(
        "ij,bj->bi", MATRIX, TRANSLATION
    ).unsqueeze(1)
    uv = homogeneous[..., :2] / homogeneous[..., 2:]
    ndc = from_opencv(ROTATION, TRANSLATION, MATRIX, (HEIGHT, WIDTH)).project(world)
    torch.testing.assert_close(to_pixels(ndc), uv + 0.5)
    torch.testing.assert_close(ndc[..., 2], homogeneous[..., 2])


def test_intrinsics_as_four_numbers_are_those_of_the_matrix():
    view = orbit(3.0, torch.tensor([10.0, 20.0], dtype=F64), 30.0)
    world = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    matrix = MATRIX.clone()
    matrix[0, 1] = 0
    torch.testing.assert_close(
        from_intrinsics(view, (61.0, torch.tensor(73.0), 37.0, 26.0), (HEIGHT, WIDTH)).project(
            world
        ),
        from_intrinsics(view, matrix, (HEIGHT, WIDTH)).project(world),
    )


@pytest.mark.parametrize("make", [frustum, ortho])
def test_opengl(make):
    # The viewport maps clip.xy / clip.w in [-1, 1] to the image, with y up (glViewport).
    projection = make(-0.3, 0.5, -0.2, 0.25, 0.5, 40.0)
    view = torch.eye(4, dtype=F64).repeat(2, 1, 1)
    view[:, :3, :3], view[:, :3, 3] = ROTATION, TRANSLATION
    world = scene(ROTATION, TRANSLATION, -1)
    clip = torch.cat([world, torch.ones_like(world[..., :1])], -1) @ (projection @ view).mT
    device = clip[..., :2] / clip[..., 3:]
    u, v = (device[..., 0] + 1) / 2 * WIDTH, (1 - device[..., 1]) / 2 * HEIGHT
    ndc = from_opengl(view, projection, (HEIGHT, WIDTH)).project(world)
    torch.testing.assert_close(to_pixels(ndc), torch.stack([u, v], dim=-1))
    assert (ndc[..., 2] > 0).all()


def test_pytorch3d_field_of_view():
    # pytorch3d.org/docs/cameras, and FoVPerspectiveCameras.compute_projection_matrix: on rows,
    # view = world R + T, +x left; ndc = (x / (aspect tan(fov / 2)), y / tan(fov / 2)) / z.
    world = scene(ROTATION.mT, TRANSLATION, 1)
    x, y, z = (world @ ROTATION + TRANSLATION[:, None]).unbind(-1)
    t = math.tan(math.radians(25.0))
    for aspect in (1.0, 1.5):
        expected = torch.stack([-x / (aspect * t) / z, y / t / z, z], dim=-1)
        camera = from_pytorch3d(ROTATION, TRANSLATION, fov=50.0, aspect_ratio=aspect)
        torch.testing.assert_close(camera.project(world), expected)


def test_pytorch3d_in_ndc_and_on_the_screen():
    # pytorch3d.org/docs/cameras: x_ndc = fx x / z + px, from +1 at the left to -1 at the right of
    # the shorter side; x_screen = W / 2 - x_ndc s / 2, s the shorter side.
    world = scene(ROTATION.mT, TRANSLATION, 1)
    x, y, z = (world @ ROTATION + TRANSLATION[:, None]).unbind(-1)
    focal, point = torch.tensor([[1.5, 1.8]], dtype=F64), torch.tensor([[0.1, -0.3]], dtype=F64)
    theirs = torch.stack([1.5 * x / z + 0.1, 1.8 * y / z - 0.3], dim=-1)
    screen = torch.tensor([WIDTH, HEIGHT], dtype=F64) / 2 - theirs * HEIGHT / 2
    camera = from_pytorch3d(ROTATION, TRANSLATION, focal_length=focal, principal_point=point)
    torch.testing.assert_close(to_pixels(camera.project(world)), screen)
    # PerspectiveCameras: fx_screen = fx_ndc s / 2, px_screen = -px_ndc s / 2 + W / 2.
    camera = from_pytorch3d(
        ROTATION,
        TRANSLATION,
        focal_length=focal * HEIGHT / 2,
        principal_point=torch.tensor([WIDTH, HEIGHT], dtype=F64) / 2 - point * HEIGHT / 2,
        in_ndc=False,
        image_size=(HEIGHT, WIDTH),
    )
    torch.testing.assert_close(to_pixels(camera.project(world)), screen)


def test_softras():
    # SoftRas' look_at and perspective: rows x = normalize(up x z), y = z x x, z = towards the
    # origin; (x, y) / (z tan(viewing angle)).
    d, e, a = 2.5, math.radians(20.0), math.radians(40.0)
    eye = d * torch.tensor(
        [math.cos(e) * math.sin(a), math.sin(e), -math.cos(e) * math.cos(a)], dtype=F64
    )
    forward = -eye / d
    right = torch.linalg.cross(torch.tensor([0.0, 1, 0], dtype=F64), forward)
    right = right / right.norm()
    axes = torch.stack([right, torch.linalg.cross(forward, right), forward])
    world = torch.randn(1, 5, 3, generator=torch.Generator().manual_seed(0), dtype=F64) * 0.3
    x, y, z = ((world - eye) @ axes.T).unbind(-1)
    t = math.tan(math.radians(15.0))
    camera = from_softras(2.5, torch.tensor(20.0, dtype=F64), 40.0, viewing_angle=15.0)
    torch.testing.assert_close(camera.project(world), torch.stack([x / z / t, y / z / t, z], -1))


def test_one_view_in_every_convention_gives_one_picture():
    ours = look_at(torch.tensor([[1.0, 1.5, 2.5]], dtype=F64))
    fov, size = 50.0, (24, 40)
    focal = 1 / math.tan(math.radians(fov / 2))
    rotation, translation = ours[:, :3, :3], ours[:, :3, 3]
    y_down, x_left, z_back = (
        torch.tensor(signs, dtype=F64) for signs in ([1, -1, 1], [-1, 1, 1], [1, 1, -1])
    )
    back = torch.cat([z_back, torch.ones(1, dtype=F64)])[:, None] * ours
    pixels = torch.tensor([[focal * 12, 0, 20], [0, focal * 12, 12], [0, 0, 1]], dtype=F64)
    half = 0.1 / focal
    cameras = [
        PerspectiveCamera(ours, fov),
        from_intrinsics(ours, pixels, size),
        from_opencv(
            y_down[:, None] * rotation, y_down * translation, pixels, size, first_centre=0.5
        ),
        from_opengl(back, frustum(-half * 5 / 3, half * 5 / 3, -half, half, 0.1, 100.0), size),
        from_pytorch3d((x_left[:, None] * rotation).mT, x_left * translation, fov=fov),
    ]
    sphere = tr.icosphere(1, 0.8, dtype=F64)
    colours = (sphere.vertices[sphere.faces] + 1)[None] / 2
    renderer = tr.SharpRasterizer(size, cull_backfaces=True)
    pictures = [
        renderer(tr.gather_faces(camera.project(sphere.vertices[None]), sphere.faces), colours)
        for camera in cameras
    ]
    assert 0.1 < pictures[0][..., -1].mean() < 0.9
    for picture in pictures[1:]:
        torch.testing.assert_close(picture, pictures[0])


def test_converters_are_differentiable():
    world = scene(ROTATION, TRANSLATION, 1)[:, :3]

    def project(translation, matrix, point, fov):
        cameras = [
            from_opencv(ROTATION, translation, matrix, 64),
            from_pytorch3d(ROTATION.mT, translation, fov=fov),
            from_pytorch3d(ROTATION.mT, translation, focal_length=fov, principal_point=point),
        ]
        return tuple(camera.project(world) for camera in cameras)

    inputs = [TRANSLATION, MATRIX, torch.tensor([0.1, 0.2]), torch.tensor([40.0, 50.0])]
    inputs = [value.to(F64).clone().requires_grad_() for value in inputs]
    assert torch.autograd.gradcheck(project, inputs)
    assert torch.autograd.gradgradcheck(project, inputs)


def test_the_projection_says_which_camera_it_is():
    view = torch.eye(4, dtype=F64)[None]
    camera = from_opengl(view, ortho(-1, 1, -1, 1, 0.1, 10), 8)
    assert isinstance(camera, OrthographicCamera)


EYE = torch.eye(3)[None]


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: from_opencv(torch.eye(3), torch.zeros(1, 3), torch.eye(3), 8), "rotation"),
        (lambda: from_opencv(EYE, torch.zeros(1, 2), torch.eye(3), 8), "translation"),
        (lambda: from_opencv(EYE, torch.zeros(1, 3), torch.eye(4), 8), "matrix"),
        (lambda: from_opencv(EYE, torch.zeros(1, 3), torch.zeros(3, 3), 8), "focal"),
        (lambda: from_opencv(EYE, torch.zeros(1, 3), torch.eye(3), 0), "image_size"),
        (lambda: from_intrinsics(torch.eye(4)[None], (1.0, 1.0), 8), "matrix"),
        (lambda: from_opengl(torch.eye(3), torch.eye(4), 8), "view"),
        (lambda: from_opengl(torch.eye(4), torch.eye(3), 8), "projection"),
        (lambda: from_opengl(torch.eye(4), torch.ones(4, 4), 8), "projection"),
        (lambda: from_pytorch3d(EYE, torch.zeros(1, 3)), "fov, focal_length"),
        (
            lambda: from_pytorch3d(EYE, torch.zeros(1, 3), focal_length=9.0, in_ndc=False),
            "image_size",
        ),
    ],
)
def test_bad_arguments_are_named(call, argument):
    with pytest.raises(ValueError, match=f"^{argument}: "):
        call()
