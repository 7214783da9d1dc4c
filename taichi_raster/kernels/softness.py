"""The two softened decisions, on a pair's numbers: the edge softness and the depth's log-weight."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from taichi_raster.kernels.adjoints import Adjoints
from taichi_raster.kernels.fragment import Edge
from taichi_raster.kernels.memory import Memory
from taichi_raster.maths.arithmetic import frozen
from taichi_raster.maths.dual import Number, chain, raw, select
from taichi_raster.maths.tracing import let
from taichi_raster.runtime.layout import DepthVariant, EdgeVariant, Part, Slot
from taichi_raster.runtime.network_shape import Architecture, Table
from taichi_raster.softness import network_kernel, table_kernel
from taichi_raster.softness.distributions import registry


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


def lifted(
    function: Any, u: Number, k: Number | None, autodiff: bool
) -> tuple[Number, Number, Any]:
    """(value, slope in u, slope in k or None) of a distribution's formula, as numbers."""
    if k is None:
        v, v_x, v_xx = (let(i) for i in function(bare(u, autodiff)))
        by_u = chain(v_x, (v_xx, u), autodiff=autodiff)
        return chain(v, (by_u, u), autodiff=autodiff), by_u, None
    found = function(bare(u, autodiff), bare(k, autodiff))
    v, v_x, v_xx, v_k, v_kx, v_kk = (let(i) for i in found)
    by_u = chain(v_x, (v_xx, u), (v_kx, k), autodiff=autodiff)
    by_k = chain(v_k, (v_kx, u), (v_kk, k), autodiff=autodiff)
    return chain(v, (by_u, u), (by_k, k), autodiff=autodiff), by_u, by_k


def bare(x: Number, autodiff: bool) -> Any:
    return let(frozen(raw(x))) if autodiff else raw(x)


@dataclass(frozen=True)
class LogWeight:
    """The log-weight l of a fragment, relative to the pixel's reference depth.

    Attributes:
        l: the value; by_z: its slope in z_norm, or in the logit u of a network, whose tape is there
            then; by_gamma, by_shape, by_shift: in the parameters.
    """

    l: Number  # noqa: E741 - as in the text
    by_z: Number
    by_gamma: Number
    by_shape: Any = None
    by_shift: Any = None
    tape: network_kernel.Tape | table_kernel.TableTape | None = None


class DepthWeight:
    """l(z_norm): z_norm / gamma (softmax), log F(z_norm / gamma + shift), or a network's."""

    def __init__(self, variant: DepthVariant, autodiff: bool) -> None:
        self.variant = variant
        self.softmax = variant.kind == "softmax"
        self.autodiff = autodiff

    def at(self, kernels: Memory, b: Any, z_norm: Number, reference: Any) -> LogWeight:
        """`reference` is the depth that a softmax's z_norm is taken relative to: it cancels, and
        keeps z_norm / gamma from losing its digits."""
        inverse = 1.0 / kernels.parameter(b, Slot.GAMMA)
        if self.softmax:
            l = (z_norm - reference) * inverse  # noqa: E741
            return LogWeight(l, inverse, -l * inverse)
        if self.variant.kind == "network":
            assert self.variant.network is not None
            tape = network_at(kernels, self.variant.network, Part.DEPTH_WEIGHTS, b, z_norm)
            l = tape.logit * inverse  # noqa: E741
            return LogWeight(l, inverse, -l * inverse, tape=tape)
        formulas = registry.find(self.variant.distribution or "")
        sign = -1.0 if formulas.mirrored else 1.0
        scaled = z_norm * inverse
        x = scaled + kernels.parameter(b, Slot.DEPTH_SHIFT) * sign
        k = kernels.parameter(b, Slot.DEPTH_SHAPE) if formulas.shaped else None
        l, by_x, by_k = lifted(formulas.log_cdf, x, k, self.autodiff)  # noqa: E741
        return LogWeight(l, by_x * inverse, -by_x * scaled * inverse, by_k, by_x * sign)
