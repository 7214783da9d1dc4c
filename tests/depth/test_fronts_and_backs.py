"""`OverDepth`: faces that show their front and faces that show their back cover separately."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import taichi_raster as tr
import twin_modes

F64 = pytest.mark.runs_on(arch="cpu", precision="f64")
NEAR, FAR = 1.0, 6.0


def test_the_back_of_a_closed_surface_shows_at_outline_vertices_alone(dtype: torch.dtype) -> None:
    """A box whose fronts are black and whose backs are white.

    By the product its outline is white all along, and the edges between its fronts are, too.
    """
    box = tr.box()
    views = [tr.orbit(3.0, elevation, azimuth) for elevation, azimuth in ((23.0, 31.0), (50, -70))]
    white = []
    for depth in (tr.OverDepth(), tr.OverDepth(union="product")):
        renderer = tr.SoftRasterizer(
            64, tr.Distribution("gaussian", 0.01), depth, near=NEAR, far=FAR
        )
        images = []
        for view in views:
            projected = tr.PerspectiveCamera(view, fov=40.0).project(box.vertices[None])
            faces = tr.gather_faces(projected, box.faces).to(dtype)
            images.append(renderer(faces, shades_of_backs(faces))[..., 0])
        white.append(torch.cat(images))
    assert float(white[0].sum()) < 0.03 * float(white[1].sum())
    assert (white[0] > 1e-3).sum() < 40 < 1000 < (white[1] > 1e-3).sum()


def shades_of_backs(faces: Tensor) -> Tensor:
    """1 on faces that turn clockwise in the image, 0 on the others."""
    a, b = (faces[..., i, :2] - faces[..., 0, :2] for i in (1, 2))
    back = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0] < 0
    return back.to(faces)[..., None, None].expand(*faces.shape[:3], 1)


def test_a_sheet_with_two_sides_covers_no_more_than_one_with_one(dtype: torch.dtype) -> None:
    """In front of another sheet, that shows as much as beside a single one."""
    xy = torch.tensor([[-0.7, -0.6], [0.8, -0.5], [0.1, 0.7]])
    behind = torch.tensor([[-9.0, -9.0], [9.0, -9.0], [0.0, 9.0]])
    edge = tr.Distribution("gaussian", 0.1)
    renderer = tr.SoftRasterizer(24, edge, near=NEAR, far=FAR)
    images = []
    for sheets in ([xy, behind], [xy, xy.flip(0), behind]):
        z = torch.tensor([[2.0] * (len(sheets) - 1) + [3.0]])
        faces = tr.lift_triangles(torch.stack(sheets)[None], z).to(dtype)
        shades = torch.zeros_like(faces[..., :1])
        shades[:, -1] = 1.0
        images.append(renderer(faces, shades))
    assert bool(((images[0][..., 0] > 0.3) & (images[0][..., 0] < 0.7)).any())
    torch.testing.assert_close(images[1], images[0], rtol=0, atol=1e-5)


@F64
def test_an_open_surface_looks_the_same_from_its_back() -> None:
    """The half of a ball that faces the camera, with its faces as they are and turned over."""
    ball = tr.icosphere(2, 0.7)
    camera = tr.PerspectiveCamera(tr.orbit(3.0, 20.0, 30.0), fov=40.0)
    every = tr.gather_faces(camera.project(ball.vertices[None].double()), ball.faces)
    faces = every[:, shades_of_backs(every)[0, :, 0, 0] == 0]
    colours = torch.sin(7 * faces)
    renderer = tr.SoftRasterizer(32, tr.Distribution("logistic", 0.03), near=NEAR, far=FAR)
    one, other = renderer(faces, colours), renderer(faces.flip(2), colours.flip(2))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    inside = one[..., -1] > 0.9
    assert float(inside.double().mean()) > 0.1


def crowd(count: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Faces of any size that show either side."""
    g = torch.Generator().manual_seed(4)
    centre = torch.rand(1, count, 1, 2, generator=g, dtype=torch.float64) * 2 - 1
    size = 0.1 + torch.rand(1, count, 1, 1, generator=g, dtype=torch.float64) ** 3
    xy = centre + size * (2 * torch.rand(1, count, 3, 2, generator=g, dtype=torch.float64) - 1)
    z = 1.5 + 3 * torch.rand(1, count, 1, 1, generator=g, dtype=torch.float64)
    z = z + 0.5 * torch.rand(1, count, 3, 1, generator=g, dtype=torch.float64)
    colours = torch.rand(1, count, 3, 2, generator=g, dtype=torch.float64)
    leaves = torch.cat([xy, z], -1), colours
    return tuple(leaf.to(dtype).requires_grad_() for leaf in leaves)  # type: ignore[return-value]


@pytest.mark.parametrize(
    "front", [pytest.param("ccw", marks=pytest.mark.runs_on(precision="f64")), "cw"]
)
def test_many_faces_of_both_sides_match_the_dense_twin(front: str, dtype: torch.dtype) -> None:
    """The picture, its gradient, and its second derivatives along one direction."""
    edge = tr.Distribution("gaussian", 0.08)
    renderer = tr.SoftRasterizer(
        (11, 13), edge, tr.OverDepth(hidden=0.0), near=NEAR, far=FAR, threshold=1e-5, front=front
    )
    found = []
    for draw, kind in ((renderer, dtype), (lambda *x: twin_modes.render(renderer, *x), None)):
        leaves = crowd(60, kind or torch.float64)
        image = draw(*leaves)
        first = torch.autograd.grad(image.square().sum(), leaves, create_graph=True)
        along = torch.stack([(g * g.detach().cos()).sum() for g in first])
        second = torch.autograd.grad(along.sum(), leaves)
        found.append([t.detach().double() for t in (image, *first, *second)])
    for mine, expected in zip(*found, strict=True):
        size = float(expected.abs().max())
        slack = 1e-9 if dtype == torch.float64 else 2e-3
        assert float((mine - expected).abs().max()) < slack * size


@F64
def test_forward_mode_and_lists_agree_with_tiles() -> None:
    leaves = crowd(300, torch.float64)
    g = torch.Generator().manual_seed(5)
    faces, colours = (t.detach() for t in leaves)
    moves, fades = (torch.randn(t.shape, generator=g, dtype=t.dtype) for t in leaves)
    renderer = tr.SoftRasterizer(16, tr.Distribution("gaussian", 0.03), near=NEAR, far=FAR)
    image = renderer(*leaves)
    v = torch.randn(image.shape, generator=g, dtype=image.dtype)
    pulled = torch.autograd.grad((image * v).sum(), leaves)
    pushed = renderer.jvp((faces, colours), (moves, fades))[1]
    along = (pulled[0] * moves).sum() + (pulled[1] * fades).sum()
    # A thousandth of the light is left out by either, not always the same.
    torch.testing.assert_close((pushed * v).sum(), along, rtol=5e-3, atol=0)
