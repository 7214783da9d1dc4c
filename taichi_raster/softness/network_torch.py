"""A softness's network in torch: its architecture, random weights, and value and slope."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from taichi_raster import checks
from taichi_raster.runtime.precision import product
from taichi_raster.runtime.variant import Architecture


def architecture(widths: Sequence[int], residual: bool, bias: bool, sees: str) -> Architecture:
    """An architecture from a user's arguments.

    Raises:
        TypeError, ValueError: for an impossible one; the message names the argument.
    """
    if not isinstance(widths, Sequence | np.ndarray) or isinstance(widths, str):
        raise TypeError(f"widths: expected a list of integers, got {widths!r}")
    sizes = tuple(int(w) if checks.is_whole(w) else 0 for w in widths)
    if not sizes or not all(1 <= w <= 16 for w in sizes):
        raise ValueError(f"widths: expected integers from 1 to 16, got {widths}")
    residual, bias = checks.flag("residual", residual), checks.flag("bias", bias)
    if residual and (len(sizes) < 2 or sizes[0] != sizes[-1]):
        raise ValueError(
            "residual: needs at least two hidden layers, the first as wide as the last, got widths "
            f"{sizes}; or pass residual=False"
        )
    checks.choice("input", sees, "asinh", "plain")
    return Architecture(sizes, residual, bias, sees == "asinh")


def random_weights(net: Architecture, seed: int) -> Float[Tensor, " P"]:
    """Random weights, normal with a variance of one over the number of inputs."""
    generator = torch.Generator().manual_seed(seed)
    theta = torch.zeros(net.size, dtype=torch.float64, device="cpu")
    for layer, (inputs, outputs) in enumerate(net.fans):
        start, count = net.offsets[layer], inputs * outputs
        normal = torch.randn(count, generator=generator, dtype=torch.float64, device="cpu")
        theta[start : start + count] = normal / math.sqrt(inputs)
        if net.bias and layer < len(net.widths):
            shift = (
                torch.rand(outputs, generator=generator, dtype=torch.float64, device="cpu") * 2 - 1
            )
            theta[start + count : start + count + outputs] = shift
    return theta


def network_logit(net: Architecture, theta: Tensor, x: Tensor) -> Tensor:
    """u = x + r(x), differentiable; x has any shape for weights (P,), or (B, N) for (B, P)."""
    return network_logit_and_slope(net, theta, x)[0]


def network_logit_and_slope(net: Architecture, theta: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """u and du/dx, for x and weights as in `network_logit`."""
    h = (torch.asinh(x) if net.asinh else x)[..., None].to(theta)
    slope = (1 / torch.sqrt(1 + x * x) if net.asinh else torch.ones_like(x))[..., None].to(theta)
    first, first_slope = h, slope
    for layer, (inputs, outputs) in enumerate(net.fans):
        start = net.offsets[layer]
        matrix = theta[..., start : start + inputs * outputs].unflatten(-1, (outputs, inputs))
        h, slope = product(torch.stack([h, slope]), matrix.mT)
        if net.bias:
            h = h + theta[..., None, start + inputs * outputs : net.offsets[layer + 1]]
        if layer == len(net.widths):
            break
        if net.residual and layer == len(net.widths) - 1:
            h, slope = h + first, slope + first_slope
        h = torch.tanh(h)
        slope = (1 - h * h) * slope
        first, first_slope = (h, slope) if layer == 0 else (first, first_slope)
    return x + h[..., 0], 1 + slope[..., 0]
