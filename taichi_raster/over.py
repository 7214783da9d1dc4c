"""Colours by the fragments in front: the composition of `OverDepth`, in torch.

Kernels list the fragments of each pixel, nearest first, and measure their coverages, depths and
attributes; torch composes these, so that all of it can be differentiated twice.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from taichi_raster.ordering import through_softly


def mean_colours(
    measured: Float[Tensor, "2+C N"],
    slots: Int[Tensor, "N"],
    depth: int,
    pixels: int,
    gamma: Float[Tensor, "P"] | None,
) -> Float[Tensor, "C P"]:
    """The mean of each pixel's attributes, each fragment weighing what those in front let through.

    Args:
        measured: coverage, depth and attributes of N fragments.
        slots: where each lies among (depth, pixels), nearest first.
        gamma: temperature of the order, in units of z; None where it is that of the list.
    """

    def spread(values: Float[Tensor, "*n N"]) -> Float[Tensor, "*n K P"]:
        """Values in their places, 0 where there is no fragment."""
        empty = values.new_zeros(*values.shape[:-1], depth * pixels)
        return empty.index_copy(-1, slots, values).unflatten(-1, (depth, pixels))

    coverage = spread(measured[0])
    if gamma is None:
        weights = coverage * _through_in_order(coverage)
    else:
        counts = slots.new_zeros(pixels, dtype=torch.int32)  # not by bincount: the host would wait
        counts.index_add_(0, slots % pixels, torch.ones_like(slots, dtype=torch.int32))
        weights = coverage * through_softly(coverage, spread(measured[1]) / gamma, counts)
    total = weights.sum(0)
    # Where next to nothing is seen, alpha makes nothing of the colour: but third powers of a total
    # are in its second derivatives.
    least = torch.finfo(total.dtype).tiny ** 0.25
    weights = weights / torch.where(total > least, total, 1.0)
    return spread(weights.flatten()[slots] * measured[2:]).sum(1)


def _through_in_order(coverage: Float[Tensor, "K P"]) -> Float[Tensor, "K P"]:
    """What those before each let through. By products, not logarithms: a coverage may be 1."""
    parts = [torch.ones_like(coverage[0])]
    for a in coverage[:-1].unbind():
        parts.append(parts[-1] * (1 - a))
    return torch.stack(parts)
