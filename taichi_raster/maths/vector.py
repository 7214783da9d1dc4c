"""Vectors of dual numbers or expressions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from taichi_raster.maths.dual import select
from taichi_raster.maths.tracing import let


class Vector(tuple):
    """A few numbers or expressions, with the arithmetic of vectors."""

    def __new__(cls, *items: Any) -> Vector:
        return super().__new__(cls, items)

    def __add__(self, other: Any) -> Vector:
        return Vector(*(a + b for a, b in zip(self, other, strict=True)))

    def __sub__(self, other: Any) -> Vector:
        return Vector(*(a - b for a, b in zip(self, other, strict=True)))

    def __neg__(self) -> Vector:
        return Vector(*(-a for a in self))

    def __mul__(self, factor: Any) -> Vector:
        return Vector(*(a * factor for a in self))

    __rmul__ = __mul__

    def dot(self, other: Any) -> Any:
        products = [a * b for a, b in zip(self, other, strict=True)]
        return total(products)

    def each(self, function: Callable[[Any], Any]) -> Vector:
        return Vector(*(function(a) for a in self))

    def lets(self) -> Vector:
        return self.each(let)


def total(items: Any) -> Any:
    """The sum of at least one item."""
    first, *others = items
    for item in others:
        first = first + item
    return first


def choose(condition: Any, a: Vector, b: Vector) -> Vector:
    """`select` for vectors."""
    return Vector(*(select(condition, i, j) for i, j in zip(a, b, strict=True)))
