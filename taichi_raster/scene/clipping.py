"""Triangles that cross the near plane, or the border of what a lens can show: cut there.

All is done in camera space, before the projection divides by depth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from taichi_raster import checks
from taichi_raster.scene.movable import Movable

Height = Callable[[Tensor], Tensor]
"""How far corners (B, F, 3, 3) lie above a plane, (B, F, 3): linear in them."""


@dataclass(frozen=True, eq=False)
class ClippedFaces(Movable):
    """Faces on the visible side of the near plane.

    Attributes:
        corners: (B, F', 3, 3) in camera space; padding has z = 0, so that the renderer drops it.
        attributes: the given per-corner tensors, (B, F', 3, C) each.
        source: (B, F') the face that each came from; -1 for padding.
    """

    corners: Float[Tensor, "B F 3 3"]
    attributes: tuple[Tensor, ...]
    source: Int[Tensor, "B F"]


def clip_near(
    corners: Float[Tensor, "B F 3 3"],
    attributes: Float[Tensor, "B F 3 C"] | Sequence[Float[Tensor, "B F 3 C"]] = (),
    near: float = 0.1,
) -> ClippedFaces:
    """Cut faces at the plane z = near; Sutherland and Hodgman, Comm. ACM 17 (1974).

    A face that crosses the plane becomes one triangle, or two; one that lies behind or only touches
    the plane from behind goes; others stay as they are. Winding is kept, attributes are
    interpolated linearly in camera space, and all is differentiable twice, with respect to where
    the cut falls, too. The cut is a real boundary, and softened like any other; where it leaves a
    quadrilateral, its diagonal is an edge as between any two neighbours in a mesh. Where nothing
    is cut or lies behind, the inputs come back.

    Args:
        corners: (B, F, 3, 3) in camera space: x right, y up, z forward.
        attributes: per-corner values to cut along: one (B, F, 3, C) tensor, or several.
        near: distance of the plane, positive.

    Raises:
        ValueError: for other shapes, corners that are not finite, or a near that is not positive.
    """
    attributes = (attributes,) if isinstance(attributes, Tensor) else tuple(attributes)
    _check(corners, attributes, near)
    batch, faces = corners.shape[:2]
    all_faces = torch.arange(faces, device=corners.device).expand(batch, faces)
    given = ClippedFaces(corners, attributes, all_faces)
    return _clip(given, lambda values: values[..., 2], near, flat=True)


def clip_planes(faces: ClippedFaces, planes: Float[Tensor, "*B P 4"]) -> ClippedFaces:
    """Cut faces at planes, one after another, as `clip_near` does at its own.

    Args:
        faces: in camera space.
        planes: (1, P, 4) or (B, P, 4), of (a, b, c, d): what is kept has a x + b y + c z + d >= 0.
    """
    for plane in planes.to(faces.corners).unbind(-2):
        normal, offset = plane[:, None, None, :3], plane[:, None, None, 3]

        def height(corners: Tensor, a: Tensor = normal, d: Tensor = offset) -> Tensor:
            return (corners * a).sum(-1) + d

        faces = _clip(faces, height, 0.0)
    return faces


def _clip(faces: ClippedFaces, height: Height, level: float, flat: bool = False) -> ClippedFaces:
    """Cut where the height falls below a level. With `flat`, the height is z."""
    corners = faces.corners
    above = height(corners.detach())
    whole = (above >= level).all(-1, keepdim=True)
    if bool(whole.all()):
        return faces
    # A corner on the plane counts as behind if another one is: so no cut leaves an empty triangle.
    visible = whole | (above > level)
    count = visible.sum(-1)
    everything = torch.cat([corners, *faces.attributes], dim=-1)
    pieces = _cut(everything, visible, count, height, level, flat)
    kept = torch.stack([count > 0, count == 2], dim=-1)
    everything, source = _packed(pieces, kept, faces.source)
    cut, *rest = everything.split([3, *(values.shape[3] for values in faces.attributes)], dim=-1)
    return ClippedFaces(cut, tuple(rest), source)


def _check(corners: Tensor, attributes: tuple[Tensor, ...], near: float) -> None:
    checks.floats("corners", corners)
    if corners.ndim != 4 or corners.shape[2:] != (3, 3):
        raise ValueError(f"corners: must be (B, F, 3, 3), got {tuple(corners.shape)}")
    if not bool(corners.isfinite().all()):
        raise ValueError("corners: must be finite, got NaN or infinite positions")
    checks.positive("near", near)
    for values in attributes:
        checks.tensor("attributes", values)
        if values.ndim != 4 or values.shape[:3] != corners.shape[:3]:
            raise ValueError(
                f"attributes: must be (B, F, 3, C) as corners, {tuple(corners.shape[:3])}, got "
                f"{tuple(values.shape)}"
            )
        if values.dtype != corners.dtype:
            raise ValueError(f"attributes: must have corners' {corners.dtype}, got {values.dtype}")


def _cut(
    values: Tensor, visible: Tensor, count: Tensor, height: Height, level: float, flat: bool
) -> Tensor:
    """(B, F, 2, 3, C): the visible part of each face, as up to two triangles.

    Corners are turned so that the odd one, alone on its side of the plane, comes first.
    """
    one = count == 1
    odd = torch.where(one[..., None], visible, ~visible)
    first = odd.to(torch.int8).argmax(-1)
    order = (first[..., None] + torch.arange(3, device=values.device)) % 3
    turned = values.gather(2, order[..., None].expand(values.shape))
    a, b, c = turned.unbind(2)
    at_a, at_b, at_c = height(turned[..., :3])[..., None].unbind(2)
    crossed = ((count == 1) | (count == 2))[..., None]

    def crossing(end: Tensor, at_end: Tensor) -> Tensor:
        """Where the edge from a to `end` meets the plane, if the face is crossed; otherwise a."""
        t = torch.where(crossed, level - at_a, 0.0) / torch.where(crossed, at_end - at_a, 1.0)
        point = a + t * (end - a)
        if not flat:
            return point
        # Exactly on the plane, so that rounding does not leave it behind.
        z = torch.where(crossed, torch.full_like(at_a, level), at_a)
        return torch.cat([point[..., :2], z, point[..., 3:]], dim=-1)

    ab, ca = crossing(b, at_b), crossing(c, at_c)
    alone = torch.stack([a, ab, ca], dim=2)
    quad = torch.stack([ab, b, c], dim=2)
    second = torch.stack([ab, c, ca], dim=2)
    whole = (count == 3)[..., None, None]
    head = torch.where(whole, values, torch.where(one[..., None, None], alone, quad))
    return torch.stack([head, second], dim=2)


def _packed(pieces: Tensor, kept: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """The kept pieces in order, padded to the longest batch item."""
    batch = len(pieces)
    flat = pieces.flatten(1, 2)
    mask = kept.flatten(1, 2)
    length = max(int(mask.sum(1).max()), 1)
    # Kept ones first, in their order.
    index = (~mask).to(torch.int8).argsort(dim=1, stable=True)[:, :length]
    present = mask.gather(1, index)
    chosen = flat.gather(1, index[..., None, None].expand(batch, length, *flat.shape[2:]))
    chosen = torch.where(present[..., None, None], chosen, torch.zeros_like(chosen))
    source = faces.repeat_interleave(2, dim=1).gather(1, index)
    return chosen, torch.where(present, source, torch.full_like(source, -1))
