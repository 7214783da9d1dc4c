"""Antithetic evolution strategies: the gradient of the outer loss smoothed by a Gaussian.

    g = E[ (L(theta + sigma e) - L(theta - sigma e)) / (2 sigma) * e ],   e ~ N(0, 1)

(Rechenberg 1973; Salimans et al. 2017, arXiv:1703.03864). Both members of a pair solve the same
tasks, so that what is common to them cancels. No derivative of the inner run is taken: chaos there
costs variance, not infinity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from meta.inner.method import Method
from meta.inner.protocol import TaskBatch
from meta.inner.unroll import unroll
from meta.outer.estimator import OuterGradient, Shard, ShareGradient, estimator
from meta.outer.loss import OuterLoss


@estimator(
    "es",
    {"sharp", "true"},
    why="judged by the renderer under training, a softness learns to hide errors",
)
def es_gradient(
    method: Method,
    task: TaskBatch,
    outer: OuterLoss,
    *,
    generator: torch.Generator | None = None,
    pairs: int = 8,
    sigma: float | Mapping[str, float] = 0.05,
    directions: Literal["shared", "per_task"] = "shared",
    max_batch: int = 512,
    shard: Shard | None = None,
) -> OuterGradient:
    """Estimate by `pairs` antithetic pairs on the B instances of `task`: 2 * pairs * B inner runs.

    Args:
        generator: source of the directions; required, so that a run can be repeated.
        pairs: N >= 1.
        sigma: standard deviation of the perturbation (> 0), for all parameters or by name.
        directions: "shared": N directions, each tried on all B instances. "per_task": N * B
            directions, each tried on one instance; the same cost, and never a larger variance.
        max_batch: most inner runs side by side in memory; the estimate does not depend on it.
        shard: which instances of a larger batch `task` holds. Directions are then drawn for all of
            that batch, so that each instance meets its own, whoever solves it.

    `info` holds `es_std`, the standard deviation over pairs of half the difference in loss, and
    `es_noise`, the estimated standard error of the gradient in units of its norm.
    """
    if generator is None:
        raise ValueError("generator: the es estimator draws at random; pass a torch.Generator")
    if pairs < 1:
        raise ValueError(f"pairs must be >= 1, got {pairs}")
    if directions not in ("shared", "per_task"):
        raise ValueError(f"directions: expected 'shared' or 'per_task', got {directions!r}")
    if max_batch < 1:
        raise ValueError(f"max_batch must be >= 1, got {max_batch}")
    centre = method.parameter_dict()
    scales = _sigmas(centre, sigma)
    batch = task.batch_size
    shard = shard or Shard(tuple(range(batch)), batch)
    if len(shard.instances) != batch:
        raise ValueError(f"shard: it names {len(shard.instances)} instances, task holds {batch}")
    per_task = directions == "per_task"
    width = shard.total if per_task else 1
    noise = {
        name: torch.randn((pairs, width, *value.shape), generator=generator, dtype=value.dtype).to(
            value.device
        )
        for name, value in centre.items()
    }
    if per_task:
        noise = {name: drawn[:, list(shard.instances)] for name, drawn in noise.items()}
    losses = _antithetic_losses(method, task, outer, centre, scales, noise, max_batch)
    half = (losses[:, 0] - losses[:, 1]) / 2  # (pairs, B)

    def samples_of(half: Tensor) -> dict[str, Tensor]:
        return {name: _samples(half, noise[name], scales[name]) for name in centre}

    return _estimate("es", losses.mean().item(), half, per_task, samples_of)


def _estimate(
    name: str,
    loss: float,
    half: Float[Tensor, "*pairs B"],
    per_task: bool,
    samples_of: Callable[[Tensor], dict[str, Tensor]],
) -> ShareGradient:
    """The estimate of half differences of losses, with the figures `name`_std and `name`_noise.

    With a direction for each task, the figures of a whole batch follow from means of first and
    second powers over its shares; with shared ones, from the mean differences.
    """
    if not per_task:
        half = half.mean(dim=-1, keepdim=True)
    samples = samples_of(half)
    total = half.reshape(-1, *half.shape[-2:]).sum(dim=0)  # over windows, where there are some
    grads = {key: sample.mean(dim=0) for key, sample in samples.items()}

    def figures(
        parts: dict[str, Tensor], grads: dict[str, Tensor], instances: int
    ) -> dict[str, float]:
        if per_task:
            spread = (parts["square"] - parts["mean"].square()).clamp(min=0).sqrt()
            noise = _noise_of_moments(parts["samples"].item(), grads, len(total) * instances)
        else:
            spread = parts["half"].reshape(-1, *half.shape[-2:]).sum(dim=0).std(correction=0)
            noise = _relative_noise(samples_of(parts["half"]))
        return {f"{name}_std": spread.item(), f"{name}_noise": noise}

    if per_task:
        squares = [s.reshape(len(s), -1).square().sum(dim=1).mean() for s in samples.values()]
        parts = {
            "mean": total.mean(),
            "square": total.square().mean(),
            "samples": torch.stack([square.double() for square in squares]).sum(),
        }
    else:
        parts = {"half": half}
    info = {
        f"{name}_std": total.std(correction=0).item(),
        f"{name}_noise": _relative_noise(samples),
    }
    return ShareGradient(loss, grads, info, parts, figures)


def _antithetic_losses(
    method: Method,
    task: TaskBatch,
    outer: OuterLoss,
    centre: dict[str, Tensor],
    scales: dict[str, float],
    noise: dict[str, Tensor],
    max_batch: int,
) -> Float[Tensor, "pairs 2 B"]:
    """Outer loss of each instance under each perturbed copy, `max_batch` runs to an unroll."""
    pairs = len(next(iter(noise.values())))
    batch = task.batch_size
    copies = [(pair, sign) for pair in range(pairs) for sign in (1.0, -1.0)]
    per_unroll = max(1, max_batch // batch)
    parts = []
    for begin in range(0, len(copies), per_unroll):
        chunk = copies[begin : begin + per_unroll]
        perturbed = {
            name: torch.cat(
                [
                    (value + sign * scales[name] * noise[name][pair]).expand(batch, *value.shape)
                    for pair, sign in chunk
                ]
            )
            for name, value in centre.items()
        }
        repeated = task.repeat(len(chunk))
        run = unroll(method, repeated, params=perturbed)
        with torch.no_grad():
            parts.append(
                outer.per_instance(method, repeated, run.params).reshape(len(chunk), batch)
            )
    return torch.cat(parts).reshape(pairs, 2, batch)


def _samples(half: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """One gradient sample a direction, (directions, *shape)."""
    flat = noise.reshape(half.numel(), *noise.shape[2:])
    weight = half.reshape(-1, *[1] * (flat.ndim - 1)).to(flat.dtype)
    return weight / sigma * flat


def _relative_noise(samples: dict[str, Tensor]) -> float:
    count = len(next(iter(samples.values())))
    if count < 2:
        return math.nan
    variance = sum(sample.var(dim=0).sum().item() for sample in samples.values()) / count
    norm = sum(sample.mean(dim=0).square().sum().item() for sample in samples.values())
    return math.sqrt(variance / norm) if norm > 0 else math.inf


def _noise_of_moments(square: float, grads: dict[str, Tensor], count: int) -> float:
    """`_relative_noise` of `count` samples, from their mean squared norm and their mean."""
    if count < 2:
        return math.nan
    norm = sum(grad.double().square().sum().item() for grad in grads.values())
    return math.sqrt(max(square - norm, 0.0) / ((count - 1) * norm)) if norm > 0 else math.inf


def _sigmas(centre: dict[str, Tensor], sigma: float | Mapping[str, float]) -> dict[str, float]:
    if isinstance(sigma, Mapping):
        if sigma.keys() != centre.keys():
            raise ValueError(
                f"sigma: expected a value for each of {sorted(centre)}, got {sorted(sigma)}"
            )
        by_name = {name: float(sigma[name]) for name in centre}
    else:
        by_name = dict.fromkeys(centre, float(sigma))
    for name, value in by_name.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"sigma[{name!r}] must be finite and > 0, got {value}")
    return by_name
