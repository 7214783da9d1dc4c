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
_SMALL = 0.1  # pixels: a step that makes costs worse is the last, as other pixels are seen then
_NEAR = 0.2  # pixels: the step of weighted least squares, from which on Newton's is taken
_DONE, _FINEST = 0.02, 0.002  # pixels: a step that is not taken, if it is uncertain; in any case
_SURE = 0.01  # the square of a step in standard deviations, that need not be taken
_ENOUGH = 0.5  # of pixels have to be seen again after a step
_HELD = 0.3  # radians, sizes: the standard deviation of any unknown, at most
_LOOSE = 1.0  # radians, sizes: what is less sure than that stays as it is
_AROUND = 2.0  # standard deviations: so far away, costs are to be higher


@dataclass(frozen=True, eq=False)
class Settled:
    """Poses at the end.

    Attributes:
        local: in the scene's frame and unit.
        covariance: (n, n) of the unknowns of `PoseScene.moved`.
        motion: of the next step, in pixels of a picture of `size`.
        remaining: the square of the next step in standard deviations (Mahalanobis' distance by the
            covariance; twice Newton's decrement, if errors are independent).
        minimum: whether costs are higher on both sides, where they rise least.
        sure: whether all unknowns are held by something.
    """

    local: Pose
    covariance: Float[Tensor, "n n"]
    motion: float
    remaining: float
    minimum: bool
    sure: bool

    @property
    def converged(self) -> bool:
        """Whether no step is left that is larger than the pose's own standard error.

        Where the pose is surer than drawings are exact, a tenth of a pixel is as good.
        """
        return self.sure and self.minimum and (self.remaining < 1 or self.motion < _SMALL)


def settled(
    scene: PoseScene, terms: Sequence[Term], local: Pose, size: tuple[int, int], steps: int = 8
) -> Settled | None:
    """Levenberg and Marquardt's steps until none would move by a tenth of a standard deviation.

    Each term counts by its own noise, which is measured anew at each step; in the end, with more
    care, so that terms count a little otherwise, and some more steps follow. None if too little is
    seen of the objects.
    """
    terms = [term.at(scene, local) for term in terms]
    fields = [term.field(scene, local) for term in terms]
    if all(field is None for field in fields):
        return None
    for last in (False, True):
        local, fields, ends = _descended(scene, terms, fields, local, size, steps, last)

    def motion(pose: Pose) -> float:
        return _motion(scene, local, pose, size)

    covariance, sure = _sandwich(ends)
    step = _step(ends, 1e-7, near=True)[0]
    remaining = float((step * torch.linalg.solve(positive(covariance), step)).sum())
    values, vectors = torch.linalg.eigh(covariance)
    along = _AROUND * float(values[-1].clamp(min=0).sqrt().clamp(max=_HELD)) * vectors[:, -1]
    minimum = True
    for side in (-1.0, 1.0):
        away = scene.moved(local, side * along)
        if motion(away) > _SMALL:
            beside = [term.field(scene, away) for term in terms]
            minimum = minimum and _change(fields, beside, ends) > 0
    return Settled(local, covariance, motion(scene.moved(local, step)), remaining, minimum, sure)


def _descended(
    scene: PoseScene,
    terms: Sequence[Term],
    fields: list[Field | None],
    local: Pose,
    size: tuple[int, int],
    steps: int,
    last: bool,
) -> tuple[Pose, list[Field | None], list[Normal]]:
    """The pose after these steps, what is known there, and its normal equations."""
    normals = _normals(fields, [None] * len(fields), last)
    damping = 1e-4
    for _ in range(steps):
        given = [normal for normal in normals if normal is not None]
        step, left = _step(given, damping)
        tried = scene.moved(local, step)
        if _motion(scene, local, tried, size) < _NEAR:
            step, left = _step(given, damping, near=True)
            tried = scene.moved(local, step)
        moved = _motion(scene, local, tried, size)
        if moved < _FINEST or (moved < _DONE and left < _SURE):
            break
        new = [term.field(scene, tried) for term in terms]
        if not _change(fields, new, given) <= 1e-9:
            damping = max(10 * damping, 1e-3)
            if damping > 1e3 or moved < _SMALL:
                break
            continue
        local, fields, normals = tried, new, _normals(new, normals, last)
        damping = max(damping / 10, 1e-7)
    return local, fields, [normal for normal in normals if normal is not None]


def _normals(
    fields: Sequence[Field | None], before: Sequence[Normal | None], last: bool
) -> list[Normal | None]:
    both = zip(fields, before, strict=True)
    return [None if field is None else normal_of(field, old, last) for field, old in both]


def _motion(scene: PoseScene, one: Pose, two: Pose, size: tuple[int, int]) -> float:
    return max(scene.motion(one, two, photo, size) for photo in range(len(scene.cameras)))


def _step(normals: Sequence[Normal], damping: float, near: bool = False) -> tuple[Tensor, float]:
    """(the step, its square in standard deviations), by the costs' own curvature if `near`."""
    matrix = sum(n.bread if near else n.matrix for n in normals)
    slope = sum(n.slope for n in normals)
    assert isinstance(matrix, Tensor) and isinstance(slope, Tensor)
    damped = matrix + damping * torch.diag(matrix.diagonal()) + torch.eye(len(matrix)) / _LOOSE**2
    step = torch.linalg.solve(damped, slope)
    step = step * (_FARTHEST / step.abs().max().clamp(min=1e-30)).clamp(max=1)
    return step, float((slope * step).sum())


def _change(
    old: Sequence[Field | None], new: Sequence[Field | None], normals: Sequence[Normal]
) -> float:
    """By how much all costs together grow, by the scales of before.

    Of each term, those pixels are compared that count before and after.
    """
    change, left = 0.0, list(normals)
    for before, after in zip(old, new, strict=True):
        if before is None:
            continue
        normal = left.pop(0)
        if after is None:
            return math.inf
        both = before.valid & after.valid
        if float(both.sum()) < _ENOUGH * float(before.valid.sum()):
            return math.inf
        costs = [field.cost(normal.scale, both) for field in (before, after)]
        change += normal.whole * (costs[1] - costs[0])
    return change


def _sandwich(normals: Sequence[Normal]) -> tuple[Tensor, bool]:
    """(covariance, whether no unknown is free)."""
    bread, noise = sum(n.bread for n in normals), sum(n.noise for n in normals)
    assert isinstance(bread, Tensor) and isinstance(noise, Tensor)
    inverse = torch.linalg.inv(positive(bread))
    found = product(product(inverse, noise), inverse)
    found = (found + found.mT) / 2
    return found, float(torch.linalg.eigvalsh(found)[-1]) < _HELD**2
