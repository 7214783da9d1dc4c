"""Exact unrolled outer gradient: reverse mode through all T inner steps."""

from __future__ import annotations

import torch

from meta.inner.method import Method
from meta.inner.protocol import TaskBatch
from meta.inner.unroll import Recompute, unroll
from meta.outer.estimator import OuterGradient, estimator
from meta.outer.loss import OuterLoss


@estimator(
    "exact",
    {"sharp", "true"},
    why="judged by the renderer under training, a softness learns to hide errors",
)
def exact_gradient(
    method: Method,
    task: TaskBatch,
    outer: OuterLoss,
    *,
    generator: torch.Generator | None = None,
    recompute: Recompute = "auto",
) -> OuterGradient:
    """d(mean outer loss)/d(parameters), through the trajectory.

    Args:
        recompute: True needs memory for the unknowns of each step only; False is faster by an
            inner run, and keeps all that each step computes; "auto" keeps what fits (see `unroll`).

    Long runs are chaotic and their exact gradients large (norms from 1e1 to 1e5 over 60 Adam
    steps): clip, or shorten the run. Draws nothing at random.
    """
    del generator  # nothing is drawn
    learnable = method.learnable()
    run = unroll(method, task, create_graph=True, recompute=recompute)
    loss = outer.per_instance(method, task, run.params).mean()
    gradients = torch.autograd.grad(loss, list(learnable.values()), materialize_grads=True)
    return OuterGradient(loss.item(), dict(zip(learnable, gradients, strict=True)))
