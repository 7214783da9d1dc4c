"""What the viewer costs: frames a second, and by how much it slows the optimisation."""

from __future__ import annotations

import time
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from viewer.app import App, Pace
from viewer.windows import Window, loop

WARM = 12  # frames before anything is measured


@dataclass
class Spent:
    """Sums of several turns."""

    wall: float = 0.0
    cpu: float = 0.0
    steps: int = 0
    frames: int = 0


def measure(app: App, window: Window, pace: Pace, seconds: float, console: Console) -> None:
    """Optimise without and with the window, in turns of a second or more, and print a table.

    Processor time is that of all threads of this process, a software Vulkan driver's included: what
    other programs take on shared cores is not in it.
    """
    session = app.session

    def again() -> None:
        """Descents start again whenever they have finished."""
        if not session.active:
            session.restart()
        session.paused = False

    def plain() -> tuple[int, int]:
        before = time.perf_counter()
        steps = 0
        while time.perf_counter() - before < turn:
            again()
            steps += session.work(0.1)
        return 0, steps

    def shown() -> tuple[int, int]:
        before = time.perf_counter()
        frames = steps = 0
        while app.running and time.perf_counter() - before < turn:
            again()
            seen, taken = loop(app, window, pace, frames=1)
            frames, steps = frames + seen, steps + taken
        return frames, steps

    turn = 0.5
    plain()  # compiles
    for _ in range(WARM):  # and finds its pace
        again()
        loop(app, window, pace, frames=1)
    turn = max(1.0, seconds / 10)
    found = {plain: Spent(), shown: Spent()}
    for kind in (plain, shown, shown, plain, plain, shown, shown, plain, plain, shown):
        spent, wall, cpu = found[kind], time.perf_counter(), time.process_time()
        frames, steps = kind()
        spent.wall += time.perf_counter() - wall
        spent.cpu += time.process_time() - cpu
        spent.frames, spent.steps = spent.frames + frames, spent.steps + steps
    console.print(_table(found[plain], found[shown]))


def _table(plain: Spent, shown: Spent) -> Table:
    table = Table()
    for name in ("", "without", "with the viewer", "slower by"):
        table.add_column(name, justify="right" if name else "left")

    def row(name: str, a: float, b: float, slower: float | None) -> None:
        table.add_row(name, f"{a:.1f}", f"{b:.1f}", "" if slower is None else f"{slower:.0%}")

    a, b = (spent.steps / spent.wall for spent in (plain, shown))
    row("steps a second", a, b, 1 - b / a)
    a, b = (spent.steps / spent.cpu for spent in (plain, shown))
    row("steps a second of processor time", a, b, 1 - b / a)
    row("frames a second", 0.0, shown.frames / shown.wall, None)
    row("frames a second of processor time", 0.0, shown.frames / shown.cpu, None)
    return table
