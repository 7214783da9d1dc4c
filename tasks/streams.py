"""Seeded, disjoint streams of tasks in which any batch can be drawn without the earlier ones."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np

Stream: TypeAlias = Literal["tune", "train", "test"]
STREAMS: tuple[Stream, ...] = get_args(Stream)


def instance_generators(
    batch_size: int, seed: int, stream: Stream, index: int
) -> list[np.random.Generator]:
    """One generator for each instance of batch `index` (>= 0) of `stream`.

    Raises ValueError, naming the argument, for a batch size < 1, a negative index or an unknown
    stream.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be >= 1, got {batch_size}")
    if stream not in STREAMS:
        raise ValueError(f"stream: expected one of {list(STREAMS)}, got {stream!r}")
    if index < 0:
        raise ValueError(f"index must be >= 0, got {index}")
    batch = (seed, STREAMS.index(stream), index)
    return [
        np.random.default_rng(np.random.SeedSequence([*batch, instance]))
        for instance in range(batch_size)
    ]
