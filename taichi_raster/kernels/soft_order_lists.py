"""Listed fragments, as a soft order compares them: pixel by pixel, nearest first.

A list has N fragments: a coverage, a depth and C attributes of each. Each of P pixels has up to K,
which are gathered into rows of all pixels, so that neighbouring pixels can be worked on together.
What a pixel does not fill has coverage 0. `entries` says how many each fills, (P,), and which of
the list these are, (K, P).

    x, and its adjoint     y                      y's adjoint
    coverages a, (K, P)    transmittances (K, P)  of transmittances (K, P)
    depths z,    (K, P)    zeros          (K, P)  of weights        (K, P)
    temperature  (P,)      sums       (1 + C, P)  of sums       (1 + C, P)
    list     (2 + C, N)

Gathered depths are in temperatures. The sums are those of the weights w = a T, with T the
transmittance, and of w times attributes.
"""

from typing import Any

import taichi as ti

from taichi_raster.kernels.soft_order_nodes import NodeKernels
from taichi_raster.maths.dual import Number
from taichi_raster.maths.tracing import element, let, set_to, traced


@ti.data_oriented
class ListKernels(NodeKernels):
    """From a list to rows, and where things lie."""

    @ti.func
    def gather(self, begin, count, found, pixels, layers, listed):
        """Fill the rows up to `found` of `count` pixels."""
        for row in range(found):
            for lane in range(count):
                self.gather_one(begin + lane, row, pixels, layers, listed)

    @traced
    def gather_one(self, q: Any, row: Any, pixels: Any, layers: Any, listed: Any) -> None:
        there = self.has(q, row)
        e = let(ti.select(there, self.place_in_list(q, row, pixels), 0))
        a, z = (self.in_list(plane, e, pixels, layers, listed) for plane in (0, 1))
        z = z / self.temperature(q, pixels, layers)
        for at, number in ((row, a), (layers + row, z)):
            place = let(at * pixels + q)
            set_to(element(self.fields.x, place), ti.select(there, number.v, 0.0))
            if self.tangents:
                set_to(element(self.fields.x_dot, place), ti.select(there, number.d, 0.0))

    @traced
    def has(self, q: Any, row: Any) -> Any:
        """Whether a pixel fills a row."""
        return let(row < element(self.fields.entries, q))

    @traced
    def place_in_list(self, q: Any, row: Any, pixels: Any) -> Any:
        return element(self.fields.entries, let((row + 1) * pixels + q))

    @traced
    def temperature_at(self, q: Any, pixels: Any, layers: Any) -> Any:
        return let(2 * layers * pixels + q)

    @traced
    def list_at(self, plane: Any, e: Any, pixels: Any, layers: Any, listed: Any) -> Any:
        return let((2 * layers + 1) * pixels + plane * listed + e)

    @traced
    def sum_at(self, plane: Any, q: Any, pixels: Any, layers: Any) -> Any:
        return let((2 * layers + plane) * pixels + q)

    @traced
    def temperature(self, q: Any, pixels: Any, layers: Any) -> Number:
        return self.input(self.temperature_at(q, pixels, layers))

    @traced
    def in_list(self, plane: Any, e: Any, pixels: Any, layers: Any, listed: Any) -> Number:
        return self.input(self.list_at(plane, e, pixels, layers, listed))

    @traced
    def share(self, plane: Any, q: Any, row: Any, pixels: Any, layers: Any, listed: Any) -> Number:
        """By what a weight is multiplied in a sum: 1 in the first, then an attribute."""
        e = self.place_in_list(q, row, pixels)
        found = self.in_list(plane + 1, e, pixels, layers, listed)
        alone = let(plane == 0)
        return Number(
            ti.select(alone, 1.0, found.v),
            ti.select(alone, 0.0, found.d) if self.tangents else None,
        )

    @traced
    def input(self, at: Any) -> Number:
        """A number of x, with its tangent."""
        return Number(
            element(self.fields.x, at), element(self.fields.x_dot, at) if self.tangents else None
        )
