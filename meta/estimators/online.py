"""Online learning of a softness: scene and softness descend the same soft loss, step by step.

`learn_online` is the published joint run: one set of softness parameters, shared by all instances,
moves at every inner step. `online_gradient` offers the same gradient to an outer loop: the mean
over all steps of the soft loss's gradient at that step's unknowns.

Both are biased as descent on the outer loss, since nothing is differentiated through the
trajectory. The softness learns how well it explains the target from where the scene is, not where
it leads the scene. Early steps, whose unknowns are still wrong, weigh as much as the last ones. A
softness can also lower this loss by hiding errors.

Source: Wu, Mailee, Montazeri, Ritschel, *Learning to Rasterize Differentiably*, CGF 43 (2024).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from meta.inner.method import Method
from meta.inner.protocol import TaskBatch
from meta.inner.unroll import Record, check_finite
from meta.inner.updates import rule_for
from meta.outer.estimator import OuterGradient, estimator
from meta.outer.loss import OuterLoss


@estimator(
    "online",
    {"soft"},
    why="with the trajectory held fixed, sharp and true errors do not depend on the softness: "
    "their first-order gradient is zero; use OuterLoss('soft'), or the exact or es estimator",
)
def online_gradient(
    method: Method, task: TaskBatch, outer: OuterLoss, *, generator: torch.Generator | None = None
) -> OuterGradient:
    """Mean over steps t < T of d(mean soft loss at step t)/d(the renderer's parameters).

    The unknowns of each step count as constants. The loss of step t is the inner one, at progress
    t / T, under the transform of `outer`; `loss` is its mean over steps. Learning-rate parameters
    are left out of `grads`. Nothing is drawn at random.
    """
    del generator  # nothing is drawn
    learnable = _softness(method)
    totals = [torch.zeros_like(parameter) for parameter in learnable.values()]
    unknowns = task.start().detach()
    state = method.rule.init(unknowns)
    loss = 0.0
    for step in range(method.steps):
        losses, descent, gradients = _both_gradients(method, task, unknowns, step, outer)
        totals = [total + part for total, part in zip(totals, gradients, strict=True)]
        loss += outer.of_error(losses).mean().item()
        unknowns, state = _scene_step(method, task, unknowns, descent, state, step)
    return OuterGradient(
        loss / method.steps,
        {name: total / method.steps for name, total in zip(learnable, totals, strict=True)},
    )


@dataclass(frozen=True)
class OnlineRun:
    """Final unknowns (B, ...), soft losses before each step (T, B), learned softness by name."""

    params: Float[Tensor, "B ..."]
    losses: Float[Tensor, "T B"]
    softness: dict[str, Tensor]


def learn_online(
    method: Method,
    task: TaskBatch,
    *,
    lr: float | Mapping[str, float] = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    from_step: int = 0,
    record: Record | None = None,
) -> OnlineRun:
    """Solve `task`, and learn the softness while doing so: one joint run of T steps.

    At step t the unknowns move by the method's rule and learning rate, as in `unroll`, and the
    renderer's learnable parameters by torch.optim.Adam, both along the gradient of the same soft
    loss: that of each instance for its unknowns, the mean over instances for the softness. The
    method keeps the learned softness. Nothing is drawn at random.

    Args:
        method: its learning-rate schedule is used, not learned.
        lr: Adam's learning rate (> 0) for the softness, for all parameters or by name.
        betas: Adam's.
        from_step: first step, in [0, T), at which the softness moves; it is frozen before.
        record: called as record(t, unknowns) for t = 0 ... T, with detached unknowns (B, ...); the
            method then has the softness of that time.

    Raises ValueError for options out of range, and FloatingPointError, naming the step, when a
    loss, an unknown or a gradient of the softness is not finite; the method then has the softness
    of that step.

        run = learn_online(method, family.sample(24, "test", 0), lr=3e-3)
        tr.save_softness("learned.safetensors", method.renderer.edge)
    """
    learnable = _softness(method)
    optimiser = torch.optim.Adam(_groups(learnable, lr), betas=betas)
    if not (isinstance(from_step, int) and 0 <= from_step < method.steps):
        raise ValueError(f"from_step must be an integer in [0, {method.steps}), got {from_step!r}")
    unknowns = task.start().detach()
    state = method.rule.init(unknowns)
    losses = []
    for step in range(method.steps):
        if record is not None:
            record(step, unknowns)
        loss, descent, gradients = _both_gradients(method, task, unknowns, step)
        unknowns, state = _scene_step(method, task, unknowns, descent, state, step)
        losses.append(loss)
        if step >= from_step:
            _softness_step(optimiser, learnable, gradients, step, method.steps)
    if record is not None:
        record(method.steps, unknowns)
    softness = {name: parameter.detach().clone() for name, parameter in learnable.items()}
    return OnlineRun(unknowns, torch.stack(losses), softness)


def _both_gradients(
    method: Method, task: TaskBatch, unknowns: Tensor, step: int, outer: OuterLoss | None = None
) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Soft losses (B,), each one's gradient in its unknowns, the mean's in the softness.

    One backward pass gives both: with an outer transform, each instance's loss is weighted by the
    transform's slope, which is divided out of the unknowns' gradients.
    """
    unknowns = unknowns.detach().requires_grad_()
    learnable = list(_softness(method).values())
    loss = task.loss(unknowns, method.renderer, _progress(method, step))
    if loss.shape != (task.batch_size,):
        raise ValueError(
            f"task.loss: expected one loss per instance, shape ({task.batch_size},), "
            f"got {tuple(loss.shape)}"
        )
    losses = loss.detach()
    check_finite("the loss", losses, step, method.steps)
    slopes = torch.ones_like(losses) if outer is None else _slopes(outer, losses)
    descent, *gradients = torch.autograd.grad(
        loss, [unknowns, *learnable], slopes, materialize_grads=True
    )
    descent = descent / slopes.to(descent).reshape(-1, *[1] * (descent.ndim - 1))
    return losses, descent, tuple(gradient / len(losses) for gradient in gradients)


def _slopes(outer: OuterLoss, losses: Tensor) -> Tensor:
    leaf = losses.clone().requires_grad_()
    return torch.autograd.grad(outer.of_error(leaf).sum(), leaf)[0]


@torch.no_grad()
def _scene_step(
    method: Method, task: TaskBatch, unknowns: Tensor, descent: Tensor, state: object, step: int
) -> tuple[Tensor, object]:
    lr = method.lr(_progress(method, step))
    rule = rule_for(method.rule, task)
    unknowns, state = rule.step(unknowns, descent, state, lr)
    check_finite("an unknown", unknowns, step, method.steps)
    return unknowns, state


def _softness_step(
    optimiser: torch.optim.Adam,
    learnable: dict[str, nn.Parameter],
    gradients: tuple[Tensor, ...],
    step: int,
    steps: int,
) -> None:
    for (name, parameter), gradient in zip(learnable.items(), gradients, strict=True):
        if not bool(torch.isfinite(gradient).all()):
            raise FloatingPointError(
                f"inner step {step} of {steps}: the gradient of {name} is not finite; lower the "
                "learning rates, or look at the task's loss there"
            )
        parameter.grad = gradient
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)


def _groups(
    learnable: dict[str, nn.Parameter], lr: float | Mapping[str, float]
) -> list[dict[str, object]]:
    if isinstance(lr, Mapping):
        if lr.keys() != learnable.keys():
            raise ValueError(
                f"lr: expected a value for each of {sorted(learnable)}, got {sorted(lr)}"
            )
        rates = {name: float(lr[name]) for name in learnable}
    else:
        rates = dict.fromkeys(learnable, float(lr))
    for name, rate in rates.items():
        if not (math.isfinite(rate) and rate > 0):
            raise ValueError(f"lr[{name!r}] must be finite and > 0, got {rate}")
    return [{"params": [parameter], "lr": rates[name]} for name, parameter in learnable.items()]


def _softness(method: Method) -> dict[str, nn.Parameter]:
    learnable = {k: v for k, v in method.learnable().items() if k.startswith("renderer.")}
    if not learnable:
        raise ValueError("method: its renderer has no learnable parameter to learn online")
    return learnable


def _progress(method: Method, step: int) -> Tensor:
    return torch.tensor(step / method.steps, dtype=torch.float64)
