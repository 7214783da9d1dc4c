"""Persistent evolution strategies: evolution strategies on windows, without the bias of truncation.

The run of each particle is cut into windows, each under a fresh perturbation e of the parameters.
The outer loss at a window's end owes something to all the perturbations since the start, so that it
is their sum xi, kept by the particle, that it is multiplied by:

    g = 1 / (2 sigma^2 N) sum_windows sum_particles xi (L+ - L-),   xi = sigma (e_1 + ... + e_w)

(Vicol, Metz, Sohl-Dickstein, *Unbiased gradient estimation in unrolled computation graphs with
persistent evolution strategies*, ICML 2021, arXiv:2112.13835, algorithm 2). It is unbiased for the
total derivative of the loss smoothed by a perturbation of each window's own; its variance grows
with the number of windows, and with one window it is plain `es`. The published use is to change
the parameters between windows; here one call runs the whole horizon.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from meta.estimators.es import _estimate, _samples, _sigmas
from meta.inner.method import Method
from meta.inner.protocol import TaskBatch
from meta.inner.unroll import InnerRun, unroll, windows
from meta.outer.estimator import OuterGradient, Shard, estimator
from meta.outer.loss import OuterLoss


@estimator(
    "pes",
    {"sharp", "true"},
    why="judged by the renderer under training, a softness learns to hide errors",
)
def pes_gradient(
    method: Method,
    task: TaskBatch,
    outer: OuterLoss,
    *,
    generator: torch.Generator | None = None,
    window: int = 10,
    losses: Literal["all", "last"] = "all",
    pairs: int = 8,
    sigma: float | Mapping[str, float] = 0.05,
    directions: Literal["shared", "per_task"] = "shared",
    max_batch: int = 512,
    shard: Shard | None = None,
) -> OuterGradient:
    """Estimate by `pairs` antithetic pairs on the B instances of `task`: 2 * pairs * B inner runs.

    Args:
        generator, pairs, sigma, directions, max_batch, shard: as for `es_gradient`, with a
            perturbation for each window in place of one.
        window: K, steps of a window, in [1, T]. Windows end at step T; where K does not divide T,
            the first is shorter. With K = T this is `es_gradient`, to the same draws.
        losses: "all": the outer loss is the mean of those at the end of each window. "last": that
            at the end of the run alone.

    `info` holds `pes_std`, the standard deviation over directions of half the difference in loss,
    and `pes_noise`, the estimated standard error of the gradient in units of its norm.
    """
    generator = _checked(generator, pairs, losses, directions, max_batch)
    ends = [end for _, end in windows(method.steps, window)]
    judged = ends if losses == "all" else ends[-1:]
    centre = method.parameter_dict()
    scales = _sigmas(centre, sigma)
    batch = task.batch_size
    shard = shard or Shard(tuple(range(batch)), batch)
    if len(shard.instances) != batch:
        raise ValueError(f"shard: it names {len(shard.instances)} instances, task holds {batch}")
    per_task = directions == "per_task"
    noise = [_draw(centre, pairs, shard if per_task else None, generator) for _ in ends]
    found = _antithetic_losses(
        method, task, outer, centre, scales, dict(zip(ends, noise, strict=True)), judged, max_batch
    )
    half = (found[:, :, 0] - found[:, :, 1]) / 2 / len(judged)  # (judged, pairs, B)

    def samples_of(half: Tensor) -> dict[str, Tensor]:
        samples = {}
        for name in centre:
            sums = torch.stack([part[name] for part in noise]).cumsum(dim=0)[-len(judged) :]
            of_windows = [_samples(h, xi, scales[name]) for h, xi in zip(half, sums, strict=True)]
            samples[name] = torch.stack(of_windows).sum(dim=0)
        return samples

    return _estimate("pes", found.mean().item(), half, per_task, samples_of)


def _checked(
    generator: torch.Generator | None, pairs: int, losses: str, directions: str, max_batch: int
) -> torch.Generator:
    if generator is None:
        raise ValueError("generator: the pes estimator draws at random; pass a torch.Generator")
    if pairs < 1:
        raise ValueError(f"pairs must be >= 1, got {pairs}")
    if losses not in ("all", "last"):
        raise ValueError(f"losses: expected 'all' or 'last', got {losses!r}")
    if directions not in ("shared", "per_task"):
        raise ValueError(f"directions: expected 'shared' or 'per_task', got {directions!r}")
    if max_batch < 1:
        raise ValueError(f"max_batch must be >= 1, got {max_batch}")
    return generator


def _draw(
    centre: dict[str, Tensor], pairs: int, shard: Shard | None, generator: torch.Generator
) -> dict[str, Tensor]:
    """Standard normal perturbations by name, (pairs, 1, *shape), or one for each instance."""
    noise = {}
    for name, value in centre.items():
        shape = (pairs, 1 if shard is None else shard.total, *value.shape)
        drawn = torch.randn(shape, generator=generator, dtype=value.dtype).to(value.device)
        noise[name] = drawn if shard is None else drawn[:, list(shard.instances)]
    return noise


def _antithetic_losses(
    method: Method,
    task: TaskBatch,
    outer: OuterLoss,
    centre: dict[str, Tensor],
    scales: dict[str, float],
    noise: dict[int, dict[str, Tensor]],
    judged: list[int],
    max_batch: int,
) -> Float[Tensor, "judged pairs 2 B"]:
    """Outer losses after the steps `judged`, `max_batch` runs side by side.

    `noise` has the perturbations of each window, by the step at which it ends.
    """
    batch = task.batch_size
    pairs = len(next(iter(noise[judged[0]].values())))
    copies = [(pair, sign) for pair in range(pairs) for sign in (1.0, -1.0)]
    per_unroll = max(1, max_batch // batch)
    parts = []
    for begin in range(0, len(copies), per_unroll):
        chunk = copies[begin : begin + per_unroll]
        repeated = task.repeat(len(chunk))
        run: InnerRun | None = None
        found = []
        for end, drawn in noise.items():
            perturbed = _perturbed(centre, scales, drawn, chunk, batch)
            run = unroll(method, repeated, params=perturbed, after=run, until=end)
            if end in judged:
                with torch.no_grad():
                    found.append(outer.per_instance(method, repeated, run.params))
        parts.append(torch.stack(found).reshape(len(judged), len(chunk), batch))
    return torch.cat(parts, dim=1).reshape(len(judged), pairs, 2, batch)


def _perturbed(
    centre: dict[str, Tensor],
    scales: dict[str, float],
    noise: dict[str, Tensor],
    chunk: list[tuple[int, float]],
    batch: int,
) -> dict[str, Tensor]:
    """Parameters of each instance of each copy, (len(chunk) * B, *shape)."""
    return {
        name: torch.cat(
            [
                (value + sign * scales[name] * noise[name][pair]).expand(batch, *value.shape)
                for pair, sign in chunk
            ]
        )
        for name, value in centre.items()
    }
