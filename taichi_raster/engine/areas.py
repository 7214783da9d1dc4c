"""Exact areas: lists each pixel's fragments, measures what is seen of them, and mixes colours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from taichi_raster.engine.engine import Engine
from taichi_raster.kernels.areas.hiding import SPARE
from taichi_raster.kernels.areas.layout import Face, Pair, Seen, Size, View
from taichi_raster.kernels.areas.polygons import RECORD
from taichi_raster.kernels.areas.visibility import Visibility
from taichi_raster.runtime.device import Runtime, runtime
from taichi_raster.runtime.launcher import Launcher
from taichi_raster.runtime.layout import RUNS

PIECES = 48
"""Convex pieces of a fragment that a thread can keep for later."""

BANDS = 4
"""Parts of an image whose tiles one thread lists."""

TILE, SMALL_TILE = 16, 8
"""Pixels on a side; small ones for small pictures on a CPU, to keep all cores busy."""

THREAD_MEMORY = {"cuda": 1 << 28, "vulkan": 1 << 24}
"""Bytes for all threads of a GPU. Taichi copies them at each launch on Vulkan."""


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
        owners: on a CPU, the pair that each pixel sees alone, or -1; without a texture.
        by_face: on a CPU, `starts`, `entries`, `spots`, `marks` and `crowded` of `see_tiles`.
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
    owners: Tensor
    by_face: tuple[Tensor, ...]
    firsts: Int[Tensor, " Q"]
    ends: Int[Tensor, " Q"]
    slots: Int[Tensor, " N"]
    seen: Tensor
    size: Tensor
    limits: Tensor


@lru_cache(maxsize=256)
def _kernels(view: View, settings: Runtime) -> tuple[Visibility, dict[str, Launcher]]:
    return Visibility(view, settings), {}


@lru_cache(maxsize=256)
def _shared(view: View) -> View:
    """The view of kernels that do not look at colours: one for all numbers of channels."""
    return replace(view, channels=min(view.channels, 0))


@lru_cache(maxsize=256)
def _limits(near: float, far: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor([near, far], dtype=dtype, device=device)


def _launch(view: View, name: str, *arguments: Tensor | int) -> int:
    settings = runtime()
    kernels, launchers = _kernels(view, settings)
    launcher = launchers.get(name)
    if launcher is None:
        launcher = launchers[name] = Launcher(getattr(kernels, name), settings.arch)
    return launcher(*arguments)


MOST = 2**31 - 1
"""The largest index that Taichi can compute."""


def see(
    current: Engine,
    vertices: Float[Tensor, "B F 3 3"],
    attributes: Float[Tensor, "B F 3 C"] | None,
    scene: Scene,
) -> tuple[Tensor, Sight, Tensor, Tensor, Tensor, Tensor]:
    """Draw; for `on_engine`.

    Returns:
        The picture, (B, H, W, C + 1), without a background; or, without attributes, what each of
        the fragments' corners has a share in, (N, 3). Then what is needed for derivatives, and
        those of its tensors that a caller reads: so they are ordered with the caller's stream.

    Raises:
        MemoryError: for more fragments than Taichi can index.
    """
    batch, count = vertices.shape[:2]
    on_cpu = not current.on_gpu
    view, shared = scene.view, _shared(scene.view)
    side = SMALL_TILE if max(scene.height, scene.width) <= 256 and on_cpu else TILE
    across, down = -(-scene.width // side), -(-scene.height // side)
    tiles, pixels = batch * across * down, batch * scene.height * scene.width
    numbers = dict.fromkeys(range(Size.COUNT), 0) | {
        Size.BATCH: batch,
        Size.FACES: count,
        Size.HEIGHT: scene.height,
        Size.WIDTH: scene.width,
        Size.TILE: side,
        Size.TILES_X: across,
        Size.TILES: across * down,
        Size.WORKERS: min(tiles, RUNS),
        Size.PIECES: PIECES,
    }
    size = _integers(list(numbers.values()), vertices)
    limits = _limits(scene.near, scene.far, vertices.dtype, vertices.device)
    faces = vertices.new_empty(Face.SIZE * batch * count)
    boxes = _empty(4 * batch * count, vertices)
    _launch(shared, "prepare", _flat(vertices), faces, boxes, size, limits)
    if on_cpu:
        begins, listed = _list_by_face(shared, boxes, size, numbers)
    else:
        begins, listed = _list_by_sorting(boxes, numbers)
    covered = _scratch("covered", pixels, vertices.dtype, vertices.device)
    counts = _empty(pixels, vertices)
    owners = _empty(pixels + 1 if on_cpu else 1, vertices)
    lists = faces, boxes, begins, listed, covered
    if on_cpu:
        starts = _empty(2 * tiles + 1, vertices)
        longest = _launch(shared, "count_tiles", *lists, owners, counts, starts, size)
        fragments = int(starts[tiles]) if longest >= 0 else -1
        firsts, ends = torch.empty_like(counts), counts
    else:
        _launch(shared, "count_pixels", *lists, counts, size)
        after = counts.cumsum(0)
        fragments, longest = torch.stack([after[-1], counts.max()]).tolist()
        firsts = (after - counts).int()
        ends = firsts.clone()
    _fits("fragments", Seen.SIZE * fragments)
    longest = max(longest, 1)
    workers = numbers[Size.WORKERS] if on_cpu else _threads(longest, pixels)
    numbers |= {Size.LONGEST: longest, Size.WORKERS: workers}
    _fits("fragments", _room(workers, longest))
    size = _integers(list(numbers.values()), vertices)
    slots = _empty(max(fragments, 1), vertices)
    seen = vertices.new_empty(Seen.SIZE * max(fragments, 1))
    if attributes is None:
        found, colours = _zeros((fragments, 3), vertices), limits
    else:
        found = _zeros((batch, scene.height, scene.width, view.channels + 1), vertices)
        colours = _flat(attributes)
    rest = firsts, ends, slots, limits, *_memory(vertices, workers, longest), seen, colours
    by_face: tuple[Tensor, ...] = ()
    if on_cpu:
        many = max(fragments, 1)
        entries, spots = _empty(many, vertices), _empty(many, vertices)
        by_face = starts, entries, spots, torch.empty_like(listed), _empty(tiles, vertices)
        kernel_lists = *lists, owners, starts, firsts, ends, slots, *by_face[1:]
        _launch(view, "see_tiles", *kernel_lists, *rest[3:], _or_one(found.view(-1)), size)
    else:
        for begin, many in _portions(numbers, together=True):
            _launch(view, "see_pixels", *lists, *rest, _or_one(found.view(-1)), size, begin, many)
    kept = faces, boxes, begins, listed, owners, by_face, firsts, ends, slots, seen, size, limits
    return found, Sight(scene, *kept), listed, firsts, ends, slots


def see_vjp(
    current: Engine, sight: Sight, attributes: Float[Tensor, "B F 3 C"] | None, adjoints: Tensor
) -> tuple[Float[Tensor, "B F 3 3"], Float[Tensor, "B F 3 C"] | None]:
    """The adjoints of vertices and attributes, given that of `see`'s first result."""
    view = sight.scene.view
    numbers = dict(enumerate(sight.size.tolist()))
    batch, count = numbers[Size.BATCH], numbers[Size.FACES]
    pairs = adjoints.new_zeros(Pair.SIZE * len(sight.listed))
    channels = 0 if attributes is None else attributes.shape[3]
    colours = adjoints.new_zeros(max(3 * channels * len(sight.listed), 1))
    on_cpu = not current.on_gpu
    lists: tuple[Tensor, ...] = (sight.listed,)
    if on_cpu:
        lists = (sight.begins, sight.listed, sight.owners, *sight.by_face)
    arguments = (
        sight.faces,
        *lists,
        sight.firsts,
        sight.ends,
        sight.slots,
        sight.limits,
        *_memory(adjoints, numbers[Size.WORKERS], numbers[Size.LONGEST]),
        sight.seen,
        sight.limits if attributes is None else _flat(attributes),
        _flat(adjoints),
        pairs,
        colours,
        sight.size,
    )
    if on_cpu:
        _launch(view, "see_tiles_vjp", *arguments)
    else:
        for begin, many in _portions(numbers, together=not runtime().deterministic):
            _launch(view, "see_pixels_vjp", *arguments, begin, many)
    to_vertices = adjoints.new_empty(batch, count, 3, 3)
    to_attributes = (
        None
        if attributes is None
        else torch.empty_like(attributes, memory_format=torch.contiguous_format)
    )
    _launch(
        view,
        "gather",
        sight.faces,
        sight.boxes,
        sight.begins,
        sight.listed,
        pairs,
        colours,
        to_vertices.view(-1),
        sight.limits if to_attributes is None else _or_one(to_attributes.view(-1)),
        sight.size,
    )
    return to_vertices, to_attributes


def _list_by_face(
    view: View, boxes: Tensor, size: Tensor, numbers: dict[int, int]
) -> tuple[Tensor, Tensor]:
    """(begins, listed): each tile's faces, in their order; on a CPU."""
    tiles = numbers[Size.BATCH] * numbers[Size.TILES]
    begins = _empty(tiles + 2, boxes)
    room = 2 * numbers[Size.BATCH] * numbers[Size.FACES] + tiles
    while True:
        listed = _scratch("listed", room, torch.int32, boxes.device)
        total = _launch(view, "list_tiles", boxes, begins, listed, size, BANDS, room)
        if 0 <= total <= room:
            return begins, listed[:total].clone()
        _fits("tile lists", total)
        room = total


def _list_by_sorting(boxes: Tensor, numbers: dict[int, int]) -> tuple[Tensor, Tensor]:
    """The same on a GPU, by torch's sort."""
    side, across = numbers[Size.TILE], numbers[Size.TILES_X]
    left, right, top, bottom = boxes.view(-1, 4).long().unbind(1)
    listable = (left < right) & (top < bottom)
    first, row = left // side, top // side
    width = (right - 1) // side + 1 - first
    many = torch.where(listable, width * ((bottom - 1) // side + 1 - row), 0)
    face = torch.repeat_interleave(torch.arange(len(many), device=many.device), many)
    _fits("tile lists", len(face))
    within = torch.arange(len(face), device=face.device) - (many.cumsum(0) - many)[face]
    item = face // numbers[Size.FACES]
    tile = (row[face] + within // width[face]) * across + first[face] + within % width[face]
    tile, order = (tile + item * numbers[Size.TILES]).sort(stable=True)
    counts = tile.bincount(minlength=numbers[Size.BATCH] * numbers[Size.TILES])
    begins = torch.nn.functional.pad(counts.cumsum(0), (1, 0)).int()
    return begins, face[order].int()


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
    return (
        _scratch("numbers", _room(workers, longest), like.dtype, like.device),
        _scratch("order", workers * 2 * longest, torch.int32, like.device),
    )


def _room(workers: int, longest: int) -> int:
    """How many numbers the workers' memory has."""
    return workers * RECORD * (longest + PIECES + SPARE)


def _fits(what: str, count: int) -> None:
    """Refuse more than Taichi can index; a negative count stands for that, too."""
    if not 0 <= count <= MOST:
        raise MemoryError(
            f"the {what} of one picture need more than 2^31 numbers: render fewer batch items, "
            "faces or pixels at a time"
        )


def _threads(longest: int, pixels: int) -> int:
    """How many threads share a GPU's pixels."""
    each = 8 * _room(1, longest)
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


def _zeros(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Zeros. On a CPU the system clears them, where they are first used: so threads share that."""
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    return torch.from_numpy(np.zeros(shape, np.float32 if like.dtype == torch.float32 else float))


def _integers(values: list[int], like: Tensor) -> Tensor:
    if like.device.type == "cpu":  # NumPy takes a tenth of what torch takes for a list
        return torch.from_numpy(np.array(values, dtype=np.int32))
    return torch.tensor(values, dtype=torch.int32, device=like.device)


def _empty(count: int, like: Tensor) -> Tensor:
    """Memory for integers."""
    return torch.empty(count, dtype=torch.int32, device=like.device)


def _flat(values: Tensor) -> Tensor:
    """Numbers alone: Taichi would give a tensor that requires grad a gradient of zeros."""
    return _or_one(values.detach().contiguous().view(-1))


def _or_one(values: Tensor) -> Tensor:
    """The values, or one that nobody uses: Taichi takes no empty arrays."""
    return values if len(values) > 0 else values.new_zeros(1)
