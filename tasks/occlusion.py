"""Recover which shape lies in front of which from one sharp picture of overlapping shapes.

A hidden instance has K flat convex shapes of given outlines and colours, each at one depth. The
unknowns are the depths and, with `positions`, the shapes' places. A sharp picture does not change
until two shapes swap their depths, so only a soft depth has gradients that reorder shapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

import taichi_raster as tr
from tasks.copies import repeater
from tasks.overlapping import overlapping_shapes, padded_fans
from tasks.streams import Stream, instance_generators
from tasks.triangles import mean_square, separated_colours

NEAR, FAR = 1.0, 2.0
EDGE_OF_RANGE = 0.01  # share of the depth range kept free at each end, against rounding
DEPTHS = 1.5  # depth unknowns in [-DEPTHS, DEPTHS]: hidden evenly spread, uniform at the start
POSITION_UNIT = 0.25  # NDC for each unit of a position unknown
DISPLACEMENT = 0.25  # largest displacement of a shape at the start, per coordinate (NDC)

MARGIN = 0.001  # depth difference, as a share of the range, at which a pair counts as ordered


@dataclass(frozen=True)
class Occlusion:
    """Family of occlusion tasks; `sample` draws batches.

    Shapes are triangles, quads, hexagons, thin bars and discs (octagons), as fans of triangles.
    The others hide at most 70% of a shape, and every shape visibly overlaps another.

    Args:
        shapes: K, or an inclusive range (low, high) from which each instance draws its number.
            Instances are padded to the largest number with shapes that have no faces.
        positions: the shapes' places are unknown as well: each starts up to `DISPLACEMENT` NDC
            away, per coordinate.
        image_size: side of the square picture in pixels, or (H, W).
        seed: of the whole family; a batch is a function of (seed, stream, index, size) alone.
        dtype: of all tensors; the runtime's by default.

    Raises ValueError or TypeError, naming the argument.

        family = Occlusion(shapes=(3, 5))
        task = family.sample(64, "train", index=0)
        renderer = family.renderer(tr.Distribution("gaussian", scale=0.03))
        loss = task.loss(task.start(), renderer, progress=0.0)
    """

    shapes: int | tuple[int, int] = (3, 5)
    positions: bool = False
    image_size: int | tuple[int, int] = 32
    seed: int = 0
    dtype: torch.dtype | None = None

    failure_threshold: ClassVar[float] = 0.1
    error_floor: ClassVar[float] = 1e-3
    error_name: ClassVar[str] = "order error"

    def __post_init__(self) -> None:
        low, high = self.shape_range
        if not (isinstance(low, int) and isinstance(high, int) and 2 <= low <= high):
            raise ValueError(
                "shapes: expected an integer >= 2 or a range (low, high) of such, "
                f"got {self.shapes!r}"
            )
        if not isinstance(self.positions, bool):
            raise TypeError(f"positions: expected True or False, got {self.positions!r}")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed must be an integer >= 0, got {self.seed!r}")

    @property
    def shape_range(self) -> tuple[int, int]:
        """(fewest, most) shapes of an instance."""
        return self.shapes if isinstance(self.shapes, tuple) else (self.shapes, self.shapes)

    def sample(self, batch_size: int, stream: Stream, index: int) -> OcclusionBatch:
        """Batch `index` of a stream ("tune", "train" or "test"; disjoint).

        Instance i depends on (seed, stream, index, i) only: a smaller batch begins a larger one.
        """
        scenes = [
            self._draw(rng) for rng in instance_generators(batch_size, self.seed, stream, index)
        ]
        outlines, *parts = zip(*scenes, strict=True)
        corners, owner = padded_fans(outlines)
        hidden, start, colours, shown, present = (torch.as_tensor(np.stack(part)) for part in parts)
        dtype = self.dtype or tr.runtime().dtype
        return OcclusionBatch(
            self,
            hidden.to(dtype),
            start.to(dtype),
            torch.as_tensor(corners).to(dtype),
            torch.as_tensor(owner),
            colours.to(dtype),
            shown,
            present,
        )

    def renderer(
        self,
        edge: tr.EdgeSoftness,
        depth: tr.DepthSoftness | None = None,
        alpha: tr.TConorm | None = None,
    ) -> tr.SoftRasterizer:
        """Soft renderer of this family's size, background and clip depths.

        The depth softness is by default a softmax of gamma 0.1, about the distance of two
        neighbours in depth: a much smaller one sees only the nearest shape.
        """
        return tr.SoftRasterizer(
            image_size=self.image_size,
            edge=edge,
            depth=tr.SoftmaxDepth(0.1) if depth is None else depth,
            alpha=alpha,
            background=(0, 0, 0),
            near=NEAR,
            far=FAR,
        )

    def sharp_renderer(self) -> tr.SharpRasterizer:
        """Sharp reference renderer of the same size, background and clip depths."""
        return tr.SharpRasterizer(self.image_size, background=(0, 0, 0), near=NEAR, far=FAR)

    def _draw(self, rng: np.random.Generator) -> tuple[Any, ...]:
        """One instance: outlines, hidden and start (K,3), colours (K,3), shown (K,K), present."""
        low, high = self.shape_range
        count = int(rng.integers(low, high + 1))
        stack = overlapping_shapes(rng, count)
        order = rng.permutation(count)
        hidden, shown = np.zeros((high, 3)), np.zeros((high, high), dtype=bool)
        hidden[:count, :2] = stack.centres[order] / POSITION_UNIT
        hidden[:count, 2] = np.linspace(-DEPTHS, DEPTHS, count)[order]
        shown[:count, :count] = stack.shown[np.ix_(order, order)]
        start = hidden.copy()
        start[:, 2] = rng.uniform(-DEPTHS, DEPTHS, high)
        if self.positions:
            start[:, :2] += rng.uniform(-DISPLACEMENT, DISPLACEMENT, (high, 2)) / POSITION_UNIT
        outlines = [stack.outlines[k] for k in order]
        return outlines, hidden, start, separated_colours(rng, high), shown, np.arange(high) < count


@dataclass(frozen=True)
class OcclusionBatch:
    """B instances of `Occlusion`.

    Unknowns are the depths t, (B, K), or (x, y, t) of each shape, (B, K, 3). A depth unknown t is
    any real number. Its shape lies at `depth_share(t)`, a sigmoid, of the range from near to far:
    it never leaves the range, and its gradient never vanishes. x and y are those of the shape's
    centre, in units of 0.25 NDC, so that they start about one unit from the truth, as depths do.

    Attributes:
        hidden, initial: (B, K, 3) as (x, y, t): a solution, and the start.
        corners: (B, F, 3, 2) the triangles' corners in NDC, relative to their shape's centre.
        owner: (B, F) the shape of each triangle, -1 for padding.
        colours: (B, K, 3) in [0, 1].
        shown: (B, K, K) true at (i, k) where i is seen in front of k. The picture determines the
            order of these pairs, and nothing else about the depths.
        present: (B, K), false for padding.
    """

    family: Occlusion
    hidden: Float[Tensor, "B K 3"]
    initial: Float[Tensor, "B K 3"]
    corners: Float[Tensor, "B F 3 2"]
    owner: Int[Tensor, "B F"]
    colours: Float[Tensor, "B K 3"]
    shown: Bool[Tensor, "B K K"]
    present: Bool[Tensor, "B K"]
    _cache: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def batch_size(self) -> int:
        """B."""
        return len(self.hidden)

    @property
    def solution(self) -> Float[Tensor, "B K ..."]:
        """The hidden instance as unknowns."""
        return self._unknowns(self.hidden)

    @property
    def target(self) -> Float[Tensor, "B H W 4"]:
        """Sharp render of the hidden instance, alpha last."""
        if "target" not in self._cache:
            with torch.no_grad():
                self._cache["target"] = self.sharp_image(self.solution)
        return self._cache["target"]

    def start(self) -> Float[Tensor, "B K ..."]:
        """Initial unknowns; the same tensor at every call."""
        return self._unknowns(self.initial)

    def loss(
        self, params: Float[Tensor, "B K ..."], renderer: nn.Module, progress: float | Tensor
    ) -> Float[Tensor, " B"]:
        """MSE over pixels and RGBA between the soft render and the target."""
        return mean_square(self.soft_image(params, renderer, progress), self.target)

    def true_error(self, params: Float[Tensor, "B K ..."]) -> Float[Tensor, " B"]:
        """Order error: the mean over `shown` pairs of log2(1 + h), h a hinge on the pair's depths.

        h is linear in the difference in depth: 1 at a tie, 0 at a thousandth of the depth range in
        the right order, above 1 in the wrong one. The logarithm is there because a picture
        determines the order, but no distances. One wrong pair among ten is a failure. With unknown
        positions, their RMS distance to the hidden ones (NDC) is added.
        """
        hinge = torch.log1p(torch.relu(1 - self._gaps(params) / MARGIN)) / math.log(2)
        error = self._over_pairs(hinge)
        return error + self._position_error(params) if self.family.positions else error

    def image_error(self, params: Float[Tensor, "B K ..."]) -> Float[Tensor, " B"]:
        """MSE over pixels and RGBA between the sharp render and the target.

        Its slope is zero in the depths.
        """
        return mean_square(self.sharp_image(params), self.target)

    def metrics(self, params: Float[Tensor, "B K ..."]) -> dict[str, Float[Tensor, " B"]]:
        """Figures of each instance.

        parameter_error: `true_error`; failure: 1 where it is above 0.1;
        image_error;
        order_accuracy: share of the `shown` pairs in the right order; all_ordered: 1 where all are;
        depth_error: RMS difference to the hidden depths, as shares of the range, after the
        increasing affine map that minimises it. It need not be 0 when all pairs are ordered, since
        depths that the picture does not determine count, too;
        position_error: RMS distance of the shapes to the hidden ones (NDC).
        """
        with torch.no_grad():
            error = self.true_error(params)
            accuracy = self._over_pairs((self._gaps(params) > 0).to(error))
            return {
                "parameter_error": error,
                "image_error": self.image_error(params),
                "failure": (error > self.family.failure_threshold).to(error),
                "order_accuracy": accuracy,
                "all_ordered": (accuracy == 1).to(error),
                "depth_error": self._depth_error(params),
                "position_error": self._position_error(params),
            }

    def repeat(self, copies: int) -> OcclusionBatch:
        """The same instances `copies` times over: i of copy j stands at j * B + i."""
        repeat = repeater(copies)
        return self._mapped(repeat, {"target": repeat(self.target)})

    def select(self, instances: list[int]) -> OcclusionBatch:
        """A batch of some of the instances, in the order given."""
        return self._mapped(lambda tensor: tensor[instances], {})

    def geometry(self, params: Float[Tensor, "B K ..."]) -> Float[Tensor, "B F 3 3"]:
        """What steps are measured by: corners, z as a share of the depth range, 0 for padding."""
        corners = self._faces(params)[0]
        depth = corners[..., 2:] / (FAR - NEAR)
        present = (self.owner >= 0)[..., None, None]
        return torch.cat([corners[..., :2], torch.where(present, depth, 0.0)], dim=-1)

    def outlines(
        self, params: Float[Tensor, "B K ..."]
    ) -> tuple[Float[Tensor, "B H W"], Float[Tensor, "B H W"]]:
        """What a start is measured by: coverage of `params`, and of the target."""
        return self.sharp_image(params)[..., -1], self.target[..., -1]

    def sharp_image(self, params: Float[Tensor, "B K ..."]) -> Float[Tensor, "B H W 4"]:
        """Sharp RGBA picture of the shapes at `params`."""
        return self.family.sharp_renderer()(*self._faces(params))

    def soft_image(
        self, params: Float[Tensor, "B K ..."], renderer: nn.Module, progress: float | Tensor
    ) -> Float[Tensor, "B H W 4"]:
        """Soft RGBA picture of the shapes at `params`."""
        return renderer(*self._faces(params), progress=progress)

    def _mapped(
        self, change: Callable[[Tensor], Tensor], cache: dict[str, Tensor]
    ) -> OcclusionBatch:
        return OcclusionBatch(
            self.family,
            change(self.hidden),
            change(self.initial),
            change(self.corners),
            change(self.owner),
            change(self.colours),
            change(self.shown),
            change(self.present),
            cache,
        )

    def _unknowns(self, full: Tensor) -> Tensor:
        """Unknowns (B, K) or (B, K, 3) from (x, y, t)."""
        return full if self.family.positions else full[..., 2].contiguous()

    def _depths(self, params: Tensor) -> Tensor:
        """Each shape's share of the depth range, (B, K)."""
        return depth_share(params[..., 2] if self.family.positions else params)

    def _faces(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Face vertices (B,F,3,3) and face attributes (B,F,3,3): one colour a shape."""
        owner = self.owner.clamp(min=0)
        z = NEAR + (FAR - NEAR) * self._depths(params).gather(1, owner)
        z = torch.where(self.owner >= 0, z, 2 * FAR)
        if self.family.positions:
            xy = self.corners + self._offsets(params[..., :2])
        else:
            xy = self._cached("xy", lambda: self.corners + self._offsets(self.hidden[..., :2]))
        colours = self._cached(
            "colours", lambda: _of_owner(self.colours, owner).expand(-1, -1, 3, -1)
        )
        return tr.lift_triangles(xy, z), colours

    def _offsets(self, places: Tensor) -> Tensor:
        """Offsets of triangles' corners, (B, F, 1, 2), for shapes at `places`, (B, K, 2)."""
        return POSITION_UNIT * _of_owner(places, self.owner.clamp(min=0))

    def _cached(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        if name not in self._cache:
            self._cache[name] = make()
        return self._cache[name]

    def _gaps(self, params: Tensor) -> Tensor:
        """(B, K, K): how much deeper k is than i, at (i, k), as a share of the range."""
        depths = self._depths(params)
        return depths[:, None, :] - depths[:, :, None]

    def _over_pairs(self, values: Tensor) -> Tensor:
        """Mean of (B, K, K) over the `shown` pairs; 0 where there is none."""
        count = self.shown.sum(dim=(1, 2)).clamp(min=1)
        return torch.where(self.shown, values, 0).sum(dim=(1, 2)) / count

    def _position_error(self, params: Tensor) -> Tensor:
        if not self.family.positions:
            return torch.zeros_like(params[:, 0])
        squared = (params[..., :2] - self.hidden[..., :2]).square().sum(dim=-1)
        mean = torch.where(self.present, squared, 0).sum(dim=1) / self.present.sum(dim=1)
        return POSITION_UNIT * torch.sqrt(mean + 1e-24)  # finite slope at zero

    def _depth_error(self, params: Tensor) -> Tensor:
        count = self.present.sum(dim=1, keepdim=True)

        def centred(depths: Tensor) -> Tensor:
            mean = torch.where(self.present, depths, 0).sum(dim=1, keepdim=True) / count
            return torch.where(self.present, depths - mean, 0)

        truth = centred(depth_share(self.hidden[..., 2]))
        found = centred(self._depths(params))
        spread = found.square().sum(dim=1, keepdim=True).clamp(min=1e-12)
        slope = ((truth * found).sum(dim=1, keepdim=True) / spread).clamp(min=0)
        mean = (truth - slope * found).square().sum(dim=1) / count[:, 0]
        return torch.sqrt(mean + 1e-24)  # finite slope at zero


def depth_share(t: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Where a depth unknown lies in the depth range: from 0.01, near, to 0.99, far."""
    return EDGE_OF_RANGE + (1 - 2 * EDGE_OF_RANGE) * torch.sigmoid(t)


def _of_owner(values: Tensor, owner: Tensor) -> Tensor:
    """Shapes' values (B, K, C) for each triangle, (B, F, 1, C)."""
    return values.gather(1, owner[..., None].expand(-1, -1, values.shape[-1]))[:, :, None]
