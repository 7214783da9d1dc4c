"""Pictures in fewer pixels, and as another lens would have taken them from the same place."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from taichi_raster import checks
from taichi_raster.runtime.precision import product
from taichi_raster.scene.camera_base import Camera


def area_average(
    pictures: Float[Tensor, "B H W *C"], image_size: int | tuple[int, int]
) -> Float[Tensor, "B h w *C"]:
    """Pictures in fewer pixels, each the mean over its area of what it covers.

    It is exact also for sizes that do not divide: a pixel that two of the smaller picture share is
    counted by its parts in each. Means of the whole picture stay as they are. Differentiable.

    Averages are right for coverage, and for colours that are composited already. Where pixels are
    masked out, average the picture times the mask and the mask, and divide.

    Args:
        pictures: (B, H, W) masks, or (B, H, W, C) images.
        image_size: pixels: one number, or (height, width), at most H and W.

    Raises:
        TypeError, ValueError: naming the argument, for other shapes or types, or a larger size.
    """
    if checks.floats("pictures", pictures).ndim not in (3, 4) or pictures.numel() == 0:
        raise ValueError(
            f"pictures: must be (B, H, W) or (B, H, W, C), got {tuple(pictures.shape)}"
        )
    size = checks.image_size(image_size)
    full = (pictures.shape[1], pictures.shape[2])
    if size[0] > full[0] or size[1] > full[1]:
        raise ValueError(f"image_size: must be at most {full}, that of the pictures, got {size}")
    if size == full:
        return pictures
    rows, columns = (_shares(n, m).to(pictures) for n, m in zip(size, full, strict=True))
    flat = pictures if pictures.ndim == 3 else pictures.movedim(-1, 1)
    averaged = product(rows, product(flat, columns.mT))
    return averaged if pictures.ndim == 3 else averaged.movedim(1, -1)


def undistort(
    picture: Float[Tensor, "B H W C"],
    camera: Camera,
    target: Camera | None = None,
    image_size: int | tuple[int, int] | None = None,
    fill: float = 0.0,
) -> Float[Tensor, "B H W C"]:
    """A picture as another camera at the same place would have taken it, by default without a lens.

    With a target that has the lens and a camera that has none, this bends an ideal picture, such as
    a render, so that it fits a photo: straight edges become curves, too.

    Twice differentiable in the picture, and in the lenses and other numbers of both cameras (the
    picture is interpolated linearly between pixel centres).

    Args:
        picture: (B, H, W, C).
        camera: took it; of a batch of 1 or B.
        target: would have taken the result; where it stands is ignored. By default, `camera`
            without its lens.
        image_size: of the result, one number or (height, width); by default the picture's.
        fill: the value of pixels that the picture does not show.

    Raises:
        ValueError: for another shape.

    Example:
        >>> straight = tr.undistort(photo, camera)
        >>> bent = tr.undistort(render, replace(camera, lens=None), target=camera)
    """
    checks.floats("picture", picture)
    checks.instance("camera", camera, Camera)
    if picture.ndim != 4:
        raise ValueError(f"picture: must be (B, H, W, C), got {tuple(picture.shape)}")
    target = replace(camera, lens=None) if target is None else target
    checks.instance("target", target, Camera)
    fill = checks.number("fill", fill)
    batches = {len(picture), len(camera.view), len(target.view)}
    if len(batches - {1}) > 1:
        raise ValueError(
            f"picture, camera, target: must agree in batch, or have 1, got {sorted(batches)}"
        )
    height, width = checks.image_size(image_size or tuple(picture.shape[1:3]))
    pixels = pixel_centres(height, width, picture).expand(max(batches), -1, -1)
    rays = target.from_image(pixels)
    shown = rays.isfinite().all(-1) & camera.shows(rays)
    seen = camera.to_image(torch.where(shown[..., None], rays, torch.ones_like(rays)))
    found, inside = _sample(picture.expand(max(batches), -1, -1, -1), seen[..., :2])
    filled: Tensor = torch.where((shown & inside)[..., None], found, fill)
    return filled.reshape(-1, height, width, picture.shape[3])


def pixel_centres(height: int, width: int, like: Tensor) -> Tensor:
    """(1, H W, 3): in NDC, z = 1."""
    short = min(height, width)
    x = (2 * torch.arange(width, dtype=like.dtype, device=like.device) + 1 - width) / short
    y = (height - 1 - 2 * torch.arange(height, dtype=like.dtype, device=like.device)) / short
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([columns, rows, torch.ones_like(rows)], dim=-1).reshape(1, -1, 3)


def _sample(picture: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """(B, N, C) at NDC points (B, N, 2), bilinear; and whether they lie in the picture."""
    height, width, channels = picture.shape[1:]
    half, sizes = min(height, width) / 2, points.new_tensor([width, height])
    # In pixels, whole numbers at centres; up to half a pixel at the border has its nearest value.
    at = points * points.new_tensor([half, -half]) + (sizes - 1) / 2
    inside = ((at >= -0.5) & (at <= sizes - 0.5)).all(-1)
    at = at.maximum(torch.zeros_like(sizes)).minimum(sizes - 1)
    first = at.detach().floor().minimum((sizes - 2).clamp_min(0))
    (tx, ty), (i, j) = (at - first).unbind(-1), first.long().unbind(-1)
    flat = picture.flatten(1, 2)

    def texel(row: Tensor, column: Tensor) -> Tensor:
        index = row.clamp(max=height - 1) * width + column.clamp(max=width - 1)
        return flat.gather(1, index[..., None].expand(-1, -1, channels))

    tx, ty = tx[..., None], ty[..., None]
    above = texel(j, i) * (1 - tx) + texel(j, i + 1) * tx
    below = texel(j + 1, i) * (1 - tx) + texel(j + 1, i + 1) * tx
    return above * (1 - ty) + below * ty, inside


def _shares(size: int, full: int) -> Float[Tensor, "n N"]:
    """The share of each of `full` pixels in the mean that is each of `size` pixels."""
    edges = torch.arange(size + 1, dtype=torch.float64) * (full / size)
    pixel = torch.arange(full, dtype=torch.float64)
    inner = torch.minimum(edges[1:, None], pixel + 1) - torch.maximum(edges[:-1, None], pixel)
    shares: Tensor = inner.clamp(min=0) * (size / full)
    return shares
