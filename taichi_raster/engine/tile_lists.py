"""Lists, on the device, which faces can reach which tile of pixels (binning)."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from taichi_raster.engine.kernel_cache import KernelCache
from taichi_raster.kernels.binning_cpu import BinningCPU
from taichi_raster.kernels.binning_gpu import BinningGPU
from taichi_raster.runtime import transfer
from taichi_raster.runtime.call import Call
from taichi_raster.runtime.layout import RUNS
from taichi_raster.runtime.scratch import Scratch
from taichi_raster.runtime.variant import NO_DERIVATIVES, DepthVariant, EdgeVariant, Variant

MARKS = 1 << 20
"""Up to so many pairs of a tile and a face, a GPU compares all."""

_TOO_MANY = (
    "tile lists need more than 2^31 entries: render fewer batch items, faces or pixels at a time, "
    "or raise the threshold"
)


def list_faces(cache: KernelCache, fields: Scratch, call: Call, on_gpu: bool, like: Tensor) -> None:
    """List each tile's faces, for inputs that are on the device; `like` is on torch's."""
    variant = _variant(call.variant)
    if not on_gpu:
        _by_face(cache, fields, call, variant)
    else:
        few = call.batch * call.tiles * call.faces <= MARKS
        (_marked if few else _sorted)(cache, fields, call, variant, like)


@lru_cache(maxsize=1024)
def _variant(variant: Variant) -> Variant:
    """What binning is compiled for, so that as many calls as possible share it."""
    return Variant(
        EdgeVariant("uniform"),
        DepthVariant("none"),
        cull=variant.cull,
        clockwise=variant.clockwise,
        unclipped_alpha=variant.unclipped_alpha,
        moves=NO_DERIVATIVES,
    )


def items_per_run(count: int) -> int:
    """How many of `count` items one run of a parallel loop takes on a CPU."""
    return -(-count // RUNS)


def _by_face(cache: KernelCache, fields: Scratch, call: Call, variant: Variant) -> None:
    """List each tile's faces on a CPU, face by face."""
    tiles, bands = call.batch * call.tiles, call.batch * call.bands
    total, room = 1, 0
    while total > room:  # the second time, there is room
        room = fields.capacity("tile_faces")
        if bands == 1:
            total = cache.launch(BinningCPU, variant, "build_alone", tiles, room)
        else:
            sizes = tiles, bands, call.bands, items_per_run(bands), room
            total = cache.launch(BinningCPU, variant, "build", *sizes)
        fields.reserve(tile_faces=_fitting(total))


def _marked(
    cache: KernelCache, fields: Scratch, call: Call, variant: Variant, like: Tensor
) -> None:
    """List each tile's faces on a GPU, where there are few tiles and faces: nothing is waited for.

    Every tile is compared with every face.
    """
    count = call.batch * call.tiles * call.faces
    fields.reserve(tile_faces=count)
    marks = torch.empty(count, dtype=torch.int32, device=like.device)
    cache.launch(BinningGPU, variant, "mark", count, marks)
    ends = marks.cumsum(0, dtype=torch.int32)
    cache.launch(BinningGPU, variant, "fill", count, ends)


def _sorted(
    cache: KernelCache, fields: Scratch, call: Call, variant: Variant, like: Tensor
) -> None:
    """List each tile's faces on a GPU: pairs of both, sorted by tile.

    The host waits for the number of pairs.
    """
    faces, tiles, device = call.batch * call.faces, call.batch * call.tiles, like.device
    counts = torch.empty(faces, dtype=torch.int32, device=device)
    cache.launch(BinningGPU, variant, "count", faces, counts)
    ends = counts.cumsum(0)
    total = int(ends[-1])
    if total >= 1 << 31:
        raise MemoryError(_TOO_MANY)
    fields.reserve(tile_faces=total)
    owners = torch.arange(faces, dtype=torch.int32, device=device).repeat_interleave(
        counts, output_size=total
    )
    tile = torch.empty_like(owners)
    begins = (ends - counts).int()
    cache.launch(BinningGPU, variant, "name", total, owners, begins, tile)
    tile, order = tile.sort(stable=True)  # so that a tile's faces keep their order
    every = torch.arange(tiles + 1, dtype=torch.int32, device=device)
    begin = torch.searchsorted(tile, every, out_int32=True)
    faces_of_tiles = owners[order] % call.faces
    transfer.seed(fields, (fields.tile_faces, faces_of_tiles), (fields.tile_begin, begin))


def _fitting(total: int) -> int:
    if total < 0:
        raise MemoryError(_TOO_MANY)
    return total
