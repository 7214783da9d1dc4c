"""Images and batches of unusual sizes are right, or refused with the memory they would need."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import taichi_raster as tr

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")


def scattered(faces: int, size: float, batch: int = 1) -> Tensor:
    g = torch.Generator().manual_seed(0)
    centre = torch.rand(batch, faces, 1, 2, generator=g) * 2 - 1
    xy = centre + size * torch.randn(batch, faces, 3, 2, generator=g)
    return torch.cat([xy, 2 + torch.rand(batch, faces, 3, 1, generator=g)], -1)


def renderer(size: int | tuple[int, int]) -> tr.SoftRasterizer:
    return tr.SoftRasterizer(size, tr.Distribution("logistic", 0.002), near=1.0, far=5.0)


@pytest.mark.parametrize("size", [(1, 1), (1, 2048), (2048, 1), (3, 700)])
def test_extreme_images_are_cut_from_the_square_one(size: tuple[int, int]) -> None:
    faces = scattered(5, 0.5)
    height, width = size
    small = renderer(size)(faces, torch.ones_like(faces))
    # The same scene, each pixel by itself: NDC is in units of half the shorter side.
    short = min(size)
    for row, column in [(0, 0), (height - 1, width - 1), (height // 2, width // 3)]:
        x, y = (2 * column + 1 - width) / short, (height - 1 - 2 * row) / short
        alone = faces - torch.tensor([x, y, 0.0])
        pixel = renderer(1)(alone, torch.ones_like(faces))[0, 0, 0]
        torch.testing.assert_close(small[0, row, column], pixel, atol=2e-4, rtol=0)


def test_a_large_image_agrees_with_its_corner() -> None:
    faces = scattered(40, 0.1).requires_grad_()
    image = renderer(2048)(faces, torch.ones_like(faces))
    image.square().sum().backward()
    assert bool(faces.grad.isfinite().all())  # type: ignore[union-attr]
    # Its top left eighth, magnified.
    shift = torch.tensor([-0.875, 0.875, 0.0])
    closer = (faces.detach() - shift) * torch.tensor([8.0, 8.0, 1.0])
    edge = tr.Distribution("logistic", 0.016)
    corner = tr.SoftRasterizer(256, edge, near=1.0, far=5.0)(closer, torch.ones_like(faces))
    torch.testing.assert_close(image[:, :256, :256], corner, atol=1e-3, rtol=0)


def test_a_hundred_thousand_faces() -> None:
    faces = scattered(100_000, 0.004).requires_grad_()
    alpha = renderer(128).silhouette(faces)
    alpha.sum().backward()
    assert bool(faces.grad.isfinite().all())  # type: ignore[union-attr]
    assert float((faces.grad.abs().sum((0, 2, 3)) > 0).float().mean()) > 0.8  # type: ignore[union-attr]


def test_a_batch_of_64_is_64_pictures() -> None:
    faces = scattered(6, 0.4, 64)
    together = renderer(16)(faces, torch.ones_like(faces))
    for i in (0, 31, 63):
        alone = renderer(16)(faces[i : i + 1], torch.ones_like(faces[:1]))
        torch.testing.assert_close(together[i : i + 1], alone)


def test_what_does_not_fit_is_refused_with_its_size() -> None:
    faces = scattered(2, 0.4)
    before = renderer(8).silhouette(faces)
    with pytest.raises(MemoryError, match=r"needs \d+ GiB"):
        renderer(60_000).silhouette(faces)
    with pytest.raises(MemoryError, match=r"needs (about )?[\d.]+ GiB"):
        renderer(16_000)(faces.expand(8, -1, -1, -1), torch.ones(8, 2, 3, 64))
    torch.testing.assert_close(renderer(8).silhouette(faces), before)  # and all goes on


def test_no_faces_is_a_clear_error() -> None:
    with pytest.raises(ValueError, match="no faces"):
        renderer(8).silhouette(torch.zeros(1, 0, 3, 3))
