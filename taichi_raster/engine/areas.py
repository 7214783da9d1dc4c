"""Exact areas: lists each pixel's fragments, measures what is seen of them, and mixes colours."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from taichi_raster.kernels.footprints import Face, Pair, Size, View
from taichi_raster.kernels.polygons import RECORD
from taichi_raster.kernels.visibility import SPARE, Seen, Visibility
from taichi_raster.runtime.device import Runtime, runtime
from taichi_raster.runtime.launcher import Launcher
from taichi_raster.runtime.layout import RUNS

PIECES = 48
"""Convex pieces of a fragment that a thread can keep for later."""

BANDS = 4
"""Parts of an image whose tiles one thread lists."""


@dataclass(frozen=True, eq=False)
class Scene:
    """What a picture is drawn of, apart from its faces.

    Attributes:
        height, width: pixels.
        near, far: depth range.
        view: what kernels are compiled for.
    """

    height: int
    width: int
    near: float
    far: float
    view: View


@dataclass(frozen=True, eq=False)
class Sight:
    """What each pixel sees of each face: N fragments, and P pairs of a tile and a face.

    Attributes:
        scene: the scene; faces: the faces' records, flat.
        boxes: the pixels of the faces' bounding boxes, flat.
        begins: where each tile's pairs begin.
        listed: (P,) the face of each pair, counted through the batch.
        firsts, ends: where each pixel's fragments begin and end; flat.
        slots: (N,) the pair of each fragment; -1 - pair if the face covers the pixel.
        seen: the fragments' `Seen`, flat.
        size, limits: the call's numbers.
    """

    scene: Scene
    faces: Tensor
    boxes: Tensor
    begins: Tensor
    listed: Int[Tensor, " P"]
    firsts: Int[Tensor, " Q"]
    ends: Int[Tensor, " Q"]
    slots: Int[Tensor, " N"]
    seen: Tensor
    size: Tensor
    limits: Tensor


@lru_cache(maxsize=256)
def _kernels(view: View, settings: Runtime) -> tuple[Visibility, dict[str, Launcher]]:
    return Visibility(view, settings), {}


def _launch(view: View, name: str, *arguments: Any) -> int:
    settings = runtime()
    kernels, launchers = _kernels(view, settings)
    launcher = launchers.get(name)
    if launcher is None:
        launcher = launchers[name] = Launcher(getattr(kernels, name), settings.arch)
    return launcher(*arguments)


def see(
    vertices: Float[Tensor, "B F 3 3"], attributes: Float[Tensor, "B F 3 C"] | None, scene: Scene
) -> tuple[Tensor, Sight]:
    """Draw, in the owner's thread.

    Returns:
        The picture, (B, H, W, C + 1), without a background; or, without attributes, what each of
        the fragments' corners has a share in, (N, 3); and what is needed for derivatives.
    """
    batch, count = vertices.shape[:2]
    like = vertices
    integers = torch.int32
    tile = 8 if max(scene.height, scene.width) <= 256 else 16
    across, down = -(-scene.width // tile), -(-scene.height // tile)
    tiles = batch * across * down
    workers = min(tiles, RUNS)
    numbers = [0] * Size.COUNT
    numbers[: Size.LONGEST] = [
        batch,
        count,
        scene.height,
        scene.width,
        tile,
        across,
        across * down,
        workers,
    ]
    numbers[Size.PIECES] = PIECES
    size = torch.tensor(numbers, dtype=integers, device=like.device)
    limits = torch.tensor([scene.near, scene.far], dtype=like.dtype, device=like.device)
    faces = like.new_empty(Face.SIZE * batch * count)
    boxes = torch.empty(4 * batch * count, dtype=integers, device=like.device)
    view = scene.view
    shared = replace(view, channels=-1)
    _launch(shared, "prepare", vertices.contiguous().view(-1), faces, boxes, size, limits)
    begins = torch.empty(tiles + 2, dtype=integers, device=like.device)
    room = 2 * batch * count + tiles
    while True:
        listed = _scratch("listed", room, integers, like.device)
        pairs = _launch(shared, "list_tiles", boxes, begins, listed, size, BANDS, room)
        if pairs <= room:
            break
        room = pairs
    listed = listed[:pairs].clone()
    pixels = batch * scene.height * scene.width
    covered = _scratch("covered", pixels, like.dtype, like.device)
    ends = torch.empty(pixels, dtype=integers, device=like.device)
    firsts = torch.empty_like(ends)
    sums = torch.empty(2 * tiles, dtype=integers, device=like.device)
    _launch(shared, "count_tiles", faces, boxes, begins, listed, covered, ends, sums, size)
    totals = sums.numpy().reshape(-1, 2)
    starts = np.zeros(tiles + 1, np.int32)
    np.cumsum(totals[:, 0], out=starts[1:])
    fragments = int(starts[-1])
    longest = max(int(totals[:, 1].max()), 1)
    size[Size.LONGEST] = longest
    slots = torch.empty(max(fragments, 1), dtype=integers, device=like.device)
    seen = like.new_empty(Seen.SIZE * max(fragments, 1))
    memory, order = _memory(like, workers, longest)
    if attributes is None:
        found = like.new_empty(fragments, 3)
        colours = limits
    else:
        found = like.new_empty(batch, scene.height, scene.width, view.channels + 1)
        colours = _flat(attributes)
    _launch(
        view, "see_tiles", faces, boxes, begins, listed, covered, torch.from_numpy(starts), firsts,
        ends, slots, limits, memory, order, seen, colours, found.view(-1), size,
    )  # fmt: skip
    return found, Sight(scene, faces, boxes, begins, listed, firsts, ends, slots, seen, size, limits)


def see_vjp(
    sight: Sight, attributes: Float[Tensor, "B F 3 C"] | None, adjoints: Tensor
) -> tuple[Float[Tensor, "B F 3 3"], Float[Tensor, "B F 3 C"] | None]:
    """The adjoints of vertices and attributes, given that of `see`'s first result."""
    scene = sight.scene
    numbers = sight.size.tolist()
    memory, order = _memory(adjoints, numbers[Size.WORKERS], numbers[Size.LONGEST])
    channels = 0 if attributes is None else attributes.shape[3]
    pairs = adjoints.new_zeros(Pair.SIZE * len(sight.listed))
    colours = adjoints.new_zeros(max(3 * channels * len(sight.listed), 1))
    _launch(
        scene.view, "see_tiles_vjp", sight.faces, sight.listed, sight.firsts, sight.ends,
        sight.slots, sight.limits, memory, order, sight.seen,
        sight.limits if attributes is None else _flat(attributes),
        adjoints.contiguous().view(-1), pairs, colours, sight.size,
    )  # fmt: skip
    batch, count = numbers[Size.BATCH], numbers[Size.FACES]
    to_vertices = adjoints.new_empty(batch, count, 3, 3)
    to_attributes = None if attributes is None else torch.empty_like(attributes)
    _launch(
        scene.view, "gather", sight.faces, sight.boxes, sight.begins, sight.listed, pairs, colours,
        to_vertices.view(-1),
        sight.limits if to_attributes is None or channels == 0 else to_attributes.view(-1),
        sight.size,
    )  # fmt: skip
    return to_vertices, to_attributes


_kept: dict[tuple[str, torch.dtype], Tensor] = {}
"""Memory whose contents no call needs any more; for the owner's thread."""


def _scratch(name: str, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Memory that lasts until the next call. Fresh memory would be slow: the system clears it."""
    found = _kept.get((name, dtype))
    if found is None or len(found) < size or found.device != device:
        found = _kept[name, dtype] = torch.empty(size * 5 // 4, dtype=dtype, device=device)
    return found[:size]


def _memory(like: Tensor, workers: int, longest: int) -> tuple[Tensor, Tensor]:
    """The workers' memory: numbers, and integers."""
    size = workers * RECORD * (longest + PIECES + SPARE)
    return (
        _scratch("numbers", size, like.dtype, like.device),
        _scratch("order", workers * 2 * longest, torch.int32, like.device),
    )


def _flat(attributes: Tensor) -> Tensor:
    flat = attributes.contiguous().view(-1)
    return flat if len(flat) > 0 else attributes.new_zeros(1)
