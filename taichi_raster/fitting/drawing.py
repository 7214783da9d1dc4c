"""Drawings of objects that may be behind the eye."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from taichi_raster.render.sharp import SharpRasterizer


def drawn(
    draw: SharpRasterizer,
    corners: Float[Tensor, "N F 3 3"],
    colours: Float[Tensor, "N F 3 C"] | None = None,
) -> Float[Tensor, "N H W C"]:
    """What the renderer draws; an empty picture if all faces are beyond its near or far plane.

    A renderer refuses those, as a mistake. While a pose is looked for, they are just a bad guess.
    """
    if bool(reaching(corners, draw.near, draw.far).any()):
        found: Tensor = draw(corners, colours)
        return found
    height, width = draw.image_size
    channels = 1 if colours is None else colours.shape[-1] + 1
    nothing = 0 * corners.sum((1, 2, 3))  # depends on the corners, as pictures do
    return nothing[:, None, None, None].expand(-1, height, width, channels)


def reaching(corners: Float[Tensor, "*n 3 3"], near: float, far: float) -> Bool[Tensor, "*n"]:
    """Which faces are before the eye, and at least in part between the planes."""
    z = corners.detach()[..., 2]
    return (z.amin(-1) > 0) & (z.amin(-1) <= far) & (z.amax(-1) >= near)
