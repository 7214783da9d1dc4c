"""BinningCPU on the device which faces can reach which tile of pixels (binning)."""

from __future__ import annotations

from taichi_raster.engine.kernel_cache import KernelCache
from taichi_raster.kernels.binning_cpu import BinningCPU
from taichi_raster.kernels.binning_gpu import BinningGPU
from taichi_raster.runtime.call import Call
from taichi_raster.runtime.layout import RUNS
from taichi_raster.runtime.scratch import Scratch
from taichi_raster.runtime.variant import DepthVariant, EdgeVariant, Variant

NO_DERIVATIVES = (True, False, False, False)
"""`Variant.moves` of kernels that are not differentiated, so that all calls share them."""


def list_faces(cache: KernelCache, fields: Scratch, call: Call, on_gpu: bool) -> None:
    """List each tile's faces, for inputs that are on the device."""
    variant = Variant(
        EdgeVariant("uniform"),
        DepthVariant("none"),
        cull=call.variant.cull,
        clockwise=call.variant.clockwise,
        unclipped_alpha=call.variant.unclipped_alpha,
        moves=NO_DERIVATIVES,
    )
    (_by_tile if on_gpu else _by_face)(cache, fields, call, variant)


def items_per_run(count: int) -> int:
    """How many of `count` items one run of a parallel loop takes on a CPU."""
    return -(-count // RUNS)


def _by_face(cache: KernelCache, fields: Scratch, call: Call, variant: Variant) -> None:
    """List each tile's faces on a CPU, face by face."""
    tiles, bands = call.batch * call.tiles, call.batch * call.bands
    total, room = 1, 0
    while total > room:  # the second time, there is room
        room = fields.capacity("tile_faces")
        total = cache.launch(
            BinningCPU, variant, "build", tiles, bands, call.bands, items_per_run(bands), room
        )
        fields.reserve(tile_faces=_fitting(total))


def _by_tile(cache: KernelCache, fields: Scratch, call: Call, variant: Variant) -> None:
    """List each tile's faces on a GPU, tile by tile; groups of tiles first, if it pays."""
    tiles = call.batch * call.tiles
    if call.grouped:
        groups = call.batch * call.groups
        fields.reserve(group_begin=groups + 1)
        cache.launch(BinningGPU, variant, "count_groups", groups, 1)
        _scan(cache, fields, variant, "scan_groups", "group_faces", groups, call.faces)
        cache.launch(BinningGPU, variant, "fill_groups", groups, 1)
    grouped = int(call.grouped)
    cache.launch(BinningGPU, variant, "count", tiles, 1, grouped)
    _scan(cache, fields, variant, "scan", "tile_faces", tiles, call.faces)
    cache.launch(BinningGPU, variant, "fill", tiles, 1, grouped)


def _scan(
    cache: KernelCache,
    fields: Scratch,
    variant: Variant,
    name: str,
    target: str,
    lists: int,
    faces: int,
) -> None:
    """Turn lengths of lists into beginnings, and make room for the lists.

    The host waits for the total only if the room might not suffice.
    """
    if lists * faces <= fields.capacity(target):
        cache.launch(BinningGPU, variant, f"{name}_only", lists)
    else:
        total = cache.launch(BinningGPU, variant, name, lists)
        fields.reserve(**{target: _fitting(total)})


def _fitting(total: int) -> int:
    if total < 0:
        raise MemoryError(
            "tile lists need more than 2^31 entries: render fewer batch items, faces or pixels "
            "at a time, or raise the threshold"
        )
    return total
