"""Alpha compositing by Porter and Duff's *over*, in a hard or a soft order.

Kernels list the fragments of each pixel, nearest first, and compute their coverages, depths and
attributes. Torch composes these in a hard order, so that all of it can be differentiated twice. In
a soft one kernels do (engine/soft_order.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from taichi_raster import checks
from taichi_raster.depth.base import DepthSoftness, DepthState
from taichi_raster.runtime.layout import EarlyStop
from taichi_raster.runtime.variant import DepthVariant
from taichi_raster.softness.archive import Entry
from taichi_raster.softness.schedule import Schedule, as_schedule, describe
from taichi_raster.softness.serialization import Stored, built_schedule, stored_schedules

EARLY_STOP = {"largest_two": EarlyStop.LARGEST_TWO, "product": EarlyStop.PRODUCT}
"""The ways in which coverages combine in a hard order, and when their lists of fragments end."""


@dataclass(frozen=True)
class PixelFragments:
    """The N fragments of P pixels.

    Attributes:
        shown: (2 + C, N) coverage, depth and attributes of each.
        slots: (N,) the flat index of each in (layers, pixels), nearest first.
        layers: K, at least the largest number of fragments of a pixel.
        pixels: P.
        fronts: (N,) whether each shows its face's front; None in a soft order, which does not ask.
    """

    shown: Float[Tensor, "2+C N"]
    slots: Int[Tensor, " N"]
    layers: int
    pixels: int
    fronts: Bool[Tensor, " N"] | None = None

    @property
    def counts(self) -> Int[Tensor, " P"]:
        """How many fragments each pixel has."""
        pixel = self.slots % self.pixels
        found = pixel.new_zeros(self.pixels, dtype=torch.int32)
        # Not by bincount, for which the host waits.
        return found.index_add_(0, pixel, torch.ones_like(pixel, dtype=torch.int32))

    def spread(self, values: Float[Tensor, "*n N"]) -> Float[Tensor, "*n K P"]:
        """Scatter values to their slots; 0 where there is no fragment."""
        empty = values.new_zeros(*values.shape[:-1], self.layers * self.pixels)
        return empty.index_copy(-1, self.slots, values).unflatten(-1, (self.layers, self.pixels))

    def sums(self, weights: Float[Tensor, "K P"]) -> Float[Tensor, "1+C P"]:
        """The sums of each pixel's weights, and of weights times attributes."""
        listed = weights.flatten()[self.slots] * self.shown[2:]
        return torch.cat([weights.sum(0)[None], self.spread(listed).sum(1)])


class OverDepth(DepthSoftness):
    """Composites fragments front to back, so that coverage hides what is behind it.

    Fragment i weighs what it adds to the coverage U of those up to it, in the order of depths:
    U(a_1, ..., a_i) - U(a_1, ..., a_(i-1)).

    * "largest_two", the default in a hard order: U is the sum of the two largest, at most 1. On a
      surface of many faces it is what they cover together. At an edge that two faces share, the
      part of the pixel that one leaves is just what the other covers, and nothing behind them shows
      there. Other faces nearby cover what these two cover already. Faces that show their front and
      faces that show their back have a sum each, and U is the larger one: at a silhouette a front
      and a back share an edge, and cover the same. So faces of a surface have to agree on which
      side is the front.
    * "product": U = 1 - prod_j (1 - a_j), as if what faces cover had nothing to do with each other.
      Fragment i then weighs a_i prod_j (1 - a_j), with j those in front: Porter and Duff's *over*
      (SIGGRAPH 1984), as in PyTorch3D's `AlphaCompositor` and the triangle splatting of Held et al.
      (2025). Take it where coverages are opacities. At edges that faces share, a quarter of what is
      behind shows.

    The order:

    * Without a temperature it is that of the depths. Of depths that are equal but for rounding, as
      at a silhouette, that of a face that shows its front is in front of that of one that shows its
      back; of equal ones, that of the face with the lower index. Equal are those of level faces:
      where tilted ones overlap in one plane, rounding decides at each pixel. Depths have no
      gradient.
    * With one the order is soft, too, and coverages combine by the product. Fragment i weighs
      a_i prod_j (1 - a_j P(j in front of i)), with P = 1 / (1 + exp((z_i' - z_j') / gamma)) and z'
      the normalised depth, 1 at the near plane. Depths have gradients. As gamma falls to 0, it
      becomes the hard order's "product".

    An edge in front of another surface blends over the width of the edge softness. Under a softmax
    the nearer shape grows instead, because its large weight multiplies a faint coverage.

    In the hard order, fragments that at most `hidden` of the light reaches are left out, and cost
    nothing. That moves a pixel's mean colour by at most `hidden` of what colours differ by. On a
    CPU, where more than 128 faces reach a tile of 8 x 8 pixels, each pixel's faintest fragments are
    left out, too. That moves it by no more than another `hidden`. Forward mode and second
    derivatives keep the faintest. By the product they list all fragments that are seen, and take
    more memory.

    With a temperature, few fragments of a pixel are compared in pairs. Where many lie within four
    temperatures in depth, each is compared with the nodes of a polynomial instead: with 14 at most
    in float32, with 31 in float64. That is as exact as rounding. A comparison takes about 20
    nanoseconds of a core, forward and backward; from 2^30 of them on, a warning says so before they
    begin. Forward mode takes all pairs, and second derivatives K^2 memory for K fragments: 1.0 GiB
    for 160 large faces at 32 x 32 pixels.

    Args:
        gamma: temperature in units of the depth range, positive: a number, a tensor (0-d or (B,)),
            or a `Schedule`; None for the hard order.
        hidden: a fraction of the light, in [0, 1); ignored in a soft order. With 0 all fragments
            count.
        union: how coverages combine, ``"largest_two"`` or ``"product"``; None for the first in a
            hard order, and for the second in a soft one, which has no other.

    Warns:
        UserWarning: where a render in a soft order is about to compare very many fragments.

    Raises:
        TypeError: for a gamma or a fraction of another type.
        ValueError: for a gamma that is not positive, a fraction out of range, or a union that is
            unknown, or not for this order.

    Example:
        >>> renderer = SoftRasterizer(64, depth=OverDepth(gamma=0.05))
    """

    variant = DepthVariant("fragments")
    kind = "over"
    by_fragments = True

    def __init__(
        self,
        gamma: float | Tensor | Schedule | None = None,
        hidden: float = 1e-3,
        union: str | None = None,
    ) -> None:
        super().__init__()
        self.gamma = None if gamma is None else as_schedule("gamma", gamma)
        self.hidden = checks.fraction("hidden", hidden)
        if union is None:
            union = "largest_two" if gamma is None else "product"
        self.union = checks.choice("union", union, *EARLY_STOP)
        if gamma is not None and union != "product":
            raise ValueError(
                f"union: {union!r} needs a hard order, and gamma makes it soft; leave out one of "
                "them, or take union='product'"
            )

    def at(self, u: Tensor) -> DepthState:
        one = torch.ones((), dtype=torch.float64, device="cpu")
        gamma = one if self.gamma is None else self.gamma(u)
        return DepthState(gamma, torch.ones_like(gamma), torch.zeros_like(gamma), 0 * one)

    def describe(self) -> str:
        if self.gamma is not None:
            return f"over, gamma {describe(self.gamma)}"
        return "over, in order" if self.union == "product" else "over, in order, largest two"

    def stored(self) -> Stored:
        if self.gamma is None:
            return {"gamma": None, "hidden": self.hidden, "union": self.union}, {}
        kinds, tensors = stored_schedules(self, "depth", "gamma")
        return kinds | {"hidden": self.hidden}, tensors

    @classmethod
    def built(cls, entry: Entry) -> OverDepth:
        in_order = entry.description.get("gamma", 0) is None
        hidden = entry.description.get("hidden", 1e-3)
        union = entry.description.get("union", "product")  # files from before there was another
        return cls(None if in_order else built_schedule(entry, "gamma"), hidden, union)

    def extra_repr(self) -> str:
        return f"in order, {self.union}" if self.gamma is None else ""

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("union", "product")  # pickled before there was another


def weighted_sums(fragments: PixelFragments, union: str) -> Float[Tensor, "1+C P"]:
    """The sums of each pixel's weights, and of weights times attributes, in the hard order."""
    coverage = fragments.spread(fragments.shown[0])
    if union == "largest_two":
        assert fragments.fronts is not None
        return fragments.sums(_added_to_largest_two(coverage, fragments.spread(fragments.fronts)))
    return fragments.sums(coverage * _through_in_order(coverage))


def mean(sums: Float[Tensor, " 1+C *p"]) -> Float[Tensor, " C *p"]:
    """The weighted mean of each pixel's attributes, from the sums of weights, and of both."""
    return sums[1:] / divisor(sums[:1])


def divisor(total: Float[Tensor, " *p"]) -> Float[Tensor, " *p"]:
    """The sum of weights, or 1 where it is nearly 0, and with it alpha.

    There, the colour does not matter. But second derivatives hold the sum's third power.
    """
    least = torch.finfo(total.dtype).tiny ** 0.25
    return torch.where(total > least, total, 1.0)


def _through_in_order(coverage: Float[Tensor, "K P"]) -> Float[Tensor, "K P"]:
    """Transmittances in the hard order; by products, not logarithms, as coverages may be 1."""
    parts = [torch.ones_like(coverage[0])]
    for a in coverage[:-1].unbind():
        parts.append(parts[-1] * (1 - a))
    return torch.stack(parts)


def _added_to_largest_two(
    coverage: Float[Tensor, "K P"], fronts: Bool[Tensor, "K P"]
) -> Float[Tensor, "K P"]:
    """What each coverage adds to what those up to it cover together.

    That is the sum of the two largest of fronts, or of backs, whichever is larger; at most 1.
    """
    covered = torch.zeros_like(coverage[0])
    two = [(covered, covered), (covered, covered)]
    parts = []
    for every, front in zip(coverage.unbind(), fronts.unbind(), strict=True):
        for side, mine in enumerate((front, ~front)):
            a, (first, second) = torch.where(mine, every, 0.0), two[side]
            larger = a > first
            second = torch.where(larger, first, torch.where(a > second, a, second))
            two[side] = torch.where(larger, a, first), second
        total = torch.where(front, two[0][0] + two[0][1], two[1][0] + two[1][1])
        total = torch.where(total > 1, 1.0, total)
        after = torch.where(total > covered, total, covered)
        parts.append(after - covered)
        covered = after
    return torch.stack(parts)
