"""When a descent has arrived: its picture no longer moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from taichi_raster import checks


@dataclass(frozen=True)
class Rest:
    """An item of a `Descent` rests once its corners move less than this in a number of steps.

    It stays where it is from then on, and the loop ends when all items rest. The motion is that
    from the first to the last of these steps: going to and fro adds nothing. It is the root mean
    square over the corners that are in front of the camera both times.

    Attributes:
        pixels: the least motion, positive.
        image_size: what pixels are of: one number, or (height, width).
        after: progress before which nothing rests. A softness that still shrinks moves what rested
            before, so let this be where its schedule ends, or nearly; 0 for a constant one.
        window: the number of steps, at least 1.

    Raises:
        TypeError, ValueError: naming the argument, for values out of range.
    """

    pixels: float
    image_size: int | tuple[int, int]
    after: float
    window: int = 10

    def __post_init__(self) -> None:
        checks.positive("pixels", self.pixels)
        checks.image_size(self.image_size)
        checks.whole("window", self.window, 1)
        if not 0 <= checks.number("after", self.after) <= 1:
            raise ValueError(f"after: must lie in [0, 1], got {self.after}")


class Motion:
    """Compares what is seen with what was seen a window before."""

    def __init__(self, rest: Rest) -> None:
        self.rest = rest
        self.before: Tensor | None = None

    def due(self, step: int) -> bool:
        """Whether corners are looked at in this step."""
        return step % self.rest.window == 0

    def rested(
        self, seen: Float[Tensor, "R *n D"], items: int, progress: float
    ) -> Bool[Tensor, " B"]:
        """Which items moved less than they must since the last call."""
        if seen.ndim < 2 or seen.shape[-1] not in (2, 3) or seen.numel() == 0:
            raise ValueError(f"seen: must be (R, ..., 3) or (R, ..., 2), got {tuple(seen.shape)}")
        if len(seen) % items:
            raise ValueError(f"seen: {len(seen)} rows are not a multiple of {items} items")
        now = seen.detach().reshape(items, -1, seen.shape[-1]).clone()
        before, self.before = self.before, now if progress >= self.rest.after else None
        if before is None or before.shape != now.shape:  # faces that were cut come and go
            return torch.zeros(items, dtype=torch.bool, device=now.device)
        counted = torch.ones_like(now[..., 0], dtype=torch.bool)
        if now.shape[-1] == 3:
            counted = (now[..., 2] > 0) & (before[..., 2] > 0)
        squares = (now - before)[..., :2].square().sum(dim=-1)
        squares = torch.where(counted, squares, 0.0).sum(dim=1) / counted.sum(dim=1).clamp(min=1)
        limit = self.rest.pixels * 2 / min(checks.image_size(self.rest.image_size))
        return squares.sqrt() < limit

    def state(self) -> Tensor | None:
        """What a checkpoint keeps."""
        return self.before

    def load(self, before: Any) -> None:
        """Restore what `state` gave."""
        self.before = before
