"""The adjoint of `Composite`: the pixels' fragments are composed again, and swept back to front.

With weights w_i = a_i T_i and T_i the light that those in front let through, a fragment is worth
g_i = w_bar + sum_c s_bar_c c_i to the loss for each unit of weight. If R_i is what all behind it
come to, seen from just behind it, the adjoint of its coverage is T_i (g_i - R_i), and
R_{i-1} = a_i g_i + (1 - a_i) R_i. What lies behind a chunk follows from the sums of the forward
pass. Then a face's pixels are worked on together, as in `VJP`.
"""

from typing import Any

import taichi as ti

from taichi_raster.kernels.adjoints import Adjoints, FaceAdjoints
from taichi_raster.kernels.fragment import Face, Fragment, Meeting
from taichi_raster.kernels.front_to_back import FrontToBack, Pixels
from taichi_raster.kernels.memory import LANES
from taichi_raster.kernels.rows import (
    AREA,
    COVERAGE,
    DEPTH,
    NOWHERE,
    VALUE,
    WEIGHT,
    Row,
    Rows,
)
from taichi_raster.kernels.vjp import VJP
from taichi_raster.maths.dual import Number, raw
from taichi_raster.maths.tracing import element, let, set_to, traced
from taichi_raster.maths.variables import Lanes
from taichi_raster.runtime.layout import Dim, Limit


class Worth(Pixels):
    """What is known of the pixels of a tile.

    Attributes:
        behind: what all fragments still to come are worth to the loss.
        bars: the adjoints of the pixel's sums, plane by plane: with an array for each plane, LLVM
            would not vectorise the loops that read them.
    """

    def __init__(self, planes: int) -> None:
        super().__init__(0)
        self.behind, self.bars = Lanes(AREA), Lanes(planes * AREA)

    def bar(self, plane: int, lane: Any) -> Any:
        return self.bars.at(plane * AREA + lane).value


@ti.data_oriented
class CompositeVJP(FrontToBack, VJP):
    """The adjoint of all inputs; `y` has the sums, and `y.grad` their adjoints."""

    planes = (COVERAGE, DEPTH, WEIGHT, VALUE)  # at last `VALUE` has the adjoint of the coverage

    @traced
    def pixels_of_tile(self) -> Worth:
        return Worth(1 + self.channels)

    @traced
    def start(self, q: Any, lane: Any, pixels: Any) -> None:
        pixels.through.at(lane).set(1.0)
        worth = 0.0
        for plane in range(1 + self.channels):
            at = self.place(plane, q)
            bar = let(element(self.fields.y.grad, at))
            pixels.bars.at(plane * AREA + lane).set(bar)
            worth = worth + element(self.fields.y, at) * bar
        pixels.behind.at(lane).set(worth)

    @ti.func
    def value(self, b, first_row, first_column, begin, count, pixels, rows):
        for row in range(begin, count):
            face = self.face(b, self.fields.row_lists[rows.faces + row])
            first = self.fields.row_lists[rows.begins + row]
            last = self.fields.row_lists[rows.ends + row]
            found = self.values_of_row()
            for lane in range(first, last):
                m = self.meet_in_tile(face, first_row, first_column, lane)
                self.note_value(m, found, lane, pixels)
            for lane in range(first, last):
                self.put_value(found, row * AREA + lane, lane, rows)

    @traced
    def values_of_row(self) -> Row:
        return Row([VALUE])

    @traced
    def note_value(self, m: Meeting, found: Row, lane: Any, pixels: Worth) -> None:
        """What a fragment is worth to the loss, for each unit of its weight."""
        total = pixels.bar(0, lane)
        for c, colour in enumerate(self.colours(m, self.weigh(m).mixing)):
            total = total + raw(colour) * pixels.bar(1 + c, lane)
        found.lanes[VALUE].at(lane).set(total)

    @traced
    def put_value(self, found: Row, at: Any, lane: Any, rows: Rows) -> None:
        set_to(self.number(VALUE, at, rows), found.lanes[VALUE].at(lane).value)

    @ti.func
    def compose_pixel(self, lane, found, high, pixels, rows):
        through, worth, i = pixels.through.at(lane).value, pixels.behind.at(lane).value, 0
        while i < found and through > self.fields.limits[Limit.HIDDEN]:
            row = self.fields.row_lists[rows.fragments + i]
            cover = self.fields.rows[rows.planes[COVERAGE] + row * AREA + lane]
            worth -= through * cover * self.fields.rows[rows.planes[VALUE] + row * AREA + lane]
            self.fields.rows[rows.depths + i] = through
            self.fields.row_lists[rows.seen + row] = 1
            through *= 1.0 - cover
            i += 1
        pixels.through.at(lane).set(through)
        pixels.behind.at(lane).set(worth)
        behind = 0.0
        if through > self.fields.limits[Limit.HIDDEN] and high < NOWHERE:
            behind = worth / through
        while i > 0:
            i -= 1
            at = self.fields.row_lists[rows.fragments + i] * AREA + lane
            before = self.fields.rows[rows.depths + i]
            cover = self.fields.rows[rows.planes[COVERAGE] + at]
            value = self.fields.rows[rows.planes[VALUE] + at]
            self.fields.rows[rows.planes[WEIGHT] + at] = before * cover
            self.fields.rows[rows.planes[VALUE] + at] = before * (value - behind)
            behind += cover * (value - behind)

    @ti.func
    def use(self, b, first_row, first_column, count, run, base, pixels, rows):
        for row in range(count):
            if self.fields.row_lists[rows.seen + row] != 0:
                face = self.face(b, self.fields.row_lists[rows.faces + row])
                sums = self.face_sums(face, run)
                begin = self.fields.row_lists[rows.begins + row]
                end = self.fields.row_lists[rows.ends + row]
                for block in range(begin // LANES, (end + LANES - 1) // LANES):
                    first = block * LANES
                    where = (first_row, first_column, first, row * AREA + first, pixels, rows)
                    self.vjp_lanes(
                        face, ti.max(begin - first, 0), ti.min(end - first, LANES), where, sums
                    )
                for lane in range(1, LANES):
                    sums.fold(lane)
                self.spill(sums, base)

    @traced
    def meet_lane(self, face: Face, lane: Any, where: tuple[Any, ...]) -> tuple[Meeting, Any, Any]:
        first_row, first_column, first, at, pixels, rows = where
        m = self.meet_in_tile(face, first_row, first_column, first + lane)
        self.weight = let(self.number(WEIGHT, at + lane, rows))
        self.cover_bar = let(self.number(VALUE, at + lane, rows))
        self.bars = [pixels.bar(1 + c, first + lane) for c in range(self.channels)]
        seen = let(self.weight > 0.0)
        return m, seen, seen

    @traced
    def takes_part(self, f: Fragment, in_image: Any) -> Any:
        return in_image

    @traced
    def vjp_fragment(self, m: Meeting, f: Fragment, adjoints: Adjoints) -> None:
        f_bar = Number(self.cover_bar)
        bars = [Number(self.weight * bar) for bar in self.bars]
        k_bar = None if f.edge.f_k is None else f.edge.f_k * f_bar
        d_bar = self.vjp_edge(f, f.edge.f_u * f_bar, k_bar, adjoints)
        mixing_bar = self.sampler.vjp(self, m, f.mixing, bars, adjoints)
        self.vjp_surface(m, f, d_bar, *self.vjp_mixing(m, f, mixing_bar, 0.0), adjoints)

    @traced
    def spill(self, sums: FaceAdjoints, base: Any) -> None:
        """Add a face's adjoints to those of the run, which no other thread adds to."""
        for (part, offset), lanes in sums.sums.items():
            if part in sums.starts:
                sums.share(sums.starts[part] + offset, lanes.at(0).value)
            else:
                at = let(sums.face.at * sums.sizes[part] + offset)
                place = element(self.fields.strips, let(base + self.dim(Dim.PARTS + part) + at))
                set_to(place, place + lanes.at(0).value)
