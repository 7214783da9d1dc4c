"""How the mouse turns a result before the camera of a photo."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import taichi_raster as tr

ZOOM = 0.5, 3.0  # times the distance that the mouse may bring the camera to


@dataclass(frozen=True)
class Turn:
    """How the mouse has turned a result: radians to the right and up, and how much closer."""

    right: float = 0.0
    up: float = 0.0
    closer: float = 0.0

    def moved(self, right: float, up: float, closer: float) -> Turn:
        """Turned on."""
        return Turn(self.right + right, self.up + up, self.closer + closer)

    def applied(self, world: Tensor, camera: tr.Camera, centre: Tensor) -> Tensor:
        """Points (1, V, 3) of the world, turned about `centre` as the camera sees them."""
        view = camera.view[0].to(world)
        axes, middle = view[:3, :3], view[:3, :3] @ centre + view[:3, 3]
        points = (world - centre) @ axes.T
        angles = torch.tensor([self.right, self.up], dtype=world.dtype)
        (c, d), (s, t) = angles.cos(), angles.sin()
        x, y, z = points.unbind(-1)
        x, z = c * x - s * z, s * x + c * z  # what is near, z < 0, goes to the right
        y, z = d * y - t * z, t * y + d * z
        distance = min(max(1 - self.closer, ZOOM[0]), ZOOM[1])
        moved = torch.stack([x, y, z], dim=-1) + distance * middle
        return (moved - view[:3, 3]) @ axes  # back to the world
