"""Truncated unrolls: reverse mode through the steps of one window at a time.

The run is cut into windows. The outer loss at the end of each is differentiated through the steps
of that window alone: the unknowns and the optimiser's state at its start count as constants (Werbos
1990, *Backpropagation through time*). The estimate lacks the influence of the parameters on that
start through earlier steps, and this is its bias (Tallec and Ollivier 2017, arXiv:1705.08209). It
matters for schedules: a step is judged at the end of its own window, which favours learning rates
that are too small too early (Wu et al. 2018, *Understanding short-horizon bias in stochastic
meta-optimization*, arXiv:1803.02021). In return, gradients can explode over K steps only, not T.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch

from meta.inner.method import Method
from meta.inner.protocol import TaskBatch
from meta.inner.unroll import InnerRun, Recompute, unroll
from meta.inner.unroll import windows as cut
from meta.outer.estimator import OuterGradient, estimator
from meta.outer.loss import OuterLoss


@estimator(
    "truncated",
    {"sharp", "true"},
    why="judged by the renderer under training, a softness learns to hide errors",
)
def truncated_gradient(
    method: Method,
    task: TaskBatch,
    outer: OuterLoss,
    *,
    generator: torch.Generator | None = None,
    window: int = 10,
    windows: Literal["all", "last"] = "all",
    weights: Sequence[float] | None = None,
    recompute: Recompute = "auto",
) -> OuterGradient:
    """Mean over windows of d(mean outer loss at its end)/d(parameters), through its steps alone.

    Args:
        window: K, steps of a window, in [1, T]. Windows end at step T; where K does not divide T,
            the first is shorter. With K = T this is the exact estimator.
        windows: "all", or "last": only the window that ends the run, so that the derivative is that
            of the final loss with the parameters of the first T - K steps held fixed.
        weights: of the windows in the mean, one each, in order (>= 0, not all zero); equal by
            default. "all" only.
        recompute: as for the exact estimator.

    `loss` is the mean of the outer losses under the same weights. Draws nothing at random.
    Raises ValueError for options out of range.
    """
    del generator  # nothing is drawn
    spans = cut(method.steps, window)
    shares = _shares(len(spans), windows, weights)
    learnable = method.learnable()
    loss, gradients = 0.0, [torch.zeros_like(p) for p in learnable.values()]
    run: InnerRun | None = None
    for share, (_, end) in zip(shares, spans, strict=True):
        if share == 0:
            run = unroll(method, task, after=run, until=end)
            continue
        run = unroll(method, task, create_graph=True, recompute=recompute, after=run, until=end)
        at_end = outer.per_instance(method, task, run.params).mean()
        parts = torch.autograd.grad(at_end, list(learnable.values()), materialize_grads=True)
        gradients = [sum_ + share * part for sum_, part in zip(gradients, parts, strict=True)]
        loss += share * at_end.item()
        if end < method.steps:
            run = run.detached()
    return OuterGradient(loss, dict(zip(learnable, gradients, strict=True)))


def _shares(count: int, windows: str, weights: Sequence[float] | None) -> list[float]:
    """Weight of each of `count` windows; they sum to 1."""
    if windows not in ("all", "last"):
        raise ValueError(f"windows: expected 'all' or 'last', got {windows!r}")
    if windows == "last":
        if weights is not None:
            raise ValueError("weights: with windows='last' there is one window; leave them out")
        return [0.0] * (count - 1) + [1.0]
    given = [1.0] * count if weights is None else [float(weight) for weight in weights]
    if len(given) != count:
        raise ValueError(f"weights: expected one for each of {count} windows, got {len(given)}")
    if not all(math.isfinite(w) and w >= 0 for w in given) or sum(given) == 0:
        raise ValueError(f"weights must be finite and >= 0, and not all zero, got {given}")
    return [weight / sum(given) for weight in given]
