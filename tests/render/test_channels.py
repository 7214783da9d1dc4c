"""Attributes of many channels, which are drawn a part at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import taichi_raster as tr
from scenes import random_faces
from taichi_raster.render import channels
from taichi_raster.scene.attributes import tensors

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
F64 = torch.float64
GENERATOR = torch.Generator().manual_seed(0)


def some(*shape: int) -> Tensor:
    return torch.rand(shape, generator=GENERATOR, dtype=F64)


FACES = random_faces(7, batch=2, faces=6)[0].to(F64)
COLOURS, CORNERS, PICTURE = some(2, 6, 3, 3), some(2, 6, 3, 1), some(1, 6, 4, 3)
UV = some(2, 6, 3, 2)
LEVELS = tr.mipmaps(PICTURE)
LOGISTIC = tr.Distribution("logistic", 0.05)

DRAWN: dict[str, tuple[Callable[[Any], torch.nn.Module], Any]] = {
    "soft": (
        lambda b: tr.SoftRasterizer(8, LOGISTIC, background=b),
        tr.UVTexture(UV, PICTURE[..., :1].contiguous(), "repeat", CORNERS),
    ),
    "sharp": (lambda b: tr.SharpRasterizer(8, b), COLOURS[..., :2].contiguous()),
}


@pytest.mark.parametrize("name", DRAWN)
def test_parts_make_the_same_picture(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The picture, and its slopes along all that it is made of."""
    renderer, shown = DRAWN[name]
    leaves = [leaf.requires_grad_() for leaf in (FACES, *tensors(shown).values())]
    for background in (0.0, 0.5, some(2), some(8, 8, 2)):
        found = []
        for most in (32, 1):
            monkeypatch.setattr(channels, "MOST", most)
            image = renderer(background)(FACES, shown)
            slopes = torch.autograd.grad((image * image.detach().cos()).sum(), leaves)
            found.append([image, *slopes])
        for whole, parts in zip(*found, strict=True):
            torch.testing.assert_close(parts, whole, rtol=1e-9, atol=1e-12)


KINDS: dict[str, tuple[Any, list[Any]]] = {
    "corners": (COLOURS, [COLOURS[..., :2], COLOURS[..., 2:]]),
    "texels": (
        tr.SurfaceTexture(PICTURE[:, :, None, None, 0], CORNERS),
        [tr.SurfaceTexture(t[:, :, None, None, 0]) for t in (PICTURE[..., :2], PICTURE[..., 2:])]
        + [CORNERS],
    ),
    "an image": (
        tr.UVTexture(UV, PICTURE, "repeat"),
        [tr.UVTexture(UV, t, "repeat") for t in (PICTURE[..., :2], PICTURE[..., 2:])],
    ),
    "mipmaps": (
        tr.UVTexture(UV, PICTURE, corners=COLOURS, filter="trilinear", mipmaps=LEVELS),
        [
            tr.UVTexture(UV, PICTURE[..., part], filter="trilinear", mipmaps=LEVELS[..., part])
            for part in (slice(0, 2), slice(2, 3))
        ]
        + [COLOURS[..., :2], COLOURS[..., 2:]],
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_parts_have_all_channels_in_order(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attributes, expected = KINDS[kind]
    monkeypatch.setattr(channels, "MOST", 2)
    found = channels.parts(attributes)
    assert [type(part) for part in found] == [type(part) for part in expected]
    for part, wanted in zip(found, expected, strict=True):
        assert getattr(part, "wrap", None) == getattr(wanted, "wrap", None)
        assert getattr(part, "filter", None) == getattr(wanted, "filter", None)
        for one, other in zip(tensors(part).values(), tensors(wanted).values(), strict=True):
            assert torch.equal(one, other)
