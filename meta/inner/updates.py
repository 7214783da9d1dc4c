"""Functional update rules of the inner loop: differentiable, batched, never in place.

torch.optim with `differentiable=True` does not serve: it updates in place, and detaches SGD's
momentum buffer, so that the outer gradient is silently wrong. A rule here is a frozen set of
numbers and a pure function,

    state = rule.init(params)
    params, state = rule.step(params, grad, state, lr)

with `params` (B, ...), `grad` the same shape, and `lr` a float, a 0-d tensor or one value per
instance, (B,). A rule that needs more of the task has a method `on(task)`, which gives the rule for
that batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from meta.inner.protocol import TaskBatch
from taichi_raster.fitting.steps import gradient_units, image_steps, in_units


class UpdateRule(Protocol):
    """A rule is any object with these two functions; `state` is opaque to the loop."""

    def init(self, params: Float[Tensor, "B ..."]) -> Any:
        """State before the first step."""
        ...

    def step(
        self,
        params: Float[Tensor, "B ..."],
        grad: Float[Tensor, "B ..."],
        state: Any,
        lr: float | Tensor,
    ) -> tuple[Float[Tensor, "B ..."], Any]:
        """New params and new state; the arguments are not changed."""
        ...


@dataclass(frozen=True)
class SGD:
    """x <- x - lr g."""

    def init(self, params: Tensor) -> None:
        """No state."""

    def step(
        self, params: Tensor, grad: Tensor, state: None, lr: float | Tensor
    ) -> tuple[Tensor, None]:
        """New params and new state; the arguments are not changed."""
        _check(params, grad)
        return params - _per_instance(lr, params) * grad, None


@dataclass(frozen=True)
class Momentum:
    """Heavy ball: m <- momentum m + g;  x <- x - lr m. `momentum` in [0, 1)."""

    momentum: float = 0.9

    def __post_init__(self) -> None:
        _check_decay("momentum", self.momentum)

    def init(self, params: Tensor) -> Tensor:
        """The velocity m, zero."""
        return torch.zeros_like(params)

    def step(
        self, params: Tensor, grad: Tensor, state: Tensor, lr: float | Tensor
    ) -> tuple[Tensor, Tensor]:
        """New params and new state; the arguments are not changed."""
        _check(params, grad)
        velocity = self.momentum * state + grad
        return params - _per_instance(lr, params) * velocity, velocity


@dataclass(frozen=True)
class AdamState:
    """Running means of the gradient and of its square, and the number of steps taken."""

    mean: Tensor
    square: Tensor
    count: int


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015, algorithm 1) with sqrt(v + eps_root) in place of sqrt(v).

    `eps_root` > 0 keeps the slope of the root finite where a gradient has always been exactly zero
    (a hidden vertex, a depth under a silhouette loss); with zero there every outer gradient would
    be NaN. The default is a gradient of 1e-7, and small enough that third powers of its inverse
    root still fit in float32.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    eps_root: float = 1e-14

    def __post_init__(self) -> None:
        if len(self.betas) != 2:
            raise ValueError(f"betas: expected two numbers, got {self.betas!r}")
        _check_decay("betas[0]", self.betas[0])
        _check_decay("betas[1]", self.betas[1])
        if not (math.isfinite(self.eps) and self.eps >= 0):
            raise ValueError(f"eps must be finite and >= 0, got {self.eps}")
        if not (math.isfinite(self.eps_root) and self.eps_root > 0):
            raise ValueError(
                f"eps_root must be finite and > 0, got {self.eps_root}: with zero, an unknown "
                "whose gradient is exactly zero gives NaN outer gradients"
            )

    def init(self, params: Tensor) -> AdamState:
        """Means of zero."""
        return AdamState(torch.zeros_like(params), torch.zeros_like(params), 0)

    def step(
        self, params: Tensor, grad: Tensor, state: AdamState, lr: float | Tensor
    ) -> tuple[Tensor, AdamState]:
        """New params and new state; the arguments are not changed."""
        _check(params, grad)
        b1, b2 = self.betas
        count = state.count + 1
        mean = b1 * state.mean + (1 - b1) * grad
        square = b2 * state.square + (1 - b2) * grad * grad
        unbiased_mean = mean / (1 - b1**count)
        unbiased_square = square / (1 - b2**count)
        direction = unbiased_mean / (torch.sqrt(unbiased_square + self.eps_root) + self.eps)
        return params - _per_instance(lr, params) * direction, AdamState(mean, square, count)


@dataclass(frozen=True)
class ImageStepsState:
    """The state of the rule that gives directions, and the units of gradients, (B,)."""

    inner: Any
    units: Tensor


@dataclass(frozen=True)
class ImageSteps:
    """Another rule's directions, in steps that are measured in the picture.

    x <- x + lr d / rms(ds/dx d), with s the task's `geometry`: the scene moves by lr NDC, whatever
    the units of the unknowns (see `taichi_raster.image_steps`). What has no motion stands still.
    The rule sees gradients in units of the largest entry of each instance's first one.

    Only for tasks that have a `geometry` (see `MeasuredBatch`).

    Args:
        rule: what directions come from. It must not look at the values of the unknowns.
        appearance: how far attributes move at most, as a multiple of lr.

    Raises ValueError unless `appearance` is positive and finite.

        method = Method(renderer, ImageSteps(Adam()), tr.Geometric(0.02, 0.002), steps=60)
    """

    rule: UpdateRule = field(default_factory=Adam)
    appearance: float = 1.0
    geometry: Callable[[Tensor], Any] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.appearance) and self.appearance > 0):
            raise ValueError(f"appearance must be finite and > 0, got {self.appearance}")

    def on(self, task: TaskBatch) -> ImageSteps:
        """The rule for one batch of tasks. Raises TypeError if they have no `geometry`."""
        geometry = getattr(task, "geometry", None)
        if geometry is None:
            raise TypeError(
                f"task: {type(task).__name__} has no geometry(params), by which ImageSteps "
                "measures its steps; see meta.MeasuredBatch"
            )
        return replace(self, geometry=geometry)

    def init(self, params: Tensor) -> ImageStepsState:
        """The rule's own state, and units of zero."""
        return ImageStepsState(self.rule.init(params), params.new_zeros(len(params)))

    def step(
        self, params: Tensor, grad: Tensor, state: ImageStepsState, lr: float | Tensor
    ) -> tuple[Tensor, ImageStepsState]:
        """New params and new state; the arguments are not changed."""
        _check(params, grad)
        if self.geometry is None:
            raise ValueError("geometry: unknown; take the rule of a task, ImageSteps().on(task)")
        rows = grad.reshape(len(grad), -1)
        units = gradient_units(rows, state.units)
        # From zero, what a rule adds is its direction, unrounded.
        direction, inner = self.rule.step(
            torch.zeros_like(params), in_units(rows, units).view_as(grad), state.inner, 1.0
        )
        rate = lr.to(params) if isinstance(lr, Tensor) else lr
        (step,) = image_steps(
            self.geometry, [params], [direction], rate, self.appearance * rate, depth_unit=1.0
        )
        return params + step, ImageStepsState(inner, units)


def rule_for(rule: UpdateRule, task: TaskBatch) -> UpdateRule:
    """The rule as it is for one batch of tasks: rules with a method `on` depend on it."""
    on: Callable[[TaskBatch], UpdateRule] | None = getattr(rule, "on", None)
    return rule if on is None else on(task)


def _per_instance(lr: float | Tensor, params: Tensor) -> float | Tensor:
    """`lr` shaped to multiply `params` instance by instance, in the dtype of `params`."""
    if not isinstance(lr, Tensor):
        return lr
    if lr.ndim == 0:
        return lr.to(params)
    if lr.shape != params.shape[:1]:
        raise ValueError(
            f"lr: expected a scalar or one value per instance, shape ({params.shape[0]},), "
            f"got {tuple(lr.shape)}"
        )
    return lr.to(params).reshape(-1, *[1] * (params.ndim - 1))


def _check(params: Tensor, grad: Tensor) -> None:
    if params.shape != grad.shape:
        raise ValueError(
            f"grad: expected the shape of params, {tuple(params.shape)}, got {tuple(grad.shape)}"
        )


def _check_decay(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ValueError(f"{name} must lie in [0, 1), got {value}")
