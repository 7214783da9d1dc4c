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
    Faces,
    Given,
    SceneBatch,
    check_extents,
    check_size,
    moved,
    random_turn,
)
from tasks.streams import Stream, instance_generators

NEAR, FAR = 1.0, 9.0
FOCAL = (1.2, 2.0)  # of the truth, in NDC at the tangent 1
CENTRE = 0.1  # largest x and y of the true principal point, in NDC
BENDING = 0.25  # largest k1 of the truth
DEPTHS = (3.0, 6.0)  # of the boxes' middles
SIDES = (0.08, 0.2)  # half sides of the boxes, as they appear, in NDC


@dataclass(frozen=True)
class Calibration:
    """Family of calibrations; `sample` draws batches. A lens at the start bends nothing.

    Args:
        image_size: side of the square picture in pixels.
        start_focal: largest difference of the logarithm of the focal length at the start.
        start_centre: largest difference of each coordinate of the principal point, in NDC.
        seed: of the whole family; a batch is a function of (seed, stream, index, size) alone.
        dtype: of all tensors; the runtime's by default.

    Raises ValueError, naming the argument.
    """

    image_size: int = 32
    start_focal: float = 0.25
    start_centre: float = 0.15
    seed: int = 0
    dtype: torch.dtype | None = None

    views: ClassVar[int] = 1
    near: ClassVar[float] = NEAR
    far: ClassVar[float] = FAR
    failure_threshold: ClassVar[float] = 0.05
    error_floor: ClassVar[float] = 1e-4
    error_name: ClassVar[str] = "reprojection RMSE (NDC)"

    def __post_init__(self) -> None:
        check_size(self.image_size, self.seed)
        check_extents(start_focal=self.start_focal, start_centre=self.start_centre)

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
        return SceneBatch(self, {"corners": corners}, hidden, initial)

    def renderer(
        self,
        edge: tr.EdgeSoftness,
        depth: tr.DepthSoftness | None = None,
        alpha: tr.TConorm | None = None,
    ) -> tr.SoftRasterizer:
        """Soft renderer of this family's size and clip depths; `depth` plays no part."""
        return tr.SoftRasterizer(
            self.image_size, edge, depth, alpha, near=NEAR, far=FAR, cull_backfaces=True
        )

    def sharp_renderer(self) -> tr.SharpRasterizer:
        """Sharp reference renderer of the same size and clip depths."""
        return tr.SharpRasterizer(self.image_size, near=NEAR, far=FAR, cull_backfaces=True)

    def faces(self, given: Given, params: Float[Tensor, "B 4"]) -> Faces:
        """The rig through the camera."""
        corners = given["corners"]  # (B, F, 3, 3): x right, y up, z backward
        log_focal, x, y, bending = params[:, None, None, :].unbind(dim=-1)
        depth = -corners[..., 2]
        across, up = corners[..., 0] / depth, corners[..., 1] / depth
        stretch = log_focal.exp() * (1 + bending * (across.square() + up.square()))
        return torch.stack([x + stretch * across, y + stretch * up, depth], dim=-1), None

    def appearance(self, params: Float[Tensor, "B 4"]) -> None:
        """There is none."""
        return

    def distance(
        self, given: Given, params: Float[Tensor, "B 4"], hidden: Float[Tensor, "B 4"]
    ) -> Float[Tensor, " B"]:
        """Root of the mean squared distance of the corners in the picture, in NDC."""
        found, truth = (self.faces(given, each)[0][..., :2] for each in (params, hidden))
        return torch.sqrt((found - truth).square().sum(dim=-1).flatten(1).mean(dim=1) + 1e-24)

    def _draw(self, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        """One instance: the rig's corners (F, 3, 3), solution (4,), start (4,)."""
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
        return np.concatenate(boxes), hidden, start
