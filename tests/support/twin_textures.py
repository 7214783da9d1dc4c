"""Textures in plain torch: every pixel looks at every texel. The oracle of texture sampling."""

from __future__ import annotations

import torch
from torch import Tensor


def surface(texels: Tensor, weights: Tensor) -> Tensor:
    """(B,H,W,F,C) from (B or 1,F,R,R,C) flat texels at barycentrics (B,H,W,F,3).

    A face is R * R congruent triangles: R (R + 1) / 2 upright ones at (i, j), i + j < R, and those
    that stand on their heads between them, at (R - 1 - i, R - 1 - j).
    """
    r = texels.shape[2]
    u, v = (weights[..., :2].detach() * r).unbind(-1)
    i, j = u.floor().clamp(0, r - 1), v.floor().clamp(0, r - 1)
    upright = (u - i) + (v - j) <= 1 + 1e-9
    column, row = torch.where(upright, i, r - 1 - i), torch.where(upright, j, r - 1 - j)
    index = (row * r + column).long()
    chosen = torch.nn.functional.one_hot(index, r * r).to(texels.dtype)
    return torch.einsum(
        "bhwft,bftc->bhwfc", chosen, texels.flatten(2, 3).expand(len(weights), -1, -1, -1)
    )


def bilinear(image: Tensor, uv: Tensor, wrap: str) -> Tensor:
    """(B,H,W,F,C) from (B or 1,Ht,Wt,C) at (B,H,W,F,2), u right and v up.

    Texel i weighs max(0, 1 - |x - i|) at x; a repeated image has copies of it all along.
    """
    image = image.expand(len(uv), -1, -1, -1)
    across = _hat(uv[..., 0], image.shape[2], wrap)
    down = _hat(1 - uv[..., 1], image.shape[1], wrap)
    return torch.einsum("bhwfi,bhwfj,bijc->bhwfc", down, across, image)


def _hat(coordinate: Tensor, size: int, wrap: str) -> Tensor:
    """(..., size) weights of the texels at a coordinate in [0, 1]."""
    x = coordinate * size - 0.5
    if wrap == "clamp":
        x, copies = x.clamp(0, size - 1), [0]
    else:
        x, copies = x - (x.detach() / size).floor() * size, [-1, 0, 1]
    texel = torch.arange(size, dtype=x.dtype)
    hats = [(1 - (x[..., None] - texel - m * size).abs()).clamp_min(0) for m in copies]
    return torch.stack(hats).sum(0)
