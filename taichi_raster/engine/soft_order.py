"""A soft order's transmittances: what the other fragments of a pixel let through of each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from taichi_raster.engine.autograd import Evaluate
from taichi_raster.engine.engine import Engine, by_autodiff, engine, to_each
from taichi_raster.kernels.soft_order import (
    WIDTH,
    SoftOrderKernels,
    Transmittance,
    TransmittanceJVP,
    TransmittanceVJP,
)
from taichi_raster.runtime import transfer
from taichi_raster.runtime.layout import DepthVariant, EdgeVariant, Variant
from taichi_raster.runtime.thread import owner

_VARIANT = Variant(EdgeVariant("uniform"), DepthVariant("none"))  # which these do not look at


def through_softly(
    coverage: Float[Tensor, "K P"], depth: Float[Tensor, "K P"], counts: Int[Tensor, "P"]
) -> Float[Tensor, "K P"]:
    """What the others let through of each fragment: the product of 1 - a_j sigmoid(z_i - z_j).

    Args:
        coverage: a, in [0, 1]; depth: z, in temperatures.
        counts: how many of its K places each pixel fills, from the first on; the others have
            coverage 0, and what comes of them is of no account.
    """
    if by_autodiff():
        return through_by_torch(coverage, depth)
    x = torch.cat([coverage.reshape(-1), depth.reshape(-1)])
    layers, pixels = coverage.shape
    return Evaluate.apply(x, SoftOrder(layers, pixels, counts))[0]


def through_by_torch(
    coverage: Float[Tensor, "K P"], depth: Float[Tensor, "K P"]
) -> Float[Tensor, "K P"]:
    """The same in torch, fragment by fragment: it keeps some K^2 P numbers."""
    through = torch.ones_like(coverage)
    for j, (a, z) in enumerate(zip(coverage.unbind(), depth.unbind(), strict=True)):
        others = coverage.new_ones(len(coverage), 1)
        others[j] = 0
        through = through * (1 - a * torch.sigmoid(depth - z) * others)
    return through


@dataclass(frozen=True)
class SoftOrder:
    """`through_softly` by kernels, an `autograd.Work` of coverages and depths, flat in x."""

    layers: int
    pixels: int
    counts: Tensor

    @property
    def kept(self) -> tuple[Tensor, ...]:
        return (self.counts,)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return owner.run(self._forward, engine(), x), x.new_empty(0)

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        return owner.run(self._vjp, engine(), x, v)

    def jvp(self, x: Tensor, x_dot: Tensor) -> Tensor:
        return owner.run(self._jvp, engine(), x, x_dot)

    def renewed(self) -> SoftOrder:
        return self

    def second(self, x: Tensor, v: Tensor, x_dot: Tensor) -> Tensor:
        """In torch: the kernel's quotients would lose their digits where a factor is nearly 0."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            coverage, depth = x.view(2, self.layers, self.pixels)
            through = through_by_torch(coverage, depth)
            (first,) = torch.autograd.grad(through, x, v.view_as(through), create_graph=True)
            return torch.autograd.grad(first, x, x_dot)[0]

    @property
    def _size(self) -> int:
        return self.layers * self.pixels

    def _forward(self, current: Engine, x: Tensor) -> Tensor:
        current.place_numbers(x, self.counts)
        self._run(current, Transmittance)
        found = transfer.read(current.scratch, current.scratch.y, x, self._size)
        return found.view(self.layers, self.pixels)

    def _vjp(self, current: Engine, x: Tensor, v: Tensor) -> Tensor:
        current.place_numbers(x, self.counts)
        fields = current.scratch
        transfer.seed(fields, fields.y.grad, v, fields.y.grad, 0)
        self._run(current, TransmittanceVJP)
        return transfer.read(fields, fields.x.grad, x, 2 * self._size)

    def _jvp(self, current: Engine, x: Tensor, x_dot: Tensor) -> Tensor:
        current.place_numbers(x, self.counts, x_dot)
        self._run(current, TransmittanceJVP)
        found = transfer.read(current.scratch, current.scratch.y_dot, x, self._size)
        return found.view(self.layers, self.pixels)

    def _run(self, current: Engine, kind: type[SoftOrderKernels]) -> None:
        width = 1 if current.on_gpu else WIDTH
        chunks = -(-self.pixels // width)
        length = 1 if current.on_gpu else to_each(chunks)
        current.launch(kind, _VARIANT, "run", self.pixels, self.layers, chunks, length)
