"""Lets a training that is told to stop by SIGTERM save its state first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def sigterm_as_exit() -> Iterator[Callable[[], None]]:
    """SIGTERM raises SystemExit(143) meanwhile, so that what is under way can still be saved.

    Calling what the context gives makes it ignore SIGTERM from there on: while saving on the way
    out. Only in the main thread, where alone signals are received; elsewhere it does nothing.
    """
    held = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield held.set
        return

    def stop(number: int, frame: object) -> None:
        if not held.is_set():
            raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield held.set
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
