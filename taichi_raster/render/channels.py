"""Attributes of very many channels, a part of them at a time.

A kernel keeps a pixel's sums in variables, one for each channel: with very many it takes long to
compile, and it is no faster than several of fewer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import torch
from torch import Tensor

from taichi_raster.scene.attributes import SurfaceTexture, UVTexture

Attributes: TypeAlias = Tensor | SurfaceTexture | UVTexture

MOST = 32
"""Channels that one kernel takes."""


def parts(attributes: Attributes) -> list[Attributes]:
    """Attributes of at most `MOST` channels each, in the order of their channels."""
    if isinstance(attributes, Tensor):
        return [*of_corners(attributes)]
    corners = [] if attributes.corners is None else list(attributes.corners.split(MOST, dim=-1))
    alone = replace(attributes, corners=None)
    if isinstance(alone, SurfaceTexture):
        return [SurfaceTexture(texels) for texels in alone.texels.split(MOST, dim=-1)] + corners
    images = alone.image.split(MOST, dim=-1)
    levels: Sequence[Tensor | None] = [None] * len(images)
    if alone.mipmaps is not None:
        levels = alone.mipmaps.split(MOST, dim=-1)
    return [
        replace(alone, image=image, mipmaps=level)
        for image, level in zip(images, levels, strict=True)
    ] + corners


def of_corners(attributes: Tensor) -> list[Tensor]:
    """`parts` of a tensor."""
    if attributes.shape[-1] <= MOST:  # a split's own derivative would copy that of its parts
        return [attributes]
    return list(attributes.split(MOST, dim=-1))


def of_background(background: Tensor, first: int, count: int) -> Tensor:
    """What lies behind some of the channels, of a background that `checks.background` took."""
    shared = background.ndim == 0 or background.shape[-1] == 1
    return background if shared else background[..., first : first + count]


def joined(images: Sequence[Tensor]) -> Tensor:
    """Images (B, H, W, C_i + 1) of one scene, beside each other: (B, H, W, sum of C_i + 1)."""
    if len(images) == 1:
        return images[0]
    return torch.cat([*(image[..., :-1] for image in images[:-1]), images[-1]], dim=-1)
