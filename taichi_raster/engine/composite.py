"""Each pixel's fragments, composited front to back in a hard order, with first and second
derivatives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from taichi_raster.depth.over import EARLY_STOP, PixelFragments, weighted_sums
from taichi_raster.engine.autodiff import by_autodiff
from taichi_raster.engine.autograd import Two
from taichi_raster.engine.engine import MARGIN, Engine, on_engine_here
from taichi_raster.engine.fragment_lists import FragmentList, fragment_list
from taichi_raster.engine.fragment_values import FragmentValues
from taichi_raster.engine.pixel_sums import PixelSums, Sums
from taichi_raster.engine.texture import Texture
from taichi_raster.engine.tile_lists import items_per_run
from taichi_raster.kernels.front_to_back import CHUNK, FrontToBack
from taichi_raster.kernels.front_to_back import Composite as Forward
from taichi_raster.kernels.front_to_back_vjp import CompositeVJP
from taichi_raster.kernels.largest_two import LargestTwo, LargestTwoVJP
from taichi_raster.kernels.rows import AREA, INTEGERS, NUMBERS
from taichi_raster.kernels.tile_order import TileOrder
from taichi_raster.kernels.vjp import VJP
from taichi_raster.runtime import transfer
from taichi_raster.runtime.call import Call
from taichi_raster.runtime.layout import RUNS, State
from taichi_raster.runtime.lru_cache import LRUCache
from taichi_raster.runtime.variant import Variant, without_derivatives

ALPHA = 2
"""Planes of the sums for alpha, of which the second is not used."""

STRIPS = 8
"""Runs of the adjoint, of one batch item."""

FEW = 64
"""Faces that one thread sorts in each of as many tiles."""

BUDGET = 1 << 22
"""Numbers of rows at a time; more only where a single run needs more."""


@dataclass
class Found:
    """What the forward pass leaves for the adjoint: its sums, and the rows that a run needs."""

    sums: Tensor | None = None
    room: int = 0


@dataclass(frozen=True)
class Composite:
    """(3 + C, B, H, W): the two sums for alpha; then the sum of each pixel's weights, and those of
    weights times attributes. The second result is that of `PixelSums`: an `autograd.Work`.

    The value and the first derivative are computed tile by tile, and keep no list of fragments.
    Forward mode and second derivatives go by lists, and compose in torch.

    Attributes:
        call: the call.
        alpha: the sums for alpha, of the same x. Their call differs in the variant alone.
        union: how coverages combine, see `OverDepth`.
        alpha_moves: whether one of alpha's inputs has derivatives.
        found: what the forward pass leaves.
    """

    call: Call
    alpha: PixelSums
    union: str
    alpha_moves: bool = True
    found: Found = field(default_factory=Found)

    @property
    def kept(self) -> tuple[Tensor, ...]:
        return ()

    def keeping(self, kept: tuple[Tensor, ...]) -> Composite:
        return self

    def forward(self, x: Tensor, texels: Tensor | None) -> tuple[Tensor, Tensor]:
        sums = on_engine_here(_forward, self, x, texels)
        return sums.y, sums.state

    def vjp(self, x: Tensor, texels: Tensor | None, v: Tensor) -> Two:
        if not by_autodiff():
            return on_engine_here(_vjp, self, x, texels, v)
        listed = Listed.of(self, x, texels)
        by_colours, of_texels = listed.values.vjp(x, texels, listed.vjp(v[ALPHA:]))
        return by_colours + self.alpha.vjp(x, None, v[:ALPHA])[0], of_texels

    def jvp(
        self, x: Tensor, texels: Tensor | None, x_dot: Tensor, texels_dot: Tensor | None
    ) -> Tensor:
        listed = Listed.of(self, x, texels)
        of_colours = listed.jvp(listed.values.jvp(x, texels, x_dot, texels_dot))
        return torch.cat([self.alpha.jvp(x, None, x_dot, None), of_colours.view(-1, *self._shape)])

    def second(
        self,
        x: Tensor,
        texels: Tensor | None,
        v: Tensor,
        x_dot: Tensor,
        texels_dot: Tensor | None,
    ) -> Two:
        listed = Listed.of(self, x, texels)
        by_values, curved = listed.second(
            v[ALPHA:], listed.values.jvp(x, texels, x_dot, texels_dot)
        )
        first = listed.values.vjp(x, texels, curved)
        second = listed.values.second(x, texels, by_values, x_dot, texels_dot)
        of_texels = first[1] if second[1] is None else second[1]
        if first[1] is not None and second[1] is not None:
            of_texels = first[1] + second[1]
        by_alpha = self.alpha.second(x, None, v[:ALPHA], x_dot, None)[0]
        return first[0] + second[0] + by_alpha, of_texels

    def renewed(self) -> Composite:
        return Composite(self.call, self.alpha.renewed(), self.union, self.alpha_moves)

    @property
    def _shape(self) -> tuple[int, ...]:
        return self.call.batch, self.call.height, self.call.width


# --- by lists ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Listed:
    """The composition of listed fragments in torch, a function of their values, (2 + C, N)."""

    values: FragmentValues
    shown: Tensor
    listing: FragmentList
    fronts: Tensor
    pixels: int
    union: str

    @staticmethod
    def of(work: Composite, x: Tensor, texels: Tensor | None) -> Listed:
        listing = fragment_list(work.alpha, x, EARLY_STOP[work.union])
        values = FragmentValues(work.call, listing.entries, listing.begin, by_autodiff())
        shown = values.forward(x, texels)[0]
        fronts = listing.fronts(x, work.call.variant.clockwise)
        return Listed(values, shown, listing, fronts, work.call.pixels, work.union)

    def vjp(self, v: Tensor) -> Tensor:
        with torch.enable_grad():
            sums, shown = self._sums()
            return torch.autograd.grad(sums, shown, v.reshape(sums.shape))[0]

    def jvp(self, shown_dot: Tensor) -> Tensor:
        with torch.enable_grad():
            sums, shown = self._sums()
            v = torch.zeros_like(sums, requires_grad=True)
            (slope,) = torch.autograd.grad(sums, shown, v, create_graph=True)
            return torch.autograd.grad(slope, v, shown_dot)[0]

    def second(self, v: Tensor, shown_dot: Tensor) -> tuple[Tensor, Tensor]:
        """The adjoint of the values, and its derivative along a tangent of theirs."""
        with torch.enable_grad():
            sums, shown = self._sums()
            (slope,) = torch.autograd.grad(sums, shown, v.reshape(sums.shape), create_graph=True)
            (curved,) = torch.autograd.grad(slope, shown, shown_dot, materialize_grads=True)
            return slope.detach(), curved

    def _sums(self) -> tuple[Tensor, Tensor]:
        shown = self.shown.detach().requires_grad_()
        listing = self.listing
        fragments = PixelFragments(shown, listing.slots, listing.depth, self.pixels, self.fronts)
        return weighted_sums(fragments, self.union), shown


# --- tile by tile --------------------------------------------------------------------------------

_rooms: LRUCache[tuple[Any, ...], int] = LRUCache(256)
"""How many rows a run of a similar scene needed the last time; for the owner's thread."""


def _forward(current: Engine, work: Composite, x: Tensor, texels: Tensor | None) -> Sums:
    call, fields = work.call, current.scratch
    size, planes = (1 + call.variant.channels) * call.pixels, ALPHA * call.pixels
    fields.reserve(y=size + MARGIN)
    current.load(work.alpha.call, work.alpha.ticket, x, work.alpha.background)
    y = x.new_empty(planes + size)
    found = y.numpy()
    of_alpha, state = transfer.read_both(
        fields, fields.y, planes, fields.state, State.COUNT * call.pixels, x
    )
    found[:planes] = of_alpha.numpy()
    _place(current, work, x, Texture.of(texels, call))
    variant = without_derivatives(call.variant)
    kind = LargestTwo if work.union == "largest_two" else Forward
    scene = kind, variant, call.faces, call.height, call.width
    room = _rooms.get(scene, 2 * CHUNK)
    needed = _run(current, kind, call, variant, room)
    while needed > room:
        room = needed
        needed = _run(current, kind, call, variant, room)
    _rooms[scene] = room
    sums = transfer.read(fields, fields.y, x, size)
    found[planes:] = sums.numpy()  # a copy: else what is found would hold what it is kept for
    work.found.sums, work.found.room = sums, room
    return Sums(y.view(-1, *work._shape), state.view(-1, *work._shape))


def _vjp(current: Engine, work: Composite, x: Tensor, texels: Tensor | None, v: Tensor) -> Two:
    call, fields = work.call, current.scratch
    if work.found.sums is None:
        _forward(current, work, x, texels)
    assert work.found.sums is not None
    texture = Texture.of(texels, call, adjoint=True)
    _place(current, work, x, texture)
    copies = (fields.y, work.found.sums), (fields.y.grad, v[ALPHA:])
    transfer.seed(fields, *copies, clear=(fields.x.grad, call.x_size))
    kind = LargestTwoVJP if work.union == "largest_two" else CompositeVJP
    runs, _ = _runs(call, kind)
    total = runs * call.x_size
    fields.reserve(strips=total)
    transfer.clear(fields, fields.strips, total)

    def launch() -> None:
        _run(current, kind, call, call.variant, work.found.room + kind.spare)

    found = current.with_shared_sums(kind, call, x, runs, launch)
    if fields.views:
        strips = fields.views[fields.strips][:total]
    else:
        strips = transfer.read(fields, fields.strips, x, total).numpy()
    found.numpy()[:] += strips.reshape(runs, call.x_size).sum(axis=0)  # in a fixed order
    of_texels = current.of_texels(call, texture)
    if work.alpha_moves:
        current.unbind()
        transfer.seed(fields, (fields.y.grad, v[:ALPHA]), clear=(fields.x.grad, call.x_size))
        found.numpy()[:] += current.vjp(VJP, work.alpha.call, x).numpy()
    return found, of_texels


def _place(current: Engine, work: Composite, x: Tensor, texture: Texture | None) -> None:
    """Bring tile lists, sorted by depth, and inputs onto the device."""
    call, fields = work.call, current.scratch
    fields.reserve(y=(1 + call.variant.channels) * call.pixels + MARGIN)
    current.load(work.alpha.call, work.alpha.ticket, x, work.alpha.background)
    if current.sorted != work.alpha.ticket:
        _sort(current, work.alpha.call, x)
        current.sorted = work.alpha.ticket
    current.bind(call, texture)


def _sort(current: Engine, call: Call, x: Tensor) -> None:
    """Sort each tile's faces by the least depth that they have anywhere."""
    variant = without_derivatives(call.variant, "probabilistic")
    fields, faces = current.scratch, call.batch * call.faces
    entries = fields.capacity("tile_faces")
    fields.reserve(layer_depths=faces, entry_begin=2 * faces, tile_order=entries)
    launch, tiles = current.cache.launch, call.batch * call.tiles
    if call.faces <= FEW and tiles * call.faces <= FEW * FEW:
        launch(TileOrder, variant, "sort_few", faces, tiles)
        return
    launch(TileOrder, variant, "bound_depths", faces, items_per_run(faces))
    nearest = transfer.read(fields, fields.layer_depths, x, faces).view(call.batch, call.faces)
    if fields.views:
        both = fields.views[fields.entry_begin][: 2 * faces].reshape(2, call.batch, call.faces)
        both[1] = nearest.numpy().argsort(axis=1, kind="stable")
        every = np.arange(call.faces)
        for rank, order in zip(*both, strict=True):
            rank[order] = every
    else:
        orders = nearest.argsort(dim=1, stable=True)
        ranks = torch.empty_like(orders)
        ranks.scatter_(1, orders, torch.arange(call.faces).expand_as(orders))
        transfer.seed(fields, (fields.entry_begin, torch.cat([ranks, orders]).int()))
    launch(TileOrder, variant, "sort_tiles", tiles, items_per_run(tiles))


def _runs(call: Call, kind: type[FrontToBack]) -> tuple[int, int]:
    """(runs per batch item, tiles per run).

    Each run of the adjoint has sums of its own, so that there are few. All add to the same texels,
    so that a fixed order takes a single one.
    """
    most = RUNS
    if issubclass(kind, CompositeVJP):
        most = 1 if call.fixed_order and call.moving_texels else STRIPS
    runs = max(1, min(call.tiles, most // call.batch))
    length = -(-call.tiles // runs)
    return -(-call.tiles // length), length


def _run(current: Engine, kind: type[FrontToBack], call: Call, variant: Variant, room: int) -> int:
    """Run a kernel; how many rows a run needs, if there is too little room, else 0 or less."""
    per_item, tiles = _runs(call, kind)
    stride = room * (AREA * len(kind.planes) + NUMBERS)
    count = max(1, BUDGET // stride)
    current.scratch.reserve(
        rows=min(count, call.batch * per_item) * stride, row_lists=count * room * INTEGERS
    )
    needed = 0
    for begin, size in _portions(call.batch * per_item, count):
        sizes = size, begin, per_item, tiles, room, call.x_size
        found = current.cache.launch(kind, variant, "run", *sizes, *current.texture)
        needed = max(needed, found)
    return needed


def _portions(total: int, most: int) -> Iterator[tuple[int, int]]:
    """(begin, size) of portions of at most so many."""
    for begin in range(0, total, most):
        yield begin, min(most, total - begin)
