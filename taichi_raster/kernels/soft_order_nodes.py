"""A soft order by polynomials, where many fragments lie close together in depth.

How much the fragments of a pixel let through to a depth z is a smooth function of it: the logarithm

    G(z) = sum over j of log(1 - a_j sigmoid(z - z_j))

has no singularity nearer to the real axis than pi. So over a range of depths a polynomial takes its
place, by its values at Chebyshev nodes, within rounding. Its error falls by rho for each node, with
rho = r + sqrt(1 + r^2) and r = 2 pi / width (Trefethen, Approximation Theory and Approximation
Practice, theorem 8.2). A range of `WIDE` takes 14 nodes in float32, and a hundredth of it 4. So K
fragments of a pixel take K comparisons for each node, instead of K^2.

The derivative D = dG/dz has a polynomial of its own: that of G's would magnify its rounding where
depths are close.
"""

import math
from typing import Any

import taichi as ti

from taichi_raster.kernels.pairs import PairKernels
from taichi_raster.maths.arithmetic import polynomial
from taichi_raster.maths.dual import exp, log
from taichi_raster.maths.tracing import element, let, set_to, traced
from taichi_raster.maths.variables import Lanes
from taichi_raster.runtime.device import Runtime
from taichi_raster.runtime.scratch import Scratch
from taichi_raster.runtime.variant import Variant

WIDTH = 32  # pixels that are worked on together on a CPU

WIDE = 4.0
"""The widest range of depths of a polynomial, in temperatures. Within it, what a fragment lets
through varies by exp(WIDE), and rounding grows by as much."""

DIGITS = {"f32": 16.0, "f64": 36.0}
"""How small a polynomial's error is, as a negative logarithm, by precision."""

FAINT = 2.0**-60
"""What even an opaque fragment lets through: G stays finite."""

SCALE = 60.0
"""A product below 2^-SCALE is multiplied by 2^SCALE, so that it does not underflow."""

PLANES = 4
"""Numbers of each node of a pixel."""

_EMPTY = 1e30  # the least depth of nothing
_SINE = tuple((-1) ** k / math.factorial(2 * k + 1) for k in reversed(range(11)))


def nodes_for(width: float, precision: str) -> int:
    """How many nodes a polynomial has whose depths have this range."""
    ratio = 2 * math.pi / width
    return math.ceil(DIGITS[precision] / math.log(ratio + math.sqrt(1 + ratio * ratio))) + 1


class AtNode:
    """A fragment, a and z_j, seen from a node: s, its slope, and f, which is never 0."""

    def __init__(self, a: Any, u: Any) -> None:
        e = let(exp(-ti.abs(u)))
        inverse = let(1.0 / (1.0 + e))
        self.slope = let(e * inverse * inverse)
        self.s = let(ti.select(u >= 0.0, 1.0, e) * inverse)
        self.f = let((1.0 - a) + (a * ti.select(u >= 0.0, e, 1.0) * inverse + FAINT))


class TwoLanes:
    """Two numbers for each of the pixels that are worked on together."""

    _data_oriented = True

    def __init__(self, width: int) -> None:
        self.first, self.second = Lanes(width), Lanes(width)

    @traced
    def set(self, lane: Any, first: Any, second: Any) -> None:
        first, second = let(first), let(second)  # either may be an expression of what is there
        self.first.at(lane).set(first)
        self.second.at(lane).set(second)


@ti.data_oriented
class NodeKernels(PairKernels):
    """What becomes of rows that are close in depth.

    Attributes:
        width: how many pixels a thread works on together.
        digits: see `DIGITS`.
        most: how many nodes there may be.
    """

    def __init__(self, variant: Variant, scratch: Scratch, runtime: Runtime) -> None:
        super().__init__(variant, scratch, runtime)
        self.width = WIDTH if runtime.arch == "cpu" else 1
        self.digits = DIGITS[runtime.precision]
        self.most = nodes_for(WIDE, runtime.precision)

    @traced
    def both(self) -> TwoLanes:
        return TwoLanes(self.width)

    # --- a range of depths ------------------------------------------------------------------------

    @ti.func
    def close(self, depths, begin, count, row, found, pixels, layers):
        """(end, nodes): rows from `row` to `end` are close, in all pixels that have them.

        `depths` becomes the middle of each pixel's, and half their range.
        """
        for lane in range(count):
            self.first_depth(depths, lane, begin + lane, row, pixels, layers)
        end, width = row + 1, 0.0
        going = end < found
        while going:
            widest = width
            for lane in range(count):
                widest = ti.max(widest, self.range_with(depths, lane, begin, end, pixels, layers))
            going = widest <= WIDE
            if going:
                width = widest
                for lane in range(count):
                    self.widen(depths, lane, begin + lane, end, pixels, layers)
                end += 1
                going = end < found
        for lane in range(count):
            self.to_middle(depths, lane)
        ratio = 2.0 * math.pi / ti.max(width, 1e-6)
        nodes = ti.cast(ti.ceil(self.digits / ti.log(ratio + ti.sqrt(1.0 + ratio * ratio))), ti.i32)
        return end, ti.min(nodes + 1, self.most)

    @traced
    def coverage(self, q: Any, row: Any, pixels: Any) -> Any:
        return element(self.fields.x, let(row * pixels + q))

    @traced
    def depth_of(self, q: Any, row: Any, pixels: Any, layers: Any) -> Any:
        return element(self.fields.x, let((layers + row) * pixels + q))

    @traced
    def first_depth(
        self, depths: TwoLanes, lane: Any, q: Any, row: Any, pixels: Any, layers: Any
    ) -> None:
        there = row < element(self.fields.entries, q)
        z = self.depth_of(q, row, pixels, layers)
        depths.set(lane, ti.select(there, z, _EMPTY), ti.select(there, z, -_EMPTY))

    @traced
    def with_row(
        self, depths: TwoLanes, lane: Any, q: Any, row: Any, pixels: Any, layers: Any
    ) -> tuple[Any, Any]:
        """The least and the largest depth, that of a row among them."""
        least, largest = depths.first.at(lane).value, depths.second.at(lane).value
        there = row < element(self.fields.entries, q)
        z = self.depth_of(q, row, pixels, layers)
        return (
            ti.select(there, ti.min(least, z), least),
            ti.select(there, ti.max(largest, z), largest),
        )

    @traced
    def range_with(
        self, depths: TwoLanes, lane: Any, begin: Any, row: Any, pixels: Any, layers: Any
    ) -> Any:
        least, largest = self.with_row(depths, lane, begin + lane, row, pixels, layers)
        return largest - least

    @traced
    def widen(
        self, depths: TwoLanes, lane: Any, q: Any, row: Any, pixels: Any, layers: Any
    ) -> None:
        depths.set(lane, *self.with_row(depths, lane, q, row, pixels, layers))

    @traced
    def to_middle(self, depths: TwoLanes, lane: Any) -> None:
        least, largest = depths.first.at(lane).value, depths.second.at(lane).value
        depths.set(lane, 0.5 * (least + largest), ti.max(0.5 * (largest - least), 1e-6))

    # --- nodes, and the series of a polynomial ----------------------------------------------------

    @ti.func
    def cosine(self, i, nodes):
        """cos(pi / 2 i / nodes), to the last place on all backends; i >= 0."""
        turn = 4 * nodes
        i = i % turn
        i = ti.min(i, turn - i)
        x = 0.5 * math.pi * (nodes - i) / nodes  # of which it is the sine
        return x * self.sine_ratio(x * x)

    @traced
    def sine_ratio(self, square: Any) -> Any:
        """sin(x) / x for |x| <= pi / 2."""
        return polynomial(let(square), _SINE)

    @traced
    def at(self, chunk: Any, plane: int, node: Any, lane: Any) -> Any:
        """Where a number of a node lies in `rows`."""
        return let(((chunk * PLANES + plane) * self.most + node) * self.width + lane)

    @traced
    def node(self, chunk: Any, plane: int, node: Any, lane: Any) -> Any:
        return element(self.fields.rows, self.at(chunk, plane, node, lane))

    @ti.func
    def sample(
        self,
        slopes: ti.template(),
        depths,
        chunk,
        nodes,
        begin,
        count,
        found,
        pixels,
        layers,
    ):
        """G at the nodes, in plane 0; with `slopes` also D, in plane 1."""
        product = self.both()
        sums = self.both()
        for node in range(nodes):
            place = self.cosine(2 * node + 1, nodes)
            for lane in range(count):
                product.set(lane, 1.0, 0.0)
                sums.set(lane, 0.0, 0.0)
            for row in range(found):
                for lane in range(count):
                    self.multiply_at(
                        slopes,
                        product,
                        sums,
                        depths,
                        lane,
                        begin + lane,
                        place,
                        row,
                        pixels,
                        layers,
                    )
            for lane in range(count):
                self.keep(slopes, product, sums, chunk, node, lane)

    @traced
    def from_node(
        self, depths: TwoLanes, lane: Any, q: Any, place: Any, row: Any, pixels: Any, layers: Any
    ) -> tuple[Any, AtNode]:
        """A fragment's coverage, and how the node at `place`, from -1 to 1, sees it."""
        a = let(self.coverage(q, row, pixels))
        z = depths.first.at(lane).value + depths.second.at(lane).value * place
        return a, AtNode(a, let(z - self.depth_of(q, row, pixels, layers)))

    @traced
    def multiply_at(
        self,
        slopes: bool,
        product: TwoLanes,
        sums: TwoLanes,
        depths: TwoLanes,
        lane: Any,
        q: Any,
        place: Any,
        row: Any,
        pixels: Any,
        layers: Any,
    ) -> None:
        a, seen = self.from_node(depths, lane, q, place, row, pixels, layers)
        after = let(product.first.at(lane).value * seen.f)
        small = let(after < 2.0**-SCALE)
        product.first.at(lane).set(ti.select(small, after * 2.0**SCALE, after))
        product.second.at(lane).add(ti.select(small, 1.0, 0.0))
        if slopes:
            sums.first.at(lane).add(-(a * seen.slope / seen.f))

    @traced
    def keep(
        self, slopes: bool, product: TwoLanes, sums: TwoLanes, chunk: Any, node: Any, lane: Any
    ) -> None:
        scaled = product.second.at(lane).value * (SCALE * math.log(2))
        set_to(self.node(chunk, 0, node, lane), log(product.first.at(lane).value) - scaled)
        if slopes:
            set_to(self.node(chunk, 1, node, lane), sums.first.at(lane).value)

    @ti.func
    def to_series(
        self, source: ti.template(), target: ti.template(), chunk, nodes, count, back: ti.template()
    ):
        """Coefficients of Chebyshev polynomials from values at the nodes; `back`: its adjoint."""
        sums = self.both()
        for i in range(nodes):
            for lane in range(count):
                sums.set(lane, 0.0, 0.0)
            for j in range(nodes):
                order, node = i, j
                if ti.static(back):
                    order, node = j, i
                share = 2.0 * self.cosine(order * (2 * node + 1), nodes) / nodes
                if order == 0:
                    share = 1.0 / nodes
                for lane in range(count):
                    self.add_share(sums, share, source, chunk, j, lane)
            for lane in range(count):
                self.put_share(sums, target, chunk, i, lane)

    @traced
    def add_share(
        self, sums: TwoLanes, share: Any, source: int, chunk: Any, node: Any, lane: Any
    ) -> None:
        sums.first.at(lane).add(share * self.node(chunk, source, node, lane))

    @traced
    def put_share(self, sums: TwoLanes, target: int, chunk: Any, node: Any, lane: Any) -> None:
        set_to(self.node(chunk, target, node, lane), sums.first.at(lane).value)

    @ti.func
    def fit(self, slopes: ti.template(), depths, chunk, nodes, begin, count, found, pixels, layers):
        """The coefficients of G, in plane 2; with `slopes` also those of D, in plane 3."""
        self.sample(slopes, depths, chunk, nodes, begin, count, found, pixels, layers)
        self.to_series(0, 2, chunk, nodes, count, False)
        if ti.static(slopes):
            self.to_series(1, 3, chunk, nodes, count, False)

    @ti.func
    def evaluate(
        self,
        slopes: ti.template(),
        sums,
        basis,
        depths,
        chunk,
        nodes,
        begin,
        count,
        row,
        pixels,
        layers,
    ):
        """`sums` become G at a row's depth, and with `slopes` D."""
        for lane in range(count):
            sums.set(lane, 0.0, 0.0)
            self.first_orders(basis, depths, lane, begin + lane, row, pixels, layers)
        for order in range(nodes):
            for lane in range(count):
                self.add_order(slopes, sums, basis, chunk, order, lane)
                self.next_order(basis, depths, lane, begin + lane, row, pixels, layers)

    @traced
    def add_order(
        self, slopes: bool, sums: TwoLanes, basis: TwoLanes, chunk: Any, order: Any, lane: Any
    ) -> None:
        now = basis.first.at(lane).value
        sums.first.at(lane).add(self.node(chunk, 2, order, lane) * now)
        if slopes:
            sums.second.at(lane).add(self.node(chunk, 3, order, lane) * now)

    @traced
    def first_orders(
        self,
        basis: TwoLanes,
        depths: TwoLanes,
        lane: Any,
        q: Any,
        row: Any,
        pixels: Any,
        layers: Any,
    ) -> None:
        """The first two Chebyshev polynomials at a row's depth."""
        basis.set(lane, 1.0, self.within(depths, lane, q, row, pixels, layers))

    @traced
    def next_order(
        self,
        basis: TwoLanes,
        depths: TwoLanes,
        lane: Any,
        q: Any,
        row: Any,
        pixels: Any,
        layers: Any,
    ) -> None:
        """T_(k+1) = 2 t T_k - T_(k-1)."""
        t = self.within(depths, lane, q, row, pixels, layers)
        before, now = basis.first.at(lane).value, basis.second.at(lane).value
        basis.set(lane, now, 2.0 * t * now - before)

    @traced
    def within(
        self, depths: TwoLanes, lane: Any, q: Any, row: Any, pixels: Any, layers: Any
    ) -> Any:
        """Where a row's depth lies in the range, from -1 to 1. Rows that are not there may lie
        anywhere."""
        z = self.depth_of(q, row, pixels, layers)
        t = (z - depths.first.at(lane).value) / depths.second.at(lane).value
        return let(ti.max(-1.0, ti.min(t, 1.0)))
