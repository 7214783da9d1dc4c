"""Chooses between closed-form derivatives and Taichi's autodiff, their oracle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from taichi_raster.runtime.call import Call
from taichi_raster.runtime.variant import Table
from taichi_raster.softness.distributions import registry

_by_autodiff: ContextVar[bool] = ContextVar("derivatives_by_autodiff", default=False)


def by_autodiff() -> bool:
    """Whether derivatives come from Taichi's autodiff in this thread (see `derivatives_by`)."""
    return _by_autodiff.get()


@contextmanager
def derivatives_by(method: str) -> Iterator[None]:
    """A context in which derivatives come from ``"closed_forms"`` (default) or ``"autodiff"``.

    The closed forms run and compile faster. Taichi's reverse-mode autodiff differentiates the same
    sums independently. Use it to check the closed forms, or a formula of your own.

    The context holds for this thread or asyncio task only. It covers renders within it, whichever
    thread torch runs their backward in, and backward passes within it of earlier renders.

    Args:
        method: ``"closed_forms"`` or ``"autodiff"``.

    Raises:
        ValueError: for another method.
        NotImplementedError: in a backward pass that autodiff cannot do: of gamma distributions,
            of tables, and of any softness with ``deterministic=True`` on a GPU.

    Example:
        >>> with tr.derivatives_by("autodiff"):
        ...     (gradient,) = torch.autograd.grad(renderer.silhouette(faces).sum(), faces)
    """
    if method not in ("closed_forms", "autodiff"):
        raise ValueError(f"method: unknown {method!r}; known: closed_forms, autodiff")
    token = _by_autodiff.set(method == "autodiff")
    try:
        yield
    finally:
        _by_autodiff.reset(token)


def refuse_what_autodiff_cannot(call: Call, on_gpu: bool) -> None:
    """Raise NotImplementedError for a call that Taichi's autodiff cannot differentiate."""
    if on_gpu and call.fixed_order:
        raise NotImplementedError(
            "derivatives_by('autodiff') has no deterministic=True on a GPU; use closed forms"
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
