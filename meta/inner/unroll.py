"""The inner loop: T steps of a method on a batch of tasks, plain or as one differentiable graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call

from meta.inner.method import Method
from meta.inner.protocol import TaskBatch
from meta.inner.recompute import (
    Step,
    flatten_state,
    graph_bytes,
    recomputed,
    tensors_in,
    unflatten_state,
)

Record: TypeAlias = Callable[[int, Tensor], None]
Recompute: TypeAlias = bool | Literal["auto"]

GRAPH_MEMORY = 2**29
"""Bytes of step graphs that an unroll with recompute="auto" keeps."""


@dataclass(frozen=True)
class InnerRun:
    """Final unknowns (B, ...), and the loss of each instance before each step, (T, B).

    A run can stop early, after `step` of the method's steps; `unroll(after=...)` resumes it.
    `state` is the method's (see `Method.begin`).
    """

    params: Float[Tensor, "B ..."]
    losses: Float[Tensor, "T B"]
    state: Any = None
    step: int = 0

    def detached(self) -> InnerRun:
        """The same run without its graph: resuming it starts a new one."""
        leaves: list[Tensor] = []
        shape = flatten_state(self.state, leaves)
        state = unflatten_state(shape, iter([leaf.detach() for leaf in leaves]))
        return replace(self, params=self.params.detach(), state=state)


def unroll(
    method: Method,
    task: TaskBatch,
    create_graph: bool = False,
    params: Mapping[str, Tensor] | None = None,
    record: Record | None = None,
    recompute: Recompute = "auto",
    after: InnerRun | None = None,
    until: int | None = None,
) -> InnerRun:
    """Solve every instance of `task` by `method`, from its start.

    Args:
        method: the method; it is not changed.
        task: a batch of B instances. They do not influence one another: each descends its own loss.
        create_graph: True keeps the whole run differentiable with respect to the method's
            parameters (or to `params`). False detaches every step: memory does not grow with T, and
            nothing is differentiated with respect to the method.
        params: tensors in place of method parameters of the same names; each may have a leading
            batch dimension B (see `batch_parameters`), so that every instance is solved by a
            softness of its own. Names left out keep the method's own values.
        recompute: only with `create_graph`. True keeps each step's unknowns and optimiser state
            alone, and runs the step again when it is differentiated. Memory then does not depend on
            the renderer or its pixels. False keeps every step's graph, which saves that second run.
            "auto" keeps the graphs of as many steps as fit into `GRAPH_MEMORY` (512 MiB), at least
            the first, and recomputes the rest. The derivatives are the same. Those of recomputed
            steps cannot be differentiated again.
        record: called as record(t, unknowns) for t = 0 ... T, with detached unknowns (B, ...).
        after: a run of the same instances that stopped early, to be resumed. With `create_graph`,
            its graph is part of this run's, unless it is `detached`.
        until: stop before this step, T by default.

    Raises FloatingPointError, naming the step, when a loss or an unknown is not finite; ValueError
    for an unknown name in `params`, or for `until` outside of what is left of the run.
    """
    if recompute not in (True, False, "auto"):
        raise ValueError(f"recompute: expected True, False or 'auto', got {recompute!r}")
    chosen = _method_tensors(method, params, create_graph)
    begin = 0 if after is None else after.step
    until = method.steps if until is None else until
    if begin >= method.steps:
        raise ValueError(f"after: that run is at step {begin} of {method.steps}: none is left")
    if not begin < until <= method.steps:
        raise ValueError(f"until must lie in [{begin + 1}, {method.steps}], got {until}")
    if after is None:
        unknowns = task.start().detach()
        state = method.begin(task, unknowns)
    else:
        unknowns, state = after.params, after.state
        unknowns = unknowns if create_graph and unknowns.requires_grad else unknowns.detach()
    losses = []
    kept_until = begin + 1 if recompute == "auto" else begin if recompute else until
    for step in range(begin, until):
        if record is not None:
            record(step, unknowns.detach())
        run = _step(method, task, torch.tensor(step / method.steps, dtype=torch.float64))
        if create_graph and step >= kept_until:
            unknowns, state, loss = recomputed(run, unknowns, state, chosen)
        else:
            unknowns = unknowns if unknowns.requires_grad else unknowns.requires_grad_()
            measured = create_graph and recompute == "auto" and step == begin
            before = (unknowns, *tensors_in(state)) if measured else ()
            unknowns, state, loss = run(unknowns, state, chosen, create_graph)
            if measured:
                size = max(graph_bytes(unknowns, before), 1)
                kept_until = begin + max(GRAPH_MEMORY // size, 1)
        check_finite("the loss", loss, step, method.steps)
        check_finite("an unknown", unknowns, step, method.steps)
        if not create_graph:
            unknowns = unknowns.detach()
        losses.append(loss.detach())
    if record is not None:
        record(until, unknowns.detach())
    return InnerRun(unknowns, torch.stack(losses), state, until)


def windows(steps: int, window: int) -> list[tuple[int, int]]:
    """Runs of `window` steps, (begin, end) each, that end at the last; the first may be shorter.

    Raises ValueError unless `window` is an integer in [1, steps].
    """
    if not (isinstance(window, int) and 1 <= window <= steps):
        raise ValueError(
            f"window must be an integer in [1, {steps}], the method's steps, got {window!r}"
        )
    ends = range(steps, 0, -window)
    return [(max(0, end - window), end) for end in reversed(ends)]


def trajectory(
    method: Method, task: TaskBatch, params: Mapping[str, Tensor] | None = None
) -> Float[Tensor, "steps_plus_1 B ..."]:
    """All iterates of the inner loop, start and end included."""
    iterates: list[Tensor] = []
    unroll(
        method, task, params=params, record=lambda step, unknowns: iterates.append(unknowns.clone())
    )
    return torch.stack(iterates)


def batch_parameters(
    candidates: Sequence[Mapping[str, Tensor]], batch_size: int
) -> dict[str, Tensor]:
    """Parameters of C candidates for one unroll over `task.repeat(C)`: tensors (C * B, ...).

    Copy-major as `TaskBatch.repeat`: candidate j solves instances j * B ... j * B + B - 1.
    """
    if not candidates:
        raise ValueError("candidates: expected at least one set of parameters, got none")
    return {
        name: torch.stack([candidate[name] for candidate in candidates]).repeat_interleave(
            batch_size, dim=0
        )
        for name in candidates[0]
    }


def _step(method: Method, task: TaskBatch, progress: Tensor) -> Step:
    def run(unknowns: Tensor, state: Any, chosen: dict[str, Tensor], create_graph: bool) -> Any:
        inputs = (task, unknowns, state, progress)
        return functional_call(method, chosen, inputs, {"create_graph": create_graph})

    return run


def _method_tensors(
    method: Method, params: Mapping[str, Tensor] | None, create_graph: bool
) -> dict[str, Tensor]:
    own: dict[str, Tensor] = dict(method.named_parameters())
    if params is not None:
        unknown = params.keys() - own.keys()
        if unknown:
            raise ValueError(
                f"params: unknown names {sorted(unknown)}; this method has {sorted(own)}"
            )
        own.update(params)
    return own if create_graph else {name: tensor.detach() for name, tensor in own.items()}


def check_finite(what: str, values: Float[Tensor, "B ..."], step: int, steps: int) -> None:
    """Raise FloatingPointError, naming the instances and the step, unless all are finite."""
    finite = torch.isfinite(values.detach())
    if bool(finite.all()):
        return
    bad = torch.nonzero(~finite.reshape(len(values), -1).all(dim=1)).flatten().tolist()
    shown = ", ".join(map(str, bad[:8])) + (", ..." if len(bad) > 8 else "")
    raise FloatingPointError(
        f"inner step {step} of {steps}: {what} of instance {shown} ({len(bad)} of {len(values)}) "
        "is not finite; lower the learning rate, or look at the task's loss there"
    )
