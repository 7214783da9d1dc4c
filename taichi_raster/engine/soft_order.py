"""Each pixel's fragments in a soft order: how much each weighs, and what that makes."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from taichi_raster.depth.over import PixelFragments
from taichi_raster.engine.autodiff import by_autodiff
from taichi_raster.engine.autograd import Evaluate, Two, or_zero
from taichi_raster.engine.engine import MARGIN, Engine, on_engine
from taichi_raster.engine.tile_lists import items_per_run
from taichi_raster.kernels import soft_order as kernels
from taichi_raster.kernels.soft_order_nodes import PLANES, WIDE, WIDTH, nodes_for
from taichi_raster.runtime import transfer
from taichi_raster.runtime.device import runtime
from taichi_raster.runtime.variant import DepthVariant, EdgeVariant, Variant

MANY_PAIRS = 1 << 30
"""Comparisons, from which on a soft order warns: twenty seconds of a core, or so."""

SECONDS = 2e-8
"""Of a core, for a comparison with a node, forward and backward, or so."""

_VARIANT = Variant(
    EdgeVariant("uniform"), DepthVariant("none")
)  # a placeholder: these kernels use no softness


def sums_in_soft_order(
    fragments: PixelFragments, gamma: Float[Tensor, " P"]
) -> Float[Tensor, "1+C P"]:
    """The sums of each pixel's weights, and of weights times attributes.

    Fragment i weighs a_i times its transmittance: the product over the others j of a pixel of
    1 - a_j sigmoid((z_i - z_j) / gamma).

    Args:
        fragments: of all pixels.
        gamma: (P,) temperature of the order, in units of z.

    Warns:
        UserWarning: if that takes very many comparisons.
    """
    if by_autodiff():
        return sums_by_torch(fragments, gamma)
    _warn_of_many(fragments, gamma.detach())
    return Evaluate.apply(fragments.shown, gamma, SoftSums.of(fragments))[0]


def sums_by_torch(fragments: PixelFragments, gamma: Float[Tensor, " P"]) -> Float[Tensor, "1+C P"]:
    """`sums_in_soft_order` in torch; autograd keeps about K^2 P numbers."""
    coverage = fragments.spread(fragments.shown[0])
    depth = fragments.spread(fragments.shown[1]) / gamma
    return fragments.sums(coverage * _through(coverage, depth))


def _through(coverage: Float[Tensor, "K P"], depth: Float[Tensor, "K P"]) -> Float[Tensor, "K P"]:
    """Transmittances, fragment by fragment; depths are in temperatures."""
    through = torch.ones_like(coverage)
    for j, (a, z) in enumerate(zip(coverage.unbind(), depth.unbind(), strict=True)):
        others = coverage.new_ones(len(coverage), 1)
        others[j] = 0
        through = through * (1 - a * torch.sigmoid(depth - z) * others)
    return through


def _warn_of_many(fragments: PixelFragments, gamma: Float[Tensor, " P"]) -> None:
    """Say what many fragments will take."""
    layers = fragments.layers
    if layers * len(fragments.slots) < MANY_PAIRS:
        return
    counts = fragments.counts
    there = torch.arange(layers, device=counts.device)[:, None] < counts
    depth = fragments.spread(fragments.shown[1].detach()) / gamma
    width = torch.where(there, depth, -math.inf).amax(0)
    width = width - torch.where(there, depth, math.inf).amin(0)
    ranges = 1 + torch.where(width > 0, width / WIDE, 0.0).floor()
    nodes = ranges * nodes_for(WIDE, runtime().precision)
    pairs = float((counts * torch.minimum(counts, nodes)).sum(dtype=torch.float64))
    if pairs >= MANY_PAIRS:
        warnings.warn(
            f"OverDepth(gamma): {int(counts.sum()):,} fragments, up to {layers:,} in a pixel, will "
            f"be compared with one another: about {pairs:.1e} comparisons, {SECONDS * pairs:,.0f} "
            "seconds of a core forward and backward. Fewer: a smaller scale, a cutoff, a higher "
            "threshold, a smaller image; or OverDepth() without a gamma, whose order is hard",
            stacklevel=2,
        )


@dataclass(frozen=True)
class SoftSums:
    """`sums_in_soft_order` by kernels: an `autograd.Work`.

    Its x is (2 + C, N), what fragments show, and in the place of texels it has the temperatures.

    Attributes:
        layers, pixels: K and P.
        slots: (N,), see `PixelFragments`.
        places: (P + K * P,) how many fragments each pixel has, and which of the list they are.
    """

    layers: int
    pixels: int
    slots: Tensor
    places: Tensor

    @staticmethod
    def of(fragments: PixelFragments) -> SoftSums:
        """For these fragments."""
        slots, layers, pixels = fragments.slots, fragments.layers, fragments.pixels
        places = slots.new_zeros((1 + layers) * pixels, dtype=torch.int32)
        places[:pixels] = fragments.counts
        listed = torch.arange(len(slots), dtype=torch.int32, device=slots.device)
        places.index_copy_(0, slots + pixels, listed)
        return SoftSums(layers, pixels, slots, places)

    @property
    def kept(self) -> tuple[Tensor, ...]:
        return self.slots, self.places

    def keeping(self, kept: tuple[Tensor, ...]) -> SoftSums:
        return replace(self, slots=kept[0], places=kept[1])

    def forward(self, x: Tensor, texels: Tensor | None) -> tuple[Tensor, Tensor]:
        assert texels is not None
        return on_engine(self._forward, x, texels), x.new_empty(0)

    def vjp(self, x: Tensor, texels: Tensor | None, v: Tensor) -> Two:
        assert texels is not None
        return on_engine(self._vjp, x, texels, v)

    def jvp(
        self, x: Tensor, texels: Tensor | None, x_dot: Tensor, texels_dot: Tensor | None
    ) -> Tensor:
        assert texels is not None
        return on_engine(self._jvp, x, texels, x_dot, or_zero(texels_dot, texels))

    def renewed(self) -> SoftSums:
        return self

    def second(
        self,
        x: Tensor,
        texels: Tensor | None,
        v: Tensor,
        x_dot: Tensor,
        texels_dot: Tensor | None,
    ) -> Two:
        """In torch: a kernel's quotients would lose digits where a factor is nearly 0."""
        assert texels is not None
        along = x_dot, or_zero(texels_dot, texels)
        with torch.enable_grad():
            x, gamma = x.detach().requires_grad_(), texels.detach().requires_grad_()
            fragments = PixelFragments(x, self.slots, self.layers, self.pixels)
            sums = sums_by_torch(fragments, gamma)
            first = torch.autograd.grad(sums, (x, gamma), v, create_graph=True)
            second = torch.autograd.grad(
                first, (x, gamma), along, allow_unused=True, materialize_grads=True
            )
        return second[0], second[1]

    def _forward(self, current: Engine, x: Tensor, gamma: Tensor) -> Tensor:
        self._place(current, x, gamma)
        self._run(current, kernels.SoftSums, x)
        return self._sums(current, current.scratch.y, x)

    def _vjp(self, current: Engine, x: Tensor, gamma: Tensor, v: Tensor) -> Two:
        self._place(current, x, gamma)
        fields = current.scratch
        transfer.put(fields, fields.y.grad, v.detach().reshape(-1), self._rows)
        self._run(current, kernels.SoftSumsVJP, x)
        found = transfer.read(fields, fields.x.grad, x, self.pixels + x.numel(), self._rows)
        return found[self.pixels :].view_as(x), found[: self.pixels]

    def _jvp(
        self, current: Engine, x: Tensor, gamma: Tensor, x_dot: Tensor, gamma_dot: Tensor
    ) -> Tensor:
        self._place(current, x, gamma)
        fields = current.scratch
        fields.reserve(x_dot=self._inputs(x), y_dot=self._results(x))
        self._put(current, fields.x_dot, x_dot, gamma_dot)
        self._run(current, kernels.SoftSumsJVP, x)
        return self._sums(current, fields.y_dot, x)

    @property
    def _rows(self) -> int:
        """Numbers of the rows, which are first."""
        return 2 * self.layers * self.pixels

    def _inputs(self, x: Tensor) -> int:
        return self._rows + self.pixels + x.numel() + MARGIN

    def _results(self, x: Tensor) -> int:
        return self._rows + (len(x) - 1) * self.pixels + MARGIN

    def _place(self, current: Engine, x: Tensor, gamma: Tensor) -> None:
        """Upload the inputs, and make room for the results."""
        current.displace()
        fields = current.scratch
        fields.reserve(x=self._inputs(x), y=self._results(x), entries=len(self.places) + MARGIN)
        transfer.seed(fields, (fields.entries, self.places))
        self._put(current, fields.x, x, gamma)

    def _put(self, current: Engine, field: Any, x: Tensor, gamma: Tensor) -> None:
        for values, begin in ((gamma, self._rows), (x, self._rows + self.pixels)):
            transfer.put(current.scratch, field, values.detach().reshape(-1), begin)

    def _sums(self, current: Engine, field: Any, x: Tensor) -> Tensor:
        planes = len(x) - 1
        found = transfer.read(current.scratch, field, x, planes * self.pixels, self._rows)
        return found.view(planes, self.pixels)

    def _run(self, current: Engine, kind: type[kernels.SoftOrderKernels], x: Tensor) -> None:
        width = 1 if current.on_gpu else WIDTH
        chunks = -(-self.pixels // width)
        length = 1 if current.on_gpu else items_per_run(chunks)
        if not kind.tangents:
            nodes = nodes_for(WIDE, runtime().precision)
            current.scratch.reserve(rows=chunks * PLANES * nodes * width)
        sizes = self.pixels, self.layers, chunks, length, x.shape[1], len(x) - 2
        current.cache.launch(kind, _VARIANT, "run", *sizes)
