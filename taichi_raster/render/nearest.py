"""Pixel centres, and the nearest point of a triangle to a point, in torch."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def pixel_centres(height: int, width: int) -> Float[Tensor, "H W 2"]:
    """Pixel centres in NDC: x right, y up, in units of half the shorter side; row 0 is the top."""
    short = min(height, width)
    x = (2 * torch.arange(width, dtype=torch.float64, device="cpu") + 1 - width) / short
    y = (height - 1 - 2 * torch.arange(height, dtype=torch.float64, device="cpu")) / short
    return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)


def nearest_point(
    points: Float[Tensor, "*n 2"], triangles: Float[Tensor, "*n 3 2"]
) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n 3"]]:
    """Signed distance (positive inside), and barycentrics of the triangle's nearest point."""
    # Coordinates and corners come first: torch is slow at sums over a last axis of two or three.
    x, y = (triangles[..., i].movedim(-1, 0).contiguous() for i in (0, 1))  # (3, *n)
    edge_x, edge_y = x.roll(-1, dims=0) - x, y.roll(-1, dims=0) - y
    offset_x, offset_y = points[..., 0] - x, points[..., 1] - y
    length2 = edge_x.square() + edge_y.square()
    is_point = length2 < 1e-20
    t = (offset_x * edge_x + offset_y * edge_y) / torch.where(is_point, 1.0, length2)
    t = torch.where(is_point, 0.0, t.clamp(0, 1))
    foot2 = (offset_x - t * edge_x).square() + (offset_y - t * edge_y).square()
    first, second, third = foot2.detach()
    which = torch.where(second <= third, 1, 2)
    which = torch.where(first <= torch.minimum(second, third), 0, which)[None]
    distance2, t = foot2.gather(0, which)[0], t.gather(0, which)
    cross = edge_x * offset_y - edge_y * offset_x
    area = cross.sum(0)
    solid = area.abs() > 1e-6 * length2.amax(0)
    turned = cross.detach() * torch.where(area >= 0, 1.0, -1.0)
    inside = solid & (turned.amin(0) >= 0)
    apart = distance2 > 0
    distance = torch.where(apart, distance2, 1.0).sqrt() * apart
    distance = torch.where(inside, distance, -distance)
    along = torch.zeros_like(cross).scatter(0, which, 1 - t)
    along = along.scatter(0, (which + 1) % 3, t)
    within = cross.roll(-1, dims=0) / torch.where(solid, area, 1.0)
    return distance, torch.where(inside, within, along).movedim(0, -1)
