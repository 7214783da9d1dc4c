"""Fills what is between the islands of a texture, so that look-ups at their seams do not bleed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from taichi_raster import checks
from taichi_raster.scene import gather

AT_ONCE = 1 << 21
"""Texels that are looked at together: bounds the memory."""


def pad_texture(
    image: Float[Tensor, "B H W C"],
    uv: Float[Tensor, "B F 3 2"],
    wrap: str = "clamp",
    nearest: Int[Tensor, "B H W"] | None = None,
) -> Float[Tensor, "B H W C"]:
    """The image with each texel that no face shows replaced by the nearest that one does.

    Bilinear look-ups at the edge of an island of faces reach half a texel beyond it, and mipmaps
    reach further. There they find what the image has between its islands: a background, or what an
    optimisation has left of its start. After padding they find the island's own colours.

    A face shows the texels whose centres lie in its triangle; or, if it has none, the one at its
    middle. The last levels of mipmaps have texels as large as islands: those mix neighbours still.

    Args:
        image: (B, H, W, C), or (1, H, W, C).
        uv: (B, F, 3, 2) texture coordinates at face corners, or (1, F, 3, 2), as for `UVTexture`;
            `Mesh.corner_uv` gives them.
        wrap: beyond [0, 1], ``"clamp"`` or ``"repeat"``.
        nearest: `nearest_texels` of the same uv. It takes most of the time: in a loop where uv does
            not change, find it once.

    Returns:
        The padded image, differentiable: texels that were replaced have no gradient, and those that
        replace them have theirs.

    Raises:
        TypeError, ValueError: for other shapes, or an unknown wrap; the message names the argument.

    Example:
        >>> uv = mesh.corner_uv()
        >>> near = tr.nearest_texels(uv, (1024, 1024))
        >>> shown = tr.UVTexture(uv, tr.pad_texture(image, uv, nearest=near))
    """
    checks.floats("image", image)
    if image.ndim != 4 or 0 in image.shape:
        raise ValueError(f"image: expected shape (B, H, W, C), none 0, got {tuple(image.shape)}")
    size = image.shape[1], image.shape[2]
    if nearest is None:
        nearest = nearest_texels(uv, size, wrap)
    if checks.instance("nearest", nearest, Tensor).shape[1:] != size:
        raise ValueError(f"nearest: expected (B, {size[0]}, {size[1]}), got {tuple(nearest.shape)}")
    if len(image) != len(nearest) and 1 not in (len(image), len(nearest)):
        raise ValueError(f"uv: expected a batch of 1 or {len(image)}, got {len(nearest)}")
    place = nearest
    if len(image) > 1:
        items = torch.arange(len(image), device=image.device).view(-1, 1, 1)
        place = place + items * (size[0] * size[1])
    return gather.rows(image.flatten(0, 2), place)


def nearest_texels(
    uv: Float[Tensor, "B F 3 2"], size: tuple[int, int], wrap: str = "clamp"
) -> Int[Tensor, "B H W"]:
    """For each texel, the nearest that a face shows; itself where one does. See `pad_texture`.

    Args:
        uv: (B, F, 3, 2) texture coordinates at face corners.
        size: (height, width) of the image.
        wrap: beyond [0, 1], ``"clamp"`` or ``"repeat"``.

    Returns:
        (B, H, W) int64: row * W + column. Without gradient. By SciPy's exact Euclidean distance
        transform (Maurer et al., 2003).

    Raises:
        TypeError, ValueError: for other shapes, or an unknown wrap; the message names the argument.
    """
    checks.floats("uv", uv)
    if uv.ndim != 4 or uv.shape[2:] != (3, 2) or 0 in uv.shape:
        raise ValueError(f"uv: expected shape (B, F, 3, 2), none 0, got {tuple(uv.shape)}")
    checks.finite("an infinite or NaN value", "uv", uv)
    if not isinstance(size, tuple | list | torch.Size) or len(size) != 2:
        raise TypeError(f"size: expected (height, width), got {size!r}")
    height, width = (checks.count("size", side) for side in size)
    checks.choice("wrap", wrap, "clamp", "repeat")
    found = [
        nearest_of(shown_texels(corners, (height, width), wrap == "repeat"), wrap == "repeat")
        for corners in uv.detach().cpu().double().numpy()
    ]
    return torch.from_numpy(np.stack(found)).to(uv.device)


def nearest_of(shown: Bool[ndarray, "H W"], repeat: bool = False) -> Int[ndarray, "H W"]:
    """For each texel, row * W + column of the nearest that is shown."""
    from scipy import ndimage  # here, as SciPy takes a while to import

    height, width = shown.shape
    if shown.all():
        return np.arange(height * width).reshape(height, width)
    margins = (height // 2, width // 2) if repeat else (0, 0)
    around = np.pad(shown, [(margin, margin) for margin in margins], mode="wrap")
    rows, columns = ndimage.distance_transform_edt(
        ~around, return_distances=False, return_indices=True
    )
    middle = slice(margins[0], margins[0] + height), slice(margins[1], margins[1] + width)
    row = (rows[middle].astype(np.int64) - margins[0]) % height
    column = (columns[middle].astype(np.int64) - margins[1]) % width
    return np.asarray(row * width + column)


def shown_texels(
    uv: Float[ndarray, "F 3 2"], size: tuple[int, int], repeat: bool
) -> Bool[ndarray, "H W"]:
    """The texels whose centres lie in a face, and one for each face that has none."""
    height, width = size
    shown = np.zeros(size, dtype=bool)
    # In texels, so that centres are whole.
    at = np.stack([uv[..., 0] * width, (1 - uv[..., 1]) * height], axis=-1) - 0.5
    low, high = np.ceil(at.min(1)), np.floor(at.max(1))
    if repeat:  # a face over more than two repeats is taken to show all of the image
        if bool(((high - low) > 2 * np.array([width, height])).any()):
            return np.ones(size, dtype=bool)
    else:  # what is farther out shows the edge
        low, high = (end.clip([-1, -1], [width, height]) for end in (low, high))
    counts = (high - low + 1).clip(0).astype(np.int64)
    seen = np.zeros(len(uv), dtype=bool)
    for faces in _portions(counts.prod(1)):
        face, column, row = _boxes(low[faces].astype(np.int64), counts[faces])
        corners = at[faces][face] - np.stack([column, row], axis=-1)[:, None]
        following = np.roll(corners, -1, axis=1)
        sides = corners[..., 0] * following[..., 1] - corners[..., 1] * following[..., 0]
        # A centre on an edge, but for rounding, is in the faces of both sides.
        sides *= np.sign(sides.sum(1, keepdims=True))
        inside = (sides >= -1e-9 * np.abs(corners).max((1, 2))[:, None]).all(1)
        inside &= sides.sum(1) > 0
        seen[faces.start + face[inside]] = True
        _mark(shown, row[inside], column[inside], repeat)
    middle = np.rint(at[~seen].mean(1))
    if not repeat:
        middle = middle.clip([-1, -1], [width, height])
    middle = middle.astype(np.int64)
    _mark(shown, middle[:, 1], middle[:, 0], repeat)
    return shown


def _portions(counts: ndarray) -> Iterator[slice]:
    """Slices of faces that have few texels together, or of a single one."""
    first, total = 0, 0
    for i, count in enumerate(counts.tolist()):
        if i > first and total + count > AT_ONCE:
            yield slice(first, i)
            first, total = i, 0
        total += count
    yield slice(first, len(counts))


def _boxes(low: ndarray, counts: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """(face, column, row) of all texels in boxes, given their first (column, row), and how many."""
    many = counts.prod(1)
    face = np.repeat(np.arange(len(many)), many)
    within = np.arange(len(face)) - np.repeat(many.cumsum() - many, many)
    row, column = np.divmod(within, counts[face, 0])
    return face, low[face, 0] + column, low[face, 1] + row


def _mark(shown: ndarray, row: ndarray, column: ndarray, repeat: bool) -> None:
    height, width = shown.shape
    if repeat:
        shown[row % height, column % width] = True
    else:
        shown[row.clip(0, height - 1), column.clip(0, width - 1)] = True
