"""The outer step: Adam on a method's parameters, by name, with clipping and a falling rate."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from meta.inner.method import Method
from meta.outer.settings import TrainerSettings


class OuterAdam:
    """Adam on the learnable parameters of a method.

    Args:
        rates: learning rate of each parameter.
        state: the `state()` of an earlier optimiser, to resume it; empty for a new one.
    """

    def __init__(
        self,
        method: Method,
        rates: Mapping[str, float],
        state: Mapping[str, Mapping[str, Tensor]],
    ):
        self.method = method
        self.rates = rates
        self._adam = torch.optim.Adam(
            [
                {"params": [parameter], "name": name, "lr": rates[name]}
                for name, parameter in method.learnable().items()
            ]
        )
        for name, parameter in method.learnable().items():
            if name in state:
                self._adam.state[parameter] = {k: v.clone() for k, v in state[name].items()}

    def step(self, grads: Mapping[str, Tensor], factor: float, clip: float | None) -> float:
        """Move along `grads`, clipped to norm `clip`, at `factor` times the learning rates.

        Parameters without a gradient stay. Returns the norm before clipping.
        """
        for group in self._adam.param_groups:
            group["lr"] = self.rates[group["name"]] * factor
        self._adam.zero_grad(set_to_none=True)
        used = []
        for name, parameter in self.method.learnable().items():
            if name in grads:
                parameter.grad = grads[name].to(parameter).clone()
                used.append(parameter)
        norm = torch.nn.utils.clip_grad_norm_(used, math.inf if clip is None else clip)
        self._adam.step()
        return norm.item()

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Copies of the moments and counts of each parameter that has moved."""
        return {
            name: {part: value.clone() for part, value in self._adam.state[parameter].items()}
            for name, parameter in self.method.learnable().items()
            if parameter in self._adam.state
        }


def rate_by_name(method: Method, lr: float | Mapping[str, float]) -> dict[str, float]:
    """The learning rate of each learnable parameter; ValueError for other names, or for none."""
    names = list(method.learnable())
    if not names:
        raise ValueError("method: it has no learnable parameter, so there is nothing to train")
    if not isinstance(lr, Mapping):
        return dict.fromkeys(names, float(lr))
    if lr.keys() != set(names):
        raise ValueError(f"lr: expected a value for each of {names}, got {sorted(lr)}")
    return dict(lr)


def rate_factor(settings: TrainerSettings, iteration: int) -> float:
    """The factor of all learning rates in an iteration: 1, or a cosine from 1 to 0."""
    if settings.lr_policy == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * iteration / settings.iterations))
