"""Fetches the smallest and largest values of several tensors in one transfer.

Reading one value from a GPU makes the host wait for everything that was enqueued there before.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from taichi_raster.runtime.transforms import unwrapped

Check = Callable[[float, float], None]


def waits(values: Tensor) -> bool:
    """Whether the host would wait for one of these values."""
    return values.device.type != "cpu"


class Extremes:
    """Collects checks of tensors' smallest and largest values, and does them all in `fetch`.

    A tensor that holds a NaN has NaN as both. The checks run in the order in which they were added.
    """

    def __init__(self) -> None:
        self._found: list[Tensor] = []
        self._checks: list[Check] = []

    def of(self, values: Tensor, check: Check) -> None:
        """Add a check of `values`; it is called with their smallest and largest value."""
        self._found += torch.aminmax(unwrapped(values))
        self._checks.append(check)

    def fetch(self) -> None:
        """Fetch all values, and do the checks."""
        if not self._checks:
            return
        numbers = torch.stack(self._found).tolist()
        checks, self._found, self._checks = self._checks, [], []
        for low, high, check in zip(numbers[::2], numbers[1::2], checks, strict=True):
            check(low, high)


def extremes(values: Tensor) -> tuple[float, float]:
    """The smallest and the largest value; NaN where there is one."""
    values = unwrapped(values)
    if values.numel() == 1:
        number = float(values)
        return number, number
    both = torch.aminmax(values)
    low, high = torch.stack(both).tolist() if waits(values) else (both[0].item(), both[1].item())
    return low, high
