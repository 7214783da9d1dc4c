"""The supersampled picture: areas, order, silhouettes, textures, and every option."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import taichi_raster as tr
from taichi_raster.render import sampled
from taichi_raster.render.hard import visible_faces
from taichi_raster.render.packing import View

SQUARE = ((-0.5, -0.25), (0.5, -0.25), (0.5, 0.75), (-0.5, 0.75))  # edges on the grid of 8 pixels


def square(
    z: float, dtype: torch.dtype, corners: tuple[tuple[float, float], ...] = SQUARE
) -> Tensor:
    """A level square of two faces, (1, 2, 3, 3)."""
    xy = torch.tensor(corners, dtype=dtype)[torch.tensor([[0, 1, 2], [0, 2, 3]])]
    return torch.cat([xy, torch.full_like(xy[..., :1], z)], -1)[None]


def plain(values: list[float], dtype: torch.dtype) -> Tensor:
    """One channel, one value for each face, (1, F, 3, 1)."""
    return torch.tensor(values, dtype=dtype)[None, :, None, None].expand(1, -1, 3, 1).contiguous()


def two_sided(faces: Tensor) -> Tensor:
    """Channel 0 where a face shows its back, channel 1 where it shows its front."""
    edge, diagonal = (faces[..., i, :2] - faces[..., 0, :2] for i in (1, 2))
    front = (edge[..., 0] * diagonal[..., 1] - edge[..., 1] * diagonal[..., 0] > 0)[..., None, None]
    return torch.cat([~front, front], -1).to(faces).expand(*faces.shape[:3], 2).contiguous()


def test_a_square_on_the_grid_is_exact(dtype: torch.dtype) -> None:
    picture = tr.sampled_picture(square(2.0, dtype), plain([0.7, 0.7], dtype), 8, 4, background=0.2)
    expected = torch.zeros(8, 8, dtype=dtype)
    expected[1:5, 2:6] = 1
    assert torch.equal(picture[0, ..., 1], expected)
    colour = 0.7 * expected + 0.2 * (1 - expected)
    assert torch.allclose(picture[0, ..., 0], colour, atol=1e-6)


@pytest.mark.parametrize("size", [(16, 16), (12, 20), (20, 12), (1, 3)])
def test_area_is_that_of_the_triangle(size: tuple[int, int], dtype: torch.dtype) -> None:
    face = [[-0.61, -0.53, 2.0], [0.57, -0.41, 3.0], [0.13, 0.67, 2.5]]
    faces = torch.tensor([[face]], dtype=dtype)
    a, b, c = faces[0, 0, :, :2].double()
    area = float((b - a)[0] * (c - a)[1] - (b - a)[1] * (c - a)[0]) / 2
    picture = tr.sampled_picture(faces, None, size, 32)
    assert picture.shape == (1, *size, 1)
    pixel = (2 / min(size)) ** 2
    # Over the edges' length, a sample is right up to a sample's side; errors of both signs cancel.
    side = 2 / min(size) / 32
    assert float(picture.sum()) * pixel == pytest.approx(area, abs=0.3 * side)


def test_sample_counts_agree(dtype: torch.dtype) -> None:
    """The mean over 2 x 2 pixels of a picture is the pixel of one half as large.

    They have the same samples. Nor do blocks leave a trace.
    """
    mesh = tr.icosphere(2, dtype=dtype)
    camera = tr.PerspectiveCamera(tr.orbit(3.0, 20.0, [0.0, 50.0]), 40.0)
    faces = tr.gather_faces(camera.project(mesh.vertices[None]), mesh.faces)
    colours = tr.gather_faces(mesh.vertices[None], mesh.faces).expand(2, -1, -1, -1)
    fine = tr.sampled_picture(faces, colours, (40, 24), 16)
    coarse = tr.sampled_picture(faces, colours, (20, 12), 32)  # in blocks of 16 x 12
    pooled = torch.nn.functional.avg_pool2d(fine.movedim(-1, 1), 2).movedim(1, -1)
    # Blocks shift the corners, which rounds them.
    assert (coarse - pooled).abs().max() < (1e-3 if dtype == torch.float32 else 1e-12)
    rough = tr.sampled_picture(faces, colours, (20, 12), 8)
    assert (coarse - rough).abs().max() < 0.1 and (coarse - rough).abs().mean() < 0.01


def test_the_nearer_face_is_seen_whatever_their_order(dtype: torch.dtype) -> None:
    level = torch.cat([square(z, dtype) for z in (3.0, 2.0, 4.0)], 1)
    values = plain([0.1, 0.1, 0.9, 0.9, 0.5, 0.5], dtype)
    for order in ([0, 1, 2, 3, 4, 5], [2, 3, 4, 5, 1, 0], [4, 5, 0, 1, 3, 2]):
        picture = tr.sampled_picture(level[:, order], values[:, order], 8, 2)
        assert torch.allclose(picture[0, 1:5, 2:6, 0], torch.full((4, 4), 0.9).to(dtype))
    # Of two that cut each other, each is seen where it is nearer: up to x = 0.
    tilted = square(2.0, dtype)
    tilted[..., 2] = 3 + tilted[..., 0]
    both = torch.cat([square(3.0, dtype), tilted], 1)
    seen = tr.sampled_picture(both, plain([0, 0, 1, 1], dtype), 8, 4, orthographic=True)
    assert torch.equal(seen[0, 1:5, 2:4, 0], torch.ones(4, 2, dtype=dtype))
    assert torch.equal(seen[0, 1:5, 4:6, 0], torch.zeros(4, 2, dtype=dtype))


@pytest.mark.parametrize("orthographic", [False, True])
@pytest.mark.parametrize("kind", ["box", "sphere"])
def test_a_closed_surface_shows_no_back(kind: str, orthographic: bool, dtype: torch.dtype) -> None:
    mesh = tr.box(dtype=dtype) if kind == "box" else tr.icosphere(3, dtype=dtype)
    views = tr.orbit(3.0, [0.0, 45.0, 17.3, -60.0], [0.0, 45.0, 31.7, 90.0])
    camera = (
        tr.OrthographicCamera(views, 1.0) if orthographic else tr.PerspectiveCamera(views, 40.0)
    )
    faces = tr.gather_faces(camera.project(mesh.vertices[None]), mesh.faces)
    picture = tr.sampled_picture(
        faces, two_sided(faces), 48, 8, orthographic=orthographic, cull_backfaces=False
    )
    assert picture[..., 0].abs().max() == 0
    assert torch.allclose(picture[..., 1], picture[..., 2], atol=1e-6)
    assert 0.1 < float(picture[..., 2].mean()) < 0.9


def in_one_plane(count: int, items: int, level: bool) -> Tensor:
    """Overlapping fronts, (items, count, 3, 3), 1 / z of which is linear in the picture."""
    generator = torch.Generator().manual_seed(0)
    xy = 2 * torch.rand(items, count, 3, 2, generator=generator, dtype=torch.float64) - 1
    tilt = 2 * torch.rand(items, 1, 1, 2, generator=generator, dtype=torch.float64) - 1
    tilt *= 0.0 if level else 0.35 * 10 ** -torch.linspace(0, 4, items).double().view(-1, 1, 1, 1)
    faces = torch.cat([xy, 1 / (0.61 + (tilt * xy).sum(-1, keepdim=True))], -1)
    a, b = (faces[..., i, :2] - faces[..., 0, :2] for i in (1, 2))
    front = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0] > 0
    return torch.where(front[..., None, None], faces, faces.flip(2))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("level", [False, True])
def test_of_faces_in_one_plane_the_first_is_seen(
    level: bool, turned: bool, dtype: torch.dtype
) -> None:
    """Whichever side they show. Over in a hard order, this holds for level ones."""
    faces = in_one_plane(8, 12, level).to(dtype)
    faces = faces.flip(2) if turned else faces
    alone = torch.stack([tr.hard_buffers(faces[:, i : i + 1], 24).face for i in range(8)]) >= 0
    first = torch.where(alone.any(0), alone.int().argmax(0), -1)
    assert int((alone.sum(0) > 1).sum()) > 900
    assert torch.equal(tr.hard_buffers(faces, 24).face, first)
    number = torch.arange(8, dtype=dtype).view(1, 8, 1, 1).expand(12, 8, 3, 1)
    covered = first >= 0
    seen = tr.sampled_picture(faces, number, 24, 1)[..., 0][covered]
    torch.testing.assert_close(seen, first[covered].to(dtype))
    for depth in [tr.HardDepth(), tr.OverDepth()] if level else [tr.HardDepth()]:
        renderer = tr.SoftRasterizer(24, tr.Distribution("uniform", 1e-6), depth)
        shown = renderer(faces, number)[..., 0][covered]
        wrong = (shown - first[covered]).abs() > 1e-3
        assert int(wrong.sum()) <= (0 if isinstance(depth, tr.HardDepth) else 3)  # on an outline


def wedges(dtype: torch.dtype, count: int = 5) -> Tensor:
    """A front and a back that share an edge through pixels' centres, (N, 2, 3, 3).

    Both lie to its right, and the front does so in front of the back; the edge runs up, or up and
    right, and into the scene, so that rounding decides which depth is smaller there.
    """
    generator = torch.Generator().manual_seed(0)
    z = 1.5 + 2 * torch.rand(count, 3, generator=generator, dtype=torch.float64)
    start = torch.tensor([-0.7, -0.7], dtype=torch.float64).expand(count, 2).clone()
    start[::2, 0] = 0.0
    end, apex = -start, torch.tensor([0.8, -0.5], dtype=torch.float64).expand(count, 2)
    a, b = (torch.cat([xy, z[:, i : i + 1]], -1) for i, xy in enumerate((start, end)))
    nearer, farther = (
        torch.cat([apex, z[:, 2:] * share], -1) for share in (0.3, 5.0)
    )  # the corners beside the edge
    front, back = torch.stack([a, nearer, b], 1), torch.stack([b, farther, a], 1)
    turned = [
        torch.stack([f.roll(i % 3, 1), k.roll(i // 3, 1)], 1)
        for i in range(9)
        for f, k in [(front, back)]
    ]
    both = torch.cat(turned).to(dtype)
    return torch.cat([both, both.flip(1)])


def test_a_silhouette_through_the_samples_shows_the_front(dtype: torch.dtype) -> None:
    faces = wedges(dtype)
    colours = two_sided(faces)
    found = tr.hard_buffers(faces, 31).face
    on_edge = torch.stack([found[:, :, 15], found.flip(1).diagonal(dim1=1, dim2=2)], 1)
    assert (on_edge >= 0).any()
    assert tr.sampled_picture(faces, colours, 31, 1)[..., 0].max() == 0
    hard = tr.SoftRasterizer(31, tr.Distribution("uniform", 1e-3), tr.HardDepth())
    assert hard(faces, colours)[..., 0].max() == 0


def test_a_rotation_by_rounding_changes_next_to_nothing(dtype: torch.dtype) -> None:
    mesh = tr.box(dtype=dtype)
    pictures = []
    for angle in (0.0, 1e-9):
        camera = tr.PerspectiveCamera(tr.orbit(3.0, 0.0, 45.0 + angle), 40.0)
        faces = tr.gather_faces(camera.project(mesh.vertices[None]), mesh.faces)
        pictures.append(tr.sampled_picture(faces, two_sided(faces), 24, 8)[..., 0])
    assert max(float(picture.abs().max()) for picture in pictures) == 0


def test_neighbours_leave_no_gap(dtype: torch.dtype) -> None:
    """A fan whose rim lies far outside the image: every sample is in one of its faces."""
    generator = torch.Generator().manual_seed(0)
    places = torch.arange(24)
    for _ in range(8):
        turn = places + 0.8 * torch.rand(24, generator=generator)
        angle = turn * 2 * math.pi / 24
        rim = 50 * torch.stack([angle.cos(), angle.sin()], -1)
        centre = 0.5 * torch.rand(2, generator=generator)
        xy = torch.stack([centre.expand(24, 2), rim, rim.roll(-1, 0)], 1)
        fan = torch.cat([xy, torch.full_like(xy[..., :1], 2.0)], -1)[None].to(dtype)
        assert (tr.hard_buffers(fan, 512).face >= 0).all()


def test_perspective_is_that_of_the_surface(dtype: torch.dtype) -> None:
    """A floor whose attribute is its depth: linear in 1 / z, or in the image if so asked."""
    # z from 1 at y = -1 to 4 at y = 1; 1 / z is linear in y.
    xy = [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]
    floor = square(1.0, dtype, tuple(xy))
    floor[..., 2] = torch.where(floor[..., 1] > 0, 4.0, 1.0)
    height = floor[..., 2:].clone()
    y = (7 - 2 * torch.arange(8, dtype=dtype)) / 8
    exact = 1 / (0.625 - 0.375 * y)
    seen = tr.sampled_picture(floor, height, 8, 32)[0, :, 4, 0]
    # The mean over a pixel is the value at its centre, but for the curvature.
    assert torch.allclose(seen, exact, rtol=0.01)
    middles = tr.sampled_picture(floor, height, 8, 1)[0, :, 4, 0]
    assert torch.allclose(middles, exact, rtol=1e-5)
    flat = tr.sampled_picture(floor, height, 8, 4, perspective_correct=False)[0, :, 4, 0]
    assert torch.allclose(flat, 2.5 + 1.5 * y, rtol=1e-5)
    along = tr.sampled_picture(floor, height, 8, 4, orthographic=True)[0, :, 4, 0]
    assert torch.allclose(along, 2.5 + 1.5 * y, rtol=1e-5)


def test_culling_depth_range_and_front(dtype: torch.dtype) -> None:
    faces = square(2.0, dtype)
    assert float(tr.sampled_picture(faces, None, 8, 2, cull_backfaces=True).sum()) == 16
    assert tr.sampled_picture(faces, None, 8, 2, cull_backfaces=True, front="cw").sum() == 0
    both = torch.cat([faces, square(5.0, dtype)], 1)
    values = plain([0.25, 0.25, 0.75, 0.75], dtype)
    nearer = tr.sampled_picture(both, values, 8, 2)[0, 2, 3, 0]
    beyond = tr.sampled_picture(both, values, 8, 2, near=3.0)[0, 2, 3, 0]
    before = tr.sampled_picture(both, values, 8, 2, far=4.0)[0, 2, 3, 0]
    assert [float(v) for v in (nearer, beyond, before)] == pytest.approx([0.25, 0.75, 0.25])


def test_textures_and_backgrounds(dtype: torch.dtype) -> None:
    faces = square(2.0, dtype).expand(2, -1, -1, -1).contiguous()
    uv = (faces[:1, ..., :2] + torch.tensor([0.5, 0.25])).to(dtype)
    image = torch.zeros(2, 4, 4, 1, dtype=dtype)
    image[0, 0, 0], image[1, 3, 3] = 1.0, 1.0  # top left; bottom right
    behind = torch.rand(2, 8, 8, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    corners = torch.full((2, 2, 3, 2), 0.5, dtype=dtype)
    shown = tr.UVTexture(uv, image, corners=corners)
    picture = tr.sampled_picture(faces, shown, 8, 3, background=behind)
    inner = picture[:, 1:5, 2:6]
    assert torch.equal(inner[0, ..., 0].argmax(), torch.tensor(0))
    assert torch.equal(inner[1, ..., 0].argmax(), torch.tensor(15))
    assert torch.allclose(inner[..., 1:3], torch.full_like(inner[..., 1:3], 0.5))
    outside = picture[..., 3] == 0
    assert outside.sum() == 2 * 48 and torch.equal(picture[..., :3][outside], behind[outside])
    texels = torch.arange(8, dtype=dtype).reshape(1, 2, 2, 2, 1)
    seen = tr.sampled_picture(faces, tr.SurfaceTexture(texels), 8, 32)[..., 1:5, 2:6, :1]
    assert torch.equal(seen[0], seen[1])
    # Each of the eight texels has an eighth of the square.
    assert float(seen[0].mean()) == pytest.approx(3.5, abs=0.05)


def test_it_is_detached_and_checks_its_arguments(dtype: torch.dtype) -> None:
    faces = square(2.0, dtype).requires_grad_()
    picture = tr.sampled_picture(faces, plain([1, 1], dtype), 8)
    assert not picture.requires_grad
    with pytest.raises(ValueError, match=r"^samples: must be 1 to 256, got 0"):
        tr.sampled_picture(faces, None, 8, 0)
    with pytest.raises(TypeError, match=r"^face_vertices: expected a torch.Tensor"):
        tr.sampled_picture([1.0], None, 8)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^background: has 2 channels"):
        tr.sampled_picture(faces, plain([1, 1], dtype), 8, background=[1.0, 2.0])
    with pytest.raises(ValueError, match=r"^face_vertices: every face lies outside"):
        tr.sampled_picture(faces, None, 8, near=5.0)


def test_faces_that_are_partly_too_near_are_seen_where_they_are_not(dtype: torch.dtype) -> None:
    """One reaches from before `near` over most of the picture; one behind it is small."""
    large = [[-0.8, -0.8, 0.3], [0.8, -0.8, 2.0], [0.0, 0.8, 2.0]]
    small = [[-0.05, -0.05, 3.0], [0.05, -0.05, 3.0], [0.0, 0.05, 3.0]]
    faces = torch.tensor([[large, small]], dtype=dtype)
    white = torch.ones_like(faces)  # of as many channels as most tests of the sharp renderer
    picture = tr.sampled_picture(faces, white, 32, 16, near=1.0, far=5.0)[..., -1]
    exact = tr.SharpRasterizer(32, near=1.0, far=5.0)(faces, white)[..., -1]
    assert float(exact.sum()) > 100
    assert float((picture - exact).abs().max()) < 0.1
    assert float((picture - exact).abs().sum()) < 0.01 * float(exact.sum())


@pytest.mark.runs_on(precision="f64")
def test_samples_do_not_take_memory() -> None:
    """What is rendered at once does not grow with the number of samples."""
    sizes = []

    def watched(vertices: Tensor, view: View) -> Tensor:
        sizes.append(len(vertices) * view.height * view.width)
        return visible_faces(vertices, view)

    faces = square(2.0, torch.float64).expand(5, -1, -1, -1).contiguous()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampled, "visible_faces", watched)
        for size, samples in ((32, 1), (32, 16), (8, 256), ((3, 700), 2)):
            tr.sampled_picture(faces, None, size, samples)
    assert max(sizes) <= 512**2 and len(sizes) > 50
