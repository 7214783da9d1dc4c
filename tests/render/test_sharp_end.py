"""`SoftRasterizer(sharp_from=...)`: soft pictures until then, then those of exact areas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import taichi_raster as tr

OPTIONS: dict[str, Any] = {"near": 0.5, "far": 9.0, "cull_backfaces": True}


def scene(batch: int = 2) -> tuple[Tensor, Tensor]:
    dtype = tr.runtime().dtype
    generator = torch.Generator().manual_seed(0)
    sphere = tr.icosphere(1, 0.5, torch.float64)
    camera = tr.PerspectiveCamera(tr.look_at((0.0, 0.0, 3.0)), 40.0)
    moved = sphere.vertices + 0.2 * torch.randn(batch, 1, 3, generator=generator).double()
    corners = tr.gather_faces(camera.project(moved), sphere.faces).to(dtype)
    colours = torch.rand(batch, len(sphere.faces), 3, 3, generator=generator).to(dtype)
    return corners, colours


def renderer(**options: Any) -> tr.SoftRasterizer:
    return tr.SoftRasterizer(16, tr.Distribution("gaussian", 0.05), **OPTIONS, **options)


def drawn(render: Any, corners: Tensor, colours: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    inputs = [x.clone().requires_grad_() for x in (corners, colours)]
    image = render(*inputs)
    weights = torch.linspace(0, 1, image.numel(), dtype=image.dtype).view_as(image)
    return (image.detach(), *torch.autograd.grad((weights * image).sum(), inputs))


def same(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> None:
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)


@pytest.mark.runs_on(arch=("cpu", "vulkan"))
def test_it_is_soft_until_then_and_sharp_from_there_on() -> None:
    corners, colours = scene()
    soft, sharp = renderer(), tr.SharpRasterizer(16, **OPTIONS)
    ours = renderer(sharp_from=0.75)
    for progress in (0.0, 0.7499):
        same(
            drawn(lambda f, a: ours(f, a, progress), corners, colours),  # noqa: B023 - at once
            drawn(soft, corners, colours),
        )
    for late in (0.75, 1, None, torch.tensor(0.9)):
        same(
            drawn(lambda f, a: ours(f, a, late), corners, colours),  # noqa: B023 - at once
            drawn(sharp, corners, colours),
        )
    assert torch.equal(ours.silhouette(corners, 0.8), sharp.silhouette(corners))


@pytest.mark.runs_on(arch="cpu", precision="f64")
@pytest.mark.parametrize("views", [1, 2])
def test_each_scene_has_its_own_progress(views: int) -> None:
    corners, colours = scene(2 * views)
    progress = torch.tensor([0.2, 0.9])
    found = drawn(lambda f, a: renderer(sharp_from=0.5)(f, a, progress, views), corners, colours)
    soft = drawn(lambda f, a: renderer()(f, a, progress, views), corners, colours)
    sharp = drawn(tr.SharpRasterizer(16, **OPTIONS), corners, colours)
    for x, early, late in zip(found, soft, sharp, strict=True):
        torch.testing.assert_close(x[:views], early[:views])
        torch.testing.assert_close(x[views:], late[views:])


@pytest.mark.runs_on(arch="cpu", precision="f64")
@pytest.mark.parametrize("shape", [(), (3,), (16, 16, 3), (2, 16, 16, 3)])
def test_backgrounds_are_kept(shape: tuple[int, ...]) -> None:
    corners, colours = scene()
    behind = torch.rand(shape, dtype=corners.dtype, generator=torch.Generator().manual_seed(1))
    behind.requires_grad_()
    image = renderer(sharp_from=0.5, background=behind)(corners, colours)
    over = tr.SharpRasterizer(16, **OPTIONS)(corners, colours)
    expected = over[..., :3] + (1 - over[..., 3:]) * behind
    torch.testing.assert_close(image[..., :3], expected)
    (slope,) = torch.autograd.grad(image[..., :3].sum(), behind)
    (right,) = torch.autograd.grad(expected.sum(), behind)
    torch.testing.assert_close(slope, right)


@pytest.mark.runs_on(arch="cpu", precision="f64")
def test_a_softening_hands_it_on_and_keeps_it_in_its_file(tmp_path: Any) -> None:
    softening = tr.Softening(tr.Distribution("gaussian", 0.05), sharp_from=0.6)
    assert softening.renderer(16).sharp_from == 0.6
    assert softening.renderer(16, sharp_from=None).sharp_from is None
    assert "sharp from: 0.6" in repr(softening)
    tr.save_softening(tmp_path / "a.safetensors", softening)
    assert tr.load_softening(tmp_path / "a.safetensors").sharp_from == 0.6
    tr.save_softening(tmp_path / "b.safetensors", tr.Softening(softening.edge))
    assert tr.load_softening(tmp_path / "b.safetensors").sharp_from is None


@pytest.mark.runs_on(arch="cpu", precision="f64")
def test_bad_options_are_refused_by_name() -> None:
    for value in (1.0, -0.1, "x", float("nan")):
        with pytest.raises(ValueError, match=r"^sharp_from: expected a number in \[0, 1\)"):
            renderer(sharp_from=value)
    with pytest.raises(ValueError, match=r"^sharp_from: not for barycentrics='clipped'"):
        renderer(sharp_from=0.5, barycentrics="clipped", depth=tr.SoftmaxDepth())
    with pytest.raises(ValueError, match=r"^progress: "):
        renderer(sharp_from=0.5)(*scene(), progress=2.0)
    with pytest.raises(ValueError, match=r"^face_vertices: "):
        renderer(sharp_from=0.5)(torch.zeros(3), None)
