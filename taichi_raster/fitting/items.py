"""Items that are fitted side by side: their number, what is wrong with one, the best of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from taichi_raster import checks

_NAMED = 8  # items in an error


@dataclass(frozen=True, eq=False)
class Kept:
    """Iterates of all items.

    Attributes:
        values: of each tensor of unknowns.
        losses: (B,), or 0-d for one problem.
    """

    values: list[Tensor]
    losses: Float[Tensor, "*B"]

    @classmethod
    def of(cls, unknowns: Sequence[Tensor], losses: Tensor) -> Kept:
        """Copies of them as they are."""
        return cls([x.detach().clone() for x in unknowns], losses.detach().clone())


def better_of(before: Kept | None, now: Kept, own: Sequence[bool]) -> Kept:
    """Of each item the iterate with the lower loss; what is not an item's own is the latest."""
    if before is None:
        return now
    better = now.losses < before.losses
    values = [
        torch.where(over(better, x), x, kept) if mine or better.ndim == 0 else x
        for x, kept, mine in zip(now.values, before.values, own, strict=True)
    ]
    return Kept(values, torch.where(better, now.losses, before.losses))


def over(flags: Bool[Tensor, "*B"], like: Tensor) -> Tensor:
    """Flags (B,) for values (B, ...); one for all stays one."""
    flags = flags.to(like.device)
    return flags if flags.ndim == 0 else flags.reshape(-1, *[1] * (like.ndim - 1))


def count_items(
    loss: Any, before: Tensor | None, unknowns: Sequence[Tensor], own: Sequence[bool]
) -> int:
    """The number of items of a loss; an error unless it fits the unknowns, and the loss before."""
    checks.floats("loss", loss)
    if loss.ndim > 1 or loss.numel() == 0:
        raise ValueError(f"loss: must be 0-d or (B,), got {tuple(loss.shape)}")
    if before is not None and before.shape != loss.shape:
        raise ValueError(f"loss: was {tuple(before.shape)} before, got {tuple(loss.shape)}")
    if loss.ndim == 0:
        return 1
    for i, (x, mine) in enumerate(zip(unknowns, own, strict=True)):
        if mine and (x.ndim == 0 or len(x) != len(loss)):
            raise ValueError(
                f"loss: is of {len(loss)} items, but parameter {i} is {tuple(x.shape)}; give the "
                "sum of the losses, or per_item=False for unknowns that items share"
            )
    return len(loss)


def check_finite(what: str, rows: Float[Tensor, "B N"], where: str, per_item: bool) -> None:
    """Raise FloatingPointError, naming the items, unless all rows are finite."""
    finite = torch.isfinite(rows).all(dim=1)
    if bool(finite.all()):
        return
    bad = torch.nonzero(~finite).flatten().tolist()
    items = f", in item {', '.join(map(str, bad[:_NAMED]))}" if per_item else ""
    more = f" and {len(bad) - _NAMED} others" if len(bad) > _NAMED else ""
    raise FloatingPointError(f"{what} is not finite {where}{items}{more}")
