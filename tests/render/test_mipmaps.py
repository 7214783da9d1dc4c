"""Trilinear textures: neither aliased nor without gradients where they are drawn smaller."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import taichi_raster as tr

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
F64 = torch.float64
SIZE = 12
CHANNELS = 2  # of all textures that are drawn: kernels of each number are compiled anew
HARD = tr.Distribution("uniform", 1e-9)

RENDERERS: dict[str, Callable[..., Any]] = {
    "softmax": lambda **o: tr.SoftRasterizer(SIZE, HARD, tr.SoftmaxDepth(), **o),
    "nearest": lambda **o: tr.SoftRasterizer(SIZE, HARD, tr.HardDepth(), **o),
    "over": lambda **o: tr.SoftRasterizer(SIZE, HARD, tr.OverDepth(), **o),
    "soft order": lambda **o: tr.SoftRasterizer(SIZE, HARD, tr.OverDepth(0.01), **o),
    "sharp": lambda **o: tr.SharpRasterizer(SIZE, **o),
}
ALL = pytest.mark.parametrize("name", RENDERERS)


def triangle(reach: float = 1.5, *depths: float) -> Tensor:
    """(1, 1, 3, 3): it covers the picture; by default it is seen straight on."""
    corners = torch.tensor([[-1.0, -1], [3, -1], [-1, 3]]) * reach
    z = torch.tensor(depths or (2.0, 2.0, 2.0))
    return torch.cat([corners, z[:, None]], dim=1)[None, None].double()


def uv(repeats: float) -> Tensor:
    """So many repeats of the image to the lower left square, of which the triangle is twice."""
    return torch.tensor([[[[0.0, 0], [2, 0], [0, 2]]]]).double() * repeats


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=F64)


def plain_levels(image: np.ndarray) -> list[np.ndarray]:
    """Each level's texels: the means of their areas of the level before, integrated piecewise."""

    def halved(a: np.ndarray) -> np.ndarray:
        size = len(a)
        ends = np.linspace(0, size, max(1, size // 2) + 1)
        whole = np.concatenate([np.zeros((1, *a.shape[1:])), a.cumsum(0)])
        low = np.floor(ends).astype(int).clip(0, size - 1)
        part = (ends - low).reshape(-1, *[1] * (a.ndim - 1))
        upto = whole[low] + part * a[low]
        return np.diff(upto, axis=0) / np.diff(ends).reshape(-1, *[1] * (a.ndim - 1))

    found = [image]
    while max(found[-1].shape[:2]) > 1:
        found.append(halved(halved(found[-1]).swapaxes(0, 1)).swapaxes(0, 1))
    return found


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (4, 16), (1, 6), (7, 5), (9, 12), (13, 1)])
def test_levels_are_means_over_areas(shape: tuple[int, int]) -> None:
    image = noise(2, *shape, 3)
    found = tr.mipmaps(image)
    for item in range(2):
        expected = plain_levels(image[item].numpy())
        assert len(expected) == int(math.log2(max(shape))) + 1
        flat = np.concatenate([level.reshape(-1, 3) for level in expected])
        np.testing.assert_allclose(found[item], flat, rtol=0, atol=1e-14)
    torch.testing.assert_close(found[:, -1], image.mean((1, 2)))  # all texels weigh the same


@ALL
def test_a_small_picture_of_a_checkerboard_is_grey(name: str) -> None:
    """47 squares to a pixel; bilinearly, each pixel takes the few that are near its centre."""
    rows = torch.arange(64)
    board = ((rows[:, None] + rows) % 2).double()[None, ..., None].expand(-1, -1, -1, CHANNELS)

    def contrast(kind: str) -> float:
        shown = tr.UVTexture(uv(13.3), board.contiguous(), "repeat", filter=kind)
        picture = RENDERERS[name]()(triangle(), shown)[..., :CHANNELS]
        return float((picture - 0.5).abs().max())

    assert contrast("trilinear") < 1e-12
    if name == "nearest":  # enough to see that the board is not grey by itself
        assert contrast("bilinear") > 0.2


@ALL
def test_every_texel_has_a_gradient_in_a_small_picture(name: str) -> None:
    image = noise(1, 128, 128, CHANNELS).requires_grad_()
    texels = 128**2 / SIZE**2  # to a pixel

    def slope(kind: str) -> Tensor:
        picture = RENDERERS[name]()(triangle(1.0), tr.UVTexture(uv(1), image, filter=kind))
        return torch.autograd.grad(picture[..., :CHANNELS].sum(), image)[0]

    gradient = slope("trilinear")
    assert float(gradient.min()) > 0.2 / texels
    torch.testing.assert_close(gradient.sum((0, 1, 2)), torch.full((CHANNELS,), SIZE**2).double())
    if name == "nearest":  # enough to see that it is not so by itself
        assert float((slope("bilinear") != 0).double().mean()) < 8 / texels


def plain_trilinear(image: np.ndarray, u: float, v: float, level: float) -> float:
    """The first channel, clamped."""
    levels = plain_levels(image)
    level = min(max(level, 0.0), len(levels) - 1.0)
    found = 0.0
    for i, picture in enumerate(levels):
        share = max(0.0, 1 - abs(level - i))
        height, width = picture.shape[:2]
        x, y = u * width - 0.5, (1 - v) * height - 0.5
        for row in range(height):
            for column in range(width):
                near = max(0.0, 1 - abs(np.clip(x, 0, width - 1) - column))
                near *= max(0.0, 1 - abs(np.clip(y, 0, height - 1) - row))
                found += share * near * picture[row, column, 0]
    return found


@ALL
@pytest.mark.parametrize("orthographic", [False, True])
def test_two_levels_are_blended_as_in_plain_numpy(name: str, orthographic: bool) -> None:
    """Seen straight on, a pixel spans (W / 18, H / 18) texels: the image is 18 pixels wide.

    The pixels lie inside the image, where both ways to wrap are one.
    """
    image = noise(1, 40, 28, CHANNELS)
    shown = tr.UVTexture(uv(1), image, "repeat" if orthographic else "clamp", filter="trilinear")
    picture = RENDERERS[name](orthographic=orthographic)(triangle(), shown)[0, ..., 0]
    level = math.log2(40 / 18)
    assert 1 < level < 2
    for row, column in ((0, 0), (2, 7), (5, 4), (11, 1), (6, 10)):
        u, v = (column + 3.5) / 18, 1 - (row + 3.5) / 18
        expected = plain_trilinear(image[0].numpy(), u, v, level)
        assert float(picture[row, column]) == pytest.approx(expected, abs=1e-12)


def tilted() -> Tensor:
    return triangle(1.5, 2.0, 9.0, 14.0)


def test_all_renderers_take_the_same_levels() -> None:
    """In perspective, where the level differs from pixel to pixel."""
    shown = tr.UVTexture(uv(1.7), noise(1, 33, 20, CHANNELS), "repeat", filter="trilinear")
    soft = RENDERERS["nearest"]()(tilted(), shown)
    plain = RENDERERS["nearest"]()(tilted(), tr.UVTexture(shown.uv, shown.image, "repeat"))
    assert float((soft - plain).abs().max()) > 0.1
    for other in (
        RENDERERS["over"]()(tilted(), shown),
        RENDERERS["sharp"]()(tilted(), shown),
        tr.sampled_picture(tilted(), shown, SIZE, samples=1),
    ):
        torch.testing.assert_close(other, soft, rtol=0, atol=1e-9)
    # A larger picture, averaged, has finer levels.
    finer = RENDERERS["nearest"](antialias=3)(tilted(), shown)
    sampled = tr.sampled_picture(tilted(), shown, SIZE, samples=3)
    torch.testing.assert_close(finer, sampled, rtol=0, atol=1e-9)


@ALL
def test_gradients_of_the_image_are_finite_differences(name: str) -> None:
    image, weights = noise(1, 9, 14, CHANNELS), noise(1, SIZE, SIZE, CHANNELS) - 0.5

    def loss(image: Tensor) -> Tensor:
        shown = tr.UVTexture(uv(2.5), image, "repeat", filter="trilinear")
        return (RENDERERS[name]()(tilted(), shown)[..., :CHANNELS] * weights).sum()

    leaf = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf), leaf)
    for seed in range(3):
        way = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed), dtype=F64)
        slope = loss(image + way) - loss(image)  # linear in texels
        torch.testing.assert_close((gradient * way).sum(), slope, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["softmax", "over", "sharp"])
@pytest.mark.parametrize("what", ["uv", "vertices"])
def test_what_keeps_the_level_has_exact_gradients(name: str, what: str) -> None:
    """Shifts in the plane; the texture is smooth enough for differences."""
    rows = torch.arange(32, dtype=F64) / 32 * 2 * math.pi
    image = torch.stack([rows.sin()[:, None] * rows.cos(), (rows[:, None] + rows).cos()], -1)[None]
    weights = noise(1, SIZE, SIZE, CHANNELS) - 0.5
    direction = torch.tensor([0.6, -0.8, 0.0], dtype=F64)

    def loss(step: Tensor) -> Tensor:
        faces, coordinates = triangle(), uv(1.9)
        if what == "uv":
            coordinates = coordinates + step * direction[:2]
        else:
            faces = faces + step * direction
        shown = tr.UVTexture(coordinates, image, "repeat", filter="trilinear")
        renderer = RENDERERS[name](orthographic=True)
        return (renderer(faces, shown)[..., :CHANNELS] * weights).sum()

    zero = torch.zeros((), dtype=F64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(zero), zero)
    h = 1e-6
    with torch.no_grad():
        slope = (loss(zero + h) - loss(zero - h)) / (2 * h)
    torch.testing.assert_close(gradient, slope, rtol=1e-6, atol=1e-7)


def test_mipmaps_that_are_handed_over_are_used() -> None:
    image = noise(1, 16, 16, CHANNELS).requires_grad_()
    own = tr.UVTexture(uv(3), image, "repeat", filter="trilinear")
    kept = tr.mipmaps(image)
    other = tr.UVTexture(uv(3), image, "repeat", filter="trilinear", mipmaps=kept)
    for name in ("softmax", "sharp"):
        found = [RENDERERS[name]()(tilted(), shown) for shown in (own, other)]
        assert torch.equal(*found)
        one, two = (
            torch.autograd.grad(x.square().sum(), image, retain_graph=True)[0] for x in found
        )
        torch.testing.assert_close(one, two)
    with torch.no_grad():
        image.mul_(0.5)  # those are not made anew, as is documented
    assert torch.equal(RENDERERS["sharp"]()(tilted(), other), found[1])
    assert float((RENDERERS["sharp"]()(tilted(), own) - found[1]).abs().max()) > 0.1


def test_a_meshs_texture_may_be_trilinear() -> None:
    mesh = tr.Mesh(triangle()[0, 0], torch.tensor([[0, 1, 2]]), uv(1)[0, 0], None, noise(9, 8, 3))
    shown = mesh.uv_texture("repeat", filter="trilinear")
    assert (shown.wrap, shown.filter) == ("repeat", "trilinear")
    assert mesh.uv_texture().filter == "bilinear"


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: tr.UVTexture(uv(1), noise(1, 4, 4, 3), filter="cubic"), "filter"),
        (lambda: tr.UVTexture(uv(1), noise(1, 4, 4, 3), mipmaps=noise(1, 21, 3)), "mipmaps"),
        (
            lambda: tr.UVTexture(
                uv(1), noise(1, 4, 4, 3), filter="trilinear", mipmaps=noise(1, 20, 3)
            ),
            "mipmaps",
        ),
        (lambda: tr.mipmaps(noise(4, 4, 3)), "image"),
        (lambda: tr.mipmaps(noise(1, 1, 1, 1).expand(1, 1, 65537, 1)), "image"),
        (
            lambda: RENDERERS["softmax"]()(
                triangle(),
                tr.UVTexture(
                    uv(1),
                    noise(1, 4, 4, 3),
                    filter="trilinear",
                    mipmaps=noise(1, 21, 3) * float("nan"),
                ),
            ),
            "mipmaps",
        ),
    ],
)
def test_bad_options_are_refused_by_name(call: Callable[[], object], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: "):
        call()
