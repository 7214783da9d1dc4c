"""The published outer gradient: that of the final soft loss, with the trajectory held fixed.

Source: Wu, Mailee, Montazeri, Ritschel, *Learning to Rasterize Differentiably*, CGF 43 (2024).
"""

from __future__ import annotations

import torch

from meta.inner.method import Method
from meta.inner.protocol import TaskBatch
from meta.inner.unroll import unroll
from meta.outer.estimator import OuterGradient, estimator
from meta.outer.loss import OuterLoss


@estimator(
    "first_order",
    {"soft"},
    why="with the trajectory held fixed, sharp and true errors do not depend on the softness: "
    "their first-order gradient is zero; use OuterLoss('soft'), or the exact or es estimator",
)
def first_order_gradient(
    method: Method, task: TaskBatch, outer: OuterLoss, *, generator: torch.Generator | None = None
) -> OuterGradient:
    """Gradient of the mean soft loss at the final unknowns, for the renderer's parameters.

    Learning-rate parameters act through the trajectory alone and are left out of `grads`. Draws
    nothing at random.
    """
    del generator  # nothing is drawn
    learnable = {k: v for k, v in method.learnable().items() if k.startswith("renderer.")}
    if not learnable:
        raise ValueError("method: its renderer has no learnable parameter for first_order to train")
    run = unroll(method, task)
    loss = outer.per_instance(method, task, run.params).mean()
    gradients = torch.autograd.grad(loss, list(learnable.values()), materialize_grads=True)
    return OuterGradient(loss.item(), dict(zip(learnable, gradients, strict=True)))
