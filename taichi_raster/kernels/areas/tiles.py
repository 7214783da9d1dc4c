"""The pixels of one tile, on a CPU: who covers them, and how many faces each sees.

A thread goes through a tile's faces three times. First it finds the pixels of each row that a face
touches, and notes the nearest face that covers a pixel. Then it counts what is not behind that. The
third time, fragments are listed and measured (by_face.py). What the thread works on is in arrays of
its own, which LLVM keeps apart from all other memory, so that it works on several pixels at a time.
"""

# mypy: disable-error-code="no-untyped-def, valid-type"

from typing import Any

import taichi as ti
from taichi.lang import impl

from taichi_raster.kernels.areas.adjoints import Adjoints
from taichi_raster.kernels.areas.layout import AREA, LANES, SIDE, Arrays, Bounds, Face, Size, Span
from taichi_raster.maths.tracing import traced

PARTED = 256
"""How many pairs of faces a thread remembers that do not overlap."""

COMPARED = 128
"""The most faces of a tile that are all compared with one another, before any pixel is."""


@ti.data_oriented
class Tiles(Adjoints):
    """Passes over a tile's faces before anything is listed. `t` is the thread's `own` memory."""

    @traced
    def own(self, adjoint: Any) -> Arrays:
        """A thread's own arrays, all zero; for the adjoint kernel or for the other one.

        covered: the least w of the nearest face that covers a pixel, and `owners` its pair, or -1.
        counts: the fragments of each pixel; later where its list ends.
        spans: of rows that are worked on together.
        corner_x, corner_y: of the tile's first faces, counter-clockwise.
        meets: which faces may overlap one of them: bit k for faces k, k + 32, k + 64, ...
        present: so which faces each pixel has fragments of; unclear: not 0 if some of them may
            overlap; one, other: pairs whose faces do not overlap anywhere.
        area, x, y, shown: `Seen` and colours of fragments that are worked on together.
        given: their adjoints; to_x, to_y, to_w, to_shown: the sums of what they give.
        """
        channels = max(self.view.channels, 0)
        if adjoint:
            three = range(3)
            given = channels + 1 if self.view.channels >= 0 else 3
            return Arrays(
                spot=self.array(LANES, ti.i32),
                area=self.array(LANES, self.real),
                x=self.array(LANES, self.real),
                y=self.array(LANES, self.real),
                given=[self.array(LANES, self.real) for _ in range(given)],
                to_x=[self.array(LANES, self.real) for _ in three],
                to_y=[self.array(LANES, self.real) for _ in three],
                to_w=[self.array(LANES, self.real) for _ in three],
                to_shown=[[self.array(LANES, self.real) for _ in range(channels)] for _ in three],
            )
        return Arrays(
            covered=self.array(AREA, self.real),
            owners=self.array(AREA, ti.i32),
            counts=self.array(AREA, ti.i32),
            spans=self.array(LANES, ti.i32),
            corner_x=[self.array(COMPARED, self.real) for _ in range(3)],
            corner_y=[self.array(COMPARED, self.real) for _ in range(3)],
            meets=self.array(COMPARED, ti.i32),
            present=self.array(AREA, ti.i32),
            unclear=self.array(AREA, ti.i32),
            one=self.array(PARTED, ti.i32),
            other=self.array(PARTED, ti.i32),
            spot=self.array(LANES, ti.i32),
            area=self.array(LANES, self.real),
            x=self.array(LANES, self.real),
            y=self.array(LANES, self.real),
            shown=[
                self.array(LANES, self.real)
                for _ in range(channels if self.view.channels >= 0 else 3)
            ],
        )

    @traced
    def array(self, count: int, kind: Any) -> Any:
        zero = 0 if kind == ti.i32 else 0.0
        return impl.expr_init(impl.make_matrix([zero] * count, kind))

    @ti.func
    def bounds_of(self, m: ti.template(), pair):
        """(left, top, bottom) of a pair's `Bounds`."""
        bounds = m.bounds[pair]
        return (
            bounds & Bounds.MASK,
            (bounds >> Bounds.TOP) & Bounds.MASK,
            (bounds >> Bounds.BOTTOM) & Bounds.MASK,
        )

    @ti.func
    def cover(self, m: ti.template(), t: ti.template(), tile):
        """Write the spans of a tile's faces, and find who covers its pixels."""
        _b, x_first, x_last, y_first, y_last = self.box_of(m, tile)
        for cell in range(AREA):
            t.covered[cell] = -self.huge
            t.owners[cell] = -1
            t.counts[cell] = 0
            t.present[cell] = 0
            t.unclear[cell] = 0
        for pair in range(m.begins[tile], m.begins[tile + 1]):
            f = m.listed[pair]
            left = ti.max(m.boxes[4 * f], x_first) - x_first
            right = ti.min(m.boxes[4 * f + 1], x_last) - x_first
            top = ti.max(m.boxes[4 * f + 2], y_first) - y_first
            bottom = ti.min(m.boxes[4 * f + 3], y_last) - y_first
            bounds = left + (right << Bounds.RIGHT) + (top << Bounds.TOP)
            m.bounds[pair] = bounds + (bottom << Bounds.BOTTOM)
            rows = SIDE * pair + top
            x, y = self.centre(m, x_first + left, y_first + top)
            covers = self.spans(m, t, f, x, y, right - left, bottom - top, rows)
            if covers:
                w, spread = self.depth_at(m, f, x, y)
                low = m.faces[Face.SIZE * f + Face.W_MIN]
                slope = m.faces[Face.SIZE * f + Face.SLOPE_X]
                down = m.faces[Face.SIZE * f + Face.SLOPE_Y]
                for row in range(bottom - top):
                    span = m.rows[rows + row]
                    full = (span >> Span.FULL) & Span.MASK
                    empty = (span >> Span.EMPTY) & Span.MASK
                    cell = SIDE * (top + row) + left
                    here = w - down * ti.cast(row, self.real) - spread
                    for i in range(full, empty):
                        least = self.most(here + slope * ti.cast(i, self.real), low)
                        nearer = least > t.covered[cell + i]
                        t.covered[cell + i] = ti.select(nearer, least, t.covered[cell + i])
                        t.owners[cell + i] = ti.select(nearer, pair, t.owners[cell + i])

    @ti.func
    def spans(self, m: ti.template(), t: ti.template(), f, x, y, width, height, rows):
        """Write the `Span` of each row of a face, the first of which begins at (x, y).

        Returns whether the face covers a pixel.
        """
        edges, reach, _low, _high = self.outline(m, f)
        inverse = ti.Vector.zero(self.real, 3)
        for i in ti.static(range(3)):
            inverse[i] = 1 / self.not_zero(edges[i, 3])
        # A square within a triangle has at most half of its area.
        twice = edges[0, 2] * edges[1, 3] - edges[0, 3] * edges[1, 2]
        may_cover = ti.abs(twice) > 3.9 and m.faces[Face.SIZE * f + Face.CUT] == 0
        covers = 0
        for block in range((height + LANES - 1) // LANES):
            for lane in range(LANES):
                below = y - ti.cast(LANES * block + lane, self.real)
                t.spans[lane] = self.span(
                    edges, inverse, reach, x, below, ti.cast(width, self.real), may_cover
                )
            for lane in range(ti.min(LANES, height - LANES * block)):
                span = t.spans[lane]
                m.rows[rows + LANES * block + lane] = span
                full = (span >> Span.FULL) & Span.MASK
                empty = (span >> Span.EMPTY) & Span.MASK
                covers = ti.max(covers, empty - full)
        return covers > 0

    @ti.func
    def span(self, edges, inverse, reach, x, y, width, may_cover):
        """The `Span` of a row of `width` pixels, the first of them at (x, y).

        `inverse` is that of the edges' dy.
        """
        low, high = 0 * width, width
        full, empty = low, width
        for i in ti.static(range(3)):
            dy = edges[i, 3]
            value = edges[i, 2] * (y - edges[i, 1]) - dy * (x - edges[i, 0])
            outer, inner = value + reach[i], value - reach[i]
            touched, covered = outer * inverse[i], inner * inverse[i]
            level, falls = dy == 0, dy < 0
            # Whole numbers below, in a way that LLVM takes for several lanes on any processor.
            touched = self.least_of(self.most(touched, -1.0), width + 1)
            covered = self.least_of(self.most(covered, -1.0), width + 1)
            whole = ti.cast(ti.cast(touched, ti.i32), self.real)
            ceiling = ti.select(whole < touched, whole + 1, whole)
            after = ti.select(whole > touched, whole, whole + 1)
            end = ti.select(level, ti.select(outer <= 0, 0 * width, width), ceiling)
            high = ti.select(falls, high, self.least_of(high, end))
            low = ti.select(falls, self.most(low, after), low)
            whole = ti.cast(ti.cast(covered, ti.i32), self.real)
            ceiling = ti.select(whole < covered, whole + 1, whole)
            after = ti.select(whole > covered, whole, whole + 1)
            stop = ti.select(level, ti.select(inner < 0, 0 * width, width), after)
            empty = ti.select(falls, empty, self.least_of(empty, stop))
            full = ti.select(falls, self.most(full, ceiling), full)
        high = self.most(high, 0 * width)
        empty = ti.select(may_cover, self.most(empty, 0 * width), 0 * width)
        low, full = self.least_of(low, high), self.least_of(full, empty)
        return (
            ti.cast(low, ti.i32)
            + (ti.cast(high, ti.i32) << Span.LAST)
            + (ti.cast(full, ti.i32) << Span.FULL)
            + (ti.cast(empty, ti.i32) << Span.EMPTY)
        )

    @ti.func
    def centre(self, m: ti.template(), column, row):
        """(x, y) of a pixel's centre."""
        x = ti.cast(column, self.real) + 0.5
        return x, ti.cast(m.size[Size.HEIGHT] - row, self.real) - 0.5

    @ti.func
    def count(self, m: ti.template(), t: ti.template(), tile):
        """Count the fragments of each pixel of a tile."""
        _b, x_first, _x_last, y_first, _y_last = self.box_of(m, tile)
        for pair in range(m.begins[tile], m.begins[tile + 1]):
            f = m.listed[pair]
            left, top, bottom = self.bounds_of(m, pair)
            x, y = self.centre(m, x_first + left, y_first + top)
            w, spread = self.depth_at(m, f, x, y)
            w += spread
            high = m.faces[Face.SIZE * f + Face.W_MAX]
            slope = m.faces[Face.SIZE * f + Face.SLOPE_X]
            down = m.faces[Face.SIZE * f + Face.SLOPE_Y]
            for row in range(bottom - top):
                span = m.rows[SIDE * pair + top + row]
                cell = SIDE * (top + row) + left
                here = w - down * ti.cast(row, self.real)
                for i in range(span & Span.MASK, (span >> Span.LAST) & Span.MASK):
                    near = self.least_of(here + slope * ti.cast(i, self.real), high)
                    shows = near >= t.covered[cell + i]
                    t.counts[cell + i] = t.counts[cell + i] + ti.select(shows, 1, 0)

    @ti.func
    def claim(self, m: ti.template(), t: ti.template(), tile):
        """Turn counts into the beginnings of lists; returns whether there is room for them.

        A pixel whose only fragment is its owner's has no list. With a texture all are listed.
        """
        total, longest = 0, 0
        for cell in range(AREA):
            count = t.counts[cell]
            alone = count == 1 and t.owners[cell] >= 0
            if ti.static(self.view.channels < 0):
                alone = False
            t.owners[cell] = ti.select(alone, t.owners[cell], -1)
            count = ti.select(alone, 0, count)
            t.counts[cell] = count
            longest = ti.max(longest, count)
            total += count
        start = ti.atomic_add(m.tally[0], total)
        ti.atomic_max(m.tally[1], longest)
        end = start + total
        if start < 0 or end < 0:
            m.tally[2] = 1  # too many for 31 bits
        fits = start >= 0 and end >= 0 and end <= m.size[Size.ROOM]
        fits = fits and longest <= m.size[Size.LONGEST]
        m.starts[tile] = start
        for cell in range(AREA):
            count = t.counts[cell]
            t.counts[cell] = start
            start += count
        return fits
