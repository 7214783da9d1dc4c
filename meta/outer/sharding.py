"""Spread a batch over processes: one outer gradient, or the losses of a validation.

Instances that are not finite are named. They stop the run or are left out, as the settings say.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from meta.evaluation.evaluate import candidate_errors
from meta.inner.method import Method
from meta.inner.protocol import Stream, TaskBatch, TaskFamily
from meta.outer.distributed import World
from meta.outer.estimator import Estimator, OuterGradient, Shard, ShareGradient
from meta.outer.loss import OuterLoss
from meta.outer.nonfinite import Instances, Outcome, check_estimate, culprits, without_culprits

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """Batch `index` of a family's stream, and what to do about instances that are not finite."""

    family: TaskFamily
    stream: Stream
    index: int
    size: int
    nonfinite: Literal["stop", "skip"]

    def sample(self) -> TaskBatch:
        """All its instances; ValueError unless there are `size` of them."""
        task = self.family.sample(self.size, self.stream, self.index)
        if task.batch_size != self.size:
            raise ValueError(
                f"family: sample({self.size}, {self.stream!r}, {self.index}) gave "
                f"{task.batch_size} instances; expected {self.size}"
            )
        return task

    def named(self, instances: Instances) -> str:
        """Instances by family, stream, batch and index, for messages."""
        shown = ", ".join(map(str, instances[:8])) + (", ..." if len(instances) > 8 else "")
        return f"{self.family!r}, stream {self.stream!r}, batch {self.index}, instance {shown}"

    def run(
        self, attempt: Callable[[Instances], Any], instances: Instances, can_select: bool
    ) -> Outcome[Any]:
        """`attempt` on the instances, or without those for which it is not finite.

        Raises FloatingPointError, naming them, where they are not to be skipped.
        """
        if self.nonfinite == "skip" and can_select:
            return without_culprits(attempt, instances)
        try:
            return Outcome(attempt(instances))
        except FloatingPointError as error:
            bad = culprits(attempt, instances, error) if can_select else instances
            raise FloatingPointError(f"{self.named(bad)}: {error}") from error

    def joined(self, world: World, outcome: Outcome[Any]) -> Instances:
        """The instances left out on any rank.

        They are logged. Raises FloatingPointError if they are more than half of the batch.
        """
        outcomes = world.gather((outcome.bad, outcome.reason))
        bad = tuple(instance for of_rank, _ in outcomes for instance in of_rank)
        reason = next((text for _, text in outcomes if text), "")
        if 2 * len(bad) > self.size:
            raise FloatingPointError(
                f"{self.named(bad)}: {len(bad)} of {self.size} instances are not finite, more than "
                f"half of the batch, so that nothing can be learned from it ({reason})"
            )
        if bad and world.is_main:
            logger.warning("not finite, left out: %s (%s)", self.named(bad), reason)
        return bad


def spread_estimate(
    world: World,
    batch: Batch,
    estimator: Estimator,
    method: Method,
    outer: OuterLoss,
    generator: torch.Generator,
    options: Mapping[str, Any],
) -> tuple[OuterGradient, Instances]:
    """The outer gradient of a batch, the same on every rank, and the instances left out of it.

    An estimator with an option `shard` is told which instances of the batch it has, so that what
    it draws for each of them is the same on any number of ranks. With other estimators, each of
    several ranks has a generator of its own.
    """
    shard = world.shard(batch.size)
    shares = estimator.takes("shard")
    own = generator if world.size == 1 or shares else _own_generator(generator, world.rank)
    before = own.get_state()
    outcome: Outcome[OuterGradient] = Outcome(None)
    failed: Exception | None = None
    try:
        task = batch.sample()

        def attempt(instances: Instances) -> OuterGradient:
            own.set_state(before)
            part = Shard(instances, batch.size)
            extra = {"shard": part} if shares else {}
            estimate = estimator(method, part.of(task), outer, generator=own, **options, **extra)
            return check_estimate(estimator.name, estimate)

        outcome = batch.run(attempt, shard.instances, hasattr(task, "select"))
    except Exception as error:  # noqa: BLE001 - raised below, on every rank
        failed = error
    world.raise_any(failed)
    bad = batch.joined(world, outcome)
    weight = len(shard.instances) - len(outcome.bad)
    return _mean(world, outcome.result, weight, batch.size - len(bad)), bad


def spread_scores(
    world: World,
    batches: Sequence[Batch],
    method: Method,
    candidates: Sequence[Mapping[str, Tensor]],
    judge: OuterLoss,
    max_batch: int,
) -> tuple[list[float], int]:
    """Mean loss of each candidate over batches, the same on every rank; and the unsolved.

    If they are to be skipped, an instance that a candidate does not solve to anything finite counts
    for that candidate with the loss of its start. Where even that is not finite, the instance is
    left out for every candidate. The number of such instances is returned.
    """
    means: list[np.ndarray] = []
    unsolved = 0
    for batch in batches:
        shard = world.shard(batch.size, "validation_batch_size")
        losses = np.zeros((len(candidates), 0))
        outcome: Outcome[None] = Outcome(None)
        failed: Exception | None = None
        try:
            losses, outcome = _losses(batch, shard, method, candidates, judge, max_batch)
        except Exception as error:  # noqa: BLE001 - raised below, on every rank
            failed = error
        world.raise_any(failed)
        unsolved += len(batch.joined(world, outcome))
        means.append(np.nanmean(np.concatenate(world.gather(losses), axis=1), axis=1))
    return np.mean(means, axis=0).tolist(), unsolved


def _losses(
    batch: Batch,
    shard: Shard,
    method: Method,
    candidates: Sequence[Mapping[str, Tensor]],
    judge: OuterLoss,
    max_batch: int,
) -> tuple[np.ndarray, Outcome[None]]:
    """Losses (C, b) of the shard's b instances, and which of them some candidate has not solved."""
    whole = batch.sample()
    task = shard.of(whole)
    can_select = hasattr(task, "select")

    def loss(part: TaskBatch, unknowns: Tensor) -> Tensor:
        return judge.per_instance(method, part, unknowns)

    def solve(ours: Sequence[Mapping[str, Tensor]], instances: Instances) -> np.ndarray:
        part = Shard(instances, batch.size).of(whole)
        found = candidate_errors(method, ours, part, max_batch, loss)
        if not np.isfinite(found).all():
            raise FloatingPointError(f"the validation loss ({judge.kind}) is not finite")
        return found

    try:
        return solve(candidates, shard.instances), Outcome(None)
    except FloatingPointError:
        pass  # rarely so: then one candidate at a time
    with torch.no_grad():
        at_start = loss(task, task.start()).double().cpu().numpy()
    at_start[~np.isfinite(at_start)] = np.nan
    rows: list[np.ndarray] = []
    bad: set[int] = set()
    reasons: list[str] = []
    for candidate in candidates:
        outcome = batch.run(partial(solve, [candidate]), shard.instances, can_select)
        row = at_start.copy()
        solved = [k for k, i in enumerate(shard.instances) if i not in outcome.bad]
        if outcome.result is not None:
            row[solved] = outcome.result[0]
        rows.append(row)
        bad |= set(outcome.bad)
        reasons.append(outcome.reason)
    reason = next((text for text in reasons if text), "")
    return np.stack(rows), Outcome(None, tuple(sorted(bad)), reason)


def _mean(
    world: World, estimate: OuterGradient | None, weight: int, instances: int
) -> OuterGradient:
    """The mean over ranks of estimates from `weight` instances each, `instances` in all."""
    if world.size == 1:
        assert estimate is not None
        return estimate
    tensors = {} if estimate is None else _tensors(estimate)
    makes = world.gather({name: (tuple(t.shape), t.dtype) for name, t in tensors.items()})
    make = next(make for make in makes if make)
    if estimate is None:
        tensors = {name: torch.zeros(shape, dtype=dtype) for name, (shape, dtype) in make.items()}
    mean = world.mean(tensors, weight)
    grads, parts, info = (_under(mean, prefix) for prefix in ("grads/", "parts/", "info/"))
    if isinstance(estimate, ShareGradient) and estimate.figures is not None:
        figures = estimate.figures(parts, grads, instances)
    else:
        figures = {name: value.item() for name, value in info.items()}
    return OuterGradient(mean["loss"].item(), grads, figures)


def _tensors(estimate: OuterGradient) -> dict[str, Tensor]:
    """All that is averaged, by name."""
    tensors = {"loss": torch.tensor(estimate.loss, dtype=torch.float64)}
    tensors |= {f"grads/{name}": value for name, value in estimate.grads.items()}
    tensors |= {
        f"info/{name}": torch.tensor(value, dtype=torch.float64)
        for name, value in estimate.info.items()
    }
    if isinstance(estimate, ShareGradient):
        tensors |= {f"parts/{name}": value for name, value in estimate.parts.items()}
    return tensors


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _own_generator(common: torch.Generator, rank: int) -> torch.Generator:
    """A generator of this rank's own; `common` advances equally on every rank."""
    seed = int(torch.randint(2**62, (), generator=common))
    own = torch.Generator()
    own.manual_seed(seed + rank)
    return own
