"""Learned depth softness: a small network gives the log-weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from taichi_raster.depth.base import (
    DepthState,
    LogWeight,
    LogWeightFormula,
    PairKernel,
    WeightedDepth,
)
from taichi_raster.maths.dual import Number
from taichi_raster.runtime.layout import Part, Slot
from taichi_raster.runtime.variant import DepthVariant
from taichi_raster.softness.archive import Entry
from taichi_raster.softness.network_torch import architecture, network_logit, random_weights
from taichi_raster.softness.schedule import Schedule, describe
from taichi_raster.softness.serialization import Stored, fill_parameters


@dataclass(frozen=True)
class _Formula(LogWeightFormula):
    def at(self, kernel: PairKernel, b: Any, z_norm: Number, reference: Any) -> LogWeight:
        assert self.network is not None
        inverse = 1.0 / kernel.parameter(b, Slot.GAMMA)
        tape = kernel.network(self.network, Part.DEPTH_WEIGHTS, b, z_norm)
        l = tape.logit * inverse  # noqa: E741
        return LogWeight(l, inverse, -l * inverse, tape=tape)


class MLPDepth(WeightedDepth):
    """Learns how depth weighs: l = (z_norm + r(z_norm)) / gamma with a small tanh network r.

    It starts as `SoftmaxDepth`. The published learned depth (Wu et al., EGSR 2024) multiplies
    running sums, so that its result depends on the order of the faces. A log-weight's does not.

    Args:
        widths, residual, bias: of the network, as for `MLPSoftness`.
        gamma, background_z: as for `SoftmaxDepth`.
        seed: of the random weights of the hidden layers; those of the output unit start at 0.

    Attributes:
        weights: parameter (Q,), in the order of `MLPSoftness.weights`.

    Raises:
        TypeError, ValueError: as `MLPSoftness` and `SoftmaxDepth`.
    """

    kind = "mlp"

    def __init__(
        self,
        widths: Sequence[int] = (4, 4),
        residual: bool = True,
        bias: bool = True,
        gamma: float | Tensor | Schedule = 1e-2,
        background_z: float | Tensor = 2e-3,
        seed: int = 0,
    ) -> None:
        super().__init__(gamma, background_z)
        self.network = architecture(widths, residual, bias, "plain")
        self.variant = DepthVariant("weights", _Formula(self.network))
        weights = random_weights(self.network, seed)
        weights[self.network.offsets[-2] :] = 0
        self.weights = nn.Parameter(weights)

    def at(self, u: Tensor) -> DepthState:
        gamma = self.gamma(u)
        rest = torch.ones_like(gamma), torch.zeros_like(gamma)
        return DepthState(gamma, *rest, self.background_z, self.weights)

    def log_weight(self, z_norm: Tensor, u: float = 1.0) -> Tensor:
        """l at normalised depths (N,), computed in torch, differentiably; for plots and tests."""
        return network_logit(self.network, self.weights, z_norm) / self.gamma(
            torch.tensor(u, device="cpu")
        )

    def background(self, state: DepthState, batch: int) -> Tensor:
        assert state.weights is not None
        z = state.background_z.to(state.weights).expand(batch)[:, None]
        logit = network_logit(self.network, state.weights, z)[:, 0]
        return logit / state.gamma.to(logit).expand(batch)

    def describe(self) -> str:
        widths = "-".join(map(str, (1, *self.network.widths, 1)))
        return f"network {widths}, gamma {describe(self.gamma)}"

    def stored(self) -> Stored:
        net = self.network
        return self._stored("gamma", widths=list(net.widths), residual=net.residual, bias=net.bias)

    @classmethod
    def built(cls, entry: Entry) -> MLPDepth:
        flags = entry.get("residual", bool), entry.get("bias", bool)
        depth = cls(entry.get("widths", list), *flags, *cls._shared(entry))
        fill_parameters(entry, depth, "weights")
        return depth
