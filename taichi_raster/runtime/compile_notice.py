"""Warns once per process when compiling kernels takes long.

Kernels are compiled at their first use. That takes seconds where Taichi's cache on disk does not
have them yet, and a program that prints nothing meanwhile looks as if it hung.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

logger = logging.getLogger("taichi_raster.compiling")  # a name that users silence it by


class Patience:
    """Warns when compilation has taken this many seconds, summed over all kernels.

    It is a warning because lower levels are not shown where logging is not set up. It comes while
    kernels are being compiled if Taichi lets other threads run meanwhile, and right after if not.
    """

    def __init__(self, seconds: float) -> None:
        self._left = seconds
        self._said = False
        self._saying = threading.Lock()  # a second thread waits until the warning is out

    @contextmanager
    def while_compiling(self) -> Iterator[None]:
        """Wraps one compilation."""
        if self._said:
            yield
            return
        timer = threading.Timer(max(self._left, 0.0), self._say)
        timer.daemon = True
        begin = monotonic()
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            self._left -= monotonic() - begin
            if self._left <= 0:
                self._say()

    def _say(self) -> None:
        with self._saying:
            if not self._said:
                self._said = True
                logger.warning(
                    "taichi_raster: compiling kernels for their first use, which takes some "
                    "seconds; Taichi keeps them on disk, and later starts are quicker"
                )


patience = Patience(2.0)
"""The one of this process."""
