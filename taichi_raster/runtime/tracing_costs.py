"""Spares Taichi half of the time that it takes to trace this package's kernels.

In every process, with the cache on disk or without, Taichi traces a kernel from its syntax tree.
For each node it writes down where that is in the source, wrapped and underlined, in case an error
has to be reported. That took more than half of the time. And for each call of a function it reads
that function's source anew. For functions of this package a place is now the file, the line and the
function; it is written in full once there is an error. Sources are read once. Functions of others
are traced as before.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import taichi as ti
from taichi.lang import kernel_impl
from taichi.lang.ast.ast_transformer_utils import ASTTransformerContext

_OWN = str(Path(__file__).resolve().parents[1]) + os.sep

# Versions of Taichi whose internals are used below; others trace as usual.
_KNOWN = ti.__version__[:2] == (1, 7)


def spare_tracing() -> None:
    """Trace this package's kernels so, from now on."""
    if not _KNOWN or hasattr(ASTTransformerContext.get_pos_info, "in_full"):
        return
    ASTTransformerContext.get_pos_info = _places(ASTTransformerContext.get_pos_info)
    kernel_impl.getsourcelines = _sources(kernel_impl.getsourcelines)


def _places(in_full: Callable[[Any, Any], str]) -> Callable[[Any, Any], str]:
    def place(context: Any, node: Any) -> str:
        if sys.exc_info()[0] is not None or not _is_own(context.file):
            return in_full(context, node)
        line = node.lineno + context.lineno_offset
        return f'File "{context.file}", line {line}, in {context.func.func.__name__}:\n'

    place.in_full = in_full  # type: ignore[attr-defined]
    return place


def _sources(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    kept = lru_cache(maxsize=None)(read)

    def source(function: Any) -> Any:
        own = _is_own(function.__code__.co_filename)
        return kept(function) if own else read(function)

    return source


@lru_cache(maxsize=1024)
def _is_own(file: str) -> bool:
    return file.startswith(_OWN)
