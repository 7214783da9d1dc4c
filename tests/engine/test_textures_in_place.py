"""Kernels read a texture where it is: nothing is copied, and nothing is ever stale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import taichi_raster as tr
from taichi_raster.engine import engine
from taichi_raster.engine.texture import Texture
from taichi_raster.runtime import zeros

CPU = pytest.mark.runs_on(arch="cpu")
ONE = pytest.mark.runs_on(precision="f32")  # where a texture's memory is does not depend on it
SIZE = 9

RENDERERS: dict[str, Callable[[], Any]] = {
    "softmax": lambda: tr.SoftRasterizer(SIZE, depth=tr.SoftmaxDepth()),
    "over": lambda: tr.SoftRasterizer(SIZE, depth=tr.OverDepth()),
    "soft order": lambda: tr.SoftRasterizer(SIZE, depth=tr.OverDepth(0.1)),
    "sharp": lambda: tr.SharpRasterizer(SIZE),
}
# The sharp renderer's textures are sampled by torch, on each backend alike.
NOT_MESA = pytest.mark.runs_on(arch=("cpu", "cuda"))
ALL = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=NOT_MESA if name == "sharp" else ()) for name in RENDERERS],
)


def faces(dtype: torch.dtype) -> Tensor:
    corners = torch.tensor([[-0.9, -0.8, 2], [0.9, -0.9, 3], [0.8, 0.9, 2.5], [-0.8, 0.8, 2.2]])
    return corners[torch.tensor([[0, 1, 2], [0, 2, 3]])][None].to(dtype)


def uv(dtype: torch.dtype) -> Tensor:
    corners = torch.tensor([[0.1, 0.1], [0.9, 0.2], [0.8, 0.9], [0.1, 0.8]])
    return corners[torch.tensor([[0, 1, 2], [0, 2, 3]])][None].to(dtype)


def texture(dtype: torch.dtype, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.rand(1, 6, 5, 3, generator=g, dtype=torch.float64).to(dtype)


@ONE
@ALL
def test_a_texture_that_changes_in_place_is_seen_at_once(name: str, dtype: torch.dtype) -> None:
    """However it is changed: by an optimiser, behind torch's back, or through NumPy."""
    renderer, image = RENDERERS[name](), texture(dtype).requires_grad_()
    optimiser = torch.optim.Adam([image], lr=0.1)

    def picture(of: Tensor) -> Tensor:
        return renderer(faces(dtype), tr.UVTexture(uv(dtype), of))

    def step() -> None:
        optimiser.zero_grad()
        picture(image).square().sum().backward()
        optimiser.step()

    def through_numpy() -> None:
        image.detach().numpy()[:] = 0.25

    for change in (step, step, lambda: image.data.clamp_(0.3, 0.6), through_numpy):
        before = picture(image).detach().clone()
        change()
        after = picture(image).detach()
        assert not torch.equal(before, after)
        assert torch.equal(after, picture(image.detach().clone()))


@ONE
@ALL
def test_a_texture_that_changes_before_the_backward_is_refused(
    name: str, dtype: torch.dtype
) -> None:
    """As by every operation of torch: its derivative would be that of another picture."""
    image = texture(dtype).requires_grad_()
    vertices = faces(dtype).requires_grad_()
    shown = RENDERERS[name]()(vertices, tr.UVTexture(uv(dtype), image))
    with torch.no_grad():
        image.mul_(0.5)
    if name == "sharp":  # torch samples it, which needs the texels for the vertices alone
        return
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        shown.sum().backward()


@ONE
@CPU
@pytest.mark.parametrize("name", ["softmax", "over", "soft order"])
@pytest.mark.parametrize("learned", [False, True])
def test_kernels_read_the_users_memory(
    name: str, learned: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, vertices = texture(dtype).requires_grad_(learned), faces(dtype).requires_grad_()
    given: list[Texture] = []
    bind = engine.Engine.bind

    def watched(self: engine.Engine, call: Any, texture: Texture | None) -> None:
        if texture is not None:
            given.append(texture)
        bind(self, call, texture)

    monkeypatch.setattr(engine.Engine, "bind", watched)
    monkeypatch.setattr(Texture, "upload", None)  # not called
    RENDERERS[name]()(vertices, tr.UVTexture(uv(dtype), image)).square().sum().backward()
    assert [t.texels.data_ptr() for t in given] == [image.data_ptr()] * 2  # there and back
    assert [t.adjoints is not None for t in given] == [False, learned]
    assert engine.engine().texture[0].numel() == 1  # none is held afterwards


@ONE
@ALL
def test_textures_of_any_layout_and_of_one_texel_are_right(name: str, dtype: torch.dtype) -> None:
    renderer = RENDERERS[name]()

    def seen(image: Tensor) -> tuple[Tensor, Tensor]:
        image = image.detach().requires_grad_()
        shown = renderer(faces(dtype), tr.UVTexture(uv(dtype), image))
        return shown.detach(), torch.autograd.grad(shown.square().sum(), image)[0]

    plain = texture(dtype)
    for other in (
        plain.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),  # channels first
        plain.new_zeros(1, 6, 5, 7)[..., 2:5].copy_(plain),  # a part of another one
        plain.permute(0, 2, 1, 3).contiguous().permute(0, 2, 1, 3),  # columns first
    ):
        assert not other.is_contiguous()
        for found, expected in zip(seen(other), seen(plain), strict=True):
            torch.testing.assert_close(found, expected)
    one = plain[:, :1, :1]
    picture, gradient = seen(one)
    corners = one.expand(1, 2, 3, 3).detach().requires_grad_()
    expected = renderer(faces(dtype), corners)
    torch.testing.assert_close(picture, expected)
    by_corner = torch.autograd.grad(expected.square().sum(), corners)[0]
    torch.testing.assert_close(gradient[0, 0, 0], by_corner.sum((0, 1, 2)))


@CPU
@pytest.mark.runs_on(precision="f64")
@pytest.mark.parametrize("name", ["softmax", "over"])
def test_torch_maps_over_textures_one_by_one(name: str, dtype: torch.dtype) -> None:
    renderer = RENDERERS[name]()
    several = torch.cat([texture(dtype, seed) for seed in range(3)])
    vertices = faces(dtype).requires_grad_()

    def picture(image: Tensor) -> Tensor:
        return renderer(vertices, tr.UVTexture(uv(dtype), image[None]))

    mapped = torch.vmap(picture)(several)
    plain = torch.stack([picture(image) for image in several])
    assert torch.equal(mapped, plain)
    expected = torch.autograd.grad(plain.square().sum(), vertices)[0]
    torch.testing.assert_close(torch.autograd.grad(mapped.square().sum(), vertices)[0], expected)
    towards = torch.func.jvp(picture, (several[0],), (several[1],))[1]
    black = picture(torch.zeros_like(several[1]))[..., :3]
    torch.testing.assert_close(towards[..., :3], plain[1][..., :3] - black)  # linear in texels


def test_zeros_of_which_few_are_used_are_zeros(dtype: torch.dtype) -> None:
    found = zeros.sparsely_used((1000, 700), torch.ones(3, dtype=dtype))
    assert found.dtype == dtype and found.shape == (1000, 700) and not found.any()
    assert found.is_contiguous() and found[5].add_(1).sum() == 700
