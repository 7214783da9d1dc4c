"""Antithetic evolution strategies: the gradient of the outer loss smoothed by a Gaussian.

    g = E[ (L(theta + sigma e) - L(theta - sigma e)) / (2 sigma) * e ],   e ~ N(0, 1)

(Rechenberg 1973; Salimans et al. 2017, arXiv:1703.03864). Both members of a pair solve the same
tasks, so that what they have in common cancels. The inner run is not differentiated: where it is
chaotic, the estimate is noisy, but does not explode.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from meta.estimators.antithetic import Directions, Perturbation, antithetic_gradient
from meta.inner.method import Method
from meta.inner.protocol import TaskBatch
from meta.outer.estimator import OuterGradient, Shard, estimator
from meta.outer.loss import OuterLoss


@estimator(
    "es",
    {"sharp", "true"},
    why="judged by the renderer under training, a softness learns to hide errors",
)
def es_gradient(
    method: Method,
    task: TaskBatch,
    outer: OuterLoss,
    *,
    generator: torch.Generator | None = None,
    pairs: int = 8,
    sigma: float | Mapping[str, float] = 0.05,
    directions: Directions = "shared",
    max_batch: int = 512,
    shard: Shard | None = None,
) -> OuterGradient:
    """Estimate by `pairs` antithetic pairs on the B instances of `task`: 2 * pairs * B inner runs.

    Args:
        generator: source of the directions; required, so that a run can be repeated.
        pairs: N >= 1.
        sigma: standard deviation of the perturbation (> 0), for all parameters or by name.
        directions: "shared": N directions, each tried on all B instances. "per_task": N * B
            directions, each tried on one instance, at the same cost and never a larger variance.
        max_batch: most inner runs side by side in memory; the estimate does not depend on it.
        shard: which instances of a larger batch `task` holds. Directions are then drawn for that
            whole batch, so that each instance has the same ones on any number of processes.

    `info` holds `es_std`, the standard deviation over pairs of half the difference in loss, and
    `es_noise`, the estimated standard error of the gradient in units of its norm.

    Raises ValueError, naming the argument that is missing or out of range.
    """
    perturbation = Perturbation(pairs, sigma, directions, max_batch, shard)
    return antithetic_gradient(
        "es", method, task, outer, generator, perturbation, ends=[method.steps]
    )
