"""Pixels without fragments, beside faces that cannot be drawn: background, and finite gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import taichi_raster as tr

pytestmark = pytest.mark.runs_on(precision="f32")  # which overflows sooner

SIZE = (6, 9)
BACKGROUND = [0.25, 0.5, 0.75]

Draw = Callable[[Tensor, Tensor | tr.SurfaceTexture | tr.UVTexture], Tensor]


def soft(depth: tr.DepthSoftness) -> Draw:
    edge = tr.Distribution("uniform", 0.1)
    return tr.SoftRasterizer(SIZE, edge, depth, background=BACKGROUND)


def buffers(faces: Tensor, attributes: Tensor | tr.SurfaceTexture | tr.UVTexture) -> Tensor:
    assert isinstance(attributes, Tensor)
    found = tr.hard_buffers(faces, SIZE)
    depth = torch.where(found.face >= 0, found.depth, torch.zeros_like(found.depth))
    shown = (
        found.barycentrics
        + attributes.sum() * 0
        + faces.new_tensor(BACKGROUND) * (found.face < 0).unsqueeze(-1)
    )
    return torch.cat([shown, depth[..., None]], -1)


DRAWS: dict[str, Callable[[], Draw]] = {
    "softmax": lambda: soft(tr.SoftmaxDepth(0.1, background_z=0.0)),
    "hard": lambda: soft(tr.HardDepth()),
    "over": lambda: soft(tr.OverDepth()),
    "soft over": lambda: soft(tr.OverDepth(0.1)),
    "buffers": lambda: buffers,
    "sharp": lambda: tr.SharpRasterizer(SIZE, background=BACKGROUND),
    "sampled": lambda: lambda f, a: tr.sampled_picture(f, a, SIZE, 2, background=BACKGROUND),
}
KINDS = pytest.mark.parametrize(
    ("name", "texture"),
    [(name, "corners") for name in DRAWS]
    + [
        pytest.param(name, texture, marks=pytest.mark.runs_on(arch=("cpu", "cuda")))
        for name in ("sharp", "sampled")
        for texture in ("surface", "uv")
    ],
)


def attributes_of(faces: Tensor, kind: str) -> Tensor | tr.SurfaceTexture | tr.UVTexture:
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        values = torch.rand(*shape, generator=generator, dtype=torch.float64)
        return values.to(faces.dtype).requires_grad_()

    batch, count = faces.shape[:2]
    if kind == "surface":
        return tr.SurfaceTexture(random(batch, count, 2, 2, 3))
    if kind == "uv":
        return tr.UVTexture(random(batch, count, 3, 2), random(batch, 4, 4, 3))
    return random(batch, count, 3, 3)


def check(name: str, faces: Tensor, texture: str, leaf: Tensor, empty: int | None) -> Tensor:
    """Draw the faces: all is finite, and batch item `empty` is the background."""
    shown = attributes_of(faces, texture)
    image = DRAWS[name]()(faces, shown)
    assert image.isfinite().all()
    if empty is not None:
        nothing = image[empty]
        assert torch.allclose(nothing[..., :3], image.new_tensor(BACKGROUND), atol=1e-6)
        assert nothing[..., 3].abs().max() == 0
    if name != "sampled":
        inputs = [leaf, *(v for v in vars_of(shown) if v.requires_grad)]
        slopes = torch.autograd.grad(
            image.square().sum(), inputs, create_graph=name == "over", allow_unused=True
        )
        assert all(s is None or s.isfinite().all() for s in slopes)
        if slopes[0].requires_grad:
            second = torch.autograd.grad(slopes[0].square().sum(), inputs, allow_unused=True)
            assert all(s is None or s.isfinite().all() for s in second)
    return image.detach()


def vars_of(shown: Tensor | tr.SurfaceTexture | tr.UVTexture) -> list[Tensor]:
    if isinstance(shown, Tensor):
        return [shown]
    return [value for value in vars(shown).values() if isinstance(value, Tensor)]


@KINDS
def test_a_view_that_looks_away_shows_the_background(
    name: str, texture: str, dtype: torch.dtype
) -> None:
    mesh = tr.box(dtype=dtype)
    vertices = mesh.vertices[None].clone().requires_grad_()
    eyes = torch.tensor([[0.3, 0.4, 3.0], [0.3, 0.4, 3.0]], dtype=dtype)
    targets = torch.tensor([[0.0, 0.0, 0.0], [0.3, 0.4, 9.0]], dtype=dtype)
    camera = tr.PerspectiveCamera(tr.look_at(eyes, targets), 30.0)
    faces = camera.project_faces(vertices, mesh.faces).vertices
    image = check(name, faces, texture, vertices, empty=1)
    assert float(image[0, ..., 3].max()) > 0.5


@KINDS
def test_an_item_of_padding_alone_shows_the_background(
    name: str, texture: str, dtype: torch.dtype
) -> None:
    batch = tr.collate([tr.box(dtype=dtype), tr.box(dtype=dtype)])
    indices = batch.faces.clone()
    indices[1] = -1
    vertices = batch.vertices.clone().requires_grad_()
    camera = tr.PerspectiveCamera(tr.orbit(3.0, 20.0, 30.0), 30.0)
    faces = tr.gather_faces(camera.project(vertices), indices)
    image = check(name, faces, texture, vertices, empty=1)
    assert float(image[0, ..., 3].max()) > 0.5


BAD_FIRST = {
    "a corner at z = 0": [[-0.5, -0.5, 0.0], [0.5, -0.5, 2.0], [0.0, 0.5, 2.0]],
    "all at z = 0": [[-0.5, -0.5, 0.0], [0.5, -0.5, 0.0], [0.0, 0.5, 0.0]],
    "depths of both signs": [[-0.5, -0.5, -1.0], [0.5, -0.5, 1.0], [0.0, 0.5, 1.0]],
    "behind, and huge": [[-1e25, -1e25, -1.0], [1e25, -1e25, -1.0], [0.0, 1e25, 1e-30]],
}


@KINDS
def test_a_first_face_that_is_not_drawn_changes_nothing(
    name: str, texture: str, dtype: torch.dtype
) -> None:
    good = [[-0.4, -0.6, 2.0], [0.6, -0.4, 2.5], [-0.1, 0.7, 3.0]]
    for bad in BAD_FIRST.values():
        faces = torch.tensor([[bad, good]], dtype=dtype).requires_grad_()
        image = check(name, faces, texture, faces, empty=None)
        corner = image[0, 0, 0]
        assert torch.allclose(corner[:3], image.new_tensor(BACKGROUND), atol=1e-6)
        assert corner[3] == 0 and float(image[0, ..., 3].max()) > 0.5
