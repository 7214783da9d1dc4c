"""Ctrl-C in the middle of what a test does."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def interrupted(after: float = 0.2) -> Iterator[None]:
    """What is done within is interrupted after so many seconds, as by Ctrl-C; it has to be."""

    def interrupt() -> None:
        time.sleep(after)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may ignore it
    try:
        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGINT, before)
