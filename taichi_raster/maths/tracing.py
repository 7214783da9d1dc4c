"""Plain Python that runs while a kernel is compiled, and emits its instructions."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeVar

from taichi.lang import impl

_F = TypeVar("_F", bound=Callable[..., Any])


def traced(function: _F) -> _F:
    """Marks a plain Python function that a kernel calls while it is compiled.

    Taichi warns of functions that it does not translate; to these it need not.
    """
    function._is_taichi_function = True  # type: ignore[attr-defined]
    function.func = SimpleNamespace(has_print=False)  # type: ignore[attr-defined]
    return function


def let(value: Any) -> Any:
    """`value` in a variable of the kernel's, so that its expression is computed once."""
    return impl.expr_init(value) if isinstance(value, impl.Expr) else value


def element(field: Any, index: Any) -> Any:
    """An element of a field, to read, to assign to (`set_to`) or to add to (+=)."""
    builder = impl.get_runtime().compiling_callable.ast_builder()
    return impl.subscript(builder, field, index)


def set_to(place: Any, value: Any) -> None:
    """Assign to an element of a field."""
    place._assign(value)
