"""The transmittance of each of a pixel's fragments: what all others let through of it.

Each counts as far as it is in front. With coverages a, and depths z in units of the temperature,
the transmittance T_i is the product over j != i of

    f_ij = 1 - a_j s_ij,    s_ij = sigmoid(z_i - z_j)

x holds a and z, each (K, P), and y takes T, (K, P). Each of P pixels fills the first of its K
places; `entries` says how many. On a CPU a thread takes some neighbouring pixels, on a GPU one.
"""

from typing import Any

import taichi as ti

from taichi_raster.kernels.pairs import PairKernels
from taichi_raster.maths.dual import Number, chain, exp, raw
from taichi_raster.maths.tracing import element, let, set_to, traced
from taichi_raster.maths.variables import Lanes
from taichi_raster.runtime.device import Runtime
from taichi_raster.runtime.scratch import Scratch
from taichi_raster.runtime.variant import Variant

WIDTH = 32  # pixels that are worked on together on a CPU


class Pair:
    """Fragment i and another, j: s, its slope in z_i, and f."""

    def __init__(self, a_j: Number, z_i: Number, z_j: Number) -> None:
        u = z_i - z_j
        e = exp(-ti.abs(raw(u)))
        inverse = let(1.0 / (1.0 + e))
        self.slope = let(e * inverse * inverse)
        self.s = chain(ti.select(raw(u) >= 0.0, 1.0, e) * inverse, (self.slope, u))
        self.f = 1.0 - a_j * self.s


class TwoLanes:
    """Two numbers for each of the pixels that are worked on together."""

    _data_oriented = True

    def __init__(self, width: int) -> None:
        self.first, self.second = Lanes(width), Lanes(width)

    @traced
    def set(self, lane: Any, first: float, second: float) -> None:
        self.first.at(lane).set(first)
        self.second.at(lane).set(second)


@ti.data_oriented
class SoftOrderKernels(PairKernels):
    """What the kernels share.

    Attributes:
        width: how many pixels a thread works on together.
    """

    def __init__(self, variant: Variant, scratch: Scratch, runtime: Runtime) -> None:
        super().__init__(variant, scratch, runtime)
        self.width = WIDTH if runtime.arch == "cpu" else 1

    def chunk(self, begin: Any, count: Any, found: Any, pixels: Any, layers: Any) -> None:
        """Do `count` pixels, which fill `found` places at most; a `ti.func`."""
        raise NotImplementedError

    @ti.kernel
    def run(self, pixels: ti.i32, layers: ti.i32, chunks: ti.i32, length: ti.i32):
        """`length` chunks of `width` pixels are a run."""
        self.parallel(chunks, length, self.run_chunk, (pixels, layers))

    @ti.func
    def run_chunk(self, chunk, pixels, layers):
        begin = chunk * self.width
        count = ti.min(self.width, pixels - begin)
        found = 0
        for lane in range(count):
            found = ti.max(found, self.fields.entries[begin + lane])
        self.chunk(begin, count, found, pixels, layers)

    @ti.func
    def product(self, both, row, begin, count, found, pixels, layers):
        """Multiply a row's factors, each pixel's for itself."""
        for lane in range(count):
            both.set(lane, 1.0, 0.0)
        for other in range(found):
            if other != row:
                for lane in range(count):
                    self.multiply(both, lane, begin + lane, row, other, pixels, layers)

    def multiply(
        self, both: Any, lane: Any, q: Any, row: Any, other: Any, pixels: Any, layers: Any
    ) -> None:
        """Multiply by one factor; a `traced` function."""
        raise NotImplementedError

    @traced
    def both(self) -> TwoLanes:
        return TwoLanes(self.width)

    @traced
    def pair(self, q: Any, i: Any, j: Any, pixels: Any, layers: Any) -> Pair:
        a_j = self.number(q, j, pixels)
        z_i, z_j = (self.number(q, layers + row, pixels) for row in (i, j))
        return Pair(a_j, z_i, z_j)

    @traced
    def number(self, q: Any, row: Any, pixels: Any) -> Number:
        """A number of x, with its tangent."""
        at = let(row * pixels + q)
        return Number(
            element(self.fields.x, at), element(self.fields.x_dot, at) if self.tangents else None
        )


@ti.data_oriented
class Transmittance(SoftOrderKernels):
    """T, and its tangent where numbers carry one: `both` are these two."""

    @ti.func
    def chunk(self, begin, count, found, pixels, layers):
        product = self.both()
        for row in range(layers):  # 1 in rows that no pixel fills
            among = ti.select(row < found, found, 0)
            self.product(product, row, begin, count, among, pixels, layers)
            for lane in range(count):
                self.put(product, lane, row * pixels + begin + lane)

    @traced
    def multiply(
        self, product: TwoLanes, lane: Any, q: Any, row: Any, other: Any, pixels: Any, layers: Any
    ) -> None:
        value, tangent = product.first.at(lane), product.second.at(lane)
        before = Number(value.value, tangent.value if self.tangents else None)
        after = before * self.pair(q, row, other, pixels, layers).f
        value.set(after.v)
        if self.tangents:
            tangent.set(after.d)

    @traced
    def put(self, product: TwoLanes, lane: Any, at: Any) -> None:
        if self.tangents:
            set_to(element(self.fields.y_dot, at), product.second.at(lane).value)
        else:
            set_to(element(self.fields.y, at), product.first.at(lane).value)


@ti.data_oriented
class TransmittanceJVP(Transmittance):
    """The tangent of T along x_dot."""

    tangents = True


@ti.data_oriented
class TransmittanceVJP(SoftOrderKernels):
    """The adjoint of x, given y's.

    First it writes to y, for each row, the product of the factors that are not zero, and the number
    of those that are. Then it adds up each fragment's share in all products, its own among them.
    """

    @ti.func
    def chunk(self, begin, count, found, pixels, layers):
        both = self.both()
        for row in range(found):
            self.product(both, row, begin, count, found, pixels, layers)
            for lane in range(count):
                self.put(self.fields.y, both, lane, row * pixels + begin + lane, layers * pixels)
        for own in range(layers):
            for lane in range(count):
                both.set(lane, 0.0, 0.0)
            if own < found:
                for other in range(found):
                    if other != own:
                        for lane in range(count):
                            self.vjp_pair(both, lane, begin + lane, own, other, pixels, layers)
            for lane in range(count):
                self.put(
                    self.fields.x.grad, both, lane, own * pixels + begin + lane, layers * pixels
                )

    @traced
    def put(self, field: Any, both: TwoLanes, lane: Any, at: Any, size: Any) -> None:
        set_to(element(field, at), both.first.at(lane).value)
        set_to(element(field, at + size), both.second.at(lane).value)

    @traced
    def multiply(
        self, product: TwoLanes, lane: Any, q: Any, row: Any, other: Any, pixels: Any, layers: Any
    ) -> None:
        f = raw(self.pair(q, row, other, pixels, layers).f)
        rest, zeros = product.first.at(lane), product.second.at(lane)
        rest.set(rest.value * ti.select(f == 0.0, 1.0, f))
        zeros.set(zeros.value + ti.select(f == 0.0, 1.0, 0.0))

    @traced
    def vjp_pair(
        self, sums: TwoLanes, lane: Any, q: Any, own: Any, other: Any, pixels: Any, layers: Any
    ) -> None:
        """Add the adjoints of two factors: that of `own` in `other`'s product, and the reverse."""
        front = self.pair(q, other, own, pixels, layers)
        behind = self.pair(q, own, other, pixels, layers)
        by_front = self.vjp_factor(q, other, raw(front.f), pixels, layers)
        by_behind = self.vjp_factor(q, own, raw(behind.f), pixels, layers)
        a_own, a_other = (raw(self.number(q, row, pixels)) for row in (own, other))
        sums.first.at(lane).add(-(by_front * raw(front.s)))
        sums.second.at(lane).add(
            by_front * a_own * front.slope - by_behind * a_other * behind.slope
        )

    @traced
    def vjp_factor(self, q: Any, row: Any, f: Any, pixels: Any, layers: Any) -> Any:
        """The adjoint of a row's factor f: the row's, times the product of the other factors."""
        at = let(row * pixels + q)
        zero = let(f == 0.0)
        zeros = let(element(self.fields.y, at + layers * pixels) - ti.select(zero, 1.0, 0.0))
        others = element(self.fields.y, at) / ti.select(zero, 1.0, f)
        return let(ti.select(zeros == 0.0, others * element(self.fields.y.grad, at), 0.0))
