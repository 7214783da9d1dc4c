"""Recover the joint angles of a flat jointed figure from its silhouette.

A hidden instance is a figure of torso, head, arms and legs, whose limbs have known sizes. The
unknowns are where its pelvis is, in NDC, and nine angles in radians: (B, 11). Limbs hide one
another in a silhouette, and a turn of one moves all that hangs on it.

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
from tasks.scenes import Drawn, Faces, Given, SceneFamily, check_extents
from tasks.silhouettes import FAR, NEAR

LENGTHS = (0.36, 0.16, 0.26, 0.24, 0.26, 0.24, 0.32, 0.3, 0.32, 0.3)  # NDC
"""Of torso, head, upper and lower arms, upper and lower legs."""
WIDTHS = (0.12, 0.08, 0.05, 0.04, 0.05, 0.04, 0.07, 0.05, 0.07, 0.05)  # half of them
PARENTS = (-1, 0, 0, 2, 0, 4, -1, 6, -1, 8)  # -1 is the pelvis; a limb begins where its parent ends
ANGLES = (0, 0, 1, 2, 3, 4, 5, 6, 7, 8)  # which angle turns a limb
HEAD = 1  # has none of its own: it follows the torso
REST = (0.0, 0.0, 2.2, 0.3, -2.2, -0.3, 2.8, 0.2, -2.8, -0.2)  # turned from the parent, or from up
SPREAD = 0.5  # radians, largest turn of a true angle from its rest
SIZES = (0.85, 1.15)  # factors of lengths and widths
DEPTH = 2.0  # of the first limb; the others are a little behind, one after the other


@dataclass(frozen=True, kw_only=True)
class Body(SceneFamily):
    """Family of jointed figures; `sample` draws batches.

    Args:
        start_angle: largest difference of each angle at the start, in radians.
        start_shift: the same of the pelvis' coordinates, in NDC.
        image_size, seed, dtype: as of `SceneFamily`.

    Raises ValueError, naming the argument.
    """

    start_angle: float = 0.6
    start_shift: float = 0.1

    near: ClassVar[float] = NEAR
    far: ClassVar[float] = FAR
    closed: ClassVar[bool] = False
    failure_threshold: ClassVar[float] = 0.1
    error_floor: ClassVar[float] = 1e-3
    error_name: ClassVar[str] = "joint RMSE (NDC)"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_extents(start_angle=self.start_angle, start_shift=self.start_shift)

    def draw(self, rng: np.random.Generator) -> Drawn:
        """One instance: lengths and half widths (2, 10) in NDC, its solution and start (11,)."""
        sizes = np.array([LENGTHS, WIDTHS]) * rng.uniform(*SIZES, (2, len(LENGTHS)))
        pelvis = np.array([0.0, -0.05]) + rng.uniform(-0.1, 0.1, 2)
        hidden = np.concatenate([pelvis, rng.uniform(-SPREAD, SPREAD, 9)])
        shift = rng.uniform(-self.start_shift, self.start_shift, 2)
        turn = rng.uniform(-self.start_angle, self.start_angle, 9)
        return {"sizes": sizes}, hidden, hidden + np.concatenate([shift, turn])

    def distance(
        self, given: Given, params: Float[Tensor, "B 11"], hidden: Float[Tensor, "B 11"]
    ) -> Float[Tensor, " B"]:
        """Root of the mean squared distance of the limbs' ends to the hidden ones, in NDC."""
        ends, goal = (limbs(given["sizes"], each)[1] for each in (params, hidden))
        return torch.sqrt((ends - goal).square().sum(dim=2).mean(dim=1) + 1e-24)

    def faces(self, given: Given, params: Float[Tensor, "B 11"]) -> Faces:
        """Each limb a hexagon: pointed ends, and its full width where it begins and ends."""
        begins, ends, along = limbs(given["sizes"], params)
        across = torch.stack([-along[..., 1], along[..., 0]], dim=2) * given["sizes"][:, 1, :, None]
        tip = along * given["sizes"][:, 1, :, None]
        ring = (
            begins - tip,
            begins - across,
            ends - across,
            ends + tip,
            ends + across,
            begins + across,
        )
        corners = torch.stack(ring, dim=2)
        fan = [[0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 5]]
        flat = corners[:, :, fan].flatten(1, 2)
        order = torch.arange(len(LENGTHS), dtype=flat.dtype, device=flat.device)
        depth = (DEPTH + 0.05 * order).repeat_interleave(len(fan))
        return tr.lift_triangles(flat, depth.expand(len(flat), -1)), None


def limbs(
    sizes: Float[Tensor, "B 2 10"], params: Float[Tensor, "B 11"]
) -> tuple[Float[Tensor, "B 10 2"], Float[Tensor, "B 10 2"], Float[Tensor, "B 10 2"]]:
    """Where limbs begin and end, and which way they point."""
    begins: list[Tensor] = []
    ends: list[Tensor] = []
    turns: list[Tensor] = []
    for k, parent in enumerate(PARENTS):
        first = parent < 0
        begin = params[:, :2] if first else ends[parent]
        own = torch.zeros_like(params[:, 0]) if k == HEAD else params[:, 2 + ANGLES[k]]
        turn = REST[k] + own if first else turns[parent] + REST[k] + own
        along = torch.stack([-turn.sin(), turn.cos()], dim=1)
        begins.append(begin)
        ends.append(begin + sizes[:, 0, k, None] * along)
        turns.append(turn)
    angle = torch.stack(turns, dim=1)
    along = torch.stack([-angle.sin(), angle.cos()], dim=2)
    return torch.stack(begins, dim=1), torch.stack(ends, dim=1), along
