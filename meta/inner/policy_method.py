"""The method that solves any family by a softening policy, with nothing tuned for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

import taichi_raster as tr
from meta.inner.method import Method
from meta.inner.picture_measures import measured
from meta.inner.protocol import MeasuredBatch, Progress, TaskBatch
from meta.inner.updates import Adam, ImageSteps, UpdateRule, rule_for
from taichi_raster.presets.policy import SHARP_FROM, Setting, SofteningPolicy
from taichi_raster.presets.watch import Watch

LOOKS = 8  # times that a run with feedback measures its pictures again


@dataclass(frozen=True)
class PolicyState:
    """The update rule's state, and what was seen of each instance."""

    rule: Any
    watch: Watch


class PolicyMethod(Method):
    """A policy chooses softness and step, from what is measured at the start of each instance.

    Its last steps are sharp; the policy still chooses how long they are.

    Its learnable parameters are the policy's, with names that begin with "renderer.".

    Args:
        policy: chooses; see `tr.SofteningPolicy`.
        family: what has the renderer of its tasks: any `StudyFamily`, or a `Mixture`.
        steps: inner steps T, at least 1.
        rule: an update rule whose steps are measured in the picture.
        sharp_from: the progress from which steps are sharp; see `Method`.
    """

    def __init__(
        self,
        policy: SofteningPolicy,
        family: Any,
        steps: int,
        rule: UpdateRule | None = None,
        sharp_from: float | None = SHARP_FROM,
    ) -> None:
        if not isinstance(policy, SofteningPolicy):
            raise TypeError(f"policy: expected a SofteningPolicy, got {type(policy).__name__}")
        if not hasattr(family, "renderer"):
            raise TypeError(f"family: {type(family).__name__} has no renderer(edge, depth, alpha)")
        # Steps are the policy's, too: there is no learning rate beside it.
        rule = rule or ImageSteps(Adam(betas=tr.ImageSteps.BETAS))
        super().__init__(policy, rule, nn.Identity(), steps, sharp_from)
        self.family = family

    def begin(self, task: TaskBatch, params: Float[Tensor, "B ..."]) -> PolicyState:
        """Measure the start."""
        return PolicyState(self.rule.init(params), Watch.begin(measured(task, params)))

    def forward(
        self,
        task: TaskBatch,
        params: Float[Tensor, "B ..."],
        state: PolicyState,
        progress: Progress,
        create_graph: bool = False,
    ) -> tuple[Float[Tensor, "B ..."], PolicyState, Float[Tensor, " B"]]:
        """As `Method.forward`. What the feedback is shown counts as constant."""
        policy, watch = self.renderer, state.watch
        assert isinstance(policy, SofteningPolicy)
        u = torch.as_tensor(progress, dtype=torch.float64)
        if policy.has_feedback and self._looks(u):
            watch = watch.looked(measured(task, params))
        setting = self._setting(watch, u)
        loss = self.sharp_error(task, params, u, create_graph)
        if loss is None:
            renderer = self.family.renderer(
                tr.Distribution("gaussian", setting.scale),
                tr.OverDepth(setting.gamma),
                tr.TConorm("yager", setting.p),
            )
            loss = task.loss(params, renderer, progress)
        (grad,) = torch.autograd.grad(loss.sum(), params, create_graph=create_graph)
        if policy.has_feedback:  # the step is by what this loss has shown
            watch = watch.stepped(loss, corners_of(task, params))
            setting = self._setting(watch, u)
        rule = rule_for(self.rule, task)
        params, rule_state = rule.step(params, grad, state.rule, setting.eta)
        return params, PolicyState(rule_state, watch), loss

    def _setting(self, watch: Watch, u: Tensor) -> Setting:
        """What the policy chooses at progress `u`, from what was seen."""
        policy, first = self.renderer, watch.first
        assert isinstance(policy, SofteningPolicy)
        signals = watch.signals() if policy.has_feedback else None
        return policy.at(u, first.distance, first.pixel, signals, first.backs)

    def _looks(self, u: Tensor) -> bool:
        """Whether pictures are measured again at progress `u`: eight times in a run."""
        step = round(float(u.max()) * self.steps)
        return step > 0 and step % max(1, self.steps // LOOKS) == 0


def corners_of(task: TaskBatch, params: Float[Tensor, "B ..."]) -> Float[Tensor, "B N 3"]:
    """The corners of each instance, of all its views, as they are seen; no gradient."""
    assert isinstance(task, MeasuredBatch)
    with torch.no_grad():
        found = task.geometry(params)
    corners = found[0] if isinstance(found, tuple) else found
    return corners.reshape(task.batch_size, -1, corners.shape[-1])


def softening_method(
    softening: SofteningPolicy,
    family: Any,
    steps: int,
    rule: UpdateRule | None = None,
    sharp_from: float | None = SHARP_FROM,
) -> PolicyMethod:
    """The method that solves tasks of `family` by one softening for all problems, untuned.

    Args:
        softening: a policy, as `tr.SofteningPolicy()`.
        family: any `StudyFamily` whose batches are `OutlinedBatch`, or a `Mixture` of such.
        steps: inner steps, at least 1.
        rule: an update rule; by default `ImageSteps` of an Adam with `tr.ImageSteps.BETAS`.
        sharp_from: the progress from which the picture is sharp, or None; see `PolicyMethod`.

    Example:
        >>> method = softening_method(tr.SofteningPolicy(), Pose(), steps=60)
        >>> errors = evaluate(method, Pose(), 64).errors
    """
    return PolicyMethod(softening, family, steps, rule, sharp_from)
