"""The transmittance of each of a pixel's fragments: what all others let through of it.

Each counts as far as it is in front. With coverages a, and depths z in units of the temperature,
the transmittance T_i is the product over j != i of

    f_ij = 1 - a_j s_ij,    s_ij = sigmoid(z_i - z_j)

x holds a and z, each (K, P), and y takes T, (K, P). Each of P pixels fills the first of its K
places, nearest first; `entries` says how many. On a CPU a thread takes some neighbouring pixels, on
a GPU one.

Fragments are compared in pairs, or, where many are close in depth, by polynomials (see
`soft_order_nodes`), which agree within rounding.
"""

from typing import Any

import taichi as ti

from taichi_raster.kernels.soft_order_nodes import NodeKernels, TwoLanes
from taichi_raster.maths.dual import Number, chain, exp, raw
from taichi_raster.maths.tracing import element, let, set_to, traced


class Pair:
    """Fragment i and another, j: s, its slope in z_i, and f."""

    def __init__(self, a_j: Number, z_i: Number, z_j: Number) -> None:
        u = z_i - z_j
        e = exp(-ti.abs(raw(u)))
        inverse = let(1.0 / (1.0 + e))
        self.slope = let(e * inverse * inverse)
        self.s = chain(ti.select(raw(u) >= 0.0, 1.0, e) * inverse, (self.slope, u))
        self.f = 1.0 - a_j * self.s


@ti.data_oriented
class SoftOrderKernels(NodeKernels):
    """What the kernels share."""

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
        for row in range(layers):
            for lane in range(count):
                self.clear(row * pixels + begin + lane, layers * pixels)
        if ti.static(self.tangents):
            self.by_pairs(begin, count, 0, found, found, pixels, layers)
        else:
            depths = self.both()
            row = 0
            while row < found:
                end, nodes = self.close(depths, begin, count, row, found, pixels, layers)
                if end - row > nodes + nodes // 2:
                    self.by_nodes(
                        depths, chunk, nodes, begin, count, row, end, found, pixels, layers
                    )
                else:
                    self.by_pairs(begin, count, row, end, found, pixels, layers)
                row = end

    def clear(self, at: Any, size: Any) -> None:
        """Write a row's result as it is before others are known; a `traced` function."""
        raise NotImplementedError

    def by_pairs(
        self, begin: Any, count: Any, row: Any, end: Any, found: Any, pixels: Any, layers: Any
    ) -> None:
        """Compare the rows from `row` to `end` with all; a `ti.func`."""
        raise NotImplementedError

    def by_nodes(
        self,
        depths: Any,
        chunk: Any,
        nodes: Any,
        begin: Any,
        count: Any,
        row: Any,
        end: Any,
        found: Any,
        pixels: Any,
        layers: Any,
    ) -> None:
        """The same, by polynomials over their range of depths; a `ti.func`."""
        raise NotImplementedError

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

    @traced
    def let_through(self, logarithm: Any, q: Any, row: Any, pixels: Any) -> tuple[Any, Any]:
        """T from G at a row's depth, and the factor of the row itself, which G has, too."""
        own = let(1.0 - 0.5 * self.coverage(q, row, pixels))
        return let(exp(logarithm) / own), own


@ti.data_oriented
class Transmittance(SoftOrderKernels):
    """T, and its tangent where numbers carry one: `both` are these two."""

    @traced
    def clear(self, at: Any, size: Any) -> None:
        """1 in rows that no pixel fills."""
        if self.tangents:
            set_to(element(self.fields.y_dot, at), 0.0)
        else:
            set_to(element(self.fields.y, at), 1.0)

    @ti.func
    def by_pairs(self, begin, count, row, end, found, pixels, layers):
        product = self.both()
        for each in range(row, end):
            self.product(product, each, begin, count, found, pixels, layers)
            for lane in range(count):
                self.put(product, lane, each * pixels + begin + lane)

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

    @ti.func
    def by_nodes(self, depths, chunk, nodes, begin, count, row, end, found, pixels, layers):
        self.fit(False, depths, chunk, nodes, begin, count, found, pixels, layers)
        basis, sums = self.both(), self.both()
        for each in range(row, end):
            self.evaluate(
                False, sums, basis, depths, chunk, nodes, begin, count, each, pixels, layers
            )
            for lane in range(count):
                self.put_through(sums, lane, begin + lane, each, pixels)

    @traced
    def put_through(self, sums: TwoLanes, lane: Any, q: Any, row: Any, pixels: Any) -> None:
        through, _ = self.let_through(sums.first.at(lane).value, q, row, pixels)
        set_to(element(self.fields.y, let(row * pixels + q)), through)


@ti.data_oriented
class TransmittanceJVP(Transmittance):
    """The tangent of T along x_dot, by pairs."""

    tangents = True


@ti.data_oriented
class TransmittanceVJP(SoftOrderKernels):
    """The adjoint of x, given y's.

    Of rows that are compared in pairs it first writes to y the product of the factors that are not
    zero, and the number of those that are. Then it adds up each fragment's share in all products,
    its own among them.
    """

    @traced
    def clear(self, at: Any, size: Any) -> None:
        for place in (at, at + size):
            set_to(element(self.fields.x.grad, place), 0.0)

    @ti.func
    def by_pairs(self, begin, count, row, end, found, pixels, layers):
        both = self.both()
        for each in range(row, end):
            self.product(both, each, begin, count, found, pixels, layers)
            for lane in range(count):
                self.keep_product(both, lane, each * pixels + begin + lane, layers * pixels)
        for own in range(found):
            for lane in range(count):
                both.set(lane, 0.0, 0.0)
            for other in range(row, end):
                if other != own:
                    for lane in range(count):
                        self.in_front(both, lane, begin + lane, own, other, pixels, layers)
            if row <= own and own < end:
                for other in range(found):
                    if other != own:
                        for lane in range(count):
                            self.behind(both, lane, begin + lane, own, other, pixels, layers)
            for lane in range(count):
                self.add(both, lane, own * pixels + begin + lane, layers * pixels)

    @traced
    def keep_product(self, both: TwoLanes, lane: Any, at: Any, size: Any) -> None:
        set_to(element(self.fields.y, at), both.first.at(lane).value)
        set_to(element(self.fields.y, at + size), both.second.at(lane).value)

    @traced
    def add(self, both: TwoLanes, lane: Any, at: Any, size: Any) -> None:
        """Add to the adjoints of a coverage and a depth."""
        for place, value in ((at, both.first), (at + size, both.second)):
            target = element(self.fields.x.grad, place)
            set_to(target, target + value.at(lane).value)

    @traced
    def multiply(
        self, product: TwoLanes, lane: Any, q: Any, row: Any, other: Any, pixels: Any, layers: Any
    ) -> None:
        f = raw(self.pair(q, row, other, pixels, layers).f)
        rest, zeros = product.first.at(lane), product.second.at(lane)
        rest.set(rest.value * ti.select(f == 0.0, 1.0, f))
        zeros.set(zeros.value + ti.select(f == 0.0, 1.0, 0.0))

    @traced
    def in_front(
        self, sums: TwoLanes, lane: Any, q: Any, own: Any, other: Any, pixels: Any, layers: Any
    ) -> None:
        """Add the adjoints of `own`, by its factor in `other`'s product."""
        seen = self.pair(q, other, own, pixels, layers)
        v = self.vjp_factor(q, other, raw(seen.f), pixels, layers)
        sums.first.at(lane).add(-(v * raw(seen.s)))
        sums.second.at(lane).add(v * self.coverage(q, own, pixels) * seen.slope)

    @traced
    def behind(
        self, sums: TwoLanes, lane: Any, q: Any, own: Any, other: Any, pixels: Any, layers: Any
    ) -> None:
        """Add the adjoint of `own`'s depth, by the factor of `other` in its product."""
        seen = self.pair(q, own, other, pixels, layers)
        v = self.vjp_factor(q, own, raw(seen.f), pixels, layers)
        sums.second.at(lane).add(-(v * self.coverage(q, other, pixels) * seen.slope))

    @traced
    def vjp_factor(self, q: Any, row: Any, f: Any, pixels: Any, layers: Any) -> Any:
        """The adjoint of a row's factor f: the row's, times the product of the other factors."""
        at = let(row * pixels + q)
        zero = let(f == 0.0)
        zeros = let(element(self.fields.y, at + layers * pixels) - ti.select(zero, 1.0, 0.0))
        others = element(self.fields.y, at) / ti.select(zero, 1.0, f)
        return let(ti.select(zeros == 0.0, others * element(self.fields.y.grad, at), 0.0))

    @ti.func
    def by_nodes(self, depths, chunk, nodes, begin, count, row, end, found, pixels, layers):
        """Once G and D are known, plane 0 takes the adjoints of G's coefficients, and plane 1 those
        of its values at the nodes."""
        self.fit(True, depths, chunk, nodes, begin, count, found, pixels, layers)
        for node in range(nodes):
            for lane in range(count):
                self.clear_node(chunk, node, lane)
        basis, sums = self.both(), self.both()
        for each in range(row, end):
            self.evaluate(
                True, sums, basis, depths, chunk, nodes, begin, count, each, pixels, layers
            )
            for lane in range(count):
                self.end_row(sums, lane, begin + lane, each, pixels, layers)
                self.first_orders(basis, depths, lane, begin + lane, each, pixels, layers)
            for order in range(nodes):
                for lane in range(count):
                    self.add_back(basis, sums, chunk, order, lane)
                    self.next_order(basis, depths, lane, begin + lane, each, pixels, layers)
        self.to_series(0, 1, chunk, nodes, count, True)
        for own in range(found):
            for lane in range(count):
                sums.set(lane, 0.0, 0.0)
            for node in range(nodes):
                place = self.cosine(2 * node + 1, nodes)
                for lane in range(count):
                    self.to_fragment(
                        sums, depths, chunk, node, place, lane, begin + lane, own, pixels, layers
                    )
            for lane in range(count):
                self.add(sums, lane, own * pixels + begin + lane, layers * pixels)

    @traced
    def clear_node(self, chunk: Any, node: Any, lane: Any) -> None:
        set_to(self.node(chunk, 0, node, lane), 0.0)

    @traced
    def end_row(
        self, sums: TwoLanes, lane: Any, q: Any, row: Any, pixels: Any, layers: Any
    ) -> None:
        """From G and D at a row's depth to what its adjoint says of both; `sums` keep that of G."""
        through, own = self.let_through(sums.first.at(lane).value, q, row, pixels)
        at = let(row * pixels + q)
        v = let(element(self.fields.y.grad, at) * through)
        for place, slope in (
            (at, 0.5 / own),
            (let(at + layers * pixels), sums.second.at(lane).value),
        ):
            target = element(self.fields.x.grad, place)
            set_to(target, target + v * slope)
        sums.first.at(lane).set(v)

    @traced
    def add_back(self, basis: TwoLanes, sums: TwoLanes, chunk: Any, order: Any, lane: Any) -> None:
        place = self.node(chunk, 0, order, lane)
        set_to(place, place + sums.first.at(lane).value * basis.first.at(lane).value)

    @traced
    def to_fragment(
        self,
        sums: TwoLanes,
        depths: TwoLanes,
        chunk: Any,
        node: Any,
        place: Any,
        lane: Any,
        q: Any,
        own: Any,
        pixels: Any,
        layers: Any,
    ) -> None:
        """Add a node's share to the adjoints of a fragment."""
        a, seen = self.from_node(depths, lane, q, place, own, pixels, layers)
        v = let(self.node(chunk, 1, node, lane) / seen.f)
        sums.first.at(lane).add(-(v * seen.s))
        sums.second.at(lane).add(v * a * seen.slope)
