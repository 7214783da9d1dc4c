"""Several textures in one image, so that bilinear sampling gives what each gives on its own.

Of each texture, the atlas holds the rectangle of texels that its faces sample, with one more around
it; a texture that goes on beyond [0, 1] is laid out as often as it is used there. Texels keep their
size, so that colours are the same up to the rounding of texture coordinates. Only where the atlas
would get too large, the largest rectangles are laid out from smaller images. Between rectangles are
the texels that are nearest, so that mipmaps do not bleed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from taichi_raster.scene import gather
from taichi_raster.scene.padding import nearest_of

MOST = 8192
"""Texels on a side of an atlas, at most: what graphics hardware of any age takes."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A texture and where its faces sample it.

    Attributes:
        image: (H, W, C).
        uv: (T, 2) texture coordinates.
        uv_faces: (F, 3) indices into `uv`, int64.
        wrap: beyond [0, 1] along u and v: "repeat", "mirror" or "clamp".
    """

    image: Float[Tensor, "H W C"]
    uv: Float[Tensor, "T 2"]
    uv_faces: Int[Tensor, "F 3"]
    wrap: tuple[str, str] = ("repeat", "repeat")


@dataclass(frozen=True, eq=False)
class Atlas:
    """An image, and each picture's coordinates in it.

    Attributes:
        image: (H, W, C).
        coordinates: (uv (T, 2), uv_faces (F, 3)) of each picture.
        shrunk: the least share of its size, along a side, that a picture's texels were kept at.
    """

    image: Float[Tensor, "H W C"]
    coordinates: list[tuple[Tensor, Tensor]]
    shrunk: float


@dataclass(frozen=True)
class _Area:
    """The texels of a picture that are laid out: rows [top, top + height), columns likewise."""

    left: int
    top: int
    width: int
    height: int


def atlas(pictures: Sequence[Picture]) -> Atlas:
    """Lay out pictures in one image; differentiable in their images and coordinates.

    Channels: 1 becomes 3 where others have 3 or 4, and 3 become 4, opaque.

    Raises:
        ValueError: if the channels of images do not go together, or there are too many images for
            any atlas.
    """
    pictures = same_channels(pictures)
    shifted = [_shifted(picture) for picture in pictures]
    shares = [1.0] * len(shifted)
    limit = float(MOST) ** 2
    while True:
        areas = [_area(picture) for picture in shifted]
        size, corners = _packed(areas, MOST)
        if max(size) <= MOST:
            break
        if all(picture.image.shape[:2] == (1, 1) for picture in shifted):
            raise ValueError(
                f"texture: {len(shifted)} images do not fit into {MOST} x {MOST} texels"
            )
        # The largest rectangles give way first.
        limit = min(limit, max(a.width * a.height for a in areas)) * 0.7
        for i, area in enumerate(areas):
            if area.width * area.height > limit or max(area.width, area.height) > MOST:
                share = min(
                    math.sqrt(limit / (area.width * area.height)),
                    0.9 * MOST / max(area.width, area.height),
                )
                shifted[i], kept = _smaller(shifted[i], min(share, 0.9))
                shares[i] *= kept
    height, width = size
    channels = shifted[0].image.shape[2]
    image = shifted[0].image.new_zeros(height, width, channels)
    laid_out = np.zeros((height, width), dtype=bool)
    coordinates = []
    for picture, area, (row, column) in zip(shifted, areas, corners, strict=True):
        rows = _wrapped(area.top, area.height, picture.image.shape[0], picture.wrap[1])
        columns = _wrapped(area.left, area.width, picture.image.shape[1], picture.wrap[0])
        device = picture.image.device
        laid = picture.image[torch.tensor(rows, device=device)][
            :, torch.tensor(columns, device=device)
        ]
        image[row : row + area.height, column : column + area.width] = laid
        laid_out[row : row + area.height, column : column + area.width] = True
        x = picture.uv[:, 0] * picture.image.shape[1] + (column - area.left)
        y = (1 - picture.uv[:, 1]) * picture.image.shape[0] + (row - area.top)
        coordinates.append((torch.stack([x / width, 1 - y / height], dim=1), picture.uv_faces))
    if not laid_out.all():
        nearest = torch.from_numpy(nearest_of(laid_out)).to(image.device)
        image = gather.rows(image.flatten(0, 1), nearest)
    return Atlas(image, coordinates, min(shares))


def same_channels(pictures: Sequence[Picture]) -> list[Picture]:
    """The pictures with as many channels as the one with the most.

    Raises:
        ValueError: if the numbers differ and are not those of grey, RGB and RGBA.
    """
    counts = {picture.image.shape[2] for picture in pictures}
    if len(counts) > 1 and not counts <= {1, 3, 4}:
        raise ValueError(f"texture: cannot join images of {sorted(counts)} channels")
    return [replace(p, image=with_channels(p.image, max(counts))) for p in pictures]


def with_channels(values: Tensor, count: int) -> Tensor:
    """Grey (..., 1), RGB or RGBA as `count` channels, opaque where a fourth is new."""
    if values.shape[-1] == 1 and count > 1:
        values = values.expand(*values.shape[:-1], 3)
    if values.shape[-1] == 3 and count == 4:
        values = torch.cat([values, values.new_ones(*values.shape[:-1], 1)], dim=-1)
    return values


def _shifted(picture: Picture) -> Picture:
    """The picture with each face moved by whole repeats of the image, to begin in [0, 1).

    Along an axis of one texel, all coordinates give the same: they become 1/2.
    """
    uv = picture.uv.detach().cpu().double().numpy()
    faces = picture.uv_faces.cpu().numpy()
    shift = np.zeros((len(faces), 2))
    fixed = [False, False]
    for axis, (size, wrap) in enumerate(
        zip((picture.image.shape[1], picture.image.shape[0]), picture.wrap, strict=True)
    ):
        period = {"repeat": 1, "mirror": 2, "clamp": 0}[wrap]
        fixed[axis] = size == 1
        if period and size > 1:
            least = uv[faces][..., axis].min(axis=1)
            # The rounding of a 0 must not cost a whole repeat.
            shift[:, axis] = period * np.floor((least + 1e-6) / period)
    keys = np.concatenate([faces.reshape(-1, 1), shift.repeat(3, axis=0)], axis=1)  # as floats
    rows, index = np.unique(keys, axis=0, return_inverse=True)
    device = picture.uv.device
    moved = picture.uv[torch.tensor(rows[:, 0].astype(np.int64), device=device)]
    moved = moved - torch.tensor(rows[:, 1:], device=device).to(moved)
    if any(fixed):
        half = torch.tensor(fixed, device=device)
        moved = torch.where(half, torch.full_like(moved, 0.5), moved)
    return replace(
        picture, uv=moved, uv_faces=torch.tensor(index.reshape(faces.shape), device=device)
    )


def _area(picture: Picture) -> _Area:
    """The texels that bilinear sampling takes, and one more around them."""
    uv = picture.uv.detach().cpu().double().numpy()
    height, width = picture.image.shape[:2]
    left, columns = _span(uv[:, 0] * width)
    top, rows = _span((1 - uv[:, 1]) * height)
    return _Area(left, top, columns, rows)


def _span(at: ndarray) -> tuple[int, int]:
    first = math.floor(at.min() - 0.5) - 1
    last = math.floor(at.max() - 0.5) + 2
    return first, last - first + 1


def _wrapped(first: int, count: int, size: int, wrap: str) -> ndarray:
    """The texels of an image that stand at [first, first + count) where it goes on."""
    at = np.arange(first, first + count)
    if wrap == "repeat":
        return np.asarray(at % size)
    if wrap == "mirror":
        at = at % (2 * size)
        return np.where(at < size, at, 2 * size - 1 - at)
    return at.clip(0, size - 1)


def _smaller(picture: Picture, share: float) -> tuple[Picture, float]:
    """The picture with its image averaged down to about a share of its size, along each side."""
    height, width = picture.image.shape[:2]
    size = (max(1, int(height * share)), max(1, int(width * share)))
    moved = picture.image.permute(2, 0, 1)[None]
    image = torch.nn.functional.interpolate(moved, size, mode="area")[0].permute(1, 2, 0)
    kept = min(size[0] / height, size[1] / width)
    return _shifted(replace(picture, image=image)), kept


def _packed(areas: Sequence[_Area], most: int) -> tuple[tuple[int, int], list[tuple[int, int]]]:
    """(height, width) of an image of shelves, and each area's (row, column) there."""
    total = sum(a.width * a.height for a in areas)
    width = max(*(a.width for a in areas), min(most, math.ceil(math.sqrt(1.1 * total))))
    corners = [(0, 0)] * len(areas)
    row = column = shelf = used = 0
    for i in sorted(range(len(areas)), key=lambda k: (-areas[k].height, k)):
        if column + areas[i].width > width:
            row, column, shelf = row + shelf, 0, 0
        corners[i] = (row, column)
        column += areas[i].width
        shelf = max(shelf, areas[i].height)
        used = max(used, column)
    return (row + shelf, used), corners
