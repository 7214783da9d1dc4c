"""Depth softness: how much each fragment weighs in a pixel's colour.

Most are a log-weight l(z_norm) with z_norm = (far - z) / (far - near), 1 at the near plane; a
fragment's weight is its coverage times exp(l), and the kernels need sums alone. `OverDepth` looks
at the fragments in front of each (see over.py). None depends on the order that faces are given in,
but for faces at equal depths in `OverDepth` without a temperature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from taichi_raster.runtime.layout import DepthVariant
from taichi_raster.softness.distributions import registry
from taichi_raster.softness.distributions.log_cdf import log_cdf
from taichi_raster.softness.edge import as_shape
from taichi_raster.softness.network import architecture, network_logit, random_weights
from taichi_raster.softness.schedule import Schedule, as_finite, as_schedule, as_shift, hold


@dataclass(frozen=True)
class DepthState:
    """A depth softness at one progress.

    Attributes:
        gamma, shape, shift, background_z: 0-d or (B,).
        weights: network weights (Q,) or (B, Q), or None.
    """

    gamma: Tensor
    shape: Tensor
    shift: Tensor
    background_z: Tensor
    weights: Tensor | None = None


class DepthSoftness(nn.Module):
    """The base of all depth softnesses.

    Attributes:
        variant: what the kernels compile.
    """

    variant: DepthVariant

    def at(self, u: Tensor) -> DepthState:
        """The softness at progress `u`, 0-d or (B,)."""
        raise NotImplementedError

    def background(self, state: DepthState, batch: int) -> Tensor:
        """The background's log-weight, (B,), by the same formula as a fragment's."""
        raise NotImplementedError


class HardDepth(DepthSoftness):
    """The nearest face that contains the pixel gives its colour, alone; no face, the background.

    Colours then have no gradient through visibility; alpha stays soft.
    """

    variant = DepthVariant("hard")

    def at(self, u: Tensor) -> DepthState:
        one = torch.ones((), dtype=torch.float64)
        return DepthState(one, one, 0 * one, 0 * one)

    def background(self, state: DepthState, batch: int) -> Tensor:
        return state.background_z.expand(batch)


class OverDepth(DepthSoftness):
    """Coverages hide what is behind them: each fragment weighs what the nearer ones let through.

    Fragment i weighs a_i prod_j (1 - a_j P(j in front of i)). Without a temperature the order is
    that of the depths: Porter and Duff's *over* (SIGGRAPH 1984), front to back, as PyTorch3D's
    `AlphaCompositor` and the triangle splatting of Held et al. (2025) have it; of depths that are
    equal to the last bit, the face with the lower number is in front. With one, the order is soft
    as well: P = 1 / (1 + exp((z_i' - z_j') / gamma)), z' normalised depth, 1 at the near
    plane. Depths have gradients only then.

    A sharp edge in front of another surface blends from one to the other over the width of the edge
    softness. Under a softmax the nearer shape grows instead, by its scale over gamma, since a faint
    coverage weighs as much as the depth before it is exponentiated. In return this needs a list of
    fragments for each pixel, and takes about three times as long; with a temperature, K of them
    take K^2 operations, and K^2 memory where second derivatives are wanted (160 large faces at
    32 x 32 pixels: 1 GiB).

    Args:
        gamma: temperature, in units of the depth range, positive: a number, a tensor (0-d or (B,))
            or a `Schedule`; None for the hard order.

    Raises:
        ValueError: for a gamma that is not positive.
    """

    variant = DepthVariant("over")

    def __init__(self, gamma: float | Tensor | Schedule | None = None) -> None:
        super().__init__()
        self.gamma = None if gamma is None else as_schedule("gamma", gamma)

    def at(self, u: Tensor) -> DepthState:
        one = torch.ones((), dtype=torch.float64)
        gamma = one if self.gamma is None else self.gamma(u)
        return DepthState(gamma, torch.ones_like(gamma), torch.zeros_like(gamma), 0 * one)

    def background(self, state: DepthState, batch: int) -> Tensor:
        return state.background_z.expand(batch)

    def extra_repr(self) -> str:
        return "in order" if self.gamma is None else ""


class _SmoothDepth(DepthSoftness):
    """What the soft ones share: a temperature, and where the background lies."""

    background_z: Tensor

    def __init__(
        self, gamma: float | Tensor | Schedule = 1e-2, background_z: float | Tensor = 2e-3
    ) -> None:
        super().__init__()
        self.gamma = as_schedule("gamma", gamma)
        value = as_finite("background_z", background_z)
        if not bool((value.detach() >= 0).all()):
            raise ValueError(f"background_z: expected finite values >= 0, got {value.tolist()}")
        hold(self, "background_z", value)

    def at(self, u: Tensor) -> DepthState:
        gamma = self.gamma(u)
        return DepthState(gamma, torch.ones_like(gamma), torch.zeros_like(gamma), self.background_z)


class SoftmaxDepth(_SmoothDepth):
    """Softmax over depth: l = z_norm / gamma (Liu et al., ICCV 2019, eq. 5).

    Args:
        gamma: temperature, positive; a number, a tensor (0-d or (B,)) or a `Schedule`. Smaller is
            sharper.
        background_z: normalised depth of the background, >= 0, so that its weight is
            exp(background_z / gamma): a number or a tensor, 0-d or (B,).

    Raises:
        ValueError: for a gamma that is not positive, or a background_z that is negative.
    """

    variant = DepthVariant("softmax")

    def background(self, state: DepthState, batch: int) -> Tensor:
        return (state.background_z / state.gamma.to(state.background_z)).expand(batch)


class DistributionDepth(_SmoothDepth):
    """A distribution over depth: l = log F(z_norm / gamma + shift) (Wu et al., EGSR 2024).

    z_norm lies in [0, 1], 1 at the near plane: shift by about -1 / (2 gamma) to put the middle of
    the distribution in the middle of the depth range.

    Args:
        name: of the distribution, as for `Distribution`.
        gamma: its scale, in units of the depth range; else as for `SoftmaxDepth`.
        background_z: as for `SoftmaxDepth`.
        shape, shift: as for `Distribution`.

    Raises:
        ValueError: as `SoftmaxDepth` and `Distribution`; also for ``"heaviside"``.
    """

    def __init__(
        self,
        name: str,
        gamma: float | Tensor | Schedule = 1e-2,
        background_z: float | Tensor = 2e-3,
        shape: float | Tensor | Schedule | None = None,
        shift: float | Tensor | Schedule = 0.0,
    ) -> None:
        super().__init__(gamma, background_z)
        registry.find(name)
        if name == "heaviside":
            raise ValueError("name: 'heaviside' cannot order depths; use HardDepth")
        self.variant = DepthVariant("distribution", distribution=name)
        self.shape = as_shape(name, shape)
        self.shift = as_shift("shift", shift)

    @property
    def formulas(self) -> registry.DistributionFormulas:
        """The distribution's formulas: looked up, so that the module can be pickled."""
        assert self.variant.distribution is not None
        return registry.find(self.variant.distribution)

    def at(self, u: Tensor) -> DepthState:
        return DepthState(self.gamma(u), self.shape(u), self.shift(u), self.background_z)

    def background(self, state: DepthState, batch: int) -> Tensor:
        sign = -1 if self.formulas.mirrored else 1
        x = state.background_z.double() / state.gamma.double() + sign * state.shift.double()
        shape = state.shape.double() if self.formulas.shaped else None
        return log_cdf(self.formulas.name, x.expand(batch), shape)


class MLPDepth(_SmoothDepth):
    """A learned depth softness: l = (z_norm + r(z_norm)) / gamma with a small tanh network r.

    It starts as `SoftmaxDepth`. (The published learned depth, Wu et al., EGSR 2024, multiplies
    running sums, so that its result depends on the order of the faces; a log-weight does not.)

    Args:
        widths, residual, bias: of the network, as for `MLPSoftness`.
        gamma, background_z: as for `SoftmaxDepth`.
        seed: of the random weights in front of the output unit, whose own are 0.

    Attributes:
        weights: parameter (Q,), in the order of `MLPSoftness.weights`.
    """

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
        self.variant = DepthVariant("network", network=self.network)
        weights = random_weights(self.network, seed)
        weights[self.network.offsets[-2] :] = 0
        self.weights = nn.Parameter(weights)

    def at(self, u: Tensor) -> DepthState:
        gamma = self.gamma(u)
        rest = torch.ones_like(gamma), torch.zeros_like(gamma)
        return DepthState(gamma, *rest, self.background_z, self.weights)

    def log_weight(self, z_norm: Tensor, u: float = 1.0) -> Tensor:
        """l at normalised depths (N,), differentiable in torch; for plots and tests."""
        return network_logit(self.network, self.weights, z_norm) / self.gamma(torch.tensor(u))

    def background(self, state: DepthState, batch: int) -> Tensor:
        assert state.weights is not None
        z = state.background_z.to(state.weights).expand(batch)[:, None]
        logit = network_logit(self.network, state.weights, z)[:, 0]
        return logit / state.gamma.to(logit).expand(batch)
