"""Lists the fragments of each pixel in order of depth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from taichi_raster.engine.engine import Engine, engine, on_engine
from taichi_raster.engine.pixel_sums import PixelSums
from taichi_raster.engine.tile_lists import items_per_run
from taichi_raster.kernels.depth_sort import DepthSort, SortOfAll
from taichi_raster.kernels.thinned_lists import SortOfLargestTwo
from taichi_raster.runtime import transfer
from taichi_raster.runtime.call import Call
from taichi_raster.runtime.layout import EarlyStop
from taichi_raster.runtime.lru_cache import LRUCache
from taichi_raster.runtime.variant import Variant, without_derivatives


@dataclass(frozen=True)
class FragmentList:
    """N fragments, sorted by face where kernels go face by face, else by pixel.

    Attributes:
        entries: (3, N), see layout.Entry.
        begin: where each face's fragments begin, (B * F + 1,); or each batch item's, (B + 1,).
        slots: (N,) the flat index of each in (depth, B, H, W), nearest first.
        depth: the largest number of fragments of a pixel, or more; at least 1.
        faces: B * F.
    """

    entries: Int[Tensor, "3 N"]
    begin: Int[Tensor, " M"]
    slots: Int[Tensor, " N"]
    depth: int
    faces: int

    def fronts(self, x: Float[Tensor, " X"], clockwise: bool) -> Bool[Tensor, " N"]:
        """Which of them show their face's front, given the inputs of the call."""
        a, b, c = x.detach()[: 9 * self.faces].view(-1, 3, 3)[..., :2].unbind(1)
        (ux, uy), (vx, vy) = (b - a).unbind(-1), (c - a).unbind(-1)
        area = ux * vy - uy * vx
        shows = area < 0 if clockwise else area > 0
        return shows[self.entries[2].long()]

    @staticmethod
    def of(layers: Int[Tensor, "B H W K"], faces: int, by_face: bool) -> FragmentList:
        """From the faces of each pixel, nearest first, then -1."""
        batch, height, width, most = layers.shape
        flat = layers.reshape(-1)
        at = (flat >= 0).nonzero()[:, 0].int()
        face = flat[at]
        if batch > 1:
            face += at // (height * width * most) * faces
        if by_face:
            face, order = face.sort(stable=True)
            at = at[order]
            counts = face.bincount(minlength=batch * faces)
        else:
            counts = (layers >= 0).sum((1, 2, 3))
        begin = torch.nn.functional.pad(counts.cumsum(0), (1, 0)).int()
        pixel = at // most
        layer = at - pixel * most
        row = pixel // width
        entries = torch.stack([row % height, pixel - row * width, face])
        slots = layer.long() * (batch * height * width) + pixel
        return FragmentList(entries, begin, slots, most, batch * faces)


def fragment_list(sums: PixelSums, x: Tensor, stop: int) -> FragmentList:
    """The fragments of each pixel, for inputs whose sums are already taken."""
    current = engine()
    layers = on_engine(_layers_after_sums, sums, x, stop)
    by_face = not current.on_gpu or sums.call.fixed_order
    return FragmentList.of(layers, sums.call.faces, by_face)


def _layers_after_sums(current: Engine, sums: PixelSums, x: Tensor, stop: int) -> Tensor:
    current.load(sums.call, sums.ticket, x, sums.background)
    # These kernels do not use the T-conorm: all T-conorms share them.
    variant = without_derivatives(sums.call.variant, "probabilistic")
    return _layers(current, sums.call, variant, x, stop)


_KINDS = {
    EarlyStop.NEVER: SortOfAll,
    EarlyStop.PRODUCT: DepthSort,
    EarlyStop.LARGEST_TWO: SortOfLargestTwo,
}

_depths: LRUCache[tuple[Any, ...], int] = LRUCache(256)
"""How deep the lists of a similar scene were the last time; for the owner's thread."""


def _layers(current: Engine, call: Call, variant: Variant, x: Tensor, stop: int) -> Tensor:
    """The layers of inputs that are on the device."""
    fields, tiles = current.scratch, call.batch * call.tiles
    scene = variant, stop, call.faces, call.height, call.width
    depth = min(_depths.get(scene, 4), call.faces)
    name = "collect_pixels" if current.on_gpu else "collect_tiles"
    kind = _KINDS[stop]
    sizes = (call.batch * call.slots,) if current.on_gpu else (tiles, items_per_run(tiles))
    while True:
        listed = call.pixels * depth
        fields.reserve(layers=listed, layer_depths=listed, layer_covers=listed)
        needed = current.cache.launch(kind, variant, name, *sizes, depth, stop)
        if needed <= depth:
            _depths[scene] = max(needed, 1)
            found = transfer.read(fields, fields.layers, x, listed)
            found = found.view(call.batch, call.height, call.width, depth)
            return found[..., : max(needed, 1)]
        depth = needed
