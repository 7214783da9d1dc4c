"""Other people's ways to solve a task by sharp pictures alone, and many starts of a soft descent.

Each spends a number of renders on each instance of a batch, and gives the unknowns that it found.

smooth, by_pixel: Adam along the gradients of `rival_gradients`.
evolve: CMA-ES (Hansen 2016, "The CMA evolution strategy: a tutorial"), of the package `cmaes`.
many_starts: the best of several short descents under a fixed softness.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from benchmarks.rival_gradients import (
    PicturedBatch,
    faces_moved,
    pixel_gradient,
    pixel_look,
    smoothed_gradient,
)
from meta.inner.method import Method
from meta.inner.protocol import TaskBatch
from meta.inner.unroll import unroll
from meta.inner.updates import Adam
from meta.search.fixed import FixedSoftness, fixed_method


class Gradient(Protocol):
    """Of a batch of tasks: estimates a gradient at params (B, ...), by 2 * pairs renders."""

    def __call__(self, params: Tensor, sigma: float, generator: torch.Generator) -> Tensor: ...


# Descents -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Noisy:
    """How a stochastic gradient is descended by Adam.

    Attributes:
        rate: Adam's, in units of the unknowns; sigma: the width of what is sampled.
        rate_share, sigma_share: of what they begin with, at the end; both fall geometrically.
        pairs: of renders a step.
        betas: Adam's.
    """

    rate: float
    rate_share: float
    sigma: float
    sigma_share: float
    pairs: int
    betas: tuple[float, float]


def smooth(task: PicturedBatch, chosen: Noisy, renders: int, seed: int) -> Tensor:
    """Descend the smoothed loss of the sharp picture."""
    copies = task.repeat(2 * chosen.pairs)

    def gradient(params: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
        return smoothed_gradient(copies.image_error, params, sigma, chosen.pairs, generator)

    return descended(task, gradient, chosen, renders, seed)


def by_pixel(task: PicturedBatch, chosen: Noisy, renders: int, seed: int) -> Tensor:
    """Descend the squared difference of the sharp pictures by gradients of each pixel."""
    copies = cast(PicturedBatch, task.repeat(2 * chosen.pairs))
    moves = faces_moved(task)
    look = pixel_look(copies, numbered=not bool(moves.all()))

    def gradient(params: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
        return pixel_gradient(look, moves, params, sigma, chosen.pairs, generator)

    return descended(task, gradient, chosen, renders, seed)


@torch.no_grad()
def descended(
    task: TaskBatch, gradient: Gradient, chosen: Noisy, renders: int, seed: int
) -> Tensor:
    """Where Adam ends, after as many steps as `renders` allow."""
    generator = torch.Generator().manual_seed(seed)
    steps = max(1, renders // (2 * chosen.pairs))
    rule, params = Adam(chosen.betas), task.start().detach()
    state = rule.init(params)
    for step in range(steps):
        u = step / max(1, steps - 1)
        found = gradient(params, chosen.sigma * chosen.sigma_share**u, generator)
        params, state = rule.step(params, found, state, chosen.rate * chosen.rate_share**u)
    return params


# Evolution ----------------------------------------------------------------------------------------

ALIKE = 1e-6
"""A generation whose losses differ by less has nothing to tell."""


@dataclass(frozen=True)
class Evolution:
    """Attributes: sigma, of the first generation; size of a generation, over the usual one."""

    sigma: float
    size: float


@torch.no_grad()
def evolve(task: TaskBatch, chosen: Evolution, renders: int, seed: int) -> Tensor:
    """CMA-ES on the sharp picture's loss, each instance by itself: the best unknowns seen.

    Instances are evaluated side by side. One whose generation no longer differs, or which `cmaes`
    would stop, begins again around its start.
    """
    try:
        from cmaes import CMA
    except ImportError as error:
        raise RuntimeError("CMA-ES needs the package cmaes: pip install '.[bench]'") from error
    start = task.start().detach()
    origin = start.flatten(1).double().numpy()
    count, dimension = origin.shape
    size = max(4, round(chosen.size * (4 + math.floor(3 * math.log(dimension)))))
    rng = np.random.default_rng(seed)

    def begun(i: int, again: bool) -> CMA:
        around = origin[i] + again * chosen.sigma * rng.standard_normal(dimension)
        own = int(rng.integers(2**31))
        return CMA(mean=around, sigma=chosen.sigma, seed=own, population_size=size)

    searches = [begun(i, False) for i in range(count)]
    copies = task.repeat(size)
    best, lowest = origin.copy(), np.full(count, np.inf)
    for _ in range(max(1, renders // size)):
        asked = np.stack([[search.ask() for search in searches] for _ in range(size)])
        rows = torch.as_tensor(asked).to(start).reshape(size * count, *start.shape[1:])
        losses = copies.image_error(rows).double().numpy().reshape(size, count)
        for i, search in enumerate(searches):
            search.tell([(asked[j, i], float(losses[j, i])) for j in range(size)])
            j = int(losses[:, i].argmin())
            if losses[j, i] < lowest[i]:
                lowest[i], best[i] = losses[j, i], asked[j, i]
            if np.ptp(losses[:, i]) < ALIKE or search.should_stop():
                searches[i] = begun(i, True)
    return torch.as_tensor(best).to(start).view_as(start)


# Many starts --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Starts:
    """Several short descents.

    Attributes:
        count: of them, the first from the start itself; steps of each.
        spread: standard deviation of the other starts, in units of the unknowns.
        faster: factor of the learning rate.
    """

    count: int
    steps: int
    spread: float
    faster: float


def many_starts(
    task: TaskBatch, chosen: Starts, softness: FixedSoftness, rule: Any, seed: int
) -> Tensor:
    """The end of the descent whose sharp picture has the lowest loss."""
    generator = torch.Generator().manual_seed(seed)
    quicker = replace(softness, lr=softness.lr * chosen.faster)
    family = cast(PicturedBatch, task).family
    method: Method = fixed_method(quicker, family.renderer, rule, chosen.steps)
    start = task.start().detach()
    best, lowest = start, torch.full((task.batch_size,), math.inf)
    for number in range(chosen.count):
        noise = torch.randn(start.shape, generator=generator, dtype=torch.float64).to(start)
        begun = start if number == 0 else start + chosen.spread * noise
        end = unroll(method, replace(cast(Any, task), initial=begun)).params
        with torch.no_grad():
            loss = task.image_error(end)
        better = loss < lowest
        lowest = torch.where(better, loss, lowest)
        best = torch.where(better.reshape(-1, *[1] * (end.ndim - 1)), end, best)
    return best
