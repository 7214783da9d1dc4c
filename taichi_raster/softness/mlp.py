"""The learned edge softness: a small network in front of the logistic function.

F = sigmoid(u), u = x + r(x), x = d / scale. The residual r is a network of tanh layers, bounded by
its output weights. So F still goes to 0 far outside, and to 1 far inside. The network is that of Wu
et al. (EGSR 2024): 1-4-4-4-4-1, the first hidden layer added to the fourth before its tanh. The
term x is ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from taichi_raster.runtime.transforms import unwrapped
from taichi_raster.runtime.variant import Architecture, EdgeVariant
from taichi_raster.softness import parameters
from taichi_raster.softness.distributions import registry
from taichi_raster.softness.distributions.formulas import formulas_at
from taichi_raster.softness.edge import EdgeSoftness, EdgeState
from taichi_raster.softness.network_numpy import logit_and_jacobian
from taichi_raster.softness.network_torch import (
    architecture,
    network_logit,
    random_weights,
)
from taichi_raster.softness.schedule import Schedule, as_progress, as_schedule, describe


class MLPSoftness(EdgeSoftness):
    """Learns the shape of the edge softness by a small network (Wu et al., EGSR 2024).

    F = sigmoid(x + r(x)) with x = d / scale, and r a network of tanh layers.

    Args:
        widths: hidden layers, each 1 to 16 wide.
        residual: add the first hidden layer to the last one before its tanh. This needs at least
            two hidden layers, the first as wide as the last.
        bias: whether units have biases.
        input: the network's input: ``"asinh"`` of x, which resolves long tails, or ``"plain"`` x.
        scale: as for `Distribution`; a `Knots` schedule is learned, too.
        init: the distribution to start as, any but ``"heaviside"``. ``"logistic"`` is exact
            (r = 0), others are fitted by regression; None starts from random weights.
        progress: learn a dependence on progress: ``progress_weights * (2 u - 1)`` is added to the
            first layer's biases.
        seed: of the random weights.
        init_shape: shape of the distribution to start as, if it has one.

    Attributes:
        weights: parameter (P,): for each layer its matrix, row by row (one row per unit), then its
            biases; the output unit is last. With `torch.func.functional_call` it may be (B, P), one
            set per batch item.
        progress_weights: parameter, one number for each unit of the first layer, or None.

    Raises:
        TypeError: for an argument of another type.
        ValueError: for an unknown name, or an impossible architecture.

    Example:
        >>> edge = MLPSoftness(scale=Knots([0.16, 0.08, 0.04, 0.01]))
    """

    progress_weights: nn.Parameter | None
    network: Architecture

    def __init__(
        self,
        widths: Sequence[int] = (4, 4, 4, 4),
        residual: bool = True,
        bias: bool = True,
        input: str = "asinh",  # noqa: A002 - a public name
        scale: float | Tensor | Schedule = 0.05,
        init: str | None = "logistic",
        progress: bool = False,
        seed: int = 0,
        init_shape: float | None = None,
    ) -> None:
        super().__init__()
        self.network = architecture(widths, residual, bias, input)
        self.variant = EdgeVariant("logistic", self.network)
        self.scale = as_schedule("scale", scale)
        if init == "heaviside":
            raise ValueError("init: a smooth network cannot start as 'heaviside'")
        if init is not None and registry.find(init).shaped and init_shape is None:
            raise ValueError(f"init_shape: the distribution {init!r} needs one, a positive number")
        if progress and not bias:
            raise ValueError("progress: moves the first layer's biases, so it needs bias=True")
        self.weights = nn.Parameter(random_weights(self.network, seed))
        first = self.network.widths[0]
        self.progress_weights = (
            nn.Parameter(torch.zeros(first, dtype=torch.float64, device="cpu"))
            if progress
            else None
        )
        if init is not None:
            self._start_as(init, init_shape)

    def at(self, u: Tensor, threshold: float) -> EdgeState:
        weights = self.weights_at(u)
        scale = self.scale(u)
        reach = registry.find("logistic").reach(threshold) + self._bound(weights)
        rest = torch.ones_like(scale), torch.zeros_like(scale)
        return EdgeState(scale, *rest, weights, reach * float(unwrapped(scale).max()))

    def logit(self, x: Tensor, weights: Tensor | None = None) -> Tensor:
        """u at scaled distances `x` of any shape, differentiable in torch; for fits and plots."""
        theta = self.weights if weights is None else weights
        return network_logit(self.network, theta, x)

    def value(self, d: Tensor, progress: float | None = None) -> Tensor:
        u = as_progress(progress, 1)
        d = torch.as_tensor(d, dtype=torch.float64)
        x = d / self.scale(u).detach().to(d.device)
        return torch.sigmoid(self.logit(x, self.weights_at(u).to(x))).detach()

    def weights_at(self, u: Tensor) -> Tensor:
        """The weights at progress `u`: (P,), or (B, P)."""
        if self.progress_weights is None:
            return self.weights
        net = self.network
        first = net.widths[0]
        before, biases, after = self.weights.split([first, first, net.size - 2 * first], dim=-1)
        place = parameters.to_like(2 * u - 1, self.weights)
        moved = biases + place[..., None] * self.progress_weights
        lead = moved.shape[:-1]
        return torch.cat([before.expand(*lead, -1), moved, after.expand(*lead, -1)], dim=-1)

    def _bound(self, weights: Tensor) -> float:
        """A bound of |r|, as tanh is at most 1."""
        return float(unwrapped(weights)[..., self.network.offsets[-2] :].abs().sum(-1).max())

    def _start_as(self, name: str, shape: float | None) -> None:
        out = self.network.offsets[-2]
        with torch.no_grad():
            self.weights[out:] = 0
        if name == "logistic":
            return
        from scipy.optimize import least_squares  # here, as SciPy takes a while to import
        from scipy.special import expit

        x = np.sinh(np.linspace(-3.2, 3.2, 401))
        target = formulas_at(name, torch.from_numpy(x), shape)[0].double().numpy()
        weak = 3e-4  # keeps weights small where the curve does not determine them

        def error(theta: np.ndarray) -> np.ndarray:
            u, _ = logit_and_jacobian(self.network, theta, x)
            return np.concatenate([expit(u) - target, weak * theta])

        def jacobian(theta: np.ndarray) -> np.ndarray:
            u, by_theta = logit_and_jacobian(self.network, theta, x)
            slope = expit(u) * expit(-u)
            return np.concatenate([slope[:, None] * by_theta, weak * np.eye(len(theta))])

        fits = [
            least_squares(
                error,
                random_weights(self.network, seed).numpy(),
                jac=jacobian,
                method="lm",
                max_nfev=60,
            )
            for seed in range(1, 5)  # several starts: some end in a poor local minimum
        ]
        best = min(fits, key=lambda fit: fit.cost)
        with torch.no_grad():
            self.weights.copy_(torch.from_numpy(best.x))

    def describe(self) -> str:
        widths = "-".join(map(str, (1, *self.network.widths, 1)))
        moving = "" if self.progress_weights is None else ", moving with progress"
        return f"network {widths}{moving}, scale {describe(self.scale)}"

    def extra_repr(self) -> str:
        return f"{self.network}"
