"""The fragments that each pixel sees, in order of depth, and as the kernels go through them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from taichi_raster.engine.engine import Engine, engine
from taichi_raster.engine.pixel_sums import PixelSums
from taichi_raster.engine.tile_lists import NO_DERIVATIVES, items_per_run
from taichi_raster.kernels.depth_sort import Layers
from taichi_raster.runtime import transfer
from taichi_raster.runtime.call import Call
from taichi_raster.runtime.layout import EarlyStop
from taichi_raster.runtime.lru_cache import LRUCache
from taichi_raster.runtime.thread import owner
from taichi_raster.runtime.variant import Variant


@dataclass(frozen=True)
class FragmentList:
    """N pairs, sorted by face where kernels go face by face, else by pixel.

    Attributes:
        entries: (3, N), see layout.Entry.
        begin: where each face's pairs begin, (B * F + 1,); or each batch item's, (B + 1,).
        slots: (N,) the place of each among (depth, B, H, W), nearest first.
        depth: at least as many as any pixel has, and at least 1.
    """

    entries: Int[Tensor, "3 N"]
    begin: Int[Tensor, "M"]
    slots: Int[Tensor, "N"]
    depth: int

    @staticmethod
    def of(layers: Int[Tensor, "B H W K"], faces: int, by_face: bool) -> FragmentList:
        """Of what `Layers` finds: faces of each pixel, nearest first, then -1."""
        batch, height, width, most = layers.shape
        flat = layers.reshape(-1)
        at = (flat >= 0).nonzero()[:, 0].int()
        pixel = at // most
        layer = at - pixel * most
        item = pixel // (height * width)
        face = flat[at] + item * faces
        counts = (layers >= 0).sum((1, 2, 3))
        if by_face:
            face, order = face.sort(stable=True)
            pixel, layer, item = pixel[order], layer[order], item[order]
            counts = face.bincount(minlength=batch * faces)
        begin = torch.nn.functional.pad(counts.cumsum(0), (1, 0)).int()
        row = pixel // width
        entries = torch.stack([row - item * height, pixel - row * width, face])
        slots = layer.long() * (batch * height * width) + pixel
        return FragmentList(entries, begin, slots, most)


def depth_layers(call: Call, x: Tensor, hides: int) -> Int[Tensor, "B H W K"]:
    """Faces that each pixel sees, nearest first, then -1; see `EarlyStop`."""
    return owner.run(_layers_of, engine(), call, x, hides)


def fragment_list(sums: PixelSums, x: Tensor, hides: int) -> FragmentList:
    """The pairs that pixels see, of inputs whose sums were taken."""
    current = engine()
    layers = owner.run(_layers_of_sums, current, sums, x, hides)
    return FragmentList.of(layers, sums.call.faces, by_face=not current.on_gpu)


def _layers_of(current: Engine, call: Call, x: Tensor, hides: int) -> Tensor:
    current.place(call, x, x.new_zeros(call.batch))
    return _layers(current, call, call.variant, x, hides)


def _layers_of_sums(current: Engine, sums: PixelSums, x: Tensor, hides: int) -> Tensor:
    current.load(sums.call, sums.ticket, x, sums.background)
    # The kernels do not look at the T-conorm, so that all T-conorms share them.
    variant = replace(sums.call.variant, conorm="probabilistic", moves=NO_DERIVATIVES)
    return _layers(current, sums.call, variant, x, hides)


_depths: LRUCache[tuple, int] = LRUCache(256)
"""How deep lists were the last time, of scenes that are alike; for the owner's thread."""


def _layers(current: Engine, call: Call, variant: Variant, x: Tensor, hides: int) -> Tensor:
    """The layers of inputs that are in place."""
    fields, tiles = current.scratch, call.batch * call.tiles
    scene = variant, hides, call.faces, call.height, call.width
    depth = min(_depths.get(scene, 4), call.faces)
    name = "collect_pixels" if current.on_gpu else "collect_tiles"
    sizes = (call.batch * call.slots,) if current.on_gpu else (tiles, items_per_run(tiles))
    while True:
        listed = call.pixels * depth
        fields.reserve(layers=listed, layer_depths=listed, layer_covers=listed)
        needed = current.cache.launch(Layers, variant, name, *sizes, depth, hides)
        if needed <= depth:
            _depths[scene] = max(needed, 1)
            found = transfer.read(fields, fields.layers, x, listed)
            found = found.view(call.batch, call.height, call.width, depth)
            return found[..., : max(needed, 1)]
        depth = min(2 * depth, needed) if hides == EarlyStop.SUM else needed
