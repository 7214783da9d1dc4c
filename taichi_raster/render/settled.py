"""Looks up a softness whose parameters are plain numbers, the same at any progress.

To evaluate, check and stack seven of them takes as long as the kernels of a small render.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

import torch
from torch import Tensor, nn

from taichi_raster.depth.base import DepthSoftness, DepthState
from taichi_raster.depth.hard import HardDepth
from taichi_raster.depth.over import OverDepth
from taichi_raster.depth.softmax import SoftmaxDepth
from taichi_raster.render.packing import Softness
from taichi_raster.runtime.lru_cache import LRUCache
from taichi_raster.runtime.transforms import no_modes
from taichi_raster.softness.conorm import TConorm
from taichi_raster.softness.edge import Distribution, EdgeSoftness
from taichi_raster.softness.schedule import Constant, Shift

_KINDS = {Distribution, SoftmaxDepth, OverDepth, HardDepth, TConorm}
"""Softnesses that depend on nothing but their tensors; classes that extend them may."""

_found: LRUCache[Hashable, tuple[DepthState, Softness]] = LRUCache(256)


def key_of(
    edge: EdgeSoftness,
    depth: DepthSoftness,
    alpha: TConorm,
    like: Tensor,
    limits: tuple[float, float | None],
) -> Hashable | None:
    """What a softness on a CPU depends on; None if that is more than numbers.

    Args:
        edge, depth, alpha: the softness.
        like: (B, ...) the vertices.
        limits: threshold and cutoff.
    """
    if like.device.type != "cpu" or not no_modes():
        return None
    if torch.autograd.forward_ad._current_level >= 0:
        return None
    numbers: list[float] = []
    for softness in (edge, depth, alpha):
        if type(softness) not in _KINDS or not _add_numbers(softness, numbers):
            return None
        for schedule in softness._modules.values():
            if schedule is None or type(schedule) not in (Constant, Shift):
                return None
            if not _add_numbers(schedule, numbers):
                return None
    hidden = depth.hidden if isinstance(depth, OverDepth) else 0.0
    kinds = edge.variant, type(depth), depth.variant, hidden, alpha.name
    return (*kinds, *numbers, *limits, len(like), like.dtype)


def look_up(key: Hashable | None) -> tuple[DepthState, Softness] | None:
    """What was kept for a key, or None."""
    return None if key is None else _found.get(key)


def keep(key: Hashable | None, depth: DepthState, softness: Softness) -> None:
    """Keep copies: a caller may change its own tensors."""
    if key is not None:
        names = "gamma", "shape", "shift", "background_z"
        copies = {name: getattr(depth, name).detach().clone() for name in names}
        _found[key] = replace(depth, **copies), softness


def _add_numbers(module: nn.Module, numbers: list[float]) -> bool:
    """Add a module's own tensors, if they are numbers without derivatives."""
    for held in (module._parameters, module._buffers):
        for value in held.values():
            if value is None or value.ndim > 0 or value.requires_grad or not value.is_cpu:
                return False
            numbers.append(float(value))
    return True
