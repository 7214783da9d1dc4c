"""Exact areas on a CPU, where a thread goes through a tile face by face."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from taichi_raster.engine.sight import (
    PIECES,
    Scene,
    Sight,
    by_pixel,
    fits,
    launch,
    limits_of,
    or_one,
    room_for,
    workers_memory,
    zeros,
)
from taichi_raster.kernels.areas.layout import (
    PARTS,
    SIDE,
    Face,
    Pair,
    Seen,
    Size,
    View,
)
from taichi_raster.runtime.layout import RUNS
from taichi_raster.runtime.lru_cache import LRUCache

BANDS = 4
"""Parts of an image whose tiles one thread lists."""

FEW = 4096
"""Faces that one thread prepares and lists alone."""

IDLE = 1 << 26
"""The most numbers that are kept for later pictures."""


@dataclass(frozen=True)
class Shape:
    """What decides how much memory a picture takes."""

    view: View
    batch: int
    faces: int
    height: int
    width: int


class Plan:
    """Where a picture's parts are in memory.

    Attributes:
        pairs, fragments, longest: room for pairs of a tile and a face, for fragments, and for those
            of one pixel.
        workers: between whom the tiles are divided.
        size: the call's `Size`.
        starts: where each part begins; ints, floats: the sizes of the two arrays.
    """

    def __init__(self, shape: Shape, pairs: int, fragments: int, longest: int) -> None:
        self.shape = shape
        self.pairs, self.fragments, self.longest = pairs, fragments, longest
        across, down = -(-shape.width // SIDE), -(-shape.height // SIDE)
        tiles, faces = shape.batch * across * down, shape.batch * shape.faces
        pixels = shape.batch * shape.height * shape.width
        self.workers = min(tiles, RUNS)
        lengths = {
            "boxes": 4 * faces,
            "begins": tiles + 2,
            "first_places": faces + 1,
            "rows": SIDE * pairs,
            "starts": tiles,
            "crowded": tiles,
            "firsts": pixels,
            "ends": pixels,
            "lists": fragments,
            "slots": fragments,
            "spots": fragments,
            "tally": 4,
            "faces": Face.SIZE * faces,
            "seen": Seen.SIZE * fragments,
        }
        self.starts: dict[str, int] = {}
        self.ints = self.floats = 0
        for name, kind in PARTS.items():
            length = lengths.get(name, pairs)
            if kind is float:
                self.starts[name], self.floats = self.floats, self.floats + length
            else:
                self.starts[name], self.ints = self.ints, self.ints + length
        fits("lists", max(self.ints, self.floats))
        numbers = {
            Size.BATCH: shape.batch,
            Size.FACES: shape.faces,
            Size.HEIGHT: shape.height,
            Size.WIDTH: shape.width,
            Size.TILE: SIDE,
            Size.TILES_X: across,
            Size.TILES: across * down,
            Size.WORKERS: self.workers,
            Size.LONGEST: longest,
            Size.PIECES: PIECES,
            Size.ROOM: fragments,
            Size.PAIRS: pairs,
        }
        values = [*(numbers[i] for i in range(Size.PARTS)), *self.starts.values()]
        self.size = torch.from_numpy(np.array(values, dtype=np.int32))

    @staticmethod
    def first(shape: Shape) -> Plan:
        """A guess."""
        faces = shape.batch * shape.faces
        tiles = shape.batch * -(-shape.width // SIDE) * -(-shape.height // SIDE)
        return Plan(shape, 2 * faces + tiles, 8 * faces + 64 * tiles, 32)


_plans: LRUCache[tuple[Scene, int, int], Plan] = LRUCache(256)
"""What was enough for earlier pictures, by scene, batch and faces; for one thread at a time."""

_idle: dict[torch.dtype, list[Tensor]] = {}
"""Memory of pictures that are no more. Fresh memory would be slow: the system clears it."""


class Memory:
    """A picture's two arrays, which later pictures take over."""

    def __init__(self, plan: Plan, dtype: torch.dtype) -> None:
        self.ints = _take(plan.ints, torch.int32)
        self.floats = _take(plan.floats, dtype)

    def __del__(self) -> None:
        for array in (self.ints, self.floats):  # by any thread: each step is one operation
            idle = _idle.setdefault(array.dtype, [])
            if array.numel() <= IDLE and len(idle) < 4:
                idle.append(array)


def _take(count: int, dtype: torch.dtype) -> Tensor:
    """Memory whose contents no one needs."""
    idle = _idle.get(dtype, [])
    while idle:
        try:
            found = idle.pop()
        except IndexError:  # another thread's
            break
        if count <= len(found) <= 4 * count + (1 << 20):
            return found
    with torch.inference_mode(False):
        return torch.empty(count + count // 8, dtype=dtype)


@dataclass(frozen=True, eq=False)
class TileSight(Sight):
    """What each pixel sees, on a CPU.

    Attributes:
        plan: where in `memory` what is; count: how many fragments there are.
    """

    plan: Plan
    memory: Memory
    count: int

    def part(self, name: str, length: int) -> Tensor:
        """The first integers of a part."""
        start = self.plan.starts[name]
        return self.memory.ints[start : start + length]

    def fragments(self) -> tuple[Int[Tensor, " N"], Int[Tensor, " N"], Int[Tensor, " N"]]:
        """(fragment, pixel, face) of each, pixel by pixel."""
        shape = self.plan.shape
        pixels = shape.batch * shape.height * shape.width
        firsts, ends = self.part("firsts", pixels), self.part("ends", pixels)
        lists, slots = self.part("lists", self.count), self.part("slots", self.count)
        return by_pixel(firsts, ends, slots, self.part("listed", self.plan.pairs), lists)


def see_by_tiles(
    vertices: Float[Tensor, "B F 3 3"],
    attributes: Float[Tensor, "B F 3 C"] | None,
    scene: Scene,
) -> tuple[Tensor, TileSight]:
    """`areas.see` on a CPU."""
    batch, count = vertices.shape[:2]
    view = scene.view
    kind = scene, batch, count
    plan = _plans.get(kind)
    if plan is None:
        plan = Plan.first(Shape(view, batch, count, scene.height, scene.width))
    limits = limits_of(scene.near, scene.far, vertices.dtype, vertices.device)
    corners = vertices.contiguous()
    while True:
        memory = Memory(plan, vertices.dtype)
        parts = memory.ints, memory.floats, limits
        if batch * count <= FEW:
            pairs = launch(scene, "prepare_few", corners, *parts, plan.size)
        else:
            pairs = launch(scene, "prepare_many", corners, *parts, plan.size, BANDS)
        if not 0 <= pairs <= plan.pairs:
            fits("tile lists", pairs)
            plan = Plan(plan.shape, pairs + pairs // 4, plan.fragments, plan.longest)
            continue
        if attributes is None:
            found, colours = zeros((plan.fragments, 3), vertices), limits
        else:
            found = zeros((batch, scene.height, scene.width, view.channels + 1), vertices)
            colours = or_one(attributes.contiguous())
        own = workers_memory(vertices, plan.workers, plan.longest)
        launch(scene, "see_tiles", colours, *parts, *own, or_one(found), plan.size)
        tally = plan.starts["tally"]
        fragments, longest, many = memory.ints.numpy()[tally : tally + 3].tolist()
        fits("fragments", -1 if many else Seen.SIZE * fragments)
        if fragments <= plan.fragments and longest <= plan.longest:
            break
        room = max(plan.fragments, fragments + fragments // 4)
        plan = Plan(plan.shape, plan.pairs, room, max(plan.longest, longest + longest // 4))
    _plans[kind] = plan
    if attributes is None:
        found = found[:fragments].clone()
    return found, TileSight(scene, plan, memory, fragments)


def see_by_tiles_vjp(
    sight: TileSight, attributes: Float[Tensor, "B F 3 C"] | None, adjoints: Tensor
) -> tuple[Float[Tensor, "B F 3 3"], Float[Tensor, "B F 3 C"] | None]:
    """`areas.see_vjp` on a CPU."""
    scene, plan = sight.scene, sight.plan
    ints, floats = sight.memory.ints, sight.memory.floats
    limits = limits_of(scene.near, scene.far, adjoints.dtype, adjoints.device)
    batch, count = plan.shape.batch, plan.shape.faces
    few = batch * count <= FEW
    make = adjoints.new_zeros if few else adjoints.new_empty
    to_vertices = make((batch, count, 3, 3))
    to_attributes, colours, of_colours, channels = None, limits, limits, 0
    if attributes is not None:
        to_attributes = make(attributes.shape)
        colours, of_colours = or_one(attributes.contiguous()), or_one(to_attributes)
        channels = attributes.shape[3]
    pairs = room_for("pairs", Pair.SIZE * plan.pairs, adjoints)
    shares = room_for("colours", 3 * channels * plan.pairs + 1, adjoints)
    own = workers_memory(adjoints, plan.workers, plan.longest)
    of_pixels = or_one(adjoints.contiguous()), pairs, shares
    launch(scene, "see_tiles_vjp", colours, ints, floats, limits, *own, *of_pixels, plan.size)
    arguments = ints, floats, pairs, shares, to_vertices, of_colours, plan.size
    launch(scene, "give_back_few" if few else "give_back_many", *arguments)
    return to_vertices, to_attributes
