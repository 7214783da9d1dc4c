"""Exact areas: lists each pixel's fragments, measures what is seen of them, and mixes colours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from taichi_raster.kernels.footprints import Face, Pair, Size, View
from taichi_raster.kernels.mixing import Mixing
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
        faces: the faces' records, flat.
        listed: (P,) the face of each pair, counted through the batch.
        firsts, ends: where each pixel's fragments begin and end; flat.
        slots: the pair of each fragment; -1 - pair if the face covers the pixel.
        seen: the fragments' `Seen`, flat.
        weights: (3 N,) what each corner has a share in.
        size, limits: the call's numbers.
    """

    scene: Scene
    faces: Tensor
    listed: Int[Tensor, " P"]
    firsts: Int[Tensor, " Q"]
    ends: Int[Tensor, " Q"]
    slots: Int[Tensor, " N"]
    seen: Tensor
    weights: Float[Tensor, " 3*N"]
    size: Tensor
    limits: Tensor

    @property
    def count(self) -> int:
        """N."""
        return len(self.weights) // 3


@lru_cache(maxsize=64)
def _kernels(view: View, settings: Runtime) -> tuple[Visibility, Mixing, dict[str, Launcher]]:
    return Visibility(view, settings), Mixing(view, settings), {}


def _launch(view: View, name: str, *arguments: Any) -> int:
    settings = runtime()
    visibility, mixing, launchers = _kernels(view, settings)
    launcher = launchers.get(name)
    if launcher is None:
        owner = visibility if hasattr(visibility, name) else mixing
        launcher = launchers[name] = Launcher(getattr(owner, name), settings.arch)
    return launcher(*arguments)


def see(vertices: Float[Tensor, "B F 3 3"], scene: Scene) -> Sight:
    """List and measure; in the owner's thread."""
    batch, count = vertices.shape[:2]
    on_cpu = runtime().arch == "cpu"
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
    _launch(view, "prepare", vertices.contiguous().view(-1), faces, boxes, size, limits)
    begins = torch.empty(tiles + 2, dtype=integers, device=like.device)
    room = 2 * batch * count + tiles
    while True:
        listed = torch.empty(room, dtype=integers, device=like.device)
        pairs = _launch(view, "list_tiles", boxes, begins, listed, size, BANDS, room)
        if pairs <= room:
            break
        room = pairs
    listed = listed[:pairs]
    pixels = batch * scene.height * scene.width
    covered = like.new_empty(pixels)
    ends = torch.empty(pixels, dtype=integers, device=like.device)
    firsts = torch.empty_like(ends)
    sums = torch.empty(2 * tiles, dtype=integers, device=like.device)
    _launch(view, "count_tiles", faces, boxes, begins, listed, covered, ends, sums, size)
    totals = sums.numpy().reshape(-1, 2)
    starts = np.zeros(tiles + 1, np.int32)
    np.cumsum(totals[:, 0], out=starts[1:])
    found = int(starts[-1])
    longest = max(int(totals[:, 1].max()), 1)
    size[Size.LONGEST] = longest
    slots = torch.empty(max(found, 1), dtype=integers, device=like.device)
    _launch(
        view, "fill_tiles", faces, boxes, begins, listed, covered, ends, firsts,
        torch.from_numpy(starts), slots, size,
    )  # fmt: skip
    seen = like.new_empty(Seen.SIZE * max(found, 1))
    weights = like.new_empty(3 * found)
    memory, order = _memory(like, workers, longest)
    _launch(
        view, "see_tiles", faces, listed, firsts, ends, slots, limits, memory, order, seen,
        weights, size,
    )  # fmt: skip
    return Sight(scene, faces, listed, firsts, ends, slots, seen, weights, size, limits)


def see_vjp(sight: Sight, adjoints: Float[Tensor, " 3*N"]) -> Float[Tensor, "B F 3 3"]:
    """The adjoint of the vertices, given that of the weights; in the owner's thread."""
    scene = sight.scene
    numbers = sight.size.tolist()
    memory, order = _memory(adjoints, numbers[Size.WORKERS], numbers[Size.LONGEST])
    pairs = adjoints.new_zeros(Pair.SIZE * len(sight.listed))
    _launch(
        scene.view, "see_tiles_vjp", sight.faces, sight.listed, sight.firsts, sight.ends,
        sight.slots, sight.limits, memory, order, sight.seen, adjoints, pairs, sight.size,
    )  # fmt: skip
    batch, count = numbers[Size.BATCH], numbers[Size.FACES]
    found = _by_face(pairs.view(-1, Pair.SIZE), sight.listed, batch * count)
    w = sight.faces.view(-1, Face.SIZE)[:, Face.W : Face.W + 3]
    slope = -1.0 if scene.view.orthographic else -w.square()
    half = 0.5 * min(scene.height, scene.width)
    moved = torch.empty(batch * count, 3, 3, dtype=adjoints.dtype, device=adjoints.device)
    moved[..., :2] = half * found[:, :6].reshape(-1, 3, 2)
    moved[..., 2] = slope * found[:, 6:]
    return moved.view(batch, count, 3, 3)


def mix(sight: Sight, attributes: Float[Tensor, "B F 3 C"]) -> Float[Tensor, "B H W C+1"]:
    """Colours, not composited over a background, and alpha; in the owner's thread."""
    scene, channels = sight.scene, attributes.shape[3]
    image = attributes.new_empty(len(attributes), scene.height, scene.width, channels + 1)
    _launch(
        scene.view, "mix", sight.listed, sight.firsts, sight.ends, sight.slots, sight.weights,
        _flat(attributes), image.view(-1), _with_channels(sight, channels),
    )  # fmt: skip
    return image


def mix_vjp(
    sight: Sight, attributes: Float[Tensor, "B F 3 C"], grad: Float[Tensor, "B H W C+1"]
) -> tuple[Float[Tensor, " 3*N"], Float[Tensor, "B F 3 C"]]:
    """The adjoints of the weights and of the attributes; in the owner's thread."""
    channels = attributes.shape[3]
    adjoints = torch.empty_like(sight.weights)
    pairs = grad.new_zeros(3 * channels * len(sight.listed))
    _launch(
        sight.scene.view, "unmix_tiles", sight.listed, sight.firsts, sight.ends, sight.slots,
        sight.weights, _flat(attributes), grad.contiguous().view(-1), adjoints, pairs,
        _with_channels(sight, channels),
    )  # fmt: skip
    if channels == 0:
        return adjoints, torch.zeros_like(attributes)
    found = _by_face(pairs.view(-1, 3 * channels), sight.listed, attributes[..., 0, 0].numel())
    return adjoints, found.view(attributes.shape)


def _memory(like: Tensor, workers: int, longest: int) -> tuple[Tensor, Tensor]:
    """The workers' memory: numbers, and integers."""
    numbers = like.new_empty(workers * RECORD * (longest + PIECES + SPARE))
    return numbers, torch.empty(workers * 2 * longest, dtype=torch.int32, device=like.device)


def _with_channels(sight: Sight, channels: int) -> Tensor:
    size = sight.size.clone()
    size[Size.CHANNELS] = channels
    return size


def _flat(attributes: Tensor) -> Tensor:
    flat = attributes.contiguous().view(-1)
    return flat if len(flat) > 0 else attributes.new_zeros(1)


def _by_face(pairs: Tensor, listed: Tensor, faces: int) -> Tensor:
    """The sums over each face's pairs, in a fixed order on a CPU."""
    return pairs.new_zeros(faces, pairs.shape[1]).index_add_(0, listed, pairs)
