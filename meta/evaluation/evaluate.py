"""Measure how well methods solve tasks: results of each instance, for one or many methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from meta.inner.method import Method
from meta.inner.protocol import Stream, TaskBatch, TaskFamily
from meta.inner.unroll import batch_parameters, unroll

DoneCallback = Callable[[int], None]


@dataclass(frozen=True)
class Evaluation:
    """Results of n instances: true errors at the start and the end, and the task's own metrics.

    Attributes: errors, start_errors (n,); metrics: name -> (n,).
    """

    errors: np.ndarray
    start_errors: np.ndarray
    metrics: dict[str, np.ndarray]

    def to_json(self) -> dict[str, Any]:
        """Plain lists; `from_json` takes them back without loss."""
        return {
            "errors": self.errors.tolist(),
            "start_errors": self.start_errors.tolist(),
            "metrics": {name: values.tolist() for name, values in self.metrics.items()},
        }

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Evaluation:
        """The inverse of `to_json`, in float64."""
        return Evaluation(
            errors=np.array(content["errors"]),
            start_errors=np.array(content["start_errors"]),
            metrics={name: np.array(values) for name, values in content["metrics"].items()},
        )


@dataclass(frozen=True)
class Convergence:
    """Errors of n instances after 0 ... T inner steps: both (T + 1, n)."""

    parameter_error: np.ndarray
    image_error: np.ndarray


def evaluate(
    method: Method,
    family: TaskFamily,
    count: int,
    stream: Stream = "test",
    batch_size: int = 64,
    first_index: int = 0,
    done: DoneCallback | None = None,
) -> Evaluation:
    """Solve `count` instances of a stream and judge the ends.

    The instances are the batches `first_index`, `first_index + 1`, ... of `batch_size`. The batch
    size is therefore part of the test set's definition, not only a matter of memory. `done` is
    called with the number of inner runs finished since its last call.

    Raises ValueError for `count` or `batch_size` below 1.
    """
    errors, starts, metrics = [], [], []
    for task in batches(family, count, stream, batch_size, first_index):
        with torch.no_grad():
            starts.append(task.true_error(task.start()))
        run = unroll(method, task)
        with torch.no_grad():
            errors.append(task.true_error(run.params))
            metrics.append(task.metrics(run.params))
        if done is not None:
            done(task.batch_size)
    return Evaluation(
        errors=_array(errors),
        start_errors=_array(starts),
        metrics={name: _array([part[name] for part in metrics]) for name in metrics[0]},
    )


def candidate_errors(
    method: Method,
    candidates: Sequence[Mapping[str, Tensor]],
    task: TaskBatch,
    max_batch: int = 512,
    judge: Callable[[TaskBatch, Tensor], Tensor] | None = None,
    done: DoneCallback | None = None,
) -> np.ndarray:
    """Final error of every candidate on every instance of one task batch, (C, B).

    A candidate is a dict of method parameters (see `unroll`); as many as `max_batch` inner runs
    allow are solved side by side. `judge(task, unknowns)` gives the error, `task.true_error` by
    default.
    """
    if not candidates:
        raise ValueError("candidates: expected at least one set of parameters, got none")
    if max_batch < 1:
        raise ValueError(f"max_batch must be >= 1, got {max_batch}")
    per_unroll = max(1, max_batch // task.batch_size)
    parts = []
    for begin in range(0, len(candidates), per_unroll):
        chunk = candidates[begin : begin + per_unroll]
        repeated = task.repeat(len(chunk))
        run = unroll(method, repeated, params=batch_parameters(chunk, task.batch_size))
        with torch.no_grad():
            error = judge(repeated, run.params) if judge else repeated.true_error(run.params)
        parts.append(error.reshape(len(chunk), task.batch_size))
        if done is not None:
            done(repeated.batch_size)
    return _array(parts)


def convergence(
    method: Method,
    family: TaskFamily,
    count: int,
    stream: Stream = "test",
    batch_size: int = 64,
    first_index: int = 0,
) -> Convergence:
    """Errors after every inner step, on the same instances as `evaluate` with these arguments."""
    parameter_errors, image_errors = [], []
    for task in batches(family, count, stream, batch_size, first_index):
        of_parameters: list[Tensor] = []
        of_images: list[Tensor] = []

        def record(
            _step: int,
            unknowns: Tensor,
            task: TaskBatch = task,
            of_parameters: list[Tensor] = of_parameters,
            of_images: list[Tensor] = of_images,
        ) -> None:
            with torch.no_grad():
                of_parameters.append(task.true_error(unknowns))
                of_images.append(task.image_error(unknowns))

        unroll(method, task, record=record)
        parameter_errors.append(torch.stack(of_parameters, dim=1))
        image_errors.append(torch.stack(of_images, dim=1))
    return Convergence(_array(parameter_errors).T, _array(image_errors).T)


def batches(
    family: TaskFamily, count: int, stream: Stream, batch_size: int, first_index: int = 0
) -> Iterator[TaskBatch]:
    """Batches of a stream with `count` instances in all; the last may be smaller."""
    if count < 1:
        raise ValueError(f"count must be >= 1, got {count}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be >= 1, got {batch_size}")
    for index, begin in enumerate(range(0, count, batch_size)):
        yield family.sample(min(batch_size, count - begin), stream, first_index + index)


def _array(parts: Sequence[Tensor]) -> np.ndarray:
    return torch.cat(list(parts)).cpu().double().numpy()
