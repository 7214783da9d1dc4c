"""Gauss-Newton on all that is known together, and how sure its end is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from taichi_raster.fitting.pose_noise import Field, Normal, normal_of, positive
from taichi_raster.fitting.pose_scene import PoseScene
from taichi_raster.fitting.pose_terms import Term
from taichi_raster.runtime.precision import product
from taichi_raster.scene.pose import Pose

_FARTHEST = 0.3  # a step of any unknown, at most
_DONE = 0.02  # pixels: a step that need not be taken
_SMALL = 0.1  # pixels: a step that makes costs worse is the last, as other pixels are seen then


@dataclass(frozen=True, eq=False)
class Settled:
    """Poses at the end.

    Attributes:
        local: in the scene's frame and unit.
        covariance: (n, n) of the unknowns of `PoseScene.moved`.
        motion: of the last step, in pixels of a picture of `size`.
        sure: whether all unknowns are held by something.
    """

    local: Pose
    covariance: Float[Tensor, "n n"]
    motion: float
    sure: bool


def settled(
    scene: PoseScene, terms: Sequence[Term], local: Pose, size: tuple[int, int], steps: int = 8
) -> Settled | None:
    """Levenberg and Marquardt's steps until none would move by a fiftieth of a pixel.

    Each term counts by its own noise, which is measured anew at each step. None if too little is
    seen of the objects.
    """
    terms = [term.at(scene, local) for term in terms]
    fields = [term.field(scene, local) for term in terms]
    seen = [field for field in fields if field is not None]
    if not seen:
        return None
    normals = [normal_of(field) for field in seen]
    damping, motion = 1e-4, math.inf
    for _ in range(steps):
        matrix = sum(n.matrix for n in normals)
        slope = sum(n.slope for n in normals)
        assert isinstance(matrix, Tensor) and isinstance(slope, Tensor)
        damped = matrix + damping * torch.diag(matrix.diagonal().clamp(min=1e-9))
        step = torch.linalg.solve(positive(damped), slope)
        step = step * (_FARTHEST / step.abs().max().clamp(min=1e-30)).clamp(max=1)
        tried = scene.moved(local, step)
        moved = max(scene.motion(local, tried, p, size) for p in range(len(scene.cameras)))
        if moved < _DONE:
            motion = moved
            break
        new = [term.field(scene, tried) for term in terms]
        if _worse(fields, new, normals):
            damping, motion = max(10 * damping, 1e-3), moved
            if damping > 1e3 or moved < _SMALL:
                break
            continue
        local, fields, motion = tried, new, moved
        normals = [normal_of(field) for field in fields if field is not None]
        damping = max(damping / 10, 1e-7)
    ends = [normal_of(field, last=True) for field in fields if field is not None]
    covariance, sure = _sandwich(ends)
    return Settled(local, covariance, motion, sure)


def _worse(
    old: Sequence[Field | None], new: Sequence[Field | None], normals: Sequence[Normal]
) -> bool:
    """Whether all costs together grow, by the scales of before."""
    change, left = 0.0, list(normals)
    for before, after in zip(old, new, strict=True):
        if before is None:
            continue
        normal = left.pop(0)
        if after is None:
            return True
        change += normal.whole * (after.cost(normal.scale) - before.cost(normal.scale))
    return not change <= 1e-9


def _sandwich(normals: Sequence[Normal]) -> tuple[Tensor, bool]:
    """(covariance, whether no unknown is free); errors are fewer by what was fitted to them."""
    bread, noise = sum(n.bread for n in normals), sum(n.noise for n in normals)
    assert isinstance(bread, Tensor) and isinstance(noise, Tensor)
    values = torch.linalg.eigvalsh(bread)
    inverse = torch.linalg.inv(positive(bread))
    pixels, unknowns = max(sum(n.pixels for n in normals), 1.0), len(bread)
    fewer = 1 / max(1 - unknowns / pixels, 0.1)
    found = fewer * product(product(inverse, noise), inverse)
    sure = float(values[0]) > 1e-9 * float(values[-1].clamp(min=1e-30))
    return (found + found.mT) / 2, sure
