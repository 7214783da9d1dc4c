"""What can be seen of a problem: how far outlines are apart, and how many pixels disagree."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from meta.inner.protocol import OutlinedBatch, TaskBatch
from taichi_raster.fitting.start import scene_distance


@dataclass(frozen=True)
class Measures:
    """Of each instance, (B,), without gradient.

    Attributes:
        distance: from the drawn outline to the target's, in NDC; see `tr.outline_distance`.
        pixel: the size of one, in NDC.
        mismatch: difference of the two coverages, in sum, over the sum of the target's.
    """

    distance: Float[Tensor, " B"]
    pixel: Float[Tensor, " B"]
    mismatch: Float[Tensor, " B"]


def measured(task: TaskBatch, params: Float[Tensor, "B ..."]) -> Measures:
    """What the pictures of `params` and of the target show, as sharp as they are.

    Raises TypeError unless the task has `outlines` (see `OutlinedBatch`) or `measured` of its own.
    """
    own = getattr(task, "measured", None)
    if own is not None:
        found: Measures = own(params)
        return found
    if not isinstance(task, OutlinedBatch):
        raise TypeError(
            f"task: {type(task).__name__} has no outlines(params), by which a start is measured; "
            "see meta.OutlinedBatch"
        )
    with torch.no_grad():
        drawn, target = (mask.detach() for mask in task.outlines(params))
        views = len(drawn) // task.batch_size
        distance = scene_distance(drawn, target, views).double()
        off, covered = (
            x.double().reshape(task.batch_size, -1).sum(dim=1)
            for x in ((drawn - target).abs(), target)
        )
        pixel = torch.full_like(distance, 2 / min(drawn.shape[1:]))
        return Measures(distance, pixel, off / covered.clamp(min=1.0))
