"""Recover an object's pose together with the colours of its surface, from several pictures.

The object is a known body; each of its faces has an unknown colour. It is seen by known cameras
around it. The unknowns are (B, 6 + 3 F): where it is, in scene units, its turn from a known pose, a
rotation vector in radians, and RGB of its faces, which are not clamped.

Nothing that comes with the package was tuned or learned on it: it is there to judge by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import taichi_raster as tr
from tasks.pose_meshes import FACES, RADIUS, random_body
from tasks.scenes import (
    Faces,
    Given,
    SceneBatch,
    check_extents,
    check_size,
    moved,
    random_turn,
    seen,
)
from tasks.streams import Stream, instance_generators

NEAR, FAR = 0.5, 12.0
FOCAL = 2.4
DISTANCE = 3.5
SIDES = 4  # cameras stand around the object, a quarter turn apart
DARKEST = 0.2
START_COLOUR = 0.5
WAVES = 3.0  # of the pattern, in radians a scene unit


@dataclass(frozen=True)
class Painted:
    """Family of painted bodies; `sample` draws batches.

    Args:
        image_size: side of each square picture in pixels.
        start_angle: degrees between the start's turn and the true one, (low, high).
        start_shift: largest difference of each coordinate of the place, in scene units.
        seed: of the whole family; a batch is a function of (seed, stream, index, size) alone.
        dtype: of all tensors; the runtime's by default.

    Raises ValueError, naming the argument.
    """

    image_size: int = 40
    start_angle: tuple[float, float] = (10.0, 30.0)
    start_shift: float = 0.2
    seed: int = 0
    dtype: torch.dtype | None = None

    views: ClassVar[int] = SIDES
    near: ClassVar[float] = NEAR
    far: ClassVar[float] = FAR
    failure_threshold: ClassVar[float] = 0.15
    error_floor: ClassVar[float] = 1e-3
    error_name: ClassVar[str] = "RMSE of places and colours"

    def __post_init__(self) -> None:
        check_size(self.image_size, self.seed)
        low, high = self.start_angle
        if not 0 <= low <= high <= 180:
            raise ValueError(f"start_angle must be (low, high) in 0 to 180, got ({low}, {high})")
        check_extents(start_shift=self.start_shift)

    def sample(self, batch_size: int, stream: Stream, index: int) -> SceneBatch:
        """Batch `index` of a stream ("tune", "train" or "test"; disjoint).

        Instance i depends on (seed, stream, index, i) only: a smaller batch begins a larger one.
        """
        generators = instance_generators(batch_size, self.seed, stream, index)
        drawn = [self._draw(rng) for rng in generators]
        dtype = self.dtype or tr.runtime().dtype
        corners, hidden, initial = (
            torch.as_tensor(np.stack(part)).to(dtype) for part in zip(*drawn, strict=True)
        )
        given = {"corners": corners}
        given["pixels"] = self._pixels(given, hidden)
        return SceneBatch(self, given, hidden, initial)

    def renderer(
        self,
        edge: tr.EdgeSoftness,
        depth: tr.DepthSoftness | None = None,
        alpha: tr.TConorm | None = None,
    ) -> tr.SoftRasterizer:
        """Soft renderer of this family's size and clip depths, over black.

        The default depth softness is `OverDepth`, by the product.
        """
        depth = tr.OverDepth(union="product") if depth is None else depth
        return tr.SoftRasterizer(
            self.image_size, edge, depth, alpha, near=NEAR, far=FAR, cull_backfaces=True
        )

    def sharp_renderer(self) -> tr.SharpRasterizer:
        """Sharp reference renderer of the same size and clip depths."""
        return tr.SharpRasterizer(self.image_size, near=NEAR, far=FAR, cull_backfaces=True)

    def faces(self, given: Given, params: Float[Tensor, "B D"]) -> Faces:
        """The body from all sides, and its colours."""
        placed = moved(given["corners"].flatten(1, 2), params[:, 3:6], params[:, :3])
        views = seen(_from_all_sides(placed), FOCAL).flatten(0, 1).unflatten(1, (-1, 3))
        colours = self.appearance(params)[:, None, :, None]
        return views, colours.expand(-1, SIDES, -1, 3, -1).flatten(0, 1)

    def appearance(self, params: Float[Tensor, "B D"]) -> Float[Tensor, "B F 3"]:
        """RGB of the faces."""
        return params[:, 6:].unflatten(1, (-1, 3))

    def distance(
        self, given: Given, params: Float[Tensor, "B D"], hidden: Float[Tensor, "B D"]
    ) -> Float[Tensor, " B"]:
        """Root of the mean squared distance of corners plus that of colours.

        Corners are in units of the body's radius. A face's colour counts as often as there are
        pixels that show it at the hidden pose.
        """
        found, truth = (
            moved(given["corners"].flatten(1, 2), each[:, 3:6], each[:, :3]) / RADIUS
            for each in (params, hidden)
        )
        places = (found - truth).square().sum(dim=-1).mean(dim=1)
        off = (self.appearance(params) - self.appearance(hidden)).square().mean(dim=-1)
        pixels = given["pixels"]
        colours = (off * pixels).sum(dim=1) / pixels.sum(dim=1).clamp(min=1)
        return torch.sqrt(places + colours + 1e-24)

    def _pixels(self, given: Given, hidden: Tensor) -> Float[Tensor, "B F"]:
        """In how many pixels of all pictures each face is seen at the hidden pose."""
        corners, _ = self.faces(given, hidden)
        shown = tr.hard_buffers(corners, self.image_size, near=NEAR, far=FAR).face
        ids = shown.unflatten(0, (-1, SIDES)).flatten(1).long() + 1  # 0 is the background
        counts = torch.zeros(len(hidden), FACES + 1, dtype=hidden.dtype)
        return counts.scatter_add_(1, ids, torch.ones_like(ids, dtype=hidden.dtype))[:, 1:]

    def _draw(self, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        """One instance: corners (F, 3, 3), solution and start (6 + 3 F,)."""
        body = random_body(rng)
        corners = body.vertices[body.faces].numpy()
        waves, phases = rng.normal(size=(3, 3)) * WAVES, rng.uniform(0, 2 * np.pi, 3)
        pattern = 0.5 + 0.5 * np.sin(corners.mean(axis=1) @ waves.T + phases)
        colours = DARKEST + (1 - DARKEST) * pattern
        start = np.full_like(colours, START_COLOUR)
        shift = rng.uniform(-self.start_shift, self.start_shift, 3)
        turn = random_turn(rng, *self.start_angle)
        hidden = np.concatenate([np.zeros(6), colours.ravel()])
        return corners, hidden, np.concatenate([shift, turn, start.ravel()])


def _from_all_sides(points: Float[Tensor, "B N 3"]) -> Float[Tensor, "B K N 3"]:
    """The points before each camera: turned about the upright axis, and moved away."""
    x, y, z = points.unbind(dim=-1)
    turns = [torch.stack(each, dim=-1) for each in ((x, y, z), (z, y, -x), (-x, y, -z), (-z, y, x))]
    away = points.new_tensor([0.0, 0.0, -DISTANCE])
    return torch.stack(turns, dim=1) + away
