"""The plain supersampled picture: what a renderer's pixels should hold, without a gradient.

Each pixel is the mean of the nearest visible face's attributes at points of a regular grid. No
softness and no formula for coverage comes in, so that it can judge those that have them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from taichi_raster import checks
from taichi_raster.render.hard import at_centres, visible_faces
from taichi_raster.render.packing import View
from taichi_raster.runtime.device import runtime
from taichi_raster.runtime.extremes import Extremes
from taichi_raster.scene.attributes import (
    SurfaceTexture,
    UVTexture,
    appearance,
    check_attributes,
)
from taichi_raster.scene.sampling import Seen, sample

_Attributes: TypeAlias = Tensor | SurfaceTexture | UVTexture | None

_SIDE = 512  # samples along a block of the picture that is rendered at once: bounds the memory


@torch.no_grad()
def sampled_picture(
    face_vertices: Float[Tensor, "B F 3 3"],
    face_attributes: Float[Tensor, "B F 3 C"] | SurfaceTexture | UVTexture | None,
    image_size: int | tuple[int, int],
    samples: int = 8,
    background: float | Sequence[float] | Tensor = 0.0,
    near: float = 0.1,
    far: float = 100.0,
    cull_backfaces: bool = False,
    perspective_correct: bool = True,
    front: str = "ccw",
    orthographic: bool = False,
) -> Float[Tensor, "B H W C+1"]:
    """Render by supersampling: to judge other renderers, and their targets. It has no gradient.

    A pixel is cut into samples x samples squares. At the centre of each, the nearest face that
    contains it is seen (as by `hard_buffers`), with its attributes there; where there is none, the
    background. The pixel is their mean: the box-filtered picture, up to 1 / samples of a pixel
    along each edge. Where two faces have one depth, as at the silhouette of a closed surface, the
    one that shows its front is seen; of two that show the same side, the first.

    Mipmaps of trilinear textures have the level of such a square, not of a pixel.

    It renders a part of the picture at a time. Memory does not grow with `samples`.

    Args:
        face_vertices, face_attributes: as for `SoftRasterizer.forward`.
        image_size: pixels: one number, or (height, width).
        samples: along each side of a pixel, 1 to 256.
        background: a number, C numbers, or a tensor: 0-d, (C,), or an image (H, W, C) or
            (B, H, W, C).
        near, far, cull_backfaces, perspective_correct, front, orthographic: as for
            `SoftRasterizer`.

    Returns:
        (B, H, W, C + 1), detached: attributes composited over the background, then alpha, the share
        of samples that a face covers. (B, H, W, 1), alpha alone, if face_attributes is None.

    Raises:
        TypeError, ValueError: as `SoftRasterizer` and its `forward`, and for a number of samples
            out of range.

    Example:
        >>> truth = tr.sampled_picture(faces, colours, 64, samples=16)
        >>> error = (renderer(faces, colours) - truth).abs().mean()
    """
    size = checks.image_size(image_size)
    samples = checks.whole("samples", samples, 1, 256)
    near, far = checks.depth_range(near, far)
    view = View(
        *size,
        near,
        far,
        checks.flag("cull_backfaces", cull_backfaces),
        checks.choice("front", front, "ccw", "cw"),
        checks.flag("orthographic", orthographic),
        checks.flag("perspective_correct", perspective_correct),
    )
    later = Extremes()
    checks.vertices(face_vertices, runtime(), later)
    check_attributes(face_attributes, face_vertices, runtime(), later)
    checks.visible(face_vertices, near, far, later)
    later.fetch()
    channels = appearance(face_attributes, face_vertices, fixed_order=False).total
    batch, (height, width) = len(face_vertices), size
    behind = checks.background(background, channels or None, (batch, height, width))
    picture = face_vertices.new_zeros(batch, height, width, channels + 1)
    (first_row, last_row), (first_column, last_column) = _covered(face_vertices, size)
    most = _SIDE // samples
    rows, columns = min(height, most), min(width, most)
    items = max(1, most**2 // (rows * columns))
    for first in range(0, batch, items):
        part = slice(first, first + items)
        shown = _of_items(face_attributes, part)
        for top in range(first_row, last_row, rows):
            for left in range(first_column, last_column, columns):
                bottom, right = min(top + rows, last_row), min(left + columns, last_column)
                block = slice(top, bottom), slice(left, right)
                vertices = _magnified(face_vertices[part], size, block)
                picture[part, block[0], block[1]] = _block(vertices, shown, view, block, samples)
    if channels > 0:
        alpha = picture[..., -1:]
        picture[..., :-1] += (1 - alpha) * behind.to(picture)
    return picture


def _covered(vertices: Tensor, size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """The first row and the one behind the last that faces may cover, and columns likewise.

    A face that is partly nearer than `near` is seen where it is not.
    """
    height, width = size
    before = (vertices[..., 2] > 0).all(-1)
    if not bool(before.any()):
        return (0, 0), (0, 0)
    at = vertices.detach()[before][..., :2].reshape(-1, 2)
    (left, down), (right, up) = at.amin(0).tolist(), at.amax(0).tolist()
    short = min(size)
    spans = (
        (height - short * up, height - short * down),
        (width + short * left, width + short * right),
    )
    return _span(*spans[0], height), _span(*spans[1], width)


def _span(low: float, high: float, most: int) -> tuple[int, int]:
    """Pixels, one more on both sides, from twice the places of ends."""
    first = max(0, math.floor(min(low / 2, most)) - 1)
    return first, max(first, min(most, math.ceil(max(high / 2, 0)) + 1))


def _magnified(vertices: Tensor, size: tuple[int, int], block: tuple[slice, slice]) -> Tensor:
    """The faces as a picture of these rows and columns alone shows them."""
    height, width = size
    (top, bottom), (left, right) = ((part.start, part.stop) for part in block)
    short, side = min(size), min(bottom - top, right - left)
    shift = vertices.new_tensor([width - left - right, top + bottom - height, 0]) / side
    return vertices * vertices.new_tensor([short / side, short / side, 1.0]) + shift


def _block(
    vertices: Tensor,
    attributes: _Attributes,
    view: View,
    block: tuple[slice, slice],
    samples: int,
) -> Float[Tensor, "B h w C+1"]:
    """A part of the picture, over black."""
    height, width = (samples * (part.stop - part.start) for part in block)
    face = visible_faces(vertices, replace(view, height=height, width=width))
    seen = (face >= 0).to(vertices)[..., None]
    if attributes is not None:
        weights, z = at_centres(vertices, face)
        perspective = view.perspective_correct and not view.orthographic
        if perspective:
            weights = weights / z
            weights = weights / weights.sum(-1, keepdim=True)
        picture = Seen(vertices, (height, width), perspective)
        seen = torch.cat([sample(attributes, face, weights, picture), seen], dim=-1)
    return nn.functional.avg_pool2d(seen.movedim(-1, 1), samples).movedim(1, -1)


def _of_items(attributes: _Attributes, part: slice) -> _Attributes:
    """The attributes of some batch items; what all of them share stays."""
    if attributes is None or isinstance(attributes, Tensor):
        return None if attributes is None else attributes[part]

    own: dict[str, Any] = {
        name: value[part]
        for name, value in vars(attributes).items()
        if isinstance(value, Tensor) and len(value) > 1
    }
    return replace(attributes, **own)
