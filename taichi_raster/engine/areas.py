"""Exact areas: lists each pixel's fragments, measures what is seen of them, and mixes colours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from taichi_raster.engine.engine import Engine
from taichi_raster.engine.sight import (
    PIECES,
    Scene,
    Sight,
    by_pixel,
    fits,
    flat,
    integers,
    launch,
    limits_of,
    or_one,
    room,
    room_for,
    workers_memory,
    zeros,
)
from taichi_raster.engine.sight_by_tiles import TileSight, see_by_tiles, see_by_tiles_vjp
from taichi_raster.kernels.areas.layout import SIDE, Face, Pair, Seen, Size
from taichi_raster.runtime.device import runtime

THREAD_MEMORY = {"cuda": 1 << 28, "vulkan": 1 << 24}
"""Bytes for all threads of a GPU. Taichi copies them at each launch on Vulkan."""


@dataclass(frozen=True, eq=False)
class PixelSight(Sight):
    """What each pixel sees of each face, on a GPU: N fragments, P pairs of a tile and a face.

    Attributes:
        numbers: the call's `Size`.
        listed: (P,) the face of each pair, counted through the batch.
        firsts, ends: where each pixel's fragments begin and end; flat.
        slots: (N,) the pair of each fragment; -1 - pair if the face covers the pixel.
        arrays: what else kernels need for derivatives, by the names of their arguments.
    """

    numbers: dict[int, int]
    listed: Int[Tensor, " P"]
    firsts: Int[Tensor, " Q"]
    ends: Int[Tensor, " Q"]
    slots: Int[Tensor, " N"]
    arrays: dict[str, Tensor]

    def fragments(self) -> tuple[Int[Tensor, " N"], Int[Tensor, " N"], Int[Tensor, " N"]]:
        """(fragment, pixel, face) of each, pixel by pixel."""
        return by_pixel(self.firsts, self.ends, self.slots, self.listed, None)


def see(
    current: Engine,
    vertices: Float[Tensor, "B F 3 3"],
    attributes: Float[Tensor, "B F 3 C"] | None,
    scene: Scene,
) -> tuple[Any, ...]:
    """Draw; for `on_engine`.

    Returns:
        The picture, (B, H, W, C + 1), without a background; or, without attributes, what each of
        the fragments' corners has a share in, (N, 3). Then what is needed for derivatives, and
        those of its tensors that a caller reads: so they are ordered with the caller's stream.

    Raises:
        MemoryError: for more fragments than Taichi can index.
    """
    if not current.on_gpu:
        return see_by_tiles(vertices, attributes, scene)
    found, sight = _see_by_pixels(vertices, attributes, scene)
    return found, sight, sight.listed, sight.firsts, sight.ends, sight.slots


def see_vjp(
    _current: Engine, sight: Sight, attributes: Float[Tensor, "B F 3 C"] | None, adjoints: Tensor
) -> tuple[Float[Tensor, "B F 3 3"], Float[Tensor, "B F 3 C"] | None]:
    """The adjoints of vertices and attributes, given that of `see`'s first result."""
    if isinstance(sight, TileSight):
        return see_by_tiles_vjp(sight, attributes, adjoints)
    assert isinstance(sight, PixelSight)
    numbers, a = sight.numbers, sight.arrays
    pairs = adjoints.new_zeros(Pair.SIZE * len(sight.listed))
    channels = 0 if attributes is None else attributes.shape[3]
    colours = adjoints.new_zeros(max(3 * channels * len(sight.listed), 1))
    arguments = (
        a["faces"],
        sight.listed,
        sight.firsts,
        sight.ends,
        sight.slots,
        a["limits"],
        *_workers_memory(adjoints, numbers),
        a["seen"],
        a["limits"] if attributes is None else flat(attributes),
        flat(adjoints),
        pairs,
        colours,
        a["size"],
    )
    for begin, many in _portions(numbers, together=not runtime().deterministic):
        launch(sight.scene, "see_pixels_vjp", *arguments, begin, many)
    to_vertices = adjoints.new_empty(numbers[Size.BATCH], numbers[Size.FACES], 3, 3)
    to_attributes = (
        None
        if attributes is None
        else torch.empty_like(attributes, memory_format=torch.contiguous_format)
    )
    launch(
        sight.scene,
        "gather",
        a["faces"],
        a["boxes"],
        a["begins"],
        sight.listed,
        pairs,
        colours,
        to_vertices.view(-1),
        a["limits"] if to_attributes is None else or_one(to_attributes.view(-1)),
        a["size"],
    )
    return to_vertices, to_attributes


def _see_by_pixels(
    vertices: Float[Tensor, "B F 3 3"],
    attributes: Float[Tensor, "B F 3 C"] | None,
    scene: Scene,
) -> tuple[Tensor, PixelSight]:
    """`see` on a GPU."""
    batch, count = vertices.shape[:2]
    view = scene.view
    across, down = -(-scene.width // SIDE), -(-scene.height // SIDE)
    tiles, pixels = batch * across * down, batch * scene.height * scene.width
    numbers = dict.fromkeys(range(Size.PARTS), 0) | {
        Size.BATCH: batch,
        Size.FACES: count,
        Size.HEIGHT: scene.height,
        Size.WIDTH: scene.width,
        Size.TILE: SIDE,
        Size.TILES_X: across,
        Size.TILES: across * down,
        Size.WORKERS: tiles,
        Size.PIECES: PIECES,
    }
    size = integers(list(numbers.values()), vertices)
    limits = limits_of(scene.near, scene.far, vertices.dtype, vertices.device)
    faces = vertices.new_empty(Face.SIZE * batch * count)
    boxes = _empty(4 * batch * count, vertices)
    launch(scene, "prepare", flat(vertices), faces, boxes, size, limits)
    begins, listed = _list_by_sorting(boxes, numbers)
    covered = room_for("covered", pixels, vertices)[:pixels]
    counts = _empty(pixels, vertices)
    lists = faces, boxes, begins, listed, covered
    launch(scene, "count_pixels", *lists, counts, size)
    after = counts.cumsum(0)
    fragments, longest = torch.stack([after[-1], counts.max()]).tolist()
    firsts = (after - counts).int()
    ends = firsts.clone()
    fits("fragments", Seen.SIZE * fragments)
    longest = max(longest, 1)
    workers = _threads(longest, pixels)
    numbers |= {Size.LONGEST: longest, Size.WORKERS: workers}
    fits("fragments", room(workers, longest))
    size = integers(list(numbers.values()), vertices)
    slots = _empty(max(fragments, 1), vertices)
    seen = vertices.new_empty(Seen.SIZE * max(fragments, 1))
    if attributes is None:
        found, colours = zeros((fragments, 3), vertices), limits
    else:
        found = zeros((batch, scene.height, scene.width, view.channels + 1), vertices)
        colours = flat(attributes)
    own = _workers_memory(vertices, numbers)
    rest = firsts, ends, slots, limits, *own, seen, colours
    for begin, many in _portions(numbers, together=True):
        launch(scene, "see_pixels", *lists, *rest, or_one(found.view(-1)), size, begin, many)
    kept = {"faces": faces, "boxes": boxes, "begins": begins}
    kept |= {"seen": seen, "size": size, "limits": limits}
    return found, PixelSight(scene, numbers, listed, firsts, ends, slots, kept)


def _list_by_sorting(boxes: Tensor, numbers: dict[int, int]) -> tuple[Tensor, Tensor]:
    """(begins, listed): each tile's faces, in their order; by torch's sort."""
    side, across = numbers[Size.TILE], numbers[Size.TILES_X]
    left, right, top, bottom = boxes.view(-1, 4).long().unbind(1)
    listable = (left < right) & (top < bottom)
    first, row = left // side, top // side
    width = (right - 1) // side + 1 - first
    many = torch.where(listable, width * ((bottom - 1) // side + 1 - row), 0)
    face = torch.repeat_interleave(torch.arange(len(many), device=many.device), many)
    fits("tile lists", len(face))
    within = torch.arange(len(face), device=face.device) - (many.cumsum(0) - many)[face]
    item = face // numbers[Size.FACES]
    tile = (row[face] + within // width[face]) * across + first[face] + within % width[face]
    tile, order = (tile + item * numbers[Size.TILES]).sort(stable=True)
    counts = tile.bincount(minlength=numbers[Size.BATCH] * numbers[Size.TILES])
    begins = torch.nn.functional.pad(counts.cumsum(0), (1, 0)).int()
    return begins, face[order].int()


def _threads(longest: int, pixels: int) -> int:
    """How many threads share a GPU's pixels."""
    each = 8 * room(1, longest)
    return min(max(THREAD_MEMORY[runtime().arch] // each, 64), 1 << 16, pixels)


def _portions(numbers: dict[int, int], together: bool) -> Iterator[tuple[int, int]]:
    """(first, count) of what a GPU's threads do in each launch, a pixel each; see `pixel_of`.

    Unless `together`, no launch has two pixels of a tile, so that sums are taken in a fixed order.
    """
    tiles = numbers[Size.BATCH] * numbers[Size.TILES]
    total = tiles * numbers[Size.TILE] ** 2
    run, most = total if together else tiles, numbers[Size.WORKERS]
    for start in range(0, total, run):
        for begin in range(start, start + run, most):
            yield begin, min(most, start + run - begin)


def _workers_memory(like: Tensor, numbers: dict[int, int]) -> tuple[Tensor, Tensor]:
    """No more of it than is needed: Taichi copies it at each launch on Vulkan."""
    workers, longest = numbers[Size.WORKERS], numbers[Size.LONGEST]
    values, order = workers_memory(like, workers, longest)
    return values[: room(workers, longest)], order[: workers * 2 * longest]


def _empty(count: int, like: Tensor) -> Tensor:
    """Memory for integers."""
    return torch.empty(count, dtype=torch.int32, device=like.device)
