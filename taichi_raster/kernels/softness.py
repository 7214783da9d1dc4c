"""The edge softness on a pair's numbers, and networks whose weights are inputs."""

from __future__ import annotations

import math
from typing import Any

from taichi_raster.kernels.adjoints import Adjoints
from taichi_raster.kernels.fragment import Edge
from taichi_raster.kernels.memory import Memory
from taichi_raster.maths.dual import Number, raw, select
from taichi_raster.maths.tracing import let
from taichi_raster.runtime.layout import Part, Slot
from taichi_raster.runtime.variant import Architecture, EdgeVariant, Table
from taichi_raster.softness import network_kernel, table_kernel
from taichi_raster.softness.distributions import registry
from taichi_raster.softness.distributions.lifted import lifted


class EdgeTerms:
    """F and its companions at a signed distance."""

    def __init__(self, variant: EdgeVariant, autodiff: bool) -> None:
        self.variant = variant
        self.formulas = registry.find(variant.distribution)
        self.autodiff = autodiff

    def at(self, memory: Memory, b: Any, d: Number) -> Edge:
        scale = memory.parameter(b, Slot.SCALE)
        inverse = 1.0 / scale
        along, x_d = d, inverse
        if self.variant.squared:
            size = select(raw(d) >= 0.0, d, -d)
            along, x_d = d * size, size * 2.0 * inverse
        scaled = along * inverse
        x, x_shift = scaled, 0.0
        if self.variant.network is None:
            x_shift = -1.0 if self.formulas.mirrored else 1.0
            x = x + memory.parameter(b, Slot.SHIFT) * x_shift
        tape = None
        if self.variant.network is not None:
            tape = network_at(memory, self.variant.network, Part.EDGE_WEIGHTS, b, x)
        u = x if tape is None else tape.logit
        formulas = self.formulas
        k = memory.parameter(b, Slot.SHAPE) if formulas.shaped else None
        f = lifted(formulas.cdf, u, k, self.autodiff)
        log_s = lifted(formulas.log_survival, u, k, self.autodiff)
        saturated = None
        if formulas.saturates_at < math.inf:
            saturated = let(raw(u) >= formulas.saturates_at)
        return Edge(*f, *log_s, saturated, tape, x_d, -scaled * inverse, x_shift)


def network_at(
    memory: Memory, network: Architecture | Table, part: int, b: Any, x: Number
) -> network_kernel.Tape | table_kernel.TableTape:
    """A network whose weights lie in a part of x, or a table in its place."""
    if isinstance(network, Table):
        base = let(b * (network.size // 4))
        return table_kernel.evaluate(
            network, lambda i: memory.cell(part, base + i), x, memory.autodiff
        )
    weights: dict[int, Number] = {}

    def weight(i: int) -> Number:
        if i not in weights:
            weights[i] = memory.shared(part, network.size, b, i)
        return weights[i]

    return network_kernel.evaluate(network, weight, x)


def network_vjp(
    tape: network_kernel.Tape | table_kernel.TableTape | None,
    part: int,
    u_bar: Number,
    adjoints: Adjoints,
) -> Number:
    """The adjoint of a network's input; its weights' go into `adjoints`."""
    if tape is None:
        return u_bar
    if isinstance(tape, table_kernel.TableTape):
        if adjoints.memory.moves[part]:
            adjoints.knots(tape.first, [u_bar * slope for slope in tape.basis])
        return u_bar * tape.by_x
    size = tape.arch.size

    def take(i: int, bar: Number) -> None:
        adjoints.add(part, (adjoints.b, size), i, bar)

    return network_kernel.pull(tape, u_bar, take if adjoints.memory.moves[part] else None)
