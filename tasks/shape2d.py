"""Recover the vertices of a few flat triangles from one sharp picture of them.

A hidden instance has K triangles of given colours and depths. The unknowns are their vertices in
NDC, (B, K, 3, 2). The target is the sharp render of the hidden instance; the start is the hidden
instance displaced. The task is small and fast, and still hard: triangles hide one another, and a
descent that starts far away gets stuck.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

import taichi_raster as tr
from tasks.copies import repeater
from tasks.streams import Stream, instance_generators
from tasks.triangles import (
    RELABELLINGS,
    TRANSLATION,
    VERTEX_NOISE,
    mean_square,
    separated_colours,
    triangle_outline,
    turned_to_front,
)

FAILURE_THRESHOLD = 0.1
"""Parameter error (NDC) above which an instance counts as stuck."""

CENTRE = 0.4  # triangle centres are uniform in [-CENTRE, CENTRE]^2
FIRST_DEPTH, DEPTH_STEP = 1.0, 0.5  # the K depths are 1, 1.5, 2, ..., in random order


@dataclass(frozen=True)
class Shape2D:
    """Family of 2D shape tasks; `sample` draws batches.

    Args:
        triangles: K, or an inclusive range (low, high) from which each instance draws its number.
            Instances are padded to the largest number with faces beyond `far`, which render
            nothing, have exactly zero gradient and do not count in the error.
        image_size: side of the square picture in pixels, or (H, W).
        seed: of the whole family; a batch is a function of (seed, stream, index, size) alone.
        dtype: of all tensors; the runtime's by default.
        near, far: clip depths. The K depths (1, 1.5, 2, ...) must lie between them.

    Raises ValueError or TypeError, naming the argument.

        family = Shape2D(triangles=2)
        task = family.sample(64, "train", index=0)
        renderer = family.renderer(tr.Distribution("logistic", scale=0.05))
        loss = task.loss(task.start(), renderer, progress=0.0)
    """

    triangles: int | tuple[int, int] = 2
    image_size: int | tuple[int, int] = 32
    seed: int = 0
    dtype: torch.dtype | None = None
    near: float = 0.5
    far: float = 3.0

    failure_threshold: ClassVar[float] = FAILURE_THRESHOLD
    error_floor: ClassVar[float] = FAILURE_THRESHOLD / 100
    error_name: ClassVar[str] = "vertex RMSE (NDC)"

    def __post_init__(self) -> None:
        low, high = self.triangle_range
        if not (isinstance(low, int) and isinstance(high, int) and 1 <= low <= high):
            raise ValueError(
                "triangles: expected an integer >= 1 or a range (low, high) of such, "
                f"got {self.triangles!r}"
            )
        deepest = FIRST_DEPTH + DEPTH_STEP * (high - 1)
        if not (0 < self.near < FIRST_DEPTH and deepest < self.far):
            raise ValueError(
                f"near, far: {high} triangles have depths {FIRST_DEPTH} to {deepest}, which must "
                f"lie strictly between near and far, got {self.near} and {self.far}"
            )
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed must be an integer >= 0, got {self.seed!r}")

    @property
    def triangle_range(self) -> tuple[int, int]:
        """(fewest, most) triangles of an instance."""
        return (
            self.triangles
            if isinstance(self.triangles, tuple)
            else (self.triangles, self.triangles)
        )

    def sample(self, batch_size: int, stream: Stream, index: int) -> Shape2DBatch:
        """Batch `index` of a stream ("tune", "train" or "test"; disjoint).

        Instance i depends on (seed, stream, index, i) only: a smaller batch begins a larger one.
        """
        generators = instance_generators(batch_size, self.seed, stream, index)
        scenes = [self._draw(rng) for rng in generators]
        dtype = self.dtype or tr.runtime().dtype
        hidden, start, depth, colours, present = (
            torch.as_tensor(np.stack(part)) for part in zip(*scenes, strict=True)
        )
        return Shape2DBatch(
            self, hidden.to(dtype), start.to(dtype), depth.to(dtype), colours.to(dtype), present
        )

    def renderer(
        self,
        edge: tr.EdgeSoftness,
        depth: tr.DepthSoftness | None = None,
        alpha: tr.TConorm | None = None,
    ) -> tr.SoftRasterizer:
        """Soft renderer of this family's size, background and clip depths."""
        return tr.SoftRasterizer(
            image_size=self.image_size,
            edge=edge,
            depth=depth,
            alpha=alpha,
            background=(0, 0, 0),
            near=self.near,
            far=self.far,
        )

    def sharp_renderer(self) -> tr.SharpRasterizer:
        """Sharp reference renderer of the same size, background and clip depths."""
        return tr.SharpRasterizer(
            self.image_size, background=(0, 0, 0), near=self.near, far=self.far
        )

    def _draw(self, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        """One instance: hidden (K,3,2), start (K,3,2), depth (K,), colours (K,3), present (K,)."""
        low, high = self.triangle_range
        count = int(rng.integers(low, high + 1))
        hidden = np.stack(
            [rng.uniform(-CENTRE, CENTRE, 2) + triangle_outline(rng) for _ in range(high)]
        )
        shift = rng.uniform(-TRANSLATION, TRANSLATION, (high, 1, 2))
        noise = rng.uniform(-VERTEX_NOISE, VERTEX_NOISE, (high, 3, 2))
        depth = np.full(high, 2 * self.far)
        depth[:count] = FIRST_DEPTH + DEPTH_STEP * rng.permutation(count)
        colours = separated_colours(rng, high)
        return hidden, hidden + shift + noise, depth, colours, np.arange(high) < count


@dataclass(frozen=True)
class Shape2DBatch:
    """B instances of `Shape2D`.

    Attributes:
        hidden, initial: (B, K, 3, 2) in NDC, the solution and the start.
        depth: (B, K).
        colours: (B, K, 3) in [0, 1].
        present: (B, K), false for padding.
    """

    family: Shape2D
    hidden: Float[Tensor, "B K 3 2"]
    initial: Float[Tensor, "B K 3 2"]
    depth: Float[Tensor, "B K"]
    colours: Float[Tensor, "B K 3"]
    present: Tensor
    _cache: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def batch_size(self) -> int:
        """B."""
        return len(self.hidden)

    @property
    def target(self) -> Float[Tensor, "B H W 4"]:
        """Sharp render of the hidden instance, alpha last."""
        if "target" not in self._cache:
            with torch.no_grad():
                self._cache["target"] = self.sharp_image(self.hidden)
        return self._cache["target"]

    def start(self) -> Float[Tensor, "B K 3 2"]:
        """Initial unknowns; the same tensor at every call."""
        return self.initial

    def loss(
        self, params: Float[Tensor, "B K 3 2"], renderer: nn.Module, progress: float | Tensor
    ) -> Float[Tensor, " B"]:
        """MSE over pixels and RGBA between the soft render and the target."""
        image = self.soft_image(params, renderer, progress)
        return mean_square(image, self.target)

    def true_error(self, params: Float[Tensor, "B K 3 2"]) -> Float[Tensor, " B"]:
        """Root of the mean squared distance of the present vertices to the hidden ones (NDC).

        Minimised over the six relabellings of each triangle, which all show the same picture.
        """
        relabelled = params[:, :, RELABELLINGS]  # (B, K, 6, 3, 2)
        squared = (relabelled - self.hidden[:, :, None]).square().sum(dim=(-1, -2))
        nearest = squared.min(dim=-1).values
        total = torch.where(self.present, nearest, 0).sum(dim=1)
        return torch.sqrt(total / (3 * self.present.sum(dim=1)) + 1e-24)  # finite slope at zero

    def image_error(self, params: Float[Tensor, "B K 3 2"]) -> Float[Tensor, " B"]:
        """MSE over pixels and RGBA between the sharp render and the target."""
        return mean_square(self.sharp_image(params), self.target)

    def metrics(self, params: Float[Tensor, "B K 3 2"]) -> dict[str, Float[Tensor, " B"]]:
        """parameter_error, image_error, and failure: 1 where the parameter error is above 0.1."""
        with torch.no_grad():
            error = self.true_error(params)
            return {
                "parameter_error": error,
                "image_error": self.image_error(params),
                "failure": (error > FAILURE_THRESHOLD).to(error.dtype),
            }

    def repeat(self, copies: int) -> Shape2DBatch:
        """The same instances `copies` times over: i of copy j stands at j * B + i."""
        repeat = repeater(copies)
        return self._mapped(repeat, {"target": repeat(self.target)})

    def select(self, instances: list[int]) -> Shape2DBatch:
        """A batch of some of the instances, in the order given."""
        return self._mapped(lambda tensor: tensor[instances], {})

    def geometry(self, params: Float[Tensor, "B K 3 2"]) -> Float[Tensor, "B K 3 3"]:
        """What steps are measured by: corners in NDC, those of padding at a depth of 0."""
        depth = self.present.to(params)[..., None, None].expand(*params.shape[:3], 1)
        return torch.cat([params, depth], dim=-1)

    def outlines(
        self, params: Float[Tensor, "B K 3 2"]
    ) -> tuple[Float[Tensor, "B H W"], Float[Tensor, "B H W"]]:
        """What a start is measured by: coverage of `params`, and of the target."""
        return self.sharp_image(params)[..., -1], self.target[..., -1]

    def sharp_image(self, params: Float[Tensor, "B K 3 2"]) -> Float[Tensor, "B H W 4"]:
        """Sharp RGBA picture of the triangles at `params`."""
        return self.family.sharp_renderer()(*self._faces(turned_to_front(params)))

    def soft_image(
        self, params: Float[Tensor, "B K 3 2"], renderer: nn.Module, progress: float | Tensor
    ) -> Float[Tensor, "B H W 4"]:
        """Soft RGBA picture of the triangles at `params`."""
        return renderer(*self._faces(params), progress=progress)

    def _mapped(self, change: Callable[[Tensor], Tensor], cache: dict[str, Tensor]) -> Shape2DBatch:
        return Shape2DBatch(
            self.family,
            change(self.hidden),
            change(self.initial),
            change(self.depth),
            change(self.colours),
            change(self.present),
            cache,
        )

    def _faces(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Face vertices (B,K,3,3) and face attributes (B,K,3,3): one colour a triangle."""
        return tr.lift_triangles(params, self.depth), self.colours[:, :, None, :].expand(
            -1, -1, 3, -1
        )
