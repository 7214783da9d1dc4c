"""Persistent evolution strategies: evolution strategies on windows, without the bias of truncation.

The run of each particle is cut into windows, each with a fresh perturbation e of the parameters.
The outer loss at a window's end depends on all perturbations since the start, so it is multiplied
by their sum xi:

    g = 1 / (2 sigma^2 N) sum_windows sum_particles xi (L+ - L-),   xi = sigma (e_1 + ... + e_w)

(Vicol, Metz, Sohl-Dickstein, *Unbiased gradient estimation in unrolled computation graphs with
persistent evolution strategies*, ICML 2021, arXiv:2112.13835, algorithm 2). It is unbiased for the
total derivative of the loss that is smoothed by an independent perturbation of each window. Its
variance grows with the number of windows; with one window it is plain `es`. The paper changes the
parameters between windows; here one call runs the whole horizon.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch

from meta.estimators.antithetic import Directions, Perturbation, antithetic_gradient
from meta.inner.method import Method
from meta.inner.protocol import TaskBatch
from meta.inner.unroll import windows
from meta.outer.estimator import OuterGradient, Shard, estimator
from meta.outer.loss import OuterLoss


@estimator(
    "pes",
    {"sharp", "true"},
    why="judged by the renderer under training, a softness learns to hide errors",
)
def pes_gradient(
    method: Method,
    task: TaskBatch,
    outer: OuterLoss,
    *,
    generator: torch.Generator | None = None,
    window: int = 10,
    losses: Literal["all", "last"] = "all",
    pairs: int = 8,
    sigma: float | Mapping[str, float] = 0.05,
    directions: Directions = "shared",
    max_batch: int = 512,
    shard: Shard | None = None,
) -> OuterGradient:
    """Estimate by `pairs` antithetic pairs on the B instances of `task`: 2 * pairs * B inner runs.

    Args:
        generator, pairs, sigma, directions, max_batch, shard: as for `es_gradient`, with a
            perturbation for each window in place of one.
        window: K, steps of a window, in [1, T]. Windows end at step T; where K does not divide T,
            the first is shorter. With K = T this is `es_gradient`, to the same draws.
        losses: "all": the outer loss is the mean of those at the end of each window. "last": that
            at the end of the run alone.

    `info` holds `pes_std`, the standard deviation over directions of half the difference in loss,
    and `pes_noise`, the estimated standard error of the gradient in units of its norm.

    Raises ValueError, naming the argument that is missing or out of range.
    """
    if losses not in ("all", "last"):
        raise ValueError(f"losses: expected 'all' or 'last', got {losses!r}")
    perturbation = Perturbation(pairs, sigma, directions, max_batch, shard)
    ends = [end for _, end in windows(method.steps, window)]
    judged = len(ends) if losses == "all" else 1
    return antithetic_gradient("pes", method, task, outer, generator, perturbation, ends, judged)
