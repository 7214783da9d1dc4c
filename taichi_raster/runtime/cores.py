"""Gives each of Taichi's workers a core of its own, on Linux.

Whoever launches a kernel wakes all workers, and then sleeps until they are done. While it wakes the
last of as many workers as there are cores, it still occupies a core itself. So that worker may
queue behind another one, and the core that the launcher leaves stays idle: Linux hesitates to move
what has just run. Launches that follow each other closely keep it that way, and take longer. A
worker that may run on one core only waits for the launcher.

Workers take what is left to do one item after the other. So one whose core another process uses
does less.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from taichi.lang import impl

_NAME = "taichi_raster"
_TASKS = "/proc/self/task"


def spread_workers(start: Callable[[], None]) -> None:
    """Call ``start()``, which starts Taichi, and bind each of its workers to a core.

    Only where there are as many workers as cores that this thread may use: with fewer, other
    processes may have workers of their own, and would bind them to the same cores. Elsewhere than
    on Linux nothing is bound.
    """
    before = _named_threads()
    start()
    if not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    count = int(impl.current_cfg().cpu_max_num_threads)
    # Taichi's threads have the name of the one that starts them. Its workers come last.
    workers = sorted(_named_threads() - before)[-count:]
    if count == len(cores) == len(workers):
        with suppress(OSError):  # a container may forbid it
            for worker, core in zip(workers, cores, strict=True):
                os.sched_setaffinity(worker, {core})


def _named_threads() -> set[int]:
    """The threads with this thread's name, which becomes `_NAME`; none where that is unknown."""
    found = set()
    with suppress(OSError):  # there may be no such folder
        Path(_TASKS, str(threading.get_native_id()), "comm").write_text(_NAME)
        for task in os.listdir(_TASKS):
            with suppress(OSError):  # a thread that ended meanwhile
                if Path(_TASKS, task, "comm").read_text().strip() == _NAME:
                    found.add(int(task))
    return found
