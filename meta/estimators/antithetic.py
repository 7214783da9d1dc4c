"""The antithetic estimate that `es` and `pes` share: half differences of losses times directions.

The run is cut into windows, each with a fresh perturbation e_w ~ N(0, 1) of the parameters. Both
members of a pair, at theta + sigma e and theta - sigma e, solve the same tasks, so that what they
have in common cancels. With N pairs and the outer losses L at the ends of the judged windows,

    g = 1 / (2 sigma N) sum_windows sum_pairs (e_1 + ... + e_w) (L+ - L-)

(Vicol, Metz, Sohl-Dickstein 2021, arXiv:2112.13835, algorithm 2). One window of the whole run is
plain evolution strategies (Salimans et al. 2017, arXiv:1703.03864).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from meta.inner.method import Method
from meta.inner.protocol import TaskBatch
from meta.inner.unroll import InnerRun, unroll
from meta.outer.estimator import Shard, ShareGradient
from meta.outer.loss import OuterLoss

Directions: TypeAlias = Literal["shared", "per_task"]
Noise: TypeAlias = dict[str, Tensor]
"""A window's directions by parameter name: (pairs, 1, *shape), or (pairs, B, *shape) per task."""


@dataclass(frozen=True)
class Perturbation:
    """How the parameters are perturbed; the arguments of `es_gradient` of the same names.

    Raises ValueError, naming the argument that is out of range.
    """

    pairs: int
    sigma: float | Mapping[str, float]
    directions: Directions
    max_batch: int
    shard: Shard | None

    def __post_init__(self) -> None:
        if self.pairs < 1:
            raise ValueError(f"pairs must be >= 1, got {self.pairs}")
        if self.directions not in ("shared", "per_task"):
            raise ValueError(
                f"directions: expected 'shared' or 'per_task', got {self.directions!r}"
            )
        if self.max_batch < 1:
            raise ValueError(f"max_batch must be >= 1, got {self.max_batch}")

    @property
    def per_task(self) -> bool:
        """Whether each instance has directions of its own."""
        return self.directions == "per_task"

    def shard_of(self, batch: int) -> Shard:
        """Which instances a task of `batch` instances holds; ValueError if the shard has others."""
        shard = self.shard or Shard(tuple(range(batch)), batch)
        if len(shard.instances) != batch:
            raise ValueError(
                f"shard: it names {len(shard.instances)} instances, task holds {batch}"
            )
        return shard

    def sigmas(self, centre: Mapping[str, Tensor]) -> dict[str, float]:
        """The standard deviation of each parameter; ValueError for other names or values."""
        if isinstance(self.sigma, Mapping):
            if self.sigma.keys() != centre.keys():
                raise ValueError(
                    f"sigma: expected a value for each of {sorted(centre)}, "
                    f"got {sorted(self.sigma)}"
                )
            by_name = {name: float(self.sigma[name]) for name in centre}
        else:
            by_name = dict.fromkeys(centre, float(self.sigma))
        for name, value in by_name.items():
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"sigma[{name!r}] must be finite and > 0, got {value}")
        return by_name


def antithetic_gradient(
    name: str,
    method: Method,
    task: TaskBatch,
    outer: OuterLoss,
    generator: torch.Generator | None,
    perturbation: Perturbation,
    ends: Sequence[int],
    judged: int = 1,
) -> ShareGradient:
    """The mean over the last `judged` windows of the smoothed outer gradient at their ends.

    Args:
        name: of the estimator, for errors and figures.
        generator: source of the directions; ValueError for None.
        ends: the step at which each window ends, rising; the last is the method's T.
        judged: windows whose end the outer loss judges, counted from the last.

    `info` holds `{name}_std`, the standard deviation over directions of half the difference in
    loss, and `{name}_noise`, the estimated standard error of the gradient in units of its norm.
    """
    if generator is None:
        raise ValueError(f"generator: the {name} estimator draws at random; pass a torch.Generator")
    centre = method.parameter_dict()
    sigmas = perturbation.sigmas(centre)
    shard = perturbation.shard_of(task.batch_size)
    noise = {end: _draw(centre, perturbation, shard, generator) for end in ends}
    losses = _losses(
        method, task, outer, centre, sigmas, noise, list(ends)[-judged:], perturbation.max_batch
    )
    half = (losses[:, :, 0] - losses[:, :, 1]) / 2 / judged
    sums = {
        key: torch.stack([drawn[key] for drawn in noise.values()]).cumsum(dim=0)[-judged:]
        for key in centre
    }
    return _estimate(name, losses.mean().item(), half, sums, sigmas, perturbation.per_task)


def _draw(
    centre: Mapping[str, Tensor],
    perturbation: Perturbation,
    shard: Shard,
    generator: torch.Generator,
) -> Noise:
    """A window's directions: those of the shard's instances, drawn for the whole batch."""
    noise = {}
    for name, value in centre.items():
        width = shard.total if perturbation.per_task else 1
        shape = (perturbation.pairs, width, *value.shape)
        drawn = torch.randn(shape, generator=generator, dtype=value.dtype).to(value.device)
        noise[name] = drawn[:, list(shard.instances)] if perturbation.per_task else drawn
    return noise


def _losses(
    method: Method,
    task: TaskBatch,
    outer: OuterLoss,
    centre: Mapping[str, Tensor],
    sigmas: Mapping[str, float],
    noise: Mapping[int, Noise],
    judged: Sequence[int],
    max_batch: int,
) -> Float[Tensor, "judged pairs 2 B"]:
    """Outer losses after the steps `judged`, `max_batch` runs side by side.

    `noise` has the directions of each window, by the step at which it ends.
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
            perturbed = _perturbed(centre, sigmas, drawn, chunk, batch)
            run = unroll(method, repeated, params=perturbed, after=run, until=end)
            if end in judged:
                with torch.no_grad():
                    found.append(outer.per_instance(method, repeated, run.params))
        parts.append(torch.stack(found).reshape(len(judged), len(chunk), batch))
    return torch.cat(parts, dim=1).reshape(len(judged), pairs, 2, batch)


def _perturbed(
    centre: Mapping[str, Tensor],
    sigmas: Mapping[str, float],
    noise: Noise,
    copies: Sequence[tuple[int, float]],
    batch: int,
) -> dict[str, Tensor]:
    """Parameters of each instance of each copy (pair, sign), (copies * B, *shape)."""
    return {
        name: torch.cat(
            [
                (value + sign * sigmas[name] * noise[name][pair]).expand(batch, *value.shape)
                for pair, sign in copies
            ]
        )
        for name, value in centre.items()
    }


def _estimate(
    name: str,
    loss: float,
    half: Float[Tensor, "judged pairs B"],
    sums: Mapping[str, Tensor],
    sigmas: Mapping[str, float],
    per_task: bool,
) -> ShareGradient:
    """The estimate from half differences and each window's sum of directions, with its figures.

    Where each task has its own directions, the figures of a whole batch follow from the means of
    first and second powers over its shares. With shared ones they follow from the mean differences.
    """

    def samples_of(half: Tensor) -> dict[str, Tensor]:
        """Gradient samples by name, (directions, *shape)."""
        samples = {}
        for key, sigma in sigmas.items():
            windows = [_samples(h, xi, sigma) for h, xi in zip(half, sums[key], strict=True)]
            samples[key] = torch.stack(windows).sum(dim=0)
        return samples

    def figures(
        parts: dict[str, Tensor], grads: dict[str, Tensor], instances: int
    ) -> dict[str, float]:
        if per_task:
            spread = (parts["square"] - parts["mean"].square()).clamp(min=0).sqrt()
            noise = _noise_of_moments(parts["samples"].item(), grads, len(total) * instances)
        else:
            spread = parts["half"].sum(dim=0).std(correction=0)
            noise = _relative_noise(samples_of(parts["half"]))
        return {f"{name}_std": spread.item(), f"{name}_noise": noise}

    if not per_task:
        half = half.mean(dim=-1, keepdim=True)
    samples = samples_of(half)
    total = half.sum(dim=0)
    grads = {key: sample.mean(dim=0) for key, sample in samples.items()}
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


def _samples(half: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """One gradient sample a direction, (directions, *shape)."""
    flat = noise.reshape(half.numel(), *noise.shape[2:])
    weight = half.reshape(-1, *[1] * (flat.ndim - 1)).to(flat.dtype)
    return weight / sigma * flat


def _relative_noise(samples: Mapping[str, Tensor]) -> float:
    """Standard error of the mean of samples in units of its norm; NaN for a single sample."""
    count = len(next(iter(samples.values())))
    if count < 2:
        return math.nan
    variance = sum(sample.var(dim=0).sum().item() for sample in samples.values()) / count
    norm = sum(sample.mean(dim=0).square().sum().item() for sample in samples.values())
    return math.sqrt(variance / norm) if norm > 0 else math.inf


def _noise_of_moments(square: float, grads: Mapping[str, Tensor], count: int) -> float:
    """`_relative_noise` of `count` samples, from their mean squared norm and their mean."""
    if count < 2:
        return math.nan
    norm = sum(grad.double().square().sum().item() for grad in grads.values())
    return math.sqrt(max(square - norm, 0.0) / ((count - 1) * norm)) if norm > 0 else math.inf
