"""A softness network and its slopes in its weights, in NumPy, which takes many small steps fast."""

from __future__ import annotations

import numpy as np

from taichi_raster.runtime.variant import Architecture


def logit_and_jacobian(
    net: Architecture, theta: np.ndarray, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """u = x + r(x) at x (N,), and du/dtheta (N, P), in NumPy; fast, for fits."""
    inputs, h = [], (np.arcsinh(x) if net.asinh else x)[:, None]
    for layer, (before, after) in enumerate(net.fans):
        start = net.offsets[layer]
        inputs.append(h)
        h = h @ theta[start : start + before * after].reshape(after, before).T
        if net.bias:
            h = h + theta[start + before * after : net.offsets[layer + 1]]
        if layer < len(net.widths):
            skips = net.residual and layer == len(net.widths) - 1
            h = np.tanh(h + inputs[1] if skips else h)
    jacobian = np.empty((len(x), net.size))
    slope: np.ndarray = np.ones((len(x), 1))  # du / d(a layer's output before its tanh)
    to_first: np.ndarray = np.zeros(1)  # du / d(the first layer's output), by the skip connection
    for layer in reversed(range(len(net.fans))):
        before, after = net.fans[layer]
        start = net.offsets[layer]
        by_matrix = slope[:, :, None] * inputs[layer][:, None, :]
        jacobian[:, start : start + before * after] = by_matrix.reshape(len(x), -1)
        if net.bias:
            jacobian[:, start + before * after : net.offsets[layer + 1]] = slope
        if layer > 0:
            if net.residual and layer == len(net.widths) - 1:
                to_first = slope
            slope = slope @ theta[start : start + before * after].reshape(after, before)
            slope = slope + to_first if layer == 1 else slope
            slope = slope * (1 - inputs[layer] ** 2)
    return x + h[:, 0], jacobian
