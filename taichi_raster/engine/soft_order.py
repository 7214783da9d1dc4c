"""Transmittances in a soft order: how much of each fragment the others let through."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from taichi_raster.engine.autodiff import by_autodiff
from taichi_raster.engine.autograd import Evaluate
from taichi_raster.engine.engine import MARGIN, Engine, on_engine
from taichi_raster.engine.tile_lists import items_per_run
from taichi_raster.kernels.soft_order import (
    SoftOrderKernels,
    Transmittance,
    TransmittanceJVP,
    TransmittanceVJP,
)
from taichi_raster.kernels.soft_order_nodes import PLANES, WIDE, WIDTH, nodes_for
from taichi_raster.runtime import transfer
from taichi_raster.runtime.device import runtime
from taichi_raster.runtime.variant import DepthVariant, EdgeVariant, Variant

MANY_PAIRS = 1 << 30
"""Comparisons, from which on a soft order warns: fifteen seconds of a core, or so."""

SECONDS = 1.3e-8
"""Of a core, for a comparison with a node, forward and backward, or so."""

_VARIANT = Variant(
    EdgeVariant("uniform"), DepthVariant("none")
)  # a placeholder: these kernels use no softness


def through_softly(
    coverage: Float[Tensor, "K P"], depth: Float[Tensor, "K P"], counts: Int[Tensor, " P"]
) -> Float[Tensor, "K P"]:
    """The transmittance of each fragment i: the product over j of 1 - a_j sigmoid(z_i - z_j).

    Args:
        coverage: (K, P) a, in [0, 1], of up to K fragments of P pixels.
        depth: (K, P) z, divided by the temperature.
        counts: (P,) how many of the K places each pixel fills, from the first on. The others must
            have coverage 0; their results are ignored.

    Warns:
        UserWarning: if that takes very many comparisons.
    """
    if by_autodiff():
        return through_by_torch(coverage, depth)
    _warn_of_many(depth.detach(), counts)
    x = torch.cat([coverage.reshape(-1), depth.reshape(-1)])
    layers, pixels = coverage.shape
    return Evaluate.apply(x, None, SoftOrder(layers, pixels, counts))[0]


def through_by_torch(
    coverage: Float[Tensor, "K P"], depth: Float[Tensor, "K P"]
) -> Float[Tensor, "K P"]:
    """`through_softly` in torch, fragment by fragment; autograd keeps about K^2 P numbers."""
    through = torch.ones_like(coverage)
    for j, (a, z) in enumerate(zip(coverage.unbind(), depth.unbind(), strict=True)):
        others = coverage.new_ones(len(coverage), 1)
        others[j] = 0
        through = through * (1 - a * torch.sigmoid(depth - z) * others)
    return through


def _warn_of_many(depth: Float[Tensor, "K P"], counts: Int[Tensor, " P"]) -> None:
    """Say what many fragments will take."""
    layers, pixels = depth.shape
    if layers * layers * pixels < MANY_PAIRS:
        return
    there = torch.arange(layers, device=depth.device)[:, None] < counts.to(depth.device)
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
class SoftOrder:
    """`through_softly` by kernels: an `autograd.Work` whose x is coverages, then depths."""

    layers: int
    pixels: int
    counts: Tensor

    @property
    def kept(self) -> tuple[Tensor, ...]:
        return (self.counts,)

    def keeping(self, kept: tuple[Tensor, ...]) -> SoftOrder:
        return replace(self, counts=kept[0])

    def forward(self, x: Tensor, texels: None) -> tuple[Tensor, Tensor]:
        return on_engine(self._forward, x), x.new_empty(0)

    def vjp(self, x: Tensor, texels: None, v: Tensor) -> tuple[Tensor, None]:
        return on_engine(self._vjp, x, v), None

    def jvp(self, x: Tensor, texels: None, x_dot: Tensor, texels_dot: None) -> Tensor:
        return on_engine(self._jvp, x, x_dot)

    def renewed(self) -> SoftOrder:
        return self

    def second(
        self, x: Tensor, texels: None, v: Tensor, x_dot: Tensor, texels_dot: None
    ) -> tuple[Tensor, None]:
        """In torch: a kernel's quotients would lose digits where a factor is nearly 0."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            coverage, depth = x.view(2, self.layers, self.pixels)
            through = through_by_torch(coverage, depth)
            (first,) = torch.autograd.grad(through, x, v.view_as(through), create_graph=True)
            return torch.autograd.grad(first, x, x_dot)[0], None

    @property
    def _size(self) -> int:
        return self.layers * self.pixels

    def _forward(self, current: Engine, x: Tensor) -> Tensor:
        self._place(current, x)
        self._run(current, Transmittance)
        found = transfer.read(current.scratch, current.scratch.y, x, self._size)
        return found.view(self.layers, self.pixels)

    def _vjp(self, current: Engine, x: Tensor, v: Tensor) -> Tensor:
        self._place(current, x)
        fields = current.scratch
        transfer.seed(fields, (fields.y.grad, v))
        self._run(current, TransmittanceVJP)
        return transfer.read(fields, fields.x.grad, x, 2 * self._size)

    def _jvp(self, current: Engine, x: Tensor, x_dot: Tensor) -> Tensor:
        self._place(current, x, x_dot)
        self._run(current, TransmittanceJVP)
        found = transfer.read(current.scratch, current.scratch.y_dot, x, self._size)
        return found.view(self.layers, self.pixels)

    def _place(self, current: Engine, x: Tensor, x_dot: Tensor | None = None) -> None:
        """Upload the inputs, and make room for the results."""
        current.displace()
        fields, size = current.scratch, len(x) + MARGIN
        fields.reserve(x=size, y=size, entries=len(self.counts) + MARGIN)
        if x_dot is not None:
            fields.reserve(x_dot=size, y_dot=size)
            transfer.seed(fields, (fields.x_dot, x_dot))
        transfer.seed(fields, (fields.x, x), (fields.entries, self.counts))

    def _run(self, current: Engine, kind: type[SoftOrderKernels]) -> None:
        width = 1 if current.on_gpu else WIDTH
        chunks = -(-self.pixels // width)
        length = 1 if current.on_gpu else items_per_run(chunks)
        if not kind.tangents:
            nodes = nodes_for(WIDE, runtime().precision)
            current.scratch.reserve(rows=chunks * PLANES * nodes * width)
        current.cache.launch(kind, _VARIANT, "run", self.pixels, self.layers, chunks, length)
