"""Recover the poses of several objects in one picture, and with them which is in front.

The objects are known bodies, each of one colour, lit from all sides unevenly. They hide one
another, and at the start their order can be wrong. The unknowns are (B, K, 6): for each object its
place x, y in NDC and the logarithm of its depth, then its turn from a known pose, a rotation vector
in radians.

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
from tasks.pose_meshes import lit_colours, random_body
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
from tasks.triangles import separated_colours

NEAR, FAR = 0.5, 12.0
FOCAL = 2.0
RADIUS = 0.6  # of the bodies; they are 0.4 NDC in the picture, at a depth of 3
DEPTHS = (2.6, 3.8)  # spread evenly over the objects, in random order
PLACES = 0.5  # largest x and y of an object's middle, in NDC
DARKEST = 0.3  # share of a colour where no light comes, so that nothing looks like the ground


@dataclass(frozen=True, kw_only=True)
class Arrangement(SceneFamily):
    """Family of arrangements; `sample` draws batches.

    Args:
        objects: K, how many there are in a picture.
        start_angle: degrees between an object's turn at the start and the true one, (low, high).
        start_shift: largest difference of each of x and y at the start, in NDC.
        start_depth: the same of the logarithm of the depth.
        image_size, seed, dtype: as of `SceneFamily`.

    Raises ValueError, naming the argument.
    """

    objects: int = 3
    image_size: int = 48
    start_angle: tuple[float, float] = (10.0, 30.0)
    start_shift: float = 0.15
    start_depth: float = 0.2

    near: ClassVar[float] = NEAR
    far: ClassVar[float] = FAR
    failure_threshold: ClassVar[float] = 0.15
    error_floor: ClassVar[float] = 1e-3
    error_name: ClassVar[str] = "vertex RMSE (scene units)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.objects, bool) or not isinstance(self.objects, int) or self.objects < 1:
            raise ValueError(f"objects must be an integer >= 1, got {self.objects!r}")
        check_angles("start_angle", self.start_angle)
        check_extents(start_shift=self.start_shift, start_depth=self.start_depth)

    def faces(self, given: Given, params: Float[Tensor, "B K 6"]) -> Faces:
        """All objects in one picture, and their colours."""
        corners = seen(self._placed(given, params), FOCAL).flatten(1, 2).unflatten(1, (-1, 3))
        return corners, given["colours"]

    def distance(
        self, given: Given, params: Float[Tensor, "B K 6"], hidden: Float[Tensor, "B K 6"]
    ) -> Float[Tensor, " B"]:
        """Geometric mean over objects of the RMS distance of corners, in scene units.

        It has the floor `error_floor` under its logarithm. An object whose pose cannot be seen thus
        does not decide alone.
        """
        found, truth = (self._placed(given, each) for each in (params, hidden))
        squared = (found - truth).square().sum(dim=-1).mean(dim=2)  # (B, K)
        errors = torch.sqrt(squared + 1e-24) / self.error_floor
        return torch.log1p(errors).mean(dim=1).expm1() * self.error_floor

    def _placed(self, given: Given, params: Tensor) -> Float[Tensor, "B K 3F 3"]:
        """Corners before the camera."""
        depth = params[..., 2].exp()
        shift = torch.stack(
            [params[..., 0] * depth / FOCAL, params[..., 1] * depth / FOCAL, -depth], dim=-1
        )
        return moved(given["corners"].flatten(2, 3), params[..., 3:], shift)

    def draw(self, rng: np.random.Generator) -> Drawn:
        """One instance: corners (K, F, 3, 3), colours (K F, 3, 3), solution and start (K, 6)."""
        bodies = [tr.normalise(random_body(rng), radius=RADIUS) for _ in range(self.objects)]
        corners = np.stack([body.vertices[body.faces].numpy() for body in bodies])
        light = lit_colours(torch.as_tensor(corners).flatten(0, 1)[None])[0].numpy().mean(axis=-1)
        light = DARKEST + (1 - DARKEST) * light / light.max()
        hues = np.repeat(separated_colours(rng, self.objects), corners.shape[1], axis=0)
        colours = light[..., None] * hues[:, None]
        places = rng.uniform(-PLACES, PLACES, (self.objects, 2))
        depths = np.log(rng.permutation(np.linspace(*DEPTHS, self.objects)))
        hidden = np.concatenate([places, depths[:, None], np.zeros((self.objects, 3))], axis=1)
        shift = rng.uniform(-self.start_shift, self.start_shift, (self.objects, 2))
        deeper = rng.uniform(-self.start_depth, self.start_depth, (self.objects, 1))
        turns = np.stack([random_turn(rng, *self.start_angle) for _ in range(self.objects)])
        start = hidden + np.concatenate([shift, deeper, turns], axis=1)
        return {"corners": corners, "colours": colours}, hidden, start
