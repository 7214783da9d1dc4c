"""Halves the time that the import takes; imported before the rest.

At each `@ti.func` and `@ti.kernel`, Taichi asks `inspect` for the line of source around it, to see
whether it is in a class. `inspect` first searches all loaded modules for the line's module, which
takes milliseconds each time once torch is loaded. While this package is imported, the line is read
directly.
"""

import inspect
import linecache
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

_getframeinfo = inspect.getframeinfo


def _quick(frame: FrameType | TracebackType, context: int = 1) -> inspect.Traceback:
    """`inspect.getframeinfo` for one line of a frame, without the search; the same answer."""
    if context != 1 or not isinstance(frame, FrameType):
        return _getframeinfo(frame, context)
    code, number = frame.f_code, frame.f_lineno
    if code.co_filename.startswith("<frozen "):  # Python's import, which has no source
        return inspect.Traceback(code.co_filename, number, code.co_name, None, None)
    line = linecache.getline(code.co_filename, number)
    if not line:
        return _getframeinfo(frame, context)
    return inspect.Traceback(code.co_filename, number, code.co_name, [line], 0)


@contextmanager
def quickly() -> Iterator[None]:
    """Within it, Taichi declares kernels without the search. `inspect` is restored afterwards."""
    inspect.getframeinfo = _quick
    try:
        yield
    finally:
        if inspect.getframeinfo is _quick:
            inspect.getframeinfo = _getframeinfo
