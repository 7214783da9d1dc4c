"""A method: everything that decides how an inverse problem is solved, as one nn.Module.

Its learnable parameters are those that require grad: the renderer's (its softness), with names that
begin with "renderer.", and the learning-rate schedule's, with "lr.".
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from meta.inner.protocol import Progress, TaskBatch
from meta.inner.updates import UpdateRule, rule_for
from taichi_raster import checks


class Method(nn.Module):
    """A renderer, an update rule, a learning-rate schedule and a number of inner steps.

    Args:
        renderer: handed to the task's loss; for images a `taichi_raster.SoftRasterizer`.
        rule: an update rule of `meta.inner.updates`, or any object with the same two functions.
        lr: module whose forward(progress) gives a 0-d or (B,) tensor: any `taichi_raster` schedule.
        steps: inner steps T, at least 1. Step t runs at progress t / T.
        sharp_from: the progress, in [0, 1), from which steps descend the task's `image_error`, the
            error of the sharp picture, whose gradient is exact; None for never. Where that error
            has no gradient, they stay soft. Sharp steps cannot be differentiated. If instances
            differ in progress, steps are sharp once all of them have come so far.

    Raises TypeError or ValueError, naming the argument.
    """

    def __init__(
        self,
        renderer: nn.Module,
        rule: UpdateRule,
        lr: nn.Module,
        steps: int,
        sharp_from: float | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(renderer, nn.Module):
            raise TypeError(f"renderer: expected an nn.Module, got {type(renderer).__name__}")
        if not isinstance(lr, nn.Module):
            raise TypeError(
                f"lr: expected a schedule, as taichi_raster.Constant(0.1), got {type(lr).__name__}"
            )
        if not (hasattr(rule, "init") and hasattr(rule, "step")):
            raise TypeError(
                f"rule: expected an update rule with init and step, got {type(rule).__name__}"
            )
        if not isinstance(steps, int) or steps < 1:
            raise ValueError(f"steps must be an integer >= 1, got {steps!r}")
        self.renderer = renderer
        self.rule = rule
        self.lr = lr
        self.steps = steps
        self.sharp_from = None if sharp_from is None else checks.fraction("sharp_from", sharp_from)

    def begin(self, task: TaskBatch, params: Float[Tensor, "B ..."]) -> Any:
        """The state before the first step, from the unknowns `params`: the update rule's."""
        return self.rule.init(params)

    def forward(
        self,
        task: TaskBatch,
        params: Float[Tensor, "B ..."],
        state: Any,
        progress: Progress,
        create_graph: bool = False,
    ) -> tuple[Float[Tensor, "B ..."], Any, Float[Tensor, " B"]]:
        """One inner step: (new params, new state, loss of each instance before the step).

        `params` must require grad. This is `forward` so that `torch.func.functional_call` can run
        the step with other parameters, one set per instance where wanted.
        """
        loss = self.sharp_error(task, params, progress, create_graph)
        if loss is None:
            loss = task.loss(params, self.renderer, progress)
        if loss.shape != (task.batch_size,):
            raise ValueError(
                f"task.loss: expected one loss per instance, shape ({task.batch_size},), "
                f"got {tuple(loss.shape)}"
            )
        if not loss.requires_grad:
            raise ValueError(
                "task.loss: the result does not depend on params, so there is nothing to descend"
            )
        (grad,) = torch.autograd.grad(loss.sum(), params, create_graph=create_graph)
        rule = rule_for(self.rule, task)
        params, state = rule.step(params, grad, state, self.lr(progress))
        return params, state, loss

    def sharp_error(
        self, task: TaskBatch, params: Tensor, progress: Progress, create_graph: bool
    ) -> Tensor | None:
        """The error of the sharp picture, (B,), that this step descends; None if it is soft."""
        if self.sharp_from is None or float(torch.as_tensor(progress).min()) < self.sharp_from:
            return None
        error = task.image_error(params)
        if not error.requires_grad:
            return None
        if create_graph:
            raise NotImplementedError(
                "sharp_from: sharp steps cannot be differentiated; learn by evolution, or give None"
            )
        return error

    def learnable(self) -> dict[str, nn.Parameter]:
        """The parameters that require grad, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def parameter_dict(self) -> dict[str, Tensor]:
        """Copies of all learnable tensors, by name; `load` takes them back."""
        return {name: parameter.detach().clone() for name, parameter in self.learnable().items()}

    def load(self, parameters: dict[str, Tensor]) -> None:
        """Set the learnable tensors from `parameter_dict()` of a method of the same make."""
        own = self.learnable()
        if own.keys() != parameters.keys():
            raise ValueError(
                f"parameters: expected the names {sorted(own)}, got {sorted(parameters)}: "
                "these belong to another method"
            )
        with torch.no_grad():
            for name, parameter in own.items():
                if parameter.shape != parameters[name].shape:
                    raise ValueError(
                        f"parameters[{name!r}]: expected shape {tuple(parameter.shape)}, "
                        f"got {tuple(parameters[name].shape)}"
                    )
                parameter.copy_(parameters[name])
