"""Recover the joint angles of a flat jointed figure from its silhouette.

A hidden instance is a figure of torso, head, arms and legs, whose limbs have known sizes. The
unknowns are where its pelvis is, in NDC, and nine angles in radians: (B, 11). Limbs hide one
another in a silhouette, and a turn of one moves all that hangs on it.

Nothing that comes with the package was tuned or learned on it: it is there to judge by.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

import taichi_raster as tr
from tasks.copies import repeater
from tasks.silhouettes import FAR, NEAR
from tasks.streams import Stream, instance_generators

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


@dataclass(frozen=True)
class Body:
    """Family of jointed figures; `sample` draws batches.

    Args:
        image_size: side of the square picture in pixels.
        start_angle: largest difference of each angle at the start, in radians.
        start_shift: the same of the pelvis' coordinates, in NDC.
        seed: of the whole family; a batch is a function of (seed, stream, index, size) alone.
        dtype: of all tensors; the runtime's by default.

    Raises ValueError, naming the argument.
    """

    image_size: int = 32
    start_angle: float = 0.6
    start_shift: float = 0.1
    seed: int = 0
    dtype: torch.dtype | None = None

    failure_threshold: ClassVar[float] = 0.1
    error_floor: ClassVar[float] = 1e-3
    error_name: ClassVar[str] = "joint RMSE (NDC)"

    def __post_init__(self) -> None:
        if not isinstance(self.image_size, int) or self.image_size < 8:
            raise ValueError(f"image_size must be an integer >= 8, got {self.image_size!r}")
        for name in ("start_angle", "start_shift"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be finite and >= 0, got {value!r}")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed must be an integer >= 0, got {self.seed!r}")

    def sample(self, batch_size: int, stream: Stream, index: int) -> BodyBatch:
        """Batch `index` of a stream ("tune", "train" or "test"; disjoint).

        Instance i depends on (seed, stream, index, i) only: a smaller batch begins a larger one.
        """
        drawn = [
            self._draw(rng) for rng in instance_generators(batch_size, self.seed, stream, index)
        ]
        dtype = self.dtype or tr.runtime().dtype
        sizes, hidden, initial = (
            torch.as_tensor(np.stack(part)).to(dtype) for part in zip(*drawn, strict=True)
        )
        return BodyBatch(self, sizes, hidden, initial)

    def renderer(
        self,
        edge: tr.EdgeSoftness,
        depth: tr.DepthSoftness | None = None,
        alpha: tr.TConorm | None = None,
    ) -> tr.SoftRasterizer:
        """Soft renderer of this family's size and clip depths; `depth` plays no part."""
        return tr.SoftRasterizer(self.image_size, edge, depth, alpha, near=NEAR, far=FAR)

    def sharp_renderer(self) -> tr.SharpRasterizer:
        """Sharp reference renderer of the same size and clip depths."""
        return tr.SharpRasterizer(self.image_size, near=NEAR, far=FAR)

    def _draw(self, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        """One instance: lengths and widths (2, 10), solution (11,), start (11,)."""
        sizes = np.array([LENGTHS, WIDTHS]) * rng.uniform(*SIZES, (2, len(LENGTHS)))
        pelvis = np.array([0.0, -0.05]) + rng.uniform(-0.1, 0.1, 2)
        hidden = np.concatenate([pelvis, rng.uniform(-SPREAD, SPREAD, 9)])
        shift = rng.uniform(-self.start_shift, self.start_shift, 2)
        turn = rng.uniform(-self.start_angle, self.start_angle, 9)
        return sizes, hidden, hidden + np.concatenate([shift, turn])


@dataclass(frozen=True)
class BodyBatch:
    """B instances of `Body`.

    Attributes:
        sizes: (B, 2, 10), lengths and half widths of the limbs, in NDC.
        hidden, initial: (B, 11), the solution and the start.
    """

    family: Body
    sizes: Float[Tensor, "B 2 10"]
    hidden: Float[Tensor, "B 11"]
    initial: Float[Tensor, "B 11"]
    _cache: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def batch_size(self) -> int:
        """B."""
        return len(self.hidden)

    @property
    def target(self) -> Float[Tensor, "B H W 1"]:
        """Sharp silhouette of the hidden instance."""
        if "target" not in self._cache:
            with torch.no_grad():
                self._cache["target"] = self.sharp_image(self.hidden)
        return self._cache["target"]

    def start(self) -> Float[Tensor, "B 11"]:
        """Initial unknowns; the same tensor at every call."""
        return self.initial

    def loss(
        self, params: Float[Tensor, "B 11"], renderer: nn.Module, progress: float | Tensor
    ) -> Float[Tensor, " B"]:
        """1 - IoU of the soft silhouette and the target's."""
        image = self.soft_image(params, renderer, progress)
        return tr.silhouette_iou_loss(image[..., 0], self.target[..., 0])

    def true_error(self, params: Float[Tensor, "B 11"]) -> Float[Tensor, " B"]:
        """Root of the mean squared distance of the limbs' ends to the hidden ones (NDC)."""
        ends, goal = self._limbs(params)[1], self._limbs(self.hidden)[1]
        return torch.sqrt((ends - goal).square().sum(dim=2).mean(dim=1) + 1e-24)

    def image_error(self, params: Float[Tensor, "B 11"]) -> Float[Tensor, " B"]:
        """1 - the sum of minima over that of maxima of the sharp silhouettes."""
        drawn, target = self.sharp_image(params), self.target
        both, either = (f(drawn, target).flatten(1).sum(1) for f in (torch.minimum, torch.maximum))
        return 1 - both / either.clamp(min=1e-6)

    def metrics(self, params: Float[Tensor, "B 11"]) -> dict[str, Float[Tensor, " B"]]:
        """parameter_error, image_error, and failure: 1 where the parameter error is above 0.1."""
        with torch.no_grad():
            error = self.true_error(params)
            failure = (error > self.family.failure_threshold).to(error)
            image_error = self.image_error(params)
        return {"parameter_error": error, "image_error": image_error, "failure": failure}

    def repeat(self, copies: int) -> BodyBatch:
        """The same instances `copies` times over: i of copy j stands at j * B + i."""
        _ = self.target  # rendered once, for all copies
        return self._mapped(repeater(copies))

    def select(self, instances: list[int]) -> BodyBatch:
        """A batch of some of the instances, in the order given."""
        return self._mapped(lambda tensor: tensor[instances])

    def geometry(self, params: Float[Tensor, "B 11"]) -> Float[Tensor, "B F 3 3"]:
        """What steps are measured by: corners, z as a share of the depth range."""
        corners = self._faces(params)
        return torch.cat([corners[..., :2], corners[..., 2:] / (FAR - NEAR)], dim=-1)

    def outlines(
        self, params: Float[Tensor, "B 11"]
    ) -> tuple[Float[Tensor, "B H W"], Float[Tensor, "B H W"]]:
        """What a start is measured by: coverage of `params`, and of the target."""
        return self.sharp_image(params)[..., 0], self.target[..., 0]

    def sharp_image(self, params: Float[Tensor, "B 11"]) -> Float[Tensor, "B H W 1"]:
        """Sharp silhouette of the figure at `params`."""
        return self.family.sharp_renderer()(self._faces(params), None)

    def soft_image(
        self, params: Float[Tensor, "B 11"], renderer: nn.Module, progress: float | Tensor
    ) -> Float[Tensor, "B H W 1"]:
        """Soft silhouette of the figure at `params`."""
        image: Tensor = renderer(self._faces(params), None, progress=progress)
        return image

    def _limbs(self, params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where limbs begin and end, and which way they point: (B, 10, 2) each."""
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
            ends.append(begin + self.sizes[:, 0, k, None] * along)
            turns.append(turn)
        angle = torch.stack(turns, dim=1)
        along = torch.stack([-angle.sin(), angle.cos()], dim=2)
        return torch.stack(begins, dim=1), torch.stack(ends, dim=1), along

    def _faces(self, params: Tensor) -> Float[Tensor, "B F 3 3"]:
        """Each limb a hexagon: pointed ends, and its full width where it begins and ends."""
        begins, ends, along = self._limbs(params)
        across = torch.stack([-along[..., 1], along[..., 0]], dim=2) * self.sizes[:, 1, :, None]
        tip = along * self.sizes[:, 1, :, None]
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
        limbs = torch.arange(len(LENGTHS), dtype=flat.dtype, device=flat.device)
        depth = (DEPTH + 0.05 * limbs).repeat_interleave(len(fan))
        return tr.lift_triangles(flat, depth.expand(len(flat), -1))

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> BodyBatch:
        return BodyBatch(
            self.family,
            change(self.sizes),
            change(self.hidden),
            change(self.initial),
            {name: change(tensor) for name, tensor in self._cache.items()},
        )
