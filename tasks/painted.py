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
    Drawn,
    Faces,
    Given,
    SceneFamily,
    check_angles,
    check_extents,
    moved,
    random_turn,
    seen,
)

NEAR, FAR = 0.5, 12.0
FOCAL = 2.4
DISTANCE = 3.5
SIDES = 4  # cameras stand around the object, a quarter turn apart
DARKEST = 0.2
START_COLOUR = 0.5
WAVES = 3.0  # of the pattern, in radians a scene unit


@dataclass(frozen=True, kw_only=True)
class Painted(SceneFamily):
    """Family of painted bodies; `sample` draws batches.

    Args:
        start_angle: degrees between the start's turn and the true one, (low, high).
        start_shift: largest difference of each coordinate of the place, in scene units.
        image_size, seed, dtype: as of `SceneFamily`.

    Raises ValueError, naming the argument.
    """

    image_size: int = 40
    start_angle: tuple[float, float] = (10.0, 30.0)
    start_shift: float = 0.2

    views: ClassVar[int] = SIDES
    near: ClassVar[float] = NEAR
    far: ClassVar[float] = FAR
    failure_threshold: ClassVar[float] = 0.15
    error_floor: ClassVar[float] = 1e-3
    error_name: ClassVar[str] = "RMSE of places and colours"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_angles("start_angle", self.start_angle)
        check_extents(start_shift=self.start_shift)

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

    def seen_of(self, given: Given, hidden: Float[Tensor, "B D"]) -> dict[str, Tensor]:
        """In how many pixels of all pictures each face is seen at the hidden pose: (B, F)."""
        corners, _ = self.faces(given, hidden)
        shown = tr.hard_buffers(corners, self.image_size, near=NEAR, far=FAR).face
        ids = shown.unflatten(0, (-1, SIDES)).flatten(1).long() + 1  # 0 is the background
        counts = torch.zeros(len(hidden), FACES + 1, dtype=hidden.dtype)
        counts.scatter_add_(1, ids, torch.ones_like(ids, dtype=hidden.dtype))
        return {"pixels": counts[:, 1:]}

    def draw(self, rng: np.random.Generator) -> Drawn:
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
        return {"corners": corners}, hidden, np.concatenate([shift, turn, start.ravel()])


def _from_all_sides(points: Float[Tensor, "B N 3"]) -> Float[Tensor, "B K N 3"]:
    """The points before each camera: turned about the upright axis, and moved away."""
    x, y, z = points.unbind(dim=-1)
    turns = [torch.stack(each, dim=-1) for each in ((x, y, z), (z, y, -x), (-x, y, -z), (-z, y, x))]
    away = points.new_tensor([0.0, 0.0, -DISTANCE])
    return torch.stack(turns, dim=1) + away
