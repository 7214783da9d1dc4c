"""What can be seen of a batch of tasks: how far outlines are apart, how many pixels disagree."""

from __future__ import annotations

import torch
from torch import Tensor

from meta.inner.protocol import OutlinedBatch, TaskBatch
from taichi_raster.presets.watch import Measures, measures_of


def measured(task: TaskBatch, params: Tensor) -> Measures:
    """What the pictures of unknowns `params` (B, ...) and of the target show, as sharp as they are.

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
        drawn, target = task.outlines(params)
    backs = getattr(task, "backs", False)
    return measures_of(drawn, target, len(drawn) // task.batch_size, backs)
