"""The thread that owns Taichi's runtime, and whose turn it is to work with Taichi.

Only the thread that called ``ti.init`` can build fields and compile kernels that use them; in any
other, Taichi fails an assertion. But renders come from any thread: a server's workers, a data
loader's, and on a GPU those of torch's backward. So one daemon thread does such work as a job, and
callers wait for it.

This also isolates the renderer's memory from the caller's modes, which torch keeps per thread.
Tensors and fields are made outside of ``inference_mode``, ``torch.func`` transforms, autocast and
default devices.

To hand a job over and back wakes two threads, which takes as long as a small render. So on a CPU,
without such modes, a caller does what is already compiled itself, in its turn: Taichi launches it
from any thread. Callers take turns, whether they work themselves or wait for the owner.

A forked child has neither this thread nor Taichi's own, so that every job raises there.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import queue
import threading
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from taichi.lang import impl
from torch import Tensor

from taichi_raster.runtime import streams

P = ParamSpec("P")
R = TypeVar("R")

_PATIENCE_AT_EXIT = 10.0  # seconds that the process waits for a kernel that still runs


class _Job:
    """A call, and its result or error."""

    def __init__(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> None:
        self._call: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]] | None = (
            function,
            arguments,
            named,
        )
        self._result: Any = None
        self._error: BaseException | None = None
        self._done = threading.Lock()
        self._done.acquire()

    def run(self) -> None:
        """Do it, unless the caller was interrupted meanwhile."""
        call, self._call = self._call, None
        try:
            if call is not None:
                self._result = call[0](*call[1], **call[2])
        except BaseException as error:  # noqa: BLE001 - whoever asked raises it
            self._error = error
        finally:
            del call
            self._done.release()

    def wait(self, seconds: float = -1) -> Any:
        """Wait for the result, or raise the job's error."""
        try:
            self._done.acquire(timeout=seconds)
        except BaseException:  # Ctrl-C: a job that has not begun is dropped
            self._call = None
            raise
        if self._error is None:
            return self._result
        try:
            raise self._error
        finally:
            self._error = None  # breaks a cycle: the traceback holds this frame


class OwnerThread:
    """Runs jobs in one daemon thread, which starts with the first of them."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._turn = threading.RLock()  # of the one caller that works or waits for the owner
        self._handed = False  # whether the owner may be working
        self._claiming = threading.Lock()
        self._ident: int | None = None  # of the thread that serves
        self._forked = self._ended = False

    def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call ``function(*args, **kwargs)`` in the owner's thread, and return its result.

        On a GPU, the work is ordered with the caller's stream (see streams.py). For that, tensors
        must be direct elements of `args`, and of the result if it is a tuple.

        Raises:
            RuntimeError: in a child that was forked from a process with a runtime.
        """
        if threading.get_ident() == self._ident:
            return function(*args, **kwargs)
        self._refuse()
        if self._ident is None:
            threading.Thread(target=self._serve, name="taichi_raster", daemon=True).start()
        job = _Job(function, args, kwargs)
        with self._turn:
            self._settle()
            self._handed = True
            with streams.ordered(*_tensors(args)) as order:
                self._jobs.put(job)
                found = job.wait()
                order.outputs(*_tensors(found if isinstance(found, tuple) else (found,)))
            self._handed = False
        return found

    def run_here(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call ``function(*args, **kwargs)`` in this thread, while no other works with Taichi.

        What only the owner can do, the function hands over by `run`.

        Raises:
            RuntimeError: as `run`.
        """
        if threading.get_ident() == self._ident:
            return function(*args, **kwargs)
        self._refuse()
        with self._turn:
            self._settle()
            return function(*args, **kwargs)

    def _settle(self) -> None:
        """Wait for the owner, if an earlier caller was interrupted and did not."""
        if self._handed:
            job = _Job(_nothing, (), {})
            self._jobs.put(job)
            job.wait()
            self._handed = False

    def _refuse(self) -> None:
        self.refuse_forked()
        if self._ended:
            raise RuntimeError("taichi_raster: this process is ending, and Taichi with it")

    def refuse_forked(self) -> None:
        """Raise in a child that was forked from a process with a runtime."""
        if self._forked:
            raise RuntimeError(
                "taichi_raster: this process was forked from one in which it already ran, and "
                "Taichi does not survive a fork. Start the workers by 'spawn' or 'forkserver' "
                "(torch.utils.data.DataLoader(..., multiprocessing_context='spawn'), "
                "multiprocessing.get_context('spawn')), or fork before the first render"
            )

    def _serve(self) -> None:
        with self._claiming:  # several may have been started at once: the first one serves
            if self._ident is not None:
                return
            self._ident = threading.get_ident()
        atexit.register(self._finish)
        while True:
            job = self._jobs.get()
            job.run()
            del job  # and with it the tensors of the call

    def _finish(self) -> None:
        """At exit: end Taichi's program in the thread that began it.

        On a GPU, no other thread has the context for it. If a kernel still runs, Taichi is left as
        it is: the system frees all memory.
        """
        if self._forked:
            return
        self._ended = True
        job = _Job(_end_taichi, (), {})
        if self._turn.acquire(timeout=_PATIENCE_AT_EXIT):  # and no one else ever gets it
            self._jobs.put(job)
            if job.wait(_PATIENCE_AT_EXIT):
                return
        _never_take_down()

    def after_fork(self) -> None:
        """In the child, mark the thread as lost."""
        self._claiming = threading.Lock()  # another thread may have held it
        self._turn = threading.RLock()  # and this
        self._jobs, self._handed = queue.SimpleQueue(), False
        if self._ident is not None:
            self._forked = True
            _never_take_down()


def _tensors(values: tuple[Any, ...]) -> Iterator[Tensor]:
    return (value for value in values if isinstance(value, Tensor))


def _nothing() -> None:
    """A job that ends once all before it have."""


def _end_taichi() -> bool:
    """Have Taichi keep its kernels on disk and let go of the device."""
    _never_take_down()  # once more, by whichever thread Python's own end runs in
    program = impl.get_runtime().prog
    if program is not None:
        program.finalize()
    return True


def _never_take_down() -> None:
    """Never destroy Taichi's program object: that would wait for threads that may be gone."""
    program = impl.get_runtime().prog
    if program is not None:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(program))


owner = OwnerThread()
"""The one of this process."""

if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=owner.after_fork)


def runs_in_runtime_thread(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: calls of the function run in the owner's thread."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        return owner.run(function, *args, **kwargs)

    return run


def in_runtime_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call ``function(*args, **kwargs)`` in the thread that owns Taichi's runtime.

    Use it for Taichi code of your own. Taichi can make fields, and compile kernels that use them,
    in that thread only.

    Args:
        function: called with the other arguments; whatever it raises is raised here.

    Returns:
        The function's result.

    Raises:
        RuntimeError: in a child that was forked from a process with a runtime.

    Example:
        >>> def make():
        ...     field = ti.field(ti.f32, shape=100)
        ...     field.fill(1)
        ...     return field
        >>> field = tr.in_runtime_thread(make)
        >>> numbers = tr.in_runtime_thread(field.to_numpy)
    """
    return owner.run(function, *args, **kwargs)
