"""Looks up images at texture coordinates, and their mipmaps, in torch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from taichi_raster import checks
from taichi_raster.runtime.layout import MIPMAPS
from taichi_raster.scene import gather


def mipmaps(image: Float[Tensor, "B H W C"]) -> Float[Tensor, "B M C"]:
    """An image, and smaller ones averaged from it, for `UVTexture(..., filter="trilinear")`.

    Each level halves the one before it, rounded down, along each side that has more than one texel,
    down to a single texel (OpenGL 4.6, section 8.14.3). A texel is the exact average over its area:
    of 2 x 2 texels where sides are even, else with weights for the parts of texels that it covers
    (Guthe and Heckbert, *Non-power-of-two mipmap creation*, 2005). So all texels of the image weigh
    the same in each level.

    A trilinear texture makes its mipmaps anew in every render, so that they are never stale. For an
    image that stays, make them once, and hand them over: ``UVTexture(uv, image,
    filter="trilinear", mipmaps=tr.mipmaps(image))``. They do not follow later changes of the image.

    Args:
        image: (B, H, W, C), up to 65,536 texels on a side.

    Returns:
        (B, M, C): the texels of all levels, one behind another, row by row. Differentiable.

    Raises:
        TypeError, ValueError: for another type or shape.
    """
    checks.floats("image", image)
    if image.ndim != 4 or 0 in image.shape:
        raise ValueError(f"image: expected shape (B, H, W, C), none 0, got {tuple(image.shape)}")
    levels = [image]
    for _ in sizes(*image.shape[1:3])[1:]:
        levels.append(_halved(_halved(levels[-1], 1), 2))
    return torch.cat([level.flatten(1, 2) for level in levels], dim=1)


def sizes(height: int, width: int) -> list[tuple[int, int]]:
    """(height, width) of each level.

    Raises:
        ValueError: for more than 65,536 texels on a side.
    """
    if max(height, width) > 1 << (MIPMAPS - 1):
        raise ValueError(f"image: mipmaps have at most 65,536 texels a side, got {height, width}")
    count = max(height, width).bit_length()
    return [(max(1, height >> i), max(1, width >> i)) for i in range(count)]


def starts(height: int, width: int) -> list[int]:
    """Where each level begins among the texels of all, and where the last one ends."""
    areas = (rows * columns for rows, columns in sizes(height, width))
    return list(itertools.accumulate(areas, initial=0))


def _halved(image: Tensor, dim: int) -> Tensor:
    size = image.shape[dim]
    if size == 1:
        return image
    half = size // 2
    first, second = image.narrow(dim, 0, 2 * half).unflatten(dim, (half, 2)).unbind(dim + 1)
    if size % 2 == 0:
        mean: Tensor = (first + second).mul_(0.5)  # in place, for large images' sake
        return mean
    third = image.narrow(dim, 1, 2 * half).unflatten(dim, (half, 2)).unbind(dim + 1)[1]
    # A texel of the result covers size / half texels: parts of its first and third one.
    shape = (half,) + (1,) * (image.ndim - 1 - dim)
    at = torch.arange(half, dtype=image.dtype, device=image.device).view(shape)
    covered: Tensor = (half - at) * first + half * second + (at + 1) * third
    return covered / size


def levels_of_detail(
    corners: Float[Tensor, "*n 3 3"],
    uv: Float[Tensor, "*n 3 2"],
    weights: Float[Tensor, "*n 3"],
    texture: tuple[int, int],
    picture: tuple[int, int],
    perspective: bool,
) -> Float[Tensor, " *n"]:
    """log2 of how many texels a pixel spans, at points of faces; without derivatives.

    See `UVTexture` for the formula. At a point with texture coordinates u and depth z, a step in
    the picture changes u by sum_i grad(b_i) (u_i - u) z / z_i, with b_i the barycentric coordinates
    in the picture; without the depths where attributes are linear in the picture.

    Args:
        corners: each point's face, in NDC; uv: its texture coordinates.
        weights: of attributes at corners.
        texture, picture: (height, width).
        perspective: whether attributes are perspective-correct.
    """
    with torch.no_grad():
        x, y, z = corners.unbind(-1)
        edge_x, edge_y = x.roll(-1, dims=-1) - x, y.roll(-1, dims=-1) - y
        area = edge_x[..., 0] * edge_y[..., 1] - edge_y[..., 0] * edge_x[..., 1]
        inverse = torch.where(area == 0, 0.0, 1 / torch.where(area == 0, 1.0, area))[..., None]
        share = (weights * z).sum(-1, keepdim=True) / z if perspective else torch.ones_like(z)
        across, down = -edge_y.roll(-1, dims=-1) * inverse, edge_x.roll(-1, dims=-1) * inverse
        size = torch.tensor([texture[1], texture[0]]).to(uv) * (2 / min(picture))
        away = (uv - (weights[..., None] * uv).sum(-2, keepdim=True)) * share[..., None] * size
        spans = [((step[..., None] * away).sum(-2)).square().sum(-1) for step in (across, down)]
        longer: Tensor = torch.maximum(*spans).clamp(min=torch.finfo(uv.dtype).tiny)
        return 0.5 * longer.log2()


def bilinear(
    image: Float[Tensor, "B H W C"], uv: Float[Tensor, "B *n 2"], wrap: str
) -> Float[Tensor, "B *n C"]:
    """An image, or one for all batch items, at texture coordinates."""
    size = image.shape[1], image.shape[2]
    return _at(image.flatten(1, 2), uv, size, 0, wrap)


def trilinear(
    texels: Float[Tensor, "B M C"],
    size: tuple[int, int],
    uv: Float[Tensor, "B *n 2"],
    levels: Float[Tensor, " B *n"],
    wrap: str,
) -> Float[Tensor, "B *n C"]:
    """Mipmaps, or those of one image for all batch items, between two levels at each point."""
    every = sizes(*size)
    rows, columns = torch.tensor(every, device=uv.device).unbind(-1)
    begins = torch.tensor(starts(*size), device=uv.device)
    level = levels.clamp(0, len(every) - 1)
    lower = level.floor().long()
    upper = (lower + 1).clamp(max=len(every) - 1)
    near, far = (_at(texels, uv, (rows[i], columns[i]), begins[i], wrap) for i in (lower, upper))
    share = (level - lower)[..., None]
    return near * (1 - share) + far * share


Size = int | Int[Tensor, " B *n"]


def _at(
    texels: Float[Tensor, "B M C"],
    uv: Float[Tensor, "B *n 2"],
    size: Sequence[Size],
    begin: Size,
    wrap: str,
) -> Float[Tensor, "B *n C"]:
    """Bilinearly in images of a size, which may differ from point to point."""
    height, width = size
    (left, right, s), (top, bottom, t) = (
        _between(uv[..., 0], width, wrap),
        _between(1 - uv[..., 1], height, wrap),
    )
    rows, columns = torch.stack([top, top, bottom, bottom]), torch.stack([left, right, left, right])
    place = begin + rows * width + columns
    if len(texels) > 1:
        items = torch.arange(len(uv), device=uv.device).view(-1, *([1] * (uv.ndim - 2)))
        place = place + items * texels.shape[1]
    a, b, c, d = gather.rows(texels.reshape(-1, texels.shape[2]), place)
    s, t = s[..., None], t[..., None]
    upper, lower = (1 - s) * a + s * b, (1 - s) * c + s * d
    found: Tensor = (1 - t) * upper + t * lower
    return found


def _between(coordinate: Tensor, size: Size, wrap: str) -> tuple[Tensor, Tensor, Tensor]:
    """(lower texel, upper texel, fraction between)."""
    if wrap == "repeat":
        coordinate = coordinate - coordinate.detach().floor()
    at = coordinate * size - 0.5
    most = torch.as_tensor(size, device=at.device)
    low = at.detach().clamp(min=-1).minimum(most.to(at)).floor()
    index = low.long()
    if wrap == "repeat":
        return index % size, (index + 1) % size, at - low
    last = most - 1
    upper = (index + 1).minimum(last)
    return index.clamp(min=0).minimum(last), upper, (at - low).clamp(0, 1)
