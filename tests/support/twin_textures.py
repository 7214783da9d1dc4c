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


def trilinear(image: Tensor, uv: Tensor, level: Tensor, wrap: str) -> Tensor:
    """The same from mipmaps at levels (B,H,W,F): level i weighs max(0, 1 - |level - i|)."""
    pictures = levels(image)
    level = level.clamp(0, len(pictures) - 1)
    found = [
        (1 - (level - i).abs()).clamp_min(0)[..., None] * bilinear(picture, uv, wrap)
        for i, picture in enumerate(pictures)
    ]
    return torch.stack(found).sum(0)


def levels(image: Tensor) -> list[Tensor]:
    """(B,h,w,C) each: sides halved, rounded down; a texel is the mean over what it covers."""
    found = [image]
    while max(found[-1].shape[1:3]) > 1:
        last = found[-1]
        rows, columns = (_cover(size, max(1, size // 2)).to(image) for size in last.shape[1:3])
        found.append(torch.einsum("ij,kl,bjlc->bikc", rows, columns, last))
    return found


def _cover(size: int, count: int) -> Tensor:
    """(count, size): how much of each of `count` equal intervals each of `size` ones covers."""
    edges, ends = torch.arange(size + 1).double() / size, torch.arange(count + 1).double() / count
    low = torch.maximum(edges[None, :-1], ends[:-1, None])
    high = torch.minimum(edges[None, 1:], ends[1:, None])
    return (high - low).clamp_min(0) * count


def level_of_detail(
    vertices: Tensor,
    uv: Tensor,
    weights: Tensor,
    texture: tuple[int, int],
    pixel: float,
    perspective: bool,
) -> Tensor:
    """(B,H,W,F): log2 of how many texels a pixel spans, along x or y, whichever is more.

    With (x, y, 1) = sum_i w_i (x_i, y_i, 1), u = N / D is the quotient of two linear functions of
    x and y, N = sum_i w_i u_i / z_i and D = sum_i w_i / z_i.
    """
    x, y, z = vertices.detach().unbind(-1)
    inverse = torch.linalg.inv(torch.stack([x, y, torch.ones_like(x)], -2))  # (B,F,3,3)
    over = 1 / z if perspective else torch.ones_like(z)
    functions = torch.cat([uv.detach() * over[..., None], over[..., None]], -1)  # (B,F,3,3)
    slopes = torch.einsum("bfin,bfic->bfcn", functions, inverse)[:, :, :2]  # along x, then y
    at = torch.einsum("bhwfi,bfin->bhwfn", weights.detach(), functions)
    number, bottom = at[..., None, :2], at[..., None, 2:]
    top = slopes[:, None, None, ..., :2] * bottom - number * slopes[:, None, None, ..., 2:]
    size = torch.tensor([texture[1], texture[0]]).to(uv)
    steps = pixel * size * top / bottom.square()
    spans: Tensor = steps.norm(dim=-1).amax(-1)
    return spans.log2()


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
