"""Sums of weights, and of weights times attributes, of each pixel's fragments in a soft order.

Each fragment counts as far as it is in front. With coverages a, and depths z in units of the
temperature, fragment i weighs a_i T_i. Its transmittance T_i, what all others let through of it, is
the product over j != i of

    f_ij = 1 - a_j s_ij,    s_ij = sigmoid(z_i - z_j)

Where things lie is in `soft_order_lists`. On a CPU a thread takes some neighbouring pixels, on a
GPU one.

Fragments are compared in pairs, or, where many are close in depth, by polynomials (see
`soft_order_nodes`), which agree within rounding.
"""

from typing import Any

import taichi as ti

from taichi_raster.kernels.soft_order_lists import ListKernels
from taichi_raster.kernels.soft_order_nodes import TwoLanes
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
class SoftOrderKernels(ListKernels):
    """What the kernels share."""

    @ti.kernel
    def run(
        self,
        pixels: ti.i32,
        layers: ti.i32,
        chunks: ti.i32,
        length: ti.i32,
        listed: ti.i32,
        channels: ti.i32,
    ):
        """`length` chunks of `width` pixels are a run."""
        self.parallel(chunks, length, self.run_chunk, (pixels, layers, listed, channels))

    @ti.func
    def run_chunk(self, chunk, pixels, layers, listed, channels):
        begin = chunk * self.width
        count = ti.min(self.width, pixels - begin)
        found = 0
        for lane in range(count):
            found = ti.max(found, self.fields.entries[begin + lane])
        self.gather(begin, count, found, pixels, layers, listed)
        self.begin_rows(begin, count, found, pixels, layers, listed, channels)
        self.compare(chunk, begin, count, found, pixels, layers)
        self.end_rows(begin, count, found, pixels, layers, listed, channels)

    @ti.func
    def compare(self, chunk, begin, count, found, pixels, layers):
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

    def begin_rows(
        self,
        begin: Any,
        count: Any,
        found: Any,
        pixels: Any,
        layers: Any,
        listed: Any,
        channels: Any,
    ) -> None:
        """What comes before fragments are compared; a `ti.func`."""
        raise NotImplementedError

    def end_rows(
        self,
        begin: Any,
        count: Any,
        found: Any,
        pixels: Any,
        layers: Any,
        listed: Any,
        channels: Any,
    ) -> None:
        """What comes after that; a `ti.func`."""
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
        """A number of a row, with its tangent."""
        return self.input(let(row * pixels + q))

    @traced
    def let_through(self, logarithm: Any, q: Any, row: Any, pixels: Any) -> tuple[Any, Any]:
        """T from G at a row's depth, and the factor of the row itself, which G has, too."""
        own = let(1.0 - 0.5 * self.coverage(q, row, pixels))
        return let(exp(logarithm) / own), own


@ti.data_oriented
class SoftSums(SoftOrderKernels):
    """The sums, or their tangents where numbers carry one: `both` are a product and its."""

    @ti.func
    def begin_rows(self, begin, count, found, pixels, layers, listed, channels):
        for plane in range(channels + 1):
            for lane in range(count):
                self.clear_sum(plane, begin + lane, pixels, layers)

    @traced
    def clear_sum(self, plane: Any, q: Any, pixels: Any, layers: Any) -> None:
        sums = self.fields.y_dot if self.tangents else self.fields.y
        set_to(element(sums, self.sum_at(plane, q, pixels, layers)), 0.0)

    @ti.func
    def end_rows(self, begin, count, found, pixels, layers, listed, channels):
        for row in range(found):
            for lane in range(count):
                if self.has(begin + lane, row):
                    for plane in range(channels + 1):
                        self.add_to_sum(plane, begin + lane, row, pixels, layers, listed)

    @traced
    def add_to_sum(
        self, plane: Any, q: Any, row: Any, pixels: Any, layers: Any, listed: Any
    ) -> None:
        at = let(row * pixels + q)
        through = Number(
            element(self.fields.y, at), element(self.fields.y_dot, at) if self.tangents else None
        )
        weight = self.number(q, row, pixels) * through
        added = weight * self.share(plane, q, row, pixels, layers, listed)
        sums = self.fields.y_dot if self.tangents else self.fields.y
        place = element(sums, self.sum_at(plane, q, pixels, layers))
        set_to(place, place + (added.d if self.tangents else added.v))

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
        set_to(element(self.fields.y, at), product.first.at(lane).value)
        if self.tangents:
            set_to(element(self.fields.y_dot, at), product.second.at(lane).value)

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
class SoftSumsJVP(SoftSums):
    """The tangents of the sums along x_dot, by pairs."""

    tangents = True


@ti.data_oriented
class SoftSumsVJP(SoftOrderKernels):
    """The adjoint of x, given that of the sums.

    Of rows that are compared in pairs it writes to y the product of the factors that are not zero,
    and the number of those that are; of others T, and 0. Then it adds up each fragment's share in
    all products, its own among them.
    """

    @ti.func
    def begin_rows(self, begin, count, found, pixels, layers, listed, channels):
        """From the sums' adjoints to those of weights and transmittances."""
        for row in range(found):
            for lane in range(count):
                self.clear(begin + lane, row, pixels, layers)
                if self.has(begin + lane, row):
                    for plane in range(channels + 1):
                        self.add_to_weight(plane, begin + lane, row, pixels, layers, listed)
                    self.to_transmittance(begin + lane, row, pixels, layers)

    @traced
    def clear(self, q: Any, row: Any, pixels: Any, layers: Any) -> None:
        at = let(row * pixels + q)
        for place in (at, let(at + layers * pixels)):
            set_to(element(self.fields.x.grad, place), 0.0)
            set_to(element(self.fields.y.grad, place), 0.0)

    @traced
    def add_to_weight(
        self, plane: Any, q: Any, row: Any, pixels: Any, layers: Any, listed: Any
    ) -> None:
        place = element(self.fields.y.grad, let((layers + row) * pixels + q))
        v = element(self.fields.y.grad, self.sum_at(plane, q, pixels, layers))
        set_to(place, place + v * self.share(plane, q, row, pixels, layers, listed).v)

    @traced
    def to_transmittance(self, q: Any, row: Any, pixels: Any, layers: Any) -> None:
        at = let(row * pixels + q)
        v = element(self.fields.y.grad, let(at + layers * pixels))
        set_to(element(self.fields.y.grad, at), self.coverage(q, row, pixels) * v)

    @ti.func
    def end_rows(self, begin, count, found, pixels, layers, listed, channels):
        """From the adjoints of rows to those of the list."""
        for lane in range(count):
            self.clear_temperature(begin + lane, pixels, layers)
        for row in range(found):
            for lane in range(count):
                if self.has(begin + lane, row):
                    self.to_list(begin + lane, row, pixels, layers, listed)
                    for plane in range(1, channels + 1):
                        self.to_attribute(plane, begin + lane, row, pixels, layers, listed)

    @traced
    def clear_temperature(self, q: Any, pixels: Any, layers: Any) -> None:
        set_to(element(self.fields.x.grad, self.temperature_at(q, pixels, layers)), 0.0)

    @traced
    def to_list(self, q: Any, row: Any, pixels: Any, layers: Any, listed: Any) -> None:
        """The adjoints of a fragment's coverage and depth, and its part of the temperature's."""
        x, x_bar, at = self.fields.x, self.fields.x.grad, let(row * pixels + q)
        e = self.place_in_list(q, row, pixels)
        v = element(self.fields.y.grad, let(at + layers * pixels))
        direct = let(self.through(q, row, pixels, layers) * v)
        gamma = self.temperature(q, pixels, layers).v
        by_depth = let(element(x_bar, let(at + layers * pixels)) / gamma)
        coverage, depth = (self.list_at(plane, e, pixels, layers, listed) for plane in (0, 1))
        set_to(element(x_bar, coverage), element(x_bar, at) + direct)
        set_to(element(x_bar, depth), by_depth)
        place = element(x_bar, self.temperature_at(q, pixels, layers))
        set_to(place, place - by_depth * element(x, let(at + layers * pixels)))

    @traced
    def to_attribute(
        self, plane: Any, q: Any, row: Any, pixels: Any, layers: Any, listed: Any
    ) -> None:
        e = self.place_in_list(q, row, pixels)
        weight = self.coverage(q, row, pixels) * self.through(q, row, pixels, layers)
        v = element(self.fields.y.grad, self.sum_at(plane, q, pixels, layers))
        at = self.list_at(plane + 1, e, pixels, layers, listed)
        set_to(element(self.fields.x.grad, at), weight * v)

    @traced
    def through(self, q: Any, row: Any, pixels: Any, layers: Any) -> Any:
        """T, from the product and the number of zeros."""
        at = let(row * pixels + q)
        zeros = element(self.fields.y, let(at + layers * pixels))
        return let(ti.select(zeros == 0.0, element(self.fields.y, at), 0.0))

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
        set_to(element(self.fields.y, at), through)
        set_to(element(self.fields.y, let(at + layers * pixels)), 0.0)
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
