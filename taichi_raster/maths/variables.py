"""A kernel's own variables: one number, or one for each pixel that is worked on together."""

from __future__ import annotations

from typing import Any

import taichi as ti
from taichi.lang import impl

from taichi_raster.maths.arithmetic import types
from taichi_raster.maths.tracing import element, let, set_to, traced


class Local:
    """A variable of the kernel, zero at first; `zero` gives its type."""

    _data_oriented = True

    def __init__(self, zero: float = 0.0) -> None:
        self.place = impl.expr_init(zero)

    @property
    def value(self) -> Any:
        return self.place

    @traced
    def add(self, value: Any) -> None:
        self.place += value

    @traced
    def set(self, value: Any) -> None:
        self.place._assign(value)


class Lanes:
    """A variable for each pixel that is worked on together: an array of the kernel, all zero.

    Of one pixel it is a plain variable.

    With other values to start from, LLVM would copy these from memory, and would no longer know
    that no other pointer reaches the array.
    """

    _data_oriented = True

    def __init__(self, count: int, zero: float = 0.0) -> None:
        self.alone = Local(zero) if count == 1 else None
        if self.alone is not None:
            return
        kind = ti.i32 if isinstance(zero, int) else types.real
        self.array = impl.expr_init(impl.make_matrix([zero] * count, kind))

    @traced
    def at(self, lane: Any) -> Local:
        return self.alone or Lane(self.array, lane)


class Lane(Local):
    """One of `Lanes`."""

    def __init__(self, array: Any, lane: Any) -> None:
        self.array, self.lane = array, lane

    @property
    def value(self) -> Any:
        return let(element(self.array, self.lane))

    @traced
    def add(self, value: Any) -> None:
        place = element(self.array, self.lane)
        place += value

    @traced
    def set(self, value: Any) -> None:
        set_to(element(self.array, self.lane), value)
