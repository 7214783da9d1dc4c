"""Pairs of a pixel and a face that a pixel sees, as the kernels go through them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class Listing:
    """N pairs, sorted by face where kernels go face by face, else by pixel.

    Attributes:
        entries: (3, N), see layout.Entry.
        begin: where each face's pairs begin, (B * F + 1,); or each batch item's, (B + 1,).
        slots: (N,) the place of each among (depth, B, H, W), nearest first.
        depth: how many a pixel has, at most, and at least 1.
    """

    entries: Int[Tensor, "3 N"]
    begin: Int[Tensor, "M"]
    slots: Int[Tensor, "N"]
    depth: int

    @staticmethod
    def of(layers: Int[Tensor, "B H W K"], faces: int, by_face: bool) -> Listing:
        """Of what `DepthSort` finds: faces of each pixel, nearest first, then -1."""
        batch, height, width, most = layers.shape
        flat = layers.reshape(-1)
        at = (flat >= 0).nonzero()[:, 0].int()
        pixel = at // most
        layer = at - pixel * most
        item = pixel // (height * width)
        face = flat[at] + item * faces
        counts = item.bincount(minlength=batch)
        if by_face:
            face, order = face.sort(stable=True)
            pixel, layer, item = pixel[order], layer[order], item[order]
            counts = face.bincount(minlength=batch * faces)
        begin = torch.nn.functional.pad(counts.cumsum(0), (1, 0)).int()
        row = pixel // width
        entries = torch.stack([row - item * height, pixel - row * width, face])
        slots = layer.long() * (batch * height * width) + pixel
        return Listing(entries, begin, slots, int(layer.max()) + 1 if len(layer) > 0 else 1)
