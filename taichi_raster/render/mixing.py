"""The usual last step of a picture, from each pixel's sums to colours and alpha, as one function.

Torch takes longer for a dozen small operations and their derivatives than kernels take for a small
picture. The derivatives here are written out, in operations that torch can differentiate again.

The T-conorm is the probabilistic one, alpha = 1 - exp(-t) of the sum t, and the background 0.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from taichi_raster.depth.over import divisor
from taichi_raster.runtime.transforms import no_modes


def known(*constants: Tensor) -> bool:
    """Whether these functions can be used: they know reverse mode, by their first argument alone.

    Args:
        constants: what else a picture is made of.
    """
    # Under autocast, too, so that it changes no bit of a gradient.
    still = torch.autograd.forward_ad._current_level < 0 and no_modes(but_autocast=True)
    return still and not any(value.requires_grad for value in constants)


def by_softmax(
    y: Float[Tensor, "2+C B H W"], rest: Float[Tensor, "B H W"], full: Bool[Tensor, "B H W"] | None
) -> Float[Tensor, "B H W C+1"]:
    """The picture of a softmax.

    Args:
        y: t, the sum of weights, and those of weights times colours.
        rest: the background's weight.
        full: where alpha is 1, whatever the sum; None for nowhere.
    """
    found: Tensor = _Softmax.apply(y, rest, full)
    return found


def in_order(
    y: Float[Tensor, "3+C B H W"], full: Bool[Tensor, "B H W"] | None
) -> Float[Tensor, "B H W C+1"]:
    """The picture of `OverDepth` in a hard order.

    Args:
        y: t, a plane that is not used, the sum of weights, and those of weights times colours.
        full: as for `by_softmax`.
    """
    found: Tensor = _InOrder.apply(y, full)
    return found


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, rest: Tensor, full: Tensor | None) -> Tensor:
        inverse = (y[1] + rest).reciprocal_()
        ctx.save_for_backward(y, rest, full, inverse)
        found = y.new_empty(*y.shape[1:], len(y) - 1)
        torch.mul(_last(y[2:]), inverse[..., None], out=found[..., :-1])
        found[..., -1] = _alpha(y[0], full)
        return found

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, None, None]:
        y, rest, full, inverse = ctx.saved_tensors
        if torch.is_grad_enabled():  # what is kept has no derivatives
            inverse = (y[1] + rest).reciprocal()
        to_colours = v[..., :-1].movedim(-1, 0) * inverse
        to_weight = -(to_colours * y[2:]).sum(0) * inverse
        to_total = _to_total(v[..., -1], y[0], full)
        return torch.cat([torch.stack([to_total, to_weight]), to_colours]), None, None


class _InOrder(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, full: Tensor | None) -> Tensor:
        weight, mean, alpha = _parts(y, full)
        ctx.save_for_backward(y, full, weight, mean, alpha)
        found = y.new_empty(*y.shape[1:], len(y) - 2)
        torch.mul(_last(mean), alpha[..., None], out=found[..., :-1])
        found[..., -1] = alpha
        return found

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, None]:
        y, full, *kept = ctx.saved_tensors
        weight, mean, alpha = _parts(y, full) if torch.is_grad_enabled() else kept
        v_colours, share = v[..., :-1].movedim(-1, 0), alpha / weight
        mixed = (v_colours * mean).sum(0)
        to_weight = torch.where(weight == y[2], -mixed * share, 0.0)
        to_total = _to_total(v[..., -1] + mixed, y[0], full)
        nothing = torch.zeros_like(to_total)
        return torch.cat([torch.stack([to_total, nothing, to_weight]), v_colours * share]), None


def _parts(y: Tensor, full: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The sum of weights or 1, the mean colours, and alpha, for `OverDepth`."""
    weight = divisor(y[2])
    return weight, y[3:] / weight, _alpha(y[0], full)


def _last(planes: Tensor) -> Tensor:
    """The same with channels last."""
    return planes.movedim(0, -1)


def _alpha(total: Tensor, full: Tensor | None) -> Tensor:
    alpha = -torch.expm1(-total)
    return alpha if full is None else alpha.masked_fill(full, 1.0)


def _to_total(v: Tensor, total: Tensor, full: Tensor | None) -> Tensor:
    """The adjoint of t, given that of alpha."""
    found = v * torch.exp(-total)
    return found if full is None else found.masked_fill(full, 0.0)
