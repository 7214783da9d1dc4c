"""Attributes at given points of faces, in torch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from taichi_raster.scene import gather, texels
from taichi_raster.scene.attributes import SurfaceTexture, UVTexture


@dataclass(frozen=True)
class Seen:
    """The picture that points are sampled for: it says which level of mipmaps they need.

    Attributes:
        vertices: (B, F, 3, 3) face vertices in NDC.
        size: (height, width), pixels.
        perspective: whether attributes are perspective-correct.
    """

    vertices: Float[Tensor, "B F 3 3"]
    size: tuple[int, int]
    perspective: bool


def sample(
    attributes: Tensor | SurfaceTexture | UVTexture,
    faces: Int[Tensor, "B H W *K"],
    weights: Float[Tensor, "B H W *K 3"],
    seen: Seen | None = None,
) -> Float[Tensor, "B H W *K C"]:
    """Attributes at points given by face and barycentric weights, in torch.

    For the few points that `hard_buffers` finds, say.

    Args:
        faces: (B, H, W) or (B, H, W, K) face indices; where one is -1, there is no face, and the
            attributes are 0, whatever the weights.
        weights: the same with a last axis of 3: what to mix the corners' values with.
        seen: for trilinear textures, the picture; None to look up the image itself, bilinearly.
    """
    there = (faces >= 0)[..., None]
    weights = torch.where(there, weights, torch.zeros_like(weights))
    found = _sample(attributes, faces, weights, seen)
    return torch.where(there, found, torch.zeros_like(found))


def _sample(
    attributes: Tensor | SurfaceTexture | UVTexture,
    faces: Tensor,
    weights: Tensor,
    seen: Seen | None,
) -> Tensor:
    if isinstance(attributes, Tensor):
        return (weights[..., None] * of_faces(attributes, faces)).sum(-2)
    if isinstance(attributes, SurfaceTexture):
        channels = _surface_texel(attributes.texels, faces, weights)
    else:
        channels = _image_texel(attributes, faces, weights, seen)
    if attributes.corners is None:
        return channels
    return torch.cat([channels, _sample(attributes.corners, faces, weights, seen)], dim=-1)


def _image_texel(texture: UVTexture, faces: Tensor, weights: Tensor, seen: Seen | None) -> Tensor:
    uv = of_faces(texture.uv.expand(len(faces), -1, -1, -1), faces)
    at = (weights[..., None] * uv).sum(-2)
    if seen is None or not texture.mipmapped:
        return texels.bilinear(texture.image, at, texture.wrap)
    size = texture.image.shape[1], texture.image.shape[2]
    corners = of_faces(seen.vertices.detach(), faces)
    level = texels.levels_of_detail(corners, uv, weights, size, seen.size, seen.perspective)
    return texels.trilinear(texture.levels(), size, at, level, texture.wrap)


def of_faces(values: Float[Tensor, "B F *rest"], faces: Int[Tensor, " B *n"]) -> Tensor:
    """The values of each listed face, (B, *n, *rest).

    Where there is none, -1, they are 1, without gradient: corners then have a depth that one can
    divide by, which those of face 0, say, need not have.
    """
    spread = values.expand(len(faces), *values.shape[1:])
    found = gather.at(spread, _items(faces), faces.clamp(min=0))
    there = (faces >= 0).view(*faces.shape, *([1] * (found.ndim - faces.ndim)))
    return torch.where(there, found, torch.ones_like(found))


def _surface_texel(values: Tensor, faces: Tensor, weights: Tensor) -> Tensor:
    size = values.shape[2]
    u, v = weights[..., 0] * size, weights[..., 1] * size
    i, j = (w.detach().floor().long().clamp(0, size - 1) for w in (u, v))
    lower = u + v - i - j <= 1 + 1e-4  # as in the kernels: whole on an edge but for rounding
    column, row = torch.where(lower, i, size - 1 - i), torch.where(lower, j, size - 1 - j)
    place = (faces.clamp(min=0) * size + row) * size + column
    if len(values) > 1:
        place = place + _items(faces) * values[0, ..., 0].numel()
    return gather.rows(values.reshape(-1, values.shape[4]), place)


def _items(values: Tensor) -> Tensor:
    """Each value's batch item, to broadcast with values (B, *n)."""
    items = torch.arange(len(values), device=values.device)
    return items.view(-1, *([1] * (values.ndim - 1)))
