"""Textures against torch's own bilinear sampling and the definition of flat texels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import taichi_raster as tr

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
F64 = torch.float64
SIZE = 15


def square() -> Tensor:
    """(1, 2, 3, 3): two triangles that fill the picture, tilted away from the eye."""
    corners = torch.tensor([[-1.2, -1.2, 2], [1.2, -1.2, 3], [1.2, 1.2, 4], [-1.2, 1.2, 2.5]])
    return corners[torch.tensor([[0, 1, 2], [0, 2, 3]])][None].double()


def uv() -> Tensor:
    corners = torch.tensor([[-0.3, -0.2], [1.3, 0.1], [1.4, 1.2], [-0.1, 1.3]])
    return corners[torch.tensor([[0, 1, 2], [0, 2, 3]])][None].double()


def weights() -> tuple[Tensor, Tensor]:
    """(face, perspective-correct weights) at pixel centres."""
    buffers = tr.hard_buffers(square(), SIZE, near=0.5)
    assert bool((buffers.face >= 0).all())
    z = square()[0, buffers.face][..., 2]
    mixed = buffers.barycentrics / z
    return buffers.face, mixed / mixed.sum(-1, keepdim=True)


def drawn(attributes: Tensor | tr.SurfaceTexture | tr.UVTexture) -> Tensor:
    edge = tr.Distribution("uniform", 1e-9)
    return tr.SoftRasterizer(SIZE, edge, tr.HardDepth(), near=0.5)(square(), attributes)[..., :-1]


@pytest.mark.parametrize("wrap", ["clamp", "repeat"])
def test_images_are_sampled_as_torch_samples_them(wrap: str) -> None:
    g = torch.Generator().manual_seed(0)
    image = torch.rand(1, 5, 7, 3, generator=g, dtype=F64)
    face, w = weights()
    at = (w[..., None] * uv()[0, face]).sum(-2)
    source, grid = image, at
    if wrap == "repeat":  # torch does not repeat: tile the image, and look into its middle
        source, grid = image.tile(1, 3, 3, 1), (at + 1) / 3
    grid = torch.stack([2 * grid[..., 0] - 1, 1 - 2 * grid[..., 1]], -1)
    expected = torch.nn.functional.grid_sample(
        source.permute(0, 3, 1, 2), grid, padding_mode="border", align_corners=False
    ).permute(0, 2, 3, 1)
    found = drawn(tr.UVTexture(uv(), image, wrap))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("r", [1, 2, 5])
def test_flat_texels_are_the_definitions(r: int) -> None:
    texels = torch.arange(2 * r * r, dtype=F64).view(1, 2, r, r, 1)
    face, w = weights()
    found = drawn(tr.SurfaceTexture(texels))[0, ..., 0]
    for row in range(SIZE):
        for column in range(SIZE):
            w0, w1, _ = w[0, row, column].tolist()
            i, j = min(int(w0 * r), r - 1), min(int(w1 * r), r - 1)
            if (w0 + w1) * r - i - j > 1 + 1e-4:  # what rounding may do on an edge
                i, j = r - 1 - i, r - 1 - j
            expected = texels[0, int(face[0, row, column]), j, i, 0]
            assert found[row, column] == expected


def test_channels_at_corners_follow_the_textures() -> None:
    g = torch.Generator().manual_seed(0)
    image, corners = torch.rand(1, 4, 4, 2, generator=g), torch.rand(1, 2, 3, 3, generator=g)
    image, corners = image.double(), corners.double()
    both = drawn(tr.UVTexture(uv(), image, corners=corners))
    torch.testing.assert_close(both[..., :2], drawn(tr.UVTexture(uv(), image)))
    torch.testing.assert_close(both[..., 2:], drawn(corners))


def test_the_sharp_renderer_shows_the_same_textures() -> None:
    g = torch.Generator().manual_seed(0)
    for attributes in (
        tr.UVTexture(uv(), torch.rand(1, 4, 4, 3, generator=g).double(), "repeat"),
        tr.SurfaceTexture(torch.rand(1, 2, 3, 3, 3, generator=g).double()),
    ):
        sharp = tr.SharpRasterizer(SIZE, near=0.5)(square(), attributes)[..., :-1]
        soft = drawn(attributes)
        off_diagonal = (sharp - soft).abs().amax(-1) < 1e-9
        assert float(off_diagonal.double().mean()) > 0.8  # pixels on the seam mix two faces


def test_hard_buffers_are_differentiable_and_empty_where_nothing_is() -> None:
    faces = square()[:, :1].clone().requires_grad_()
    buffers = tr.hard_buffers(faces, SIZE, near=0.5)
    hit = buffers.face >= 0
    assert bool(hit.any()) and not bool(hit.all())
    assert bool(torch.isinf(buffers.depth[~hit]).all())
    torch.testing.assert_close(
        buffers.barycentrics[hit].sum(-1), torch.ones(int(hit.sum())).double()
    )
    (gradient,) = torch.autograd.grad(buffers.depth[hit].sum(), faces)
    assert float(gradient[..., 2].abs().min()) > 0
    assert bool(gradient.isfinite().all())


V = square()


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: tr.UVTexture(torch.zeros(1, 2, 3), torch.zeros(1, 4, 4, 3)), "uv"),
        (lambda: tr.UVTexture(uv(), torch.zeros(4, 4, 3)), "image"),
        (lambda: tr.UVTexture(uv(), torch.zeros(1, 4, 4, 3), "mirror"), "wrap"),
        (lambda: tr.SurfaceTexture(torch.zeros(1, 2, 3, 4, 3)), "texels"),
        (lambda: tr.SurfaceTexture(torch.zeros(1, 2, 3, 3)), "texels"),
        (
            lambda: drawn(tr.UVTexture(uv(), torch.full((1, 4, 4, 3), float("nan"), dtype=F64))),
            "image",
        ),
        (
            lambda: drawn(
                tr.UVTexture(uv(), torch.ones(1, 2, 2, 1).double(), corners=torch.zeros(1, 3, 3, 1))
            ),
            "corners",
        ),
    ],
)
def test_bad_textures_are_refused_by_name(call: Callable[[], object], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: "):
        call()


RENDERERS: dict[str, Callable[[Any], Tensor]] = {
    "soft": drawn,
    "sharp": lambda attributes: tr.SharpRasterizer(SIZE)(square(), attributes),
    "sampled": lambda attributes: tr.sampled_picture(square(), attributes, SIZE, 2),
}
PICTURE = torch.zeros(1, 4, 4, 3, dtype=F64)
MISFITS: dict[str, tuple[Any, str]] = {
    "texels of another face count": (tr.SurfaceTexture(PICTURE.new_zeros(1, 3, 2, 2, 1)), "texels"),
    "texels of fewer faces": (tr.SurfaceTexture(PICTURE.new_zeros(1, 1, 2, 2, 1)), "texels"),
    "texels of another batch": (tr.SurfaceTexture(PICTURE.new_zeros(2, 2, 2, 2, 1)), "texels"),
    "uv of another face count": (tr.UVTexture(uv()[:, :1], PICTURE), "uv"),
    "uv of more faces": (tr.UVTexture(uv().repeat(1, 2, 1, 1), PICTURE), "uv"),
    "uv of another batch": (tr.UVTexture(uv().repeat(2, 1, 1, 1), PICTURE), "uv"),
    "images of another batch": (tr.UVTexture(uv(), PICTURE.repeat(2, 1, 1, 1)), "image"),
    "trilinear, of another batch": (
        tr.UVTexture(uv(), PICTURE.repeat(2, 1, 1, 1), filter="trilinear"),
        "image",
    ),
    "corners of another face count": (
        tr.UVTexture(uv(), PICTURE, corners=PICTURE.new_zeros(1, 3, 3, 1)),
        "corners",
    ),
}


@pytest.mark.parametrize("what", MISFITS)
@pytest.mark.parametrize("renderer", RENDERERS)
def test_textures_of_another_scene_are_refused_by_name(renderer: str, what: str) -> None:
    attributes, name = MISFITS[what]
    with pytest.raises(ValueError, match=f"^{name}: "):
        RENDERERS[renderer](attributes)


def test_attributes_of_another_kind_are_refused() -> None:
    with pytest.raises(TypeError, match="face_attributes"):
        drawn([1.0, 2.0])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="image"):
        drawn(tr.UVTexture(uv(), torch.zeros(1, 4, 4, 3)))  # float32 in a float64 runtime
