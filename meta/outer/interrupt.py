"""Turn SIGTERM into an exception, so that a training can save its state first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def sigterm_as_exit() -> Iterator[Callable[[], None]]:
    """Within this context SIGTERM raises SystemExit(143), so that a state can still be saved.

    The context's value is a function; once called, further SIGTERMs are ignored, for use while
    saving. Python delivers signals to the main thread alone: in another one this does nothing. The
    earlier handler is restored at the end.
    """
    held = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield held.set
        return

    def stop(number: int, _frame: object) -> None:
        if not held.is_set():
            raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield held.set
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
