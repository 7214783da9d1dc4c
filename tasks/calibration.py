"""Recover a camera's focal length, centre and lens from a silhouette of a known object.

The object is a rig of nine boxes, at known places before the camera, which fill its picture. The
unknowns are (B, 4): the logarithm of the focal length, the principal point x, y in NDC, and k1 of
the lens: a point at the tangents (x, y) from the axis appears at (x, y) (1 + k1 r²) (Brown, 1971).

Nothing that comes with the package was tuned or learned on it: it is there to judge by.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import taichi_raster as tr
from tasks.scenes import (
    Drawn,
    Faces,
    Given,
    SceneFamily,
    check_extents,
    moved,
    random_turn,
)

NEAR, FAR = 1.0, 9.0
FOCAL = (1.2, 2.0)  # of the truth, in NDC at the tangent 1
CENTRE = 0.1  # largest x and y of the true principal point, in NDC
BENDING = 0.25  # largest k1 of the truth
DEPTHS = (3.0, 6.0)  # of the boxes' middles
SIDES = (0.08, 0.2)  # half sides of the boxes, as they appear, in NDC


@dataclass(frozen=True, kw_only=True)
class Calibration(SceneFamily):
    """Family of calibrations; `sample` draws batches. A lens at the start bends nothing.

    Args:
        start_focal: largest difference of the logarithm of the focal length at the start.
        start_centre: largest difference of each coordinate of the principal point, in NDC.
        image_size, seed, dtype: as of `SceneFamily`.

    Raises ValueError, naming the argument.
    """

    start_focal: float = 0.25
    start_centre: float = 0.15

    near: ClassVar[float] = NEAR
    far: ClassVar[float] = FAR
    failure_threshold: ClassVar[float] = 0.05
    error_floor: ClassVar[float] = 1e-4
    error_name: ClassVar[str] = "reprojection RMSE (NDC)"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_extents(start_focal=self.start_focal, start_centre=self.start_centre)

    def faces(self, given: Given, params: Float[Tensor, "B 4"]) -> Faces:
        """The rig through the camera."""
        corners = given["corners"]  # (B, F, 3, 3): x right, y up, z backward
        log_focal, x, y, bending = params[:, None, None, :].unbind(dim=-1)
        depth = -corners[..., 2]
        across, up = corners[..., 0] / depth, corners[..., 1] / depth
        stretch = log_focal.exp() * (1 + bending * (across.square() + up.square()))
        return torch.stack([x + stretch * across, y + stretch * up, depth], dim=-1), None

    def distance(
        self, given: Given, params: Float[Tensor, "B 4"], hidden: Float[Tensor, "B 4"]
    ) -> Float[Tensor, " B"]:
        """Root of the mean squared distance of the corners in the picture, in NDC."""
        found, truth = (self.faces(given, each)[0][..., :2] for each in (params, hidden))
        return torch.sqrt((found - truth).square().sum(dim=-1).flatten(1).mean(dim=1) + 1e-24)

    def draw(self, rng: np.random.Generator) -> Drawn:
        """One instance: the rig's corners (F, 3, 3), its solution and start (4,)."""
        focal = rng.uniform(*FOCAL)
        centre, bending = rng.uniform(-CENTRE, CENTRE, 2), rng.uniform(-BENDING, BENDING)
        boxes = []
        for place in np.stack(np.meshgrid([-0.62, 0, 0.62], [-0.62, 0, 0.62]), -1).reshape(9, 2):
            depth = rng.uniform(*DEPTHS)
            half = rng.uniform(*SIDES, 3) * depth / focal
            middle = (place + rng.uniform(-0.1, 0.1, 2)) * depth / focal
            mesh = tr.box(*(2 * half).tolist())
            turned = moved(
                mesh.vertices.double(),
                torch.as_tensor(random_turn(rng, 0.0, 180.0)),
                torch.as_tensor([*middle, -depth]),
            )
            boxes.append(turned[mesh.faces].numpy())
        hidden = np.array([math.log(focal), *centre, bending])
        start = hidden.copy()
        start[0] += rng.uniform(-self.start_focal, self.start_focal)
        start[1:3] += rng.uniform(-self.start_centre, self.start_centre, 2)
        start[3] = 0.0
        return {"corners": np.concatenate(boxes)}, hidden, start
