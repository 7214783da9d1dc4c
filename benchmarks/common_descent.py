"""A step that helps several families at once, from the outer gradient of each."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

import taichi_raster as tr


@dataclass(frozen=True)
class Slope:
    """The outer gradient of a family, and the standard error of each entry, by parameter."""

    mean: dict[str, Tensor]
    error: dict[str, Tensor]


def direction(slopes: list[Slope]) -> dict[str, Tensor]:
    """Of length 1; along it, the loss of every family falls, if there is such a direction.

    It is the shortest vector in the convex hull of the families' gradients, each of length 1. Each
    entry of a family keeps the share 1 - (error / entry)^2 of itself, at least 0: the positive part
    of James and Stein's estimate, entry by entry. So noise does not decide.
    """
    gradients = [
        {key: _shrunk(slope.mean[key], slope.error[key]) for key in slope.mean} for slope in slopes
    ]
    rows = torch.stack([torch.cat([v.reshape(-1) for v in g.values()]) for g in gradients])
    rows = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-30)
    shares = torch.from_numpy(_nearest_mixture((rows @ rows.T).numpy()))
    found = -shares @ rows
    found = found / found.norm().clamp(min=1e-30)
    sizes = [value.numel() for value in gradients[0].values()]
    return {
        key: part.reshape(value.shape)
        for (key, value), part in zip(gradients[0].items(), found.split(sizes), strict=True)
    }


def _nearest_mixture(products: np.ndarray) -> np.ndarray:
    """Shares, which add up to 1, of the mixture of vectors that is nearest to 0."""
    count = len(products)
    found = minimize(
        lambda shares: shares @ products @ shares,
        np.full(count, 1 / count),
        jac=lambda shares: 2 * products @ shares,
        bounds=[(0, 1)] * count,
        constraints={"type": "eq", "fun": lambda shares: shares.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    shares: np.ndarray = found.x
    return shares


def _shrunk(mean: Tensor, error: Tensor) -> Tensor:
    return mean * (1 - (error / mean.abs().clamp(min=1e-30)).square()).clamp(min=0)


def stepped(
    before: tr.SofteningPolicy, step: Mapping[str, Tensor], length: float
) -> tr.SofteningPolicy:
    """A policy a step away from another."""
    policy = copy.deepcopy(before)
    with torch.no_grad():
        for key, value in step.items():
            policy.get_parameter(key).add_(length * value)
    return policy.requires_grad_(False)
