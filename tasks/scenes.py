"""Batches of problems whose picture is drawn from unknowns: all but the drawing, for any family.

A family says how unknowns become faces, and how far unknowns are from the hidden ones. `SceneBatch`
makes of these what `meta.StudyBatch` and `meta.OutlinedBatch` ask for.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

import taichi_raster as tr
from tasks.copies import repeater
from tasks.silhouettes import mean_iou, side_by_side
from tasks.streams import Stream, instance_generators

Given = Mapping[str, Tensor]
"""What is known of each instance, (B, ...) by name."""

Faces = tuple[Float[Tensor, "R F 3 3"], "Float[Tensor, 'R F 3 3'] | None"]
"""Corners in NDC and depth, and colours at them; None for silhouettes."""

Drawn = tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]
"""One instance: what is known of it by name, its solution, and its start."""


@dataclass(frozen=True, kw_only=True)
class SceneFamily(ABC):
    """What these families share; a family of its own says how it is drawn, and what is hidden.

    Args:
        image_size: side of each square picture in pixels.
        seed: of the whole family; a batch is a function of (seed, stream, index, size) alone.
        dtype: of all tensors; the runtime's by default.

    Raises ValueError, naming the argument.
    """

    image_size: int = 32
    seed: int = 0
    dtype: torch.dtype | None = None

    views: ClassVar[int] = 1
    near: ClassVar[float]
    far: ClassVar[float]
    closed: ClassVar[bool] = True  # surfaces, whose backs are not drawn
    failure_threshold: ClassVar[float]
    error_floor: ClassVar[float]
    error_name: ClassVar[str]

    def __post_init__(self) -> None:
        _check_integer("image_size", self.image_size, 8)
        _check_integer("seed", self.seed, 0)

    def sample(self, batch_size: int, stream: Stream, index: int) -> SceneBatch:
        """Batch `index` of a stream ("tune", "train" or "test"; disjoint).

        Instance i depends on (seed, stream, index, i) only: a smaller batch begins a larger one.
        """
        generators = instance_generators(batch_size, self.seed, stream, index)
        dtype = self.dtype or tr.runtime().dtype
        known, *rest = zip(*(self.draw(rng) for rng in generators), strict=True)

        def stacked(parts: Iterable[np.ndarray]) -> Tensor:
            return torch.as_tensor(np.stack(list(parts))).to(dtype)

        given = {name: stacked(each[name] for each in known) for name in known[0]}
        hidden, initial = map(stacked, rest)
        return SceneBatch(self, given | self.seen_of(given, hidden), hidden, initial)

    def renderer(
        self,
        edge: tr.EdgeSoftness,
        depth: tr.DepthSoftness | None = None,
        alpha: tr.TConorm | None = None,
    ) -> tr.SoftRasterizer:
        """Soft renderer of this family's size and clip depths, over black.

        The default depth softness is `OverDepth`, by the product. For silhouettes it plays no part.
        """
        depth = tr.OverDepth(union="product") if depth is None else depth
        return tr.SoftRasterizer(
            self.image_size,
            edge,
            depth,
            alpha,
            near=self.near,
            far=self.far,
            cull_backfaces=self.closed,
        )

    def sharp_renderer(self) -> tr.SharpRasterizer:
        """Sharp reference renderer of the same size and clip depths."""
        return tr.SharpRasterizer(
            self.image_size, near=self.near, far=self.far, cull_backfaces=self.closed
        )

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Drawn:
        """One instance: what is known of it by name, its solution, and its start."""

    @abstractmethod
    def faces(self, given: Given, params: Float[Tensor, "B ..."]) -> Faces:
        """What unknowns look like: R is `views` times B, and views of one instance are together."""

    @abstractmethod
    def distance(
        self, given: Given, params: Float[Tensor, "B ..."], hidden: Float[Tensor, "B ..."]
    ) -> Float[Tensor, " B"]:
        """How far unknowns are from the hidden ones; differentiable, with a finite slope at 0."""

    def appearance(self, params: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."] | None:
        """The colours among the unknowns, if there are any: steps measure them for themselves."""
        return None

    def seen_of(self, given: Given, hidden: Float[Tensor, "B ..."]) -> dict[str, Tensor]:
        """What else the batch knows, from the pictures of its hidden instances."""
        return {}


@dataclass(frozen=True)
class SceneBatch:
    """B instances of a family.

    Attributes:
        given: what is known, (B, ...) by name.
        hidden, initial: (B, ...), the solution and the start.
    """

    family: SceneFamily
    given: Given
    hidden: Float[Tensor, "B ..."]
    initial: Float[Tensor, "B ..."]
    _cache: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def batch_size(self) -> int:
        """B."""
        return len(self.hidden)

    @property
    def target(self) -> Float[Tensor, "B H KW C"]:
        """Sharp picture of the hidden instance: RGBA, or a silhouette; its views side by side."""
        return self._side_by_side(self._targets)

    def start(self) -> Float[Tensor, "B ..."]:
        """Initial unknowns; the same tensor at every call."""
        return self.initial

    def loss(
        self, params: Float[Tensor, "B ..."], renderer: nn.Module, progress: float | Tensor
    ) -> Float[Tensor, " B"]:
        """1 - IoU of the soft silhouettes and the targets', or MSE of their colours over black."""
        image = self.soft_image(params, renderer, progress)
        if image.shape[-1] == 1:
            each = tr.silhouette_iou_loss(image[..., 0], self._targets[..., 0])
        else:
            each = tr.mse(image[..., :3], self._targets[..., :3])
        return each.unflatten(0, (-1, self.family.views)).mean(dim=1)

    def true_error(self, params: Float[Tensor, "B ..."]) -> Float[Tensor, " B"]:
        """The family's distance to the hidden solution."""
        return self.family.distance(self.given, params, self.hidden)

    def image_error(self, params: Float[Tensor, "B ..."]) -> Float[Tensor, " B"]:
        """1 - IoU of coverages for silhouettes, else MSE of RGB; of sharp pictures."""
        drawn = self._drawn(params).unflatten(0, (-1, self.family.views))
        wanted = self._targets.unflatten(0, (-1, self.family.views))
        if drawn.shape[-1] == 1:
            return 1 - mean_iou(drawn[..., 0], wanted[..., 0])
        return (drawn - wanted)[..., :3].square().flatten(1).mean(dim=1)

    def metrics(self, params: Float[Tensor, "B ..."]) -> dict[str, Float[Tensor, " B"]]:
        """parameter_error; image_error; failure: 1 where the first is above the threshold."""
        with torch.no_grad():
            error = self.true_error(params)
            failure = (error > self.family.failure_threshold).to(error)
            image_error = self.image_error(params)
        return {"parameter_error": error, "image_error": image_error, "failure": failure}

    def repeat(self, copies: int) -> SceneBatch:
        """The same instances `copies` times over: i of copy j stands at j * B + i."""
        _ = self._targets  # rendered once, for all copies
        return self._mapped(repeater(copies))

    def select(self, instances: list[int]) -> SceneBatch:
        """A batch of some of the instances, in the order given."""
        return self._mapped(lambda tensor: tensor[instances])

    def geometry(
        self, params: Float[Tensor, "B ..."]
    ) -> Tensor | tuple[Float[Tensor, "R F 3 3"], Float[Tensor, "B ..."]]:
        """What steps are measured by: corners, z as a share of the depth range, and colours."""
        corners = self.family.faces(self.given, params)[0]
        depth = corners[..., 2:] / (self.family.far - self.family.near)
        measured = torch.cat([corners[..., :2], depth], dim=-1)
        colours = self.family.appearance(params)
        return measured if colours is None else (measured, colours)

    def outlines(
        self, params: Float[Tensor, "B ..."]
    ) -> tuple[Float[Tensor, "R H W"], Float[Tensor, "R H W"]]:
        """What a start is measured by: coverage of `params`, and of the target."""
        return self._drawn(params)[..., -1], self._targets[..., -1]

    def sharp_image(self, params: Float[Tensor, "B ..."]) -> Float[Tensor, "B H KW C"]:
        """Sharp picture of the unknowns, as `target`."""
        return self._side_by_side(self._drawn(params))

    def soft_image(
        self, params: Float[Tensor, "B ..."], renderer: nn.Module, progress: float | Tensor
    ) -> Float[Tensor, "R H W C"]:
        """Soft pictures of the unknowns, a view each."""
        faces, colours = self.family.faces(self.given, params)
        image: Tensor = renderer(faces, colours, progress, self.family.views)
        return image

    @property
    def _targets(self) -> Float[Tensor, "R H W C"]:
        if "targets" not in self._cache:
            with torch.no_grad():
                images = self._drawn(self.hidden)
            self._cache["targets"] = images.unflatten(0, (-1, self.family.views))
        return self._cache["targets"].flatten(0, 1)

    def _drawn(self, params: Tensor) -> Float[Tensor, "R H W C"]:
        return self.family.sharp_renderer()(*self.family.faces(self.given, params))

    def _side_by_side(self, images: Tensor) -> Tensor:
        return side_by_side(images.unflatten(0, (-1, self.family.views)))

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> SceneBatch:
        return SceneBatch(
            self.family,
            {name: change(tensor) for name, tensor in self.given.items()},
            change(self.hidden),
            change(self.initial),
            {name: change(tensor) for name, tensor in self._cache.items()},
        )


def check_extents(**extents: float) -> None:
    """ValueError that names the first which is not a finite number >= 0."""
    for name, value in extents.items():
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be finite and >= 0, got {value!r}")


def check_angles(name: str, angles: tuple[float, float]) -> None:
    """ValueError, naming it, unless it is (low, high) within 0 and 180 degrees."""
    low, high = angles
    if not 0 <= low <= high <= 180:
        raise ValueError(f"{name} must be (low, high) in 0 to 180, got ({low}, {high})")


def _check_integer(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")


def random_turn(rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    """A rotation vector (3,) of an angle in [low, high] degrees, about any axis."""
    axis = rng.normal(size=3)
    return np.asarray(axis / np.linalg.norm(axis) * math.radians(rng.uniform(low, high)))


def rotation(vector: Float[Tensor, "... 3"]) -> Float[Tensor, "... 3 3"]:
    """The matrix of a rotation vector (Rodrigues' formula); smooth at 0, in forward mode, too."""
    angle = torch.sqrt(vector.square().sum(dim=-1, keepdim=True) + 1e-24)[..., None]
    x, y, z = vector.unbind(dim=-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    identity = torch.eye(3, dtype=vector.dtype, device=vector.device)
    first, second = angle.sin() / angle, (1 - angle.cos()) / angle.square()
    return identity + first * skew + second * _times(skew, skew)


def _times(a: Float[Tensor, "... 3 3"], b: Float[Tensor, "... 3 3"]) -> Tensor:
    """Product of small matrices by sums, which no autocast touches."""
    return (a[..., :, :, None] * b[..., None, :, :]).sum(dim=-2)


def moved(
    points: Float[Tensor, "... N 3"],
    turn: Float[Tensor, "... 3"],
    shift: Float[Tensor, "... 3"],
) -> Float[Tensor, "... N 3"]:
    """Points turned about the origin by rotation vectors, then shifted."""
    matrix = rotation(turn)
    turned = (points[..., :, None, :] * matrix[..., None, :, :]).sum(dim=-1)
    return turned + shift[..., None, :]


def seen(points: Float[Tensor, "... 3"], focal: float | Tensor) -> Float[Tensor, "... 3"]:
    """NDC and depth of points before a camera at the origin: x right, y up, z *backward*."""
    depth = -points[..., 2:]
    return torch.cat([focal * points[..., :2] / depth, depth], dim=-1)
