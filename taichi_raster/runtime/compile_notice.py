"""Says so, once a process, when compiling kernels keeps somebody waiting.

Kernels are compiled at their first use, for seconds where Taichi's cache on disk has none of them
yet. A program that says nothing meanwhile looks as if it hung.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

logger = logging.getLogger("taichi_raster.compiling")  # a name that users silence it by


class Patience:
    """Runs out after so many seconds of compilation, of all kernels together.

    A warning, since nothing less is shown where nobody set up logging. It comes while the kernels
    are being compiled, as far as Taichi lets other threads run meanwhile, else right after.
    """

    def __init__(self, seconds: float) -> None:
        self._left = seconds
        self._said = False
        self._saying = threading.Lock()  # whoever comes second waits until it is said

    @contextmanager
    def while_compiling(self) -> Iterator[None]:
        """Around each compilation."""
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
"""Of this process."""
