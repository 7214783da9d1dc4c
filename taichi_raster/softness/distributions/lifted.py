"""Evaluates a distribution's formulas on dual numbers."""

from __future__ import annotations

from typing import Any

from taichi_raster.maths.arithmetic import frozen
from taichi_raster.maths.dual import Number, chain, raw
from taichi_raster.maths.tracing import let


def lifted(
    function: Any, u: Number, k: Number | None, autodiff: bool
) -> tuple[Number, Number, Any]:
    """A formula's value, its derivative in u, and that in k or None, as dual numbers."""
    if k is None:
        v, v_x, v_xx = (let(i) for i in function(_bare(u, autodiff)))
        by_u = chain(v_x, (v_xx, u), autodiff=autodiff)
        return chain(v, (by_u, u), autodiff=autodiff), by_u, None
    found = function(_bare(u, autodiff), _bare(k, autodiff))
    v, v_x, v_xx, v_k, v_kx, v_kk = (let(i) for i in found)
    by_u = chain(v_x, (v_xx, u), (v_kx, k), autodiff=autodiff)
    by_k = chain(v_k, (v_kx, u), (v_kk, k), autodiff=autodiff)
    return chain(v, (by_u, u), (by_k, k), autodiff=autodiff), by_u, by_k


def _bare(x: Number, autodiff: bool) -> Any:
    return let(frozen(raw(x))) if autodiff else raw(x)
