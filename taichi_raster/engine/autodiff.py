"""Derivatives by Taichi's own autodiff, the oracle of the closed forms."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from taichi_raster.runtime.call import Call
from taichi_raster.runtime.variant import Table
from taichi_raster.softness.distributions import registry

_by_autodiff: ContextVar[bool] = ContextVar("derivatives_by_autodiff", default=False)


def by_autodiff() -> bool:
    """Whether the caller wants derivatives by Taichi's autodiff (see `derivatives_by`)."""
    return _by_autodiff.get()


@contextmanager
def derivatives_by(method: str) -> Iterator[None]:
    """Within it, derivatives come from ``"closed_forms"`` (the default) or from ``"autodiff"``.

    The closed forms are faster, and compile faster. Taichi's reverse-mode autodiff, over the same
    sums, gives the same numbers by another road: use it to check the other one, or a formula of
    your own. It cannot follow the loops in the gamma distributions.

    It holds for this thread (or asyncio task) alone: for what is rendered in it, whichever thread
    torch then runs the backward in, and for the backward of what was rendered before.

    Raises:
        ValueError: for another method.
    """
    if method not in ("closed_forms", "autodiff"):
        raise ValueError(f"method: unknown {method!r}; known: closed_forms, autodiff")
    token = _by_autodiff.set(method == "autodiff")
    try:
        yield
    finally:
        _by_autodiff.reset(token)


def refuse_what_autodiff_cannot(call: Call, on_gpu: bool) -> None:
    if on_gpu and call.fixed_order:
        raise NotImplementedError(
            "derivatives_by('autodiff') knows no deterministic=True on a GPU; use closed forms"
        )
    if isinstance(call.variant.edge.network, Table):
        raise NotImplementedError(
            "derivatives_by('autodiff') cannot follow a table's look-up; use closed forms"
        )
    if registry.find(call.variant.edge.distribution).shaped or call.variant.depth.looped:
        raise NotImplementedError(
            "derivatives_by('autodiff') cannot follow the gamma distributions' loops; use closed "
            "forms"
        )
