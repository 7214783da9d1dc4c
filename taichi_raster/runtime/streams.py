"""Synchronises Taichi's kernels with the caller's CUDA stream.

Taichi launches on CUDA's legacy default stream, which is torch's default stream. Torch's other
streams do not wait for it, nor it for them. Without this, a render within `torch.cuda.stream(s)`
would read inputs that are not written yet, and torch would read the image too early.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Protocol

import torch
from torch import Tensor


class Ordered(Protocol):
    """A context around a call's work, from its first operation to its last launch."""

    def __enter__(self) -> Ordered: ...

    def __exit__(self, *error: Any) -> None: ...

    def outputs(self, *found: Tensor | None) -> None:
        """Register the call's results, so that their memory is not reused too early."""


def ordered(*inputs: Tensor | None) -> Ordered:
    """A context in which work on `inputs` is ordered with the caller's stream.

    Enter it in the caller's thread. Within it, torch computes on the default stream, as the kernels
    do. The work may be handed to another thread whose current stream is the default one. The
    context does nothing if no input is on a GPU, or if the caller is on the default stream.

    Inputs need no `Tensor.record_stream`: the caller holds them while the work is enqueued, and
    then its stream waits for the kernels. Outputs need it, because memory that is allocated within
    the context belongs to the default stream.

    Example:
        >>> with ordered(x, v) as order:
        ...     found = worker.run(engine.vjp, call, ticket, x, background, v)
        ...     order.outputs(found)
    """
    device = next((x.device for x in inputs if x is not None and x.is_cuda), None)
    if device is None or not torch.cuda.is_initialized():  # stand-ins of the tests
        return _NOTHING
    caller, default = torch.cuda.current_stream(device), torch.cuda.default_stream(device)
    return _NOTHING if caller == default else _OnDefaultStream(caller, default)


class _Nothing:
    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def outputs(self, *found: Tensor | None) -> None:
        pass


_NOTHING = _Nothing()


class _OnDefaultStream:
    def __init__(self, caller: Any, default: Any) -> None:
        self._caller, self._default = caller, default
        self._context = torch.cuda.stream(default)

    def __enter__(self) -> _OnDefaultStream:
        self._default.wait_stream(self._caller)
        self._context.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._context.__exit__(kind, error, traceback)
        self._caller.wait_stream(self._default)  # after an error, too: kernels may be running

    def outputs(self, *found: Tensor | None) -> None:
        for tensor in found:
            if tensor is not None and tensor.is_cuda:
                tensor.record_stream(self._caller)
