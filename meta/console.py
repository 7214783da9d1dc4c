"""Console output of long programs: the plan, progress bars, and the time of each stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from rich.table import Table

from taichi_raster.fitting.progress import progress_bar

__all__ = ["Clock", "plan_table", "progress_bar"]

Result = TypeVar("Result")


class Clock:
    """Runs the stages of a program and remembers how long each took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, stage: Callable[[], Result]) -> Result:
        """The result of `stage()`."""
        begin = time.monotonic()
        result = stage()
        self.seconds[name] = time.monotonic() - begin
        return result

    def __str__(self) -> str:
        parts = [f"{name} {seconds:.0f} s" for name, seconds in self.seconds.items()]
        return f"{sum(self.seconds.values()):.0f} s ({', '.join(parts)})"


def plan_table(title: str, runs: Mapping[str, int]) -> Table:
    """A table of the inner runs of each stage and their share, to print before the work begins."""
    table = Table(title=title)
    table.add_column("stage")
    table.add_column("inner runs", justify="right")
    table.add_column("share", justify="right")
    total = max(sum(runs.values()), 1)
    for name, count in runs.items():
        table.add_row(name, str(count), f"{count / total:.0%}")
    return table
