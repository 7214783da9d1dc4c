"""Padding of texture seams: islands keep their texels, the others take the nearest island's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import taichi_raster as tr
from taichi_raster.scene import atlas, padding

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
F64 = torch.float64


def islands() -> Tensor:
    """(1, 4, 3, 2): two charts far apart, a face of one texel's middle, and a sliver."""
    faces = [
        [[0.1, 0.1], [0.4, 0.15], [0.12, 0.45]],
        [[0.6, 0.55], [0.95, 0.6], [0.7, 0.9]],
        [[0.303, 0.803], [0.306, 0.804], [0.304, 0.807]],
        [[0.81, 0.2], [0.81, 0.2], [0.811, 0.2]],
    ]
    return torch.tensor(faces, dtype=F64)[None]


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=F64)


def plainly(uv: Tensor, size: tuple[int, int], repeat: bool) -> np.ndarray:
    """(H, W, H, W): the distances of all texels to those that a face shows; infinite to others."""
    height, width = size
    shown = np.zeros(size, dtype=bool)
    far = 3 if repeat else 1
    for face in uv.numpy():
        a, b, c = ((u * width - 0.5, (1 - v) * height - 0.5) for u, v in face)
        found = False
        for y in range(-far * height, (far + 1) * height):
            for x in range(-far * width, (far + 1) * width):
                turns = [
                    (q[0] - p[0]) * (y - p[1]) - (q[1] - p[1]) * (x - p[0])
                    for p, q in ((a, b), (b, c), (c, a))
                ]
                if min(turns) * max(turns) >= -1e-12 and any(turns):  # on an edge but for rounding
                    found = True
                    if repeat:
                        shown[y % height, x % width] = True
                    else:
                        shown[min(max(y, 0), height - 1), min(max(x, 0), width - 1)] = True
        if not found:
            x, y = (round(sum(p[i] for p in (a, b, c)) / 3) for i in (0, 1))
            shown[y % height, x % width] = True
    rows, columns = np.mgrid[:height, :width]
    down = np.abs(rows[..., None, None] - rows)
    across = np.abs(columns[..., None, None] - columns)
    if repeat:
        down, across = np.minimum(down, height - down), np.minimum(across, width - across)
    return np.where(shown, down**2 + across**2, np.inf)


@pytest.mark.parametrize("size", [(24, 24), (17, 30)])
@pytest.mark.parametrize("wrap", ["clamp", "repeat"])
def test_each_texel_takes_the_nearest_that_a_face_shows(
    size: tuple[int, int], wrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uv = islands()
    if wrap == "repeat":
        uv = uv + torch.tensor([0.3, -0.4])
    distances = plainly(uv[0], size, wrap == "repeat")
    for at_once in (padding.AT_ONCE, 50):  # all faces together, and one by one
        monkeypatch.setattr(padding, "AT_ONCE", at_once)
        found = tr.nearest_texels(uv, size, wrap)[0].numpy()
        row, column = np.divmod(found, size[1])
        own = np.mgrid[: size[0], : size[1]]
        np.testing.assert_array_equal(distances[own[0], own[1], row, column], distances.min((2, 3)))
        shown = np.isfinite(distances[0, 0])
        np.testing.assert_array_equal((found == np.arange(found.size).reshape(size)), shown)
    assert 0.1 < shown.mean() < 0.4


@pytest.mark.parametrize("kind", ["bilinear", "trilinear"])
def test_a_padded_seam_does_not_bleed(kind: str) -> None:
    """Islands of one colour each, on black: every pixel of the picture has its face's colour."""
    uv, size = islands(), 64
    colours = noise(4, 3) * 0.5 + 0.5
    nearest = tr.nearest_texels(uv, (size, size))
    image = torch.zeros(1, size, size, 3, dtype=F64)
    for i in range(4):
        own = padding.shown_texels(uv[0, i : i + 1].numpy(), (size, size), False)
        image[0, torch.from_numpy(own)] = colours[i]
    triangles = torch.tensor([[[-0.9, -0.9, 2], [0.9, -0.9, 2], [0, 0.9, 2]]], dtype=F64).expand(
        1, 1, 3, 3
    )
    renderer = tr.SoftRasterizer(9, tr.Distribution("uniform", 1e-9), tr.HardDepth())

    def error(image: Tensor) -> float:
        worst = 0.0
        for i in range(2):
            shown = tr.UVTexture(uv[:, i : i + 1], image, filter=kind)
            picture = renderer(triangles, shown)
            inside = picture[..., 3] > 0.99
            worst = max(worst, float((picture[inside][:, :3] - colours[i]).abs().max()))
        return worst

    assert error(image) > 0.1
    assert error(tr.pad_texture(image, uv)) < 1e-12
    assert torch.equal(tr.pad_texture(image, uv), tr.pad_texture(image, uv, nearest=nearest))


def test_gradients_go_to_the_islands_texels() -> None:
    uv, image = islands(), noise(2, 12, 10, 3).requires_grad_()
    uv = torch.cat([uv, uv.flip(-1)])
    weights = noise(2, 12, 10, 3) - 0.5
    nearest = tr.nearest_texels(uv, (12, 10))
    padded = tr.pad_texture(image, uv)
    (gradient,) = torch.autograd.grad((padded * weights).sum(), image)
    expected = torch.zeros(2, 120, 3, dtype=F64)
    for item in range(2):
        assert torch.equal(
            padded[item].view(120, 3), image[item].view(120, 3)[nearest[item].view(-1)]
        )
        for texel, source in enumerate(nearest[item].view(-1).tolist()):
            expected[item, source] += weights[item].view(120, 3)[texel]
    torch.testing.assert_close(gradient.view(2, 120, 3), expected)
    one = tr.pad_texture(image[:1], uv)  # an image for both
    assert torch.equal(one[1].view(120, 3), image[0].view(120, 3)[nearest[1].view(-1)])
    assert torch.autograd.gradcheck(lambda x: tr.pad_texture(x, uv[:1]), image[:1])


def test_an_atlas_has_no_gaps() -> None:
    """Between the pictures, a mean over a neighbourhood has colours of theirs alone."""
    face = torch.tensor([[0, 1, 2]])
    corners = torch.tensor([[0.1, 0.1], [0.9, 0.1], [0.1, 0.9]], dtype=F64)
    pictures = [
        atlas.Picture(torch.full((rows, columns, 1), value, dtype=F64), corners, face)
        for rows, columns, value in ((40, 11, 0.5), (13, 29, 0.7), (6, 17, 0.6))
    ]
    found = atlas.atlas(pictures)
    assert set(found.image.unique().tolist()) == {0.5, 0.6, 0.7}
    levels = tr.mipmaps(found.image[None])
    assert float(levels.min()) >= 0.5 - 1e-12
    leaf = torch.full((40, 11, 1), 0.5, dtype=F64, requires_grad=True)
    moved = atlas.atlas([atlas.Picture(leaf, corners, face), *pictures[1:]])
    (gradient,) = torch.autograd.grad(moved.image.sum(), leaf)
    assert float(gradient.sum()) == int((found.image == 0.5).sum())


@pytest.mark.parametrize(
    ("call", "kind", "name"),
    [
        (lambda: tr.nearest_texels(islands()[0], (4, 4)), ValueError, "uv"),
        (lambda: tr.nearest_texels(islands() * float("inf"), (4, 4)), ValueError, "uv"),
        (lambda: tr.nearest_texels(islands().numpy(), (4, 4)), TypeError, "uv"),  # type: ignore[arg-type]
        (lambda: tr.nearest_texels(islands(), 4), TypeError, "size"),  # type: ignore[arg-type]
        (lambda: tr.nearest_texels(islands(), (4, 0)), ValueError, "size"),
        (lambda: tr.nearest_texels(islands(), (4, 4), "mirror"), ValueError, "wrap"),
        (lambda: tr.pad_texture(noise(4, 4, 3), islands()), ValueError, "image"),
        (lambda: tr.pad_texture([1.0], islands()), TypeError, "image"),  # type: ignore[arg-type]
        (
            lambda: tr.pad_texture(noise(3, 4, 4, 3), islands().expand(2, -1, -1, -1)),
            ValueError,
            "uv",
        ),
        (
            lambda: tr.pad_texture(
                noise(1, 4, 4, 3), islands(), nearest=tr.nearest_texels(islands(), (4, 5))
            ),
            ValueError,
            "nearest",
        ),
    ],
)
def test_bad_arguments_are_refused_by_name(
    call: Callable[[], Any], kind: type[Exception], name: str
) -> None:
    with pytest.raises(kind, match=f"^{name}: "):
        call()
