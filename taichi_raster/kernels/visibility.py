"""The part of each face that each pixel sees, exactly: its area and centroid, and their adjoints.

Within a pixel, the part of a face that is seen is a convex polygon (the face, cut by the pixel)
less the convex polygons of the faces in front of it. What is left is a few convex pieces. Where two
faces pass through each other, each hides the other on its side of the line where their depths are
equal. So there is no sorting, and no sampling.

The derivative is the boundary integral (Reynolds' transport theorem): where an edge moves outwards
by v, the integral of a function over the part grows by that of the function times v along the edge.
Each edge of a piece lies on a line that is known by its label, so that its motion is known. It does
not matter where pieces were cut apart: the two sides cancel. Li et al. (SIGGRAPH Asia 2018) sample
this integral; here it is in closed form.
"""

# mypy: disable-error-code="no-untyped-def, valid-type"

import taichi as ti

from taichi_raster.kernels.footprints import FLOATS, INTS, Face, Footprints, Pair, Size
from taichi_raster.kernels.polygons import BORDER, CORNERS, RECORD, At, copy, halve, moments, put, split

LABELS = 8
"""Labels of a face: `LABELS` times its place in the pixel's list, plus 0 to 2 for its edges, or:"""

CLIPPED = 3  # where it leaves [near, far]
EQUAL = 4  # where its depth is that of the face whose piece this is

LOCAL = 10
"""Corners of a face within a pixel: at most 3, and one more for each of six cuts."""

SPARE = 3
"""Records of a worker for intermediate results, behind those of its faces and pieces."""


class Seen:
    """What is kept of a fragment."""

    AREA = 0
    X = 1  # integrals of x and y over the part that is seen, relative to the pixel's centre
    Y = 2
    HIDING = 3  # how many fragments hide some of it
    SIZE = 4


@ti.data_oriented
class Visibility(Footprints):
    """Kernels over pixels; each thread ("worker") has memory of its own."""

    @ti.kernel
    def see_tiles(
        self,
        faces: FLOATS,
        boxes: INTS,
        begins: INTS,
        listed: INTS,
        covered: FLOATS,
        starts: INTS,
        firsts: INTS,
        ends: INTS,
        slots: INTS,
        limits: FLOATS,
        memory: FLOATS,
        order: INTS,
        seen: FLOATS,
        attributes: FLOATS,
        found: FLOATS,
        size: INTS,
    ):
        """List each pixel's fragments, and find what it sees of them; on a CPU.

        Turns `ends` from counts into the ends of the lists. Writes `Seen` of each fragment. `found`
        is the picture: C channels without a background, and alpha; or, without channels, what each
        of a fragment's corners has a share in: the area that is seen, times the corner's
        (perspective-correct) barycentric coordinate at its centroid.
        """
        for slot in range(size[Size.WORKERS] * self.spread):
            if slot & (self.spread - 1) == 0:
                worker = slot // self.spread
                for tile in range(self.first_of(worker, size), self.first_of(worker + 1, size)):
                    self.begin(ends, firsts, starts, size, tile)
                    self.visit(faces, boxes, begins, listed, covered, ends, slots, size, tile, 2)
                    b, left, right, top, bottom = self.box_of(tile, size)
                    for row in range(top, bottom):
                        for column in range(left, right):
                            self.see(
                                faces, listed, firsts, ends, slots, limits, memory, order, seen,
                                attributes, found, found, found, size, b, row, column, worker, False
                            )  # fmt: skip

    @ti.kernel
    def see_pixels(
        self,
        faces: FLOATS,
        boxes: INTS,
        begins: INTS,
        listed: INTS,
        covered: FLOATS,
        firsts: INTS,
        ends: INTS,
        slots: INTS,
        limits: FLOATS,
        memory: FLOATS,
        order: INTS,
        seen: FLOATS,
        attributes: FLOATS,
        found: FLOATS,
        size: INTS,
    ):
        """`see_tiles` pixel by pixel, for a GPU. `firsts` has where the pixels' lists begin.

        `ends` begins as a copy of that.
        """
        for worker in range(size[Size.WORKERS]):
            p = worker
            while p < size[Size.BATCH] * size[Size.HEIGHT] * size[Size.WIDTH]:
                self.meet(faces, boxes, begins, listed, covered, ends, slots, size, p, 2)
                row, column, tile = self.pixel_at(p, size)
                self.see(
                    faces, listed, firsts, ends, slots, limits, memory, order, seen, attributes,
                    found, found, found, size, tile // size[Size.TILES], row, column, worker, False
                )  # fmt: skip
                p += size[Size.WORKERS]

    @ti.kernel
    def see_pixels_vjp(
        self,
        faces: FLOATS,
        listed: INTS,
        firsts: INTS,
        ends: INTS,
        slots: INTS,
        limits: FLOATS,
        memory: FLOATS,
        order: INTS,
        seen: FLOATS,
        attributes: FLOATS,
        adjoints: FLOATS,
        pairs: FLOATS,
        colours: FLOATS,
        size: INTS,
    ):
        """`see_tiles_vjp` pixel by pixel, for a GPU."""
        for worker in range(size[Size.WORKERS]):
            p = worker
            while p < size[Size.BATCH] * size[Size.HEIGHT] * size[Size.WIDTH]:
                row, column, tile = self.pixel_at(p, size)
                self.see(
                    faces, listed, firsts, ends, slots, limits, memory, order, seen, attributes,
                    adjoints, pairs, colours, size, tile // size[Size.TILES], row, column, worker,
                    True
                )  # fmt: skip
                p += size[Size.WORKERS]

    @ti.kernel
    def see_tiles_vjp(
        self,
        faces: FLOATS,
        listed: INTS,
        firsts: INTS,
        ends: INTS,
        slots: INTS,
        limits: FLOATS,
        memory: FLOATS,
        order: INTS,
        seen: FLOATS,
        attributes: FLOATS,
        adjoints: FLOATS,
        pairs: FLOATS,
        colours: FLOATS,
        size: INTS,
    ):
        """Add to each (tile, face) what the adjoints of `found` give, a tile after the other.

        `pairs` has its `Pair`, `colours` the adjoints of its attributes.
        """
        for slot in range(size[Size.WORKERS] * self.spread):
            if slot & (self.spread - 1) == 0:
                worker = slot // self.spread
                for tile in range(self.first_of(worker, size), self.first_of(worker + 1, size)):
                    b, left, right, top, bottom = self.box_of(tile, size)
                    for row in range(top, bottom):
                        for column in range(left, right):
                            self.see(
                                faces, listed, firsts, ends, slots, limits, memory, order, seen,
                                attributes, adjoints, pairs, colours, size, b, row, column, worker,
                                True
                            )  # fmt: skip

    @ti.kernel
    def gather(
        self,
        faces: FLOATS,
        boxes: INTS,
        begins: INTS,
        listed: INTS,
        pairs: FLOATS,
        colours: FLOATS,
        to_vertices: FLOATS,
        to_attributes: FLOATS,
        size: INTS,
    ):
        """Sum up each face's pairs, in the order of its tiles, and return to NDC and z."""
        for f in range(size[Size.BATCH] * size[Size.FACES]):
            side = size[Size.TILE]
            base = f // size[Size.FACES] * size[Size.TILES]
            left, right = boxes[4 * f] // side, (boxes[4 * f + 1] - 1) // side + 1
            top, bottom = boxes[4 * f + 2] // side, (boxes[4 * f + 3] - 1) // side + 1
            if boxes[4 * f] >= boxes[4 * f + 1] or boxes[4 * f + 2] >= boxes[4 * f + 3]:
                bottom = top
            total = ti.Vector.zero(self.real, Pair.SIZE)
            of_colours = ti.Vector.zero(self.real, max(self.values, 1))
            for row in range(top, bottom):
                for column in range(left, right):
                    tile = base + row * size[Size.TILES_X] + column
                    low, high = begins[tile], begins[tile + 1] - 1
                    while low < high:  # the lists are in the order of the faces
                        middle = (low + high) // 2
                        if listed[middle] < f:
                            low = middle + 1
                        else:
                            high = middle
                    for i in ti.static(range(Pair.SIZE)):
                        total[i] += pairs[Pair.SIZE * low + i]
                    for i in ti.static(range(self.values)):
                        of_colours[i] += colours[3 * self.view.channels * low + i]
            half = 0.5 * ti.cast(ti.min(size[Size.HEIGHT], size[Size.WIDTH]), self.real)
            for i in ti.static(range(3)):
                w = faces[Face.SIZE * f + Face.W + i]
                slope = -(w * w)
                if ti.static(self.view.orthographic):
                    slope = -1 + 0 * w
                to_vertices[9 * f + 3 * i] = half * total[2 * i]
                to_vertices[9 * f + 3 * i + 1] = half * total[2 * i + 1]
                to_vertices[9 * f + 3 * i + 2] = slope * total[Pair.W + i]
            for i in ti.static(range(self.values)):
                to_attributes[3 * self.view.channels * f + i] = of_colours[i]

    @ti.func
    def see(
        self,
        faces: ti.template(),
        listed: ti.template(),
        firsts: ti.template(),
        ends: ti.template(),
        slots: ti.template(),
        limits: ti.template(),
        memory: ti.template(),
        order: ti.template(),
        seen: ti.template(),
        attributes: ti.template(),
        found: ti.template(),
        pairs: ti.template(),
        colours: ti.template(),
        size: ti.template(),
        b,
        row,
        column,
        worker,
        adjoint: ti.template(),
    ):
        """One pixel. Where `adjoint`, `found` holds the adjoints, otherwise it is written."""
        p = (b * size[Size.HEIGHT] + row) * size[Size.WIDTH] + column
        begin, end = firsts[p], ends[p]
        x = ti.cast(column, self.real) + 0.5
        y = ti.cast(size[Size.HEIGHT] - row, self.real) - 0.5
        zero = 0 * x
        count = end - begin
        base = worker * RECORD * (size[Size.LONGEST] + size[Size.PIECES] + SPARE)
        places = worker * 2 * size[Size.LONGEST]
        alone = False
        if count == 1:
            alone = slots[begin] < 0
        colour = ti.Vector.zero(self.real, self.view.channels + 1)
        if alone:
            if ti.static(adjoint):
                self.inner(
                    faces, listed, slots, attributes, found, pairs, colours, p, begin,
                    zero + 1, zero, zero, x, y
                )  # fmt: skip
            else:
                self.keep(seen, begin, zero + 1, zero, zero, 0)
                self.show(faces, listed, slots, attributes, found, colour, begin, zero + 1, x, y)
        elif count > 0:
            if ti.static(adjoint):
                self.pass_all(
                    faces, listed, slots, limits, memory, order, seen, attributes, found, pairs,
                    colours, size, p, begin, end, base, places, x, y
                )  # fmt: skip
            else:
                self.look(
                    faces, listed, slots, limits, memory, order, seen, size, begin, end, base,
                    places, x, y
                )  # fmt: skip
                for at in range(begin, end):
                    area = seen[Seen.SIZE * at + Seen.AREA]
                    if area > 0:
                        u = x + seen[Seen.SIZE * at + Seen.X] / area
                        v = y + seen[Seen.SIZE * at + Seen.Y] / area
                        self.show(
                            faces, listed, slots, attributes, found, colour, at, area, u, v
                        )
                    elif ti.static(self.view.channels < 0):
                        for i in ti.static(range(3)):
                            found[3 * at + i] = 0
        if ti.static(not adjoint and self.view.channels >= 0):
            for c in ti.static(range(self.view.channels + 1)):
                found[(self.view.channels + 1) * p + c] = colour[c]

    @ti.func
    def keep(self, seen: ti.template(), at, area, x_sum, y_sum, hiding):
        seen[Seen.SIZE * at + Seen.AREA] = area
        seen[Seen.SIZE * at + Seen.X] = x_sum
        seen[Seen.SIZE * at + Seen.Y] = y_sum
        seen[Seen.SIZE * at + Seen.HIDING] = hiding

    @ti.func
    def show(
        self,
        faces: ti.template(),
        listed: ti.template(),
        slots: ti.template(),
        attributes: ti.template(),
        found: ti.template(),
        colour: ti.template(),
        at,
        area,
        x,
        y,
    ):
        """Add a fragment to its pixel's colour, or write what its corners have a share in."""
        f = self.face_of(listed, slots, at)
        share = area * self.mixing(faces, f, x, y)
        if ti.static(self.view.channels < 0):
            for i in ti.static(range(3)):
                found[3 * at + i] = share[i]
        else:
            corner = 3 * self.view.channels * f
            for c in ti.static(range(self.view.channels)):
                for i in ti.static(range(3)):
                    colour[c] += share[i] * attributes[corner + i * self.view.channels + c]
            colour[self.view.channels] += area

    @ti.func
    def look(
        self,
        faces: ti.template(),
        listed: ti.template(),
        slots: ti.template(),
        limits: ti.template(),
        memory: ti.template(),
        order: ti.template(),
        seen: ti.template(),
        size: ti.template(),
        begin,
        end,
        base,
        places,
        x,
        y,
    ):
        """Find what is seen of each of a pixel's fragments.

        As long as none overlaps another, all of each is seen, until they fill the pixel and what
        follows is behind them. Where some overlap, each is cut by those in front of it.
        """
        count = end - begin
        self.sort(faces, listed, slots, memory, order, begin, count, base, places, True, x, y)
        full = 1 - 10 * self.tiny
        total, lowest = 0 * x, self.huge + 0 * x
        overlap, o = False, 0
        while o < count and not overlap:
            k = order[places + o]
            record = base + RECORD * k
            if total >= full and memory[record + At.LIMIT] < lowest:
                break
            f = self.face_of(listed, slots, begin + k)
            overlap = faces[Face.SIZE * f + Face.CUT] > 0
            self.measure(faces, memory, f, record, x, y)
            area = memory[record + At.AREA]
            if area > self.tiny:
                for before in range(o):
                    if not overlap:
                        other = base + RECORD * order[places + before]
                        overlap = self.boxes_meet(memory, record, other)
                        if overlap:
                            overlap = not self.parted(memory, other, record)
                        if overlap:
                            overlap = not self.parted(memory, record, other)
                total += area
                lowest = ti.min(lowest, memory[record + At.W_MIN])
            self.keep(seen, begin + k, area, memory[record + At.X], memory[record + At.Y], 0)
            o += 1
        if overlap:
            o = 0
            total, lowest = 0 * x, self.huge + 0 * x
            while o < count:
                k = order[places + o]
                record = base + RECORD * k
                if total >= full and memory[record + At.LIMIT] < lowest:
                    break
                self.place(faces, listed, slots, limits, memory, begin, k, base, x, y)
                area, x_sum, y_sum = memory[record + At.AREA], 0 * x, 0 * x
                hiding = 0
                if area > self.tiny:
                    hiding = self.hidden_by(
                        faces, listed, slots, limits, memory, order, size, begin, count, k, base,
                        places, x, y
                    )  # fmt: skip
                    if hiding == 0:
                        x_sum, y_sum = memory[record + At.X], memory[record + At.Y]
                    else:
                        area, x_sum, y_sum = self.pieces(
                            faces, listed, slots, limits, memory, order, seen, size, begin, hiding,
                            k, base, places, x, y, x_sum, x_sum, x_sum, False
                        )  # fmt: skip
                    total += area
                    if area > 0:
                        lowest = ti.min(lowest, memory[record + At.W_MIN])
                self.keep(seen, begin + k, area, x_sum, y_sum, hiding)
                o += 1
        while o < count:
            self.keep(seen, begin + order[places + o], 0 * x, 0 * x, 0 * x, 0)
            o += 1

    @ti.func
    def pass_all(
        self,
        faces: ti.template(),
        listed: ti.template(),
        slots: ti.template(),
        limits: ti.template(),
        memory: ti.template(),
        order: ti.template(),
        seen: ti.template(),
        attributes: ti.template(),
        adjoints: ti.template(),
        pairs: ti.template(),
        colours: ti.template(),
        size: ti.template(),
        p,
        begin,
        end,
        base,
        places,
        x,
        y,
    ):
        """Pass on the adjoints of a pixel with several fragments, or with edges."""
        count = end - begin
        some_hidden = False
        for at in range(begin, end):
            some_hidden = some_hidden or seen[Seen.SIZE * at + Seen.HIDING] > 0
        self.sort(
            faces, listed, slots, memory, order, begin, count, base, places, some_hidden, x, y
        )
        for k in range(count):
            at = begin + k
            area = seen[Seen.SIZE * at + Seen.AREA]
            if area > 0:
                u, v = seen[Seen.SIZE * at + Seen.X] / area, seen[Seen.SIZE * at + Seen.Y] / area
                mean, slope_x, slope_y = self.inner(
                    faces, listed, slots, attributes, adjoints, pairs, colours, p, at, area, u, v,
                    x, y
                )  # fmt: skip
                if mean != 0 or slope_x != 0 or slope_y != 0:
                    constant = mean - slope_x * u - slope_y * v
                    f = self.face_of(listed, slots, at)
                    hidden = seen[Seen.SIZE * at + Seen.HIDING] > 0
                    if not hidden and faces[Face.SIZE * f + Face.CUT] == 0:
                        pair = slots[at]
                        self.pass_edges(
                            faces, pairs, f, ti.select(pair < 0, -1 - pair, pair), x, y,
                            constant, slope_x, slope_y
                        )  # fmt: skip
                    elif hidden:
                        self.place(faces, listed, slots, limits, memory, begin, k, base, x, y)
                        hiding = self.hidden_by(
                            faces, listed, slots, limits, memory, order, size, begin, count, k,
                            base, places, x, y
                        )  # fmt: skip
                        _area, _x_sum, _y_sum = self.pieces(
                            faces, listed, slots, limits, memory, order, pairs, size, begin,
                            hiding, k, base, places, x, y, constant, slope_x, slope_y, True
                        )  # fmt: skip
                    else:
                        self.place(faces, listed, slots, limits, memory, begin, k, base, x, y)
                        self.pass_on(
                            faces, listed, slots, memory, pairs, begin, base + RECORD * k, f, k,
                            x, y, constant, slope_x, slope_y
                        )  # fmt: skip

    # --- a pixel's fragments ----------------------------------------------------------------------

    @ti.func
    def sort(
        self,
        faces: ti.template(),
        listed: ti.template(),
        slots: ti.template(),
        memory: ti.template(),
        order: ti.template(),
        begin,
        count,
        base,
        places,
        needed,
        x,
        y,
    ):
        """Order fragments by the most that w can be in the pixel, if `needed`; none is placed yet."""
        for k in range(count):
            record = base + RECORD * k
            memory[record + At.COUNT] = -1
            o = k
            if needed:
                f = self.face_of(listed, slots, begin + k)
                w, spread = self.depth_at(faces, f, x, y)
                limit = ti.min(w + spread, faces[Face.SIZE * f + Face.W_MAX])
                memory[record + At.LIMIT] = limit
                # Nearest first; of equals the one that is listed first.
                while o > 0:
                    before = order[places + o - 1]
                    if memory[base + RECORD * before + At.LIMIT] >= limit:
                        break
                    order[places + o] = before
                    o -= 1
            order[places + o] = k

    @ti.func
    def measure(self, faces: ti.template(), memory: ti.template(), f, record, x, y):
        """Measure a face within a pixel without cutting it: by Green's theorem, edge by edge.

        The area within the pixel is the integral of x dy along the face's edges, with x and y
        clamped to the pixel. Only for faces within [near, far].
        """
        at = Face.SIZE * f
        half = 0.5 + 0 * x
        xs = ti.Vector([faces[at] - x, faces[at + 2] - x, faces[at + 4] - x])
        ys = ti.Vector([faces[at + 1] - y, faces[at + 3] - y, faces[at + 5] - y])
        area, x_sum, y_sum = 0 * x, 0 * x, 0 * x
        for i in ti.static(range(3)):
            j = ti.static((i + 1) % 3)
            low, first, last, high = self.within(xs[i], ys[i], xs[j], ys[j])
            dx, dy = xs[j] - xs[i], ys[j] - ys[i]
            x0 = self.clamp(xs[i] + low * dx)
            xa, xb = self.clamp(xs[i] + first * dx), self.clamp(xs[i] + last * dx)
            x1 = self.clamp(xs[i] + high * dx)
            y0, y1 = self.clamp(ys[i] + low * dy), self.clamp(ys[i] + high * dy)
            ya, yb = self.clamp(ys[i] + first * dy), self.clamp(ys[i] + last * dy)
            area += x0 * (ya - y0) + 0.5 * (xa + xb) * (yb - ya) + x1 * (y1 - yb)
            x_sum += 0.5 * x0 * x0 * (ya - y0) + 0.5 * x1 * x1 * (y1 - yb)
            x_sum += (xa * xa + xa * xb + xb * xb) * (yb - ya) / 6
            y_sum += 0.5 * x0 * (ya * ya - y0 * y0) + 0.5 * x1 * (y1 * y1 - yb * yb)
            y_sum += (yb - ya) * (xa * (2 * ya + yb) + xb * (ya + 2 * yb)) / 6
        sign = faces[at + Face.SIGN]
        memory[record + At.AREA] = sign * area
        memory[record + At.X] = sign * x_sum
        memory[record + At.Y] = sign * y_sum
        turned = sign < 0
        for i in ti.static(range(3)):
            memory[record + At.TRIANGLE + 2 * i] = ti.select(turned, xs[(3 - i) % 3], xs[i])
            memory[record + At.TRIANGLE + 2 * i + 1] = ti.select(turned, ys[(3 - i) % 3], ys[i])
        memory[record + At.LEFT] = ti.max(xs.min(), -half)
        memory[record + At.RIGHT] = ti.min(xs.max(), half)
        memory[record + At.BOTTOM] = ti.max(ys.min(), -half)
        memory[record + At.TOP] = ti.min(ys.max(), half)
        w, spread = self.depth_at(faces, f, x, y)
        memory[record + At.W_MIN] = ti.max(w - spread, faces[at + Face.W_MIN])

    @ti.func
    def clamp(self, value):
        return ti.min(ti.max(value, -0.5), 0.5)

    @ti.func
    def within(self, x0, y0, x1, y1):
        """Where a segment is within the pixel's rows, and, between those, within the pixel.

        Four parameters in [0, 1], 0 at the start, in this order: enters the rows, enters the pixel,
        leaves the pixel, leaves the rows. The first two are equal to the last two if it does not.
        """
        dx, dy = x1 - x0, y1 - y0
        dx = ti.select(ti.abs(dx) < self.least, self.least, dx)
        dy = ti.select(ti.abs(dy) < self.least, self.least, dy)
        upward, across = 1 / dy, 1 / dx
        a, b = (-0.5 - y0) * upward, (0.5 - y0) * upward
        low = ti.min(ti.max(ti.min(a, b), 0), 1)
        high = ti.max(ti.min(ti.max(a, b), 1), low)
        c, d = (-0.5 - x0) * across, (0.5 - x0) * across
        first = ti.min(ti.max(ti.min(c, d), low), high)
        last = ti.min(ti.max(ti.max(c, d), first), high)
        return low, first, last, high

    @ti.func
    def place(
        self,
        faces: ti.template(),
        listed: ti.template(),
        slots: ti.template(),
        limits: ti.template(),
        memory: ti.template(),
        begin,
        k,
        base,
        x,
        y,
    ):
        """Cut fragment `k` by the pixel and by [near, far], and measure it, unless that is done."""
        record = base + RECORD * k
        if memory[record + At.COUNT] < 0:
            pair = slots[begin + k]
            covers = pair < 0
            f = listed[ti.select(covers, -1 - pair, pair)]
            at = Face.SIZE * f
            half = 0.5 + 0 * x
            # Corners in local memory, twice: cutting goes from one half to the other.
            xs = ti.Vector.zero(self.real, 2 * LOCAL)
            ys = ti.Vector.zero(self.real, 2 * LOCAL)
            labels = ti.Vector.zero(ti.i32, 2 * LOCAL)
            n, source = 0, 0
            if covers:
                n = 4
                for i in ti.static(range(4)):
                    xs[i] = half * ti.static((-1, 1, 1, -1)[i])
                    ys[i] = half * ti.static((-1, -1, 1, 1)[i])
                    labels[i] = BORDER
                for i in ti.static(range(3)):
                    memory[record + At.TRIANGLE + 2 * i] = (ti.static((-3, 3, 0)[i])) * half
                    memory[record + At.TRIANGLE + 2 * i + 1] = (ti.static((-3, -3, 6)[i])) * half
            else:
                n = 3
                turned = faces[at + Face.SIGN] < 0
                for i in ti.static(range(3)):
                    corner = ti.select(turned, (3 - i) % 3, i)
                    xs[i] = faces[at + 2 * corner] - x
                    ys[i] = faces[at + 2 * corner + 1] - y
                    labels[i] = LABELS * k + ti.select(turned, 2 - i, i)
                    memory[record + At.TRIANGLE + 2 * i] = xs[i]
                    memory[record + At.TRIANGLE + 2 * i + 1] = ys[i]
                beyond = ti.Vector(
                    [
                        ti.min(xs[0], xs[1], xs[2]) < -half,
                        ti.max(xs[0], xs[1], xs[2]) > half,
                        ti.min(ys[0], ys[1], ys[2]) < -half,
                        ti.max(ys[0], ys[1], ys[2]) > half,
                    ]
                )
                for side in range(ti.select(faces[at + Face.CUT] > 0, 6, 4)):
                    a, b, c = 0 * x, 0 * x, half
                    needed = True
                    label = BORDER
                    if side < 4:
                        needed = beyond[side] != 0
                        a = ti.select(side == 0, 1, ti.select(side == 1, -1, 0)) + a
                        b = ti.select(side == 2, 1, ti.select(side == 3, -1, 0)) + b
                    else:
                        a, b, c = self.clip_line(faces, limits, f, side == 4, x, y)
                        label = LABELS * k + CLIPPED
                    if needed and n > 0:
                        target = LOCAL - source
                        m = target
                        u, v, l = xs[source], ys[source], labels[source]  # noqa: E741
                        d = a * u + b * v + c
                        for i in range(n):
                            following = source + ti.select(i + 1 < n, i + 1, 0)
                            u_next, v_next = xs[following], ys[following]
                            l_next = labels[following]
                            d_next = a * u_next + b * v_next + c
                            if d > 0:
                                xs[m], ys[m], labels[m] = u, v, l
                                m += 1
                            if (d > 0) != (d_next > 0):
                                t = d / (d - d_next)
                                xs[m] = u + t * (u_next - u)
                                ys[m] = v + t * (v_next - v)
                                labels[m] = ti.select(d > 0, label, l)
                                m += 1
                            u, v, l, d = u_next, v_next, l_next, d_next  # noqa: E741
                        n = m - target
                        source = target
            slope_x, slope_y = faces[at + Face.SLOPE_X], faces[at + Face.SLOPE_Y]
            w0 = self.w_at(faces, f, x, y)
            w_min, w_max = self.huge + 0 * x, -self.huge + 0 * x
            left, right, lower, upper = half, -half, half, -half
            area, x_sum, y_sum = 0 * x, 0 * x, 0 * x
            if n > 2:
                u, v = xs[source + n - 1], ys[source + n - 1]
                for i in range(n):
                    u_next, v_next = xs[source + i], ys[source + i]
                    cross = u * v_next - u_next * v
                    area += cross
                    x_sum += cross * (u + u_next)
                    y_sum += cross * (v + v_next)
                    u, v = u_next, v_next
                    w = slope_x * u + slope_y * v
                    w_min, w_max = ti.min(w_min, w), ti.max(w_max, w)
                    left, right = ti.min(left, u), ti.max(right, u)
                    lower, upper = ti.min(lower, v), ti.max(upper, v)
                    put(memory, record, i, u, v, labels[source + i])
            memory[record + At.COUNT] = n
            memory[record + At.AREA] = 0.5 * area
            memory[record + At.X] = x_sum / 6
            memory[record + At.Y] = y_sum / 6
            low, high = faces[at + Face.W_MIN], faces[at + Face.W_MAX]
            memory[record + At.W_MIN] = ti.min(ti.max(w0 + w_min, low), high)
            memory[record + At.W_MAX] = ti.max(ti.min(w0 + w_max, high), low)
            memory[record + At.LEFT] = left
            memory[record + At.RIGHT] = right
            memory[record + At.BOTTOM] = lower
            memory[record + At.TOP] = upper

    @ti.func
    def clip_line(self, faces: ti.template(), limits: ti.template(), f, near, x, y):
        """The line where a face reaches near, or far; positive within the range."""
        at = Face.SIZE * f
        sign = ti.select(near, -1, 1)
        limit = limits[ti.select(near, 0, 1)]
        value = -limit if ti.static(self.view.orthographic) else 1 / limit
        w0 = self.w_at(faces, f, x, y) - faces[at + Face.ORDER]
        return (
            sign * faces[at + Face.SLOPE_X],
            sign * faces[at + Face.SLOPE_Y],
            sign * (w0 - value),
        )

    @ti.func
    def w_at(self, faces: ti.template(), f, x, y):
        """w with `ORDER` at a point."""
        at = Face.SIZE * f
        w = faces[at + Face.W] + faces[at + Face.ORDER]
        return (
            w
            + faces[at + Face.SLOPE_X] * (x - faces[at])
            + faces[at + Face.SLOPE_Y] * (y - faces[at + 1])
        )

    @ti.func
    def edge_line(self, faces: ti.template(), f, edge, x, y):
        """The line of a face's edge; positive inside."""
        at = Face.SIZE * f
        start = at + 2 * edge
        end = at + 2 * ti.select(edge == 2, 0, edge + 1)
        sign = faces[at + Face.SIGN]
        x0, y0 = faces[start] - x, faces[start + 1] - y
        dx, dy = sign * (faces[end] - faces[start]), sign * (faces[end + 1] - faces[start + 1])
        return -dy, dx, dy * x0 - dx * y0

    @ti.func
    def line(
        self,
        faces: ti.template(),
        limits: ti.template(),
        f,
        other,
        which,
        x,
        y,
    ):
        """A line of the polygon in which face `f` hides face `other`; positive inside.

        0 to 2: an edge; 3: where it is in front of the other; 4 and 5: where it reaches near, far.
        """
        a, b, c = 0 * x, 0 * x, 0 * x
        if which < 3:
            a, b, c = self.edge_line(faces, f, which, x, y)
        elif which == 3:
            a, b, c = self.in_front(faces, f, other, x, y)
        else:
            a, b, c = self.clip_line(faces, limits, f, which == 4, x, y)
        return a, b, c

    @ti.func
    def in_front(self, faces: ti.template(), f, other, x, y):
        """By how much face `f` is in front of another, as a line."""
        at, beside = Face.SIZE * f, Face.SIZE * other
        return (
            faces[at + Face.SLOPE_X] - faces[beside + Face.SLOPE_X],
            faces[at + Face.SLOPE_Y] - faces[beside + Face.SLOPE_Y],
            self.w_at(faces, f, x, y) - self.w_at(faces, other, x, y),
        )

    # --- what hides a fragment --------------------------------------------------------------------

    @ti.func
    def pieces(
        self,
        faces: ti.template(),
        listed: ti.template(),
        slots: ti.template(),
        limits: ti.template(),
        memory: ti.template(),
        order: ti.template(),
        pairs: ti.template(),
        size: ti.template(),
        begin,
        hiding,
        k,
        base,
        places,
        x,
        y,
        a_in,
        b_in,
        c_in,
        adjoint: ti.template(),
    ):
        """Sum up the pieces of fragment `k`, which `hiding` others hide some of: their moments.

        Where `adjoint`, each piece's edges pass on the adjoint of the integral of
        a_in + b_in x + c_in y.
        """
        longest = size[Size.LONGEST]
        stack = base + RECORD * longest
        room = size[Size.PIECES]
        current = base + RECORD * (longest + room)
        record = base + RECORD * k
        f = self.face_of(listed, slots, begin + k)
        area, x_sum, y_sum = 0 * x, 0 * x, 0 * x
        copy(memory, record, stack)
        memory[stack + At.NEXT] = 0
        top = 1
        while top > 0:
            top -= 1
            copy(memory, stack + RECORD * top, current)
            following = ti.cast(memory[current + At.NEXT], ti.i32)
            here = True
            if memory[current] > CORNERS - 6 and top < room:
                halve(memory, current, stack + RECORD * top)
                top += 1
            while here and following < hiding:
                packed = order[places + longest + following]
                following += 1
                if top + 6 < room:  # otherwise the piece counts as seen
                    j = packed // 2
                    hider = self.face_of(listed, slots, begin + j)
                    made = self.subtract(
                        faces, limits, memory, size, hider, f, j, packed & 1, base, top, following,
                        x, y
                    )  # fmt: skip
                    if made >= 0:
                        top += made
                        here = False
            if here:
                if ti.static(adjoint):
                    self.pass_on(
                        faces, listed, slots, memory, pairs, begin, current, f, k, x, y,
                        a_in, b_in, c_in
                    )  # fmt: skip
                else:
                    a, b, c = moments(memory, current)
                    area += a
                    x_sum += b
                    y_sum += c
        return area, x_sum, y_sum

    @ti.func
    def face_of(self, listed: ti.template(), slots: ti.template(), at):
        pair = slots[at]
        return listed[ti.select(pair < 0, -1 - pair, pair)]

    @ti.func
    def hidden_by(
        self,
        faces: ti.template(),
        listed: ti.template(),
        slots: ti.template(),
        limits: ti.template(),
        memory: ti.template(),
        order: ti.template(),
        size: ti.template(),
        begin,
        count,
        k,
        base,
        places,
        x,
        y,
    ):
        """List the fragments that hide part of fragment `k`; returns how many there are.

        An entry is twice the fragment's place, plus one if it passes through `k`.
        """
        longest = size[Size.LONGEST]
        record = base + RECORD * k
        f = self.face_of(listed, slots, begin + k)
        found = 0
        w_min = memory[record + At.W_MIN]
        for o in range(count):
            j = order[places + o]
            other = base + RECORD * j
            if memory[other + At.LIMIT] < w_min:
                break
            if j != k:
                self.place(faces, listed, slots, limits, memory, begin, j, base, x, y)
                near = memory[other + At.W_MAX] >= w_min and memory[other + At.AREA] > self.tiny
                if near:
                    near = self.boxes_meet(memory, record, other)
                hider = self.face_of(listed, slots, begin + j)
                if near:
                    near = not self.parted(memory, record, other)
                if near:
                    near = not self.parted(memory, other, record)
                if near:
                    near = not self.apart(faces, memory, hider, record, x, y)
                if near:
                    near = not self.apart(faces, memory, f, other, x, y)
                if near:
                    relation = self.compare(
                        faces, limits, memory, size, hider, f, slots[begin + j] < 0, j < k, base,
                        record, x, y
                    )  # fmt: skip
                    if relation > 0:
                        order[places + longest + found] = 2 * j + relation - 1
                        found += 1
        return found

    @ti.func
    def boxes_meet(self, memory: ti.template(), one, other):
        """Whether two polygons' bounding boxes overlap."""
        return (
            memory[other + At.LEFT] < memory[one + At.RIGHT]
            and memory[other + At.RIGHT] > memory[one + At.LEFT]
            and memory[other + At.BOTTOM] < memory[one + At.TOP]
            and memory[other + At.TOP] > memory[one + At.BOTTOM]
        )

    @ti.func
    def parted(self, memory: ti.template(), one, other):
        """Whether an edge of one triangle has the other triangle on its outer side."""
        here, there = one + At.TRIANGLE, other + At.TRIANGLE
        x = ti.Vector([memory[there], memory[there + 2], memory[there + 4]])
        y = ti.Vector([memory[there + 1], memory[there + 3], memory[there + 5]])
        found = False
        for i in ti.static(range(3)):
            j = ti.static((i + 1) % 3)
            x0, y0 = memory[here + 2 * i], memory[here + 2 * i + 1]
            dx, dy = memory[here + 2 * j] - x0, memory[here + 2 * j + 1] - y0
            most = (dx * (y - y0) - dy * (x - x0)).max()
            found = found or most <= self.near * (ti.abs(dx) + ti.abs(dy))
        return found

    @ti.func
    def apart(self, faces: ti.template(), memory: ti.template(), f, record, x, y):
        """Whether an edge of face `f` has a polygon on its outer side."""
        at = Face.SIZE * f
        sign = faces[at + Face.SIGN]
        count = ti.cast(memory[record], ti.i32)
        found = False
        for edge in range(3):
            if not found:
                start = at + 2 * edge
                end = at + 2 * ti.select(edge == 2, 0, edge + 1)
                x0, y0 = faces[start] - x, faces[start + 1] - y
                dx = sign * (faces[end] - faces[start])
                dy = sign * (faces[end + 1] - faces[start + 1])
                most = -self.huge + 0 * x
                for i in range(count):
                    corner = record + At.FIRST + 3 * i
                    most = ti.max(
                        most, dx * (memory[corner + 1] - y0) - dy * (memory[corner] - x0)
                    )
                found = most <= self.near * (ti.abs(dx) + ti.abs(dy))
        return found

    @ti.func
    def compare(
        self,
        faces: ti.template(),
        limits: ti.template(),
        memory: ti.template(),
        size: ti.template(),
        f,
        other,
        covers,
        first,
        base,
        record,
        x,
        y,
    ):
        """Whether face `f` hides the other, whose polygon is `record`, where they overlap.

        0: nowhere; 1: everywhere; 2: on one side of a line. `covers`: it covers the pixel. `first`:
        it is listed first, which decides if both are in one plane.
        """
        one = base + RECORD * (size[Size.LONGEST] + size[Size.PIECES] + 1)
        source, target = record, one
        if not covers:
            lines = ti.select(faces[Face.SIZE * f + Face.CUT] > 0, 5, 3)
            for side in range(lines):
                if memory[source] > 2:
                    a, b, c = self.line(
                        faces, limits, f, other, ti.select(side < 3, side, side + 1), x, y
                    )
                    split(memory, source, target, target, a, b, c, BORDER, False)
                    source = target
                    target = ti.select(target == one, one + RECORD, one)
        relation = 0
        area, _x_sum, _y_sum = moments(memory, source)
        if area > self.tiny:
            a, b, c = self.in_front(faces, f, other, x, y)
            low, high = self.huge + 0 * x, -self.huge + 0 * x
            for i in range(ti.cast(memory[source], ti.i32)):
                corner = source + At.FIRST + 3 * i
                d = a * memory[corner] + b * memory[corner + 1] + c
                low, high = ti.min(low, d), ti.max(high, d)
            noise = 0.25 * self.tie * ti.max(
                ti.abs(faces[Face.SIZE * f + Face.W_MAX]), ti.abs(faces[Face.SIZE * f + Face.W_MIN])
            )
            if low > -noise and high < noise:
                relation = ti.select(first, 1, 0)
            elif low > -noise:
                relation = 1
            elif high > noise:
                relation = 2
        return relation

    @ti.func
    def subtract(
        self,
        faces: ti.template(),
        limits: ti.template(),
        memory: ti.template(),
        size: ti.template(),
        f,
        other,
        j,
        passes_through,
        base,
        top,
        following,
        x,
        y,
    ):
        """Take away from the current piece, of face `other`, what face `f` hides of it.

        Pushes what is left and returns how many pieces that are; -1 if nothing is hidden. `j` is
        the place of `f` in the pixel's list.
        """
        stack = base + RECORD * size[Size.LONGEST]
        current = stack + RECORD * size[Size.PIECES]
        source, target = current, current + RECORD
        made = 0
        cut = faces[Face.SIZE * f + Face.CUT] > 0
        for side in range(ti.select(cut, 6, 3 + passes_through)):
            if memory[source] > 2 and (side != 3 or passes_through == 1):
                a, b, c = self.line(faces, limits, f, other, side, x, y)
                label = side
                if side == 3:
                    label = EQUAL
                if side > 3:
                    label = CLIPPED
                rest = stack + RECORD * (top + made)
                split(memory, source, target, rest, a, b, c, LABELS * j + label, True)
                source = target
                target = ti.select(target == current + RECORD, target + RECORD, current + RECORD)
                area, _x_sum, _y_sum = moments(memory, rest)
                if area > self.tiny:
                    memory[rest + At.NEXT] = following
                    made += 1
        area, _x_sum, _y_sum = moments(memory, source)
        if area <= self.tiny:
            made = -1
        return made

    # --- derivatives ------------------------------------------------------------------------------

    @ti.func
    def barycentric(self, faces: ti.template(), f, x, y):
        """(coordinates, their slopes in x, in y) at a point."""
        at = Face.SIZE * f
        x0, y0 = faces[at], faces[at + 1]
        ex, ey = faces[at + 2] - x0, faces[at + 3] - y0
        dx, dy = faces[at + 4] - x0, faces[at + 5] - y0
        inverse = 1 / (ex * dy - ey * dx)
        in_x = ti.Vector([(ey - dy) * inverse, dy * inverse, -ey * inverse])
        in_y = ti.Vector([(dx - ex) * inverse, -dx * inverse, ex * inverse])
        second = in_x[1] * (x - x0) + in_y[1] * (y - y0)
        third = in_x[2] * (x - x0) + in_y[2] * (y - y0)
        return ti.Vector([1 - second - third, second, third]), in_x, in_y

    @ti.func
    def mixing(self, faces: ti.template(), f, x, y):
        """The weights of a face's corners at a point; at least 0 and 1 in all."""
        share, _in_x, _in_y = self.barycentric(faces, f, x, y)
        share = ti.max(share, 0)
        if ti.static(self.view.perspective and not self.view.orthographic):
            for i in ti.static(range(3)):
                share[i] *= faces[Face.SIZE * f + Face.W + i]
        return share / share.sum()

    @ti.func
    def inner(
        self,
        faces: ti.template(),
        listed: ti.template(),
        slots: ti.template(),
        attributes: ti.template(),
        adjoints: ti.template(),
        pairs: ti.template(),
        colours: ti.template(),
        p,
        at,
        area,
        x_mean,
        y_mean,
        x,
        y,
    ):
        """Pass on the adjoint of what is seen of a fragment, as if the part did not change.

        Returns (value at the part's centroid, slopes in x and y) of the function whose integral's
        adjoint the edges pass on.
        """
        pair = slots[at]
        pair = ti.select(pair < 0, -1 - pair, pair)
        f = listed[pair]
        share, in_x, in_y = self.barycentric(faces, f, x + x_mean, y + y_mean)
        mixed = share
        if ti.static(self.view.perspective and not self.view.orthographic):
            for i in ti.static(range(3)):
                mixed[i] = share[i] * faces[Face.SIZE * f + Face.W + i]
        whole = mixed.sum()
        mixed = mixed / whole
        adjoint = ti.Vector.zero(self.real, 3)
        if ti.static(self.view.channels < 0):
            for i in ti.static(range(3)):
                adjoint[i] = adjoints[3 * at + i]
        else:
            size = ti.static(self.view.channels)
            into = 3 * size * pair
            corner = 3 * size * f
            of = (size + 1) * p
            alpha = adjoints[of + size]
            for i in ti.static(range(3)):
                adjoint[i] = alpha
            for c in ti.static(range(size)):
                g = adjoints[of + c]
                for i in ti.static(range(3)):
                    adjoint[i] += g * attributes[corner + i * size + c]
                    self.add(colours, into + i * size + c, area * mixed[i] * g)
        mean, slope_x, slope_y = 0 * x, 0 * x, 0 * x
        for i in ti.static(range(3)):
            mean += adjoint[i] * mixed[i]
        into = Pair.SIZE * pair
        for i in ti.static(range(3)):
            change = adjoint[i] - mean
            if ti.static(self.view.perspective and not self.view.orthographic):
                change /= whole
                self.add(pairs, into + Pair.W + i, area * change * share[i])
                change *= faces[Face.SIZE * f + Face.W + i]
            slope_x += change * in_x[i]
            slope_y += change * in_y[i]
        for i in ti.static(range(3)):
            self.add(pairs, into + 2 * i, -area * share[i] * slope_x)
            self.add(pairs, into + 2 * i + 1, -area * share[i] * slope_y)
        return mean, slope_x, slope_y

    @ti.func
    def pass_on(
        self,
        faces: ti.template(),
        listed: ti.template(),
        slots: ti.template(),
        memory: ti.template(),
        pairs: ti.template(),
        begin,
        record,
        f,
        k,
        x,
        y,
        constant,
        slope_x,
        slope_y,
    ):
        """The boundary integral: each edge of a piece of face `f` moves the line that it lies on."""
        count = ti.cast(memory[record], ti.i32)
        first = record + At.FIRST
        for i in range(count):
            label = ti.cast(memory[first + 3 * i + 2], ti.i32)
            if label != BORDER:
                ax, ay = memory[first + 3 * i], memory[first + 3 * i + 1]
                following = first + 3 * ti.select(i + 1 < count, i + 1, 0)
                bx, by = memory[following], memory[following + 1]
                at_a = constant + slope_x * ax + slope_y * ay
                at_b = constant + slope_x * bx + slope_y * by
                j = label // LABELS
                which = label - LABELS * j
                pair = slots[begin + j]
                pair = ti.select(pair < 0, -1 - pair, pair)
                mover = listed[pair]
                if which < 3:
                    self.move_edge(
                        faces, pairs, mover, pair, which, ax + x, ay + y, bx + x, by + y, at_a, at_b
                    )
                else:
                    across, up = by - ay, ax - bx  # the outward normal, as long as the edge
                    sx = faces[Face.SIZE * mover + Face.SLOPE_X]
                    sy = faces[Face.SIZE * mover + Face.SLOPE_Y]
                    if which == EQUAL:
                        sx -= faces[Face.SIZE * f + Face.SLOPE_X]
                        sy -= faces[Face.SIZE * f + Face.SLOPE_Y]
                    steepness = sx * across + sy * up
                    if steepness != 0:
                        gain = -(across * across + up * up) / steepness
                        self.move_depth(
                            faces, pairs, mover, pair,
                            ax + x, ay + y, bx + x, by + y, gain * at_a, gain * at_b
                        )  # fmt: skip
                        if which == EQUAL:
                            own = slots[begin + k]
                            own = ti.select(own < 0, -1 - own, own)
                            self.move_depth(
                                faces, pairs, f, own,
                                ax + x, ay + y, bx + x, by + y, -gain * at_a, -gain * at_b
                            )  # fmt: skip

    @ti.func
    def pass_edges(
        self, faces: ti.template(), pairs: ti.template(), f, pair, x, y, constant, slope_x, slope_y
    ):
        """`pass_on` for a face that nothing hides, and that is within [near, far]."""
        at = Face.SIZE * f
        sign = faces[at + Face.SIGN]
        into = Pair.SIZE * pair
        for i in ti.static(range(3)):
            j = ti.static((i + 1) % 3)
            x0, y0 = faces[at + 2 * i] - x, faces[at + 2 * i + 1] - y
            x1, y1 = faces[at + 2 * j] - x, faces[at + 2 * j + 1] - y
            _low, a, b, _high = self.within(x0, y0, x1, y1)
            if b > a:
                dx, dy = x1 - x0, y1 - y0
                at_a = constant + slope_x * (x0 + a * dx) + slope_y * (y0 + a * dy)
                at_b = constant + slope_x * (x0 + b * dx) + slope_y * (y0 + b * dy)
                second = self.product(a, b, at_a, at_b)
                first = 0.5 * (at_a + at_b) - second
                across, up = sign * (b - a) * dy, -sign * (b - a) * dx
                self.add(pairs, into + 2 * i, first * across)
                self.add(pairs, into + 2 * i + 1, first * up)
                self.add(pairs, into + 2 * j, second * across)
                self.add(pairs, into + 2 * j + 1, second * up)

    @ti.func
    def move_edge(
        self,
        faces: ti.template(),
        pairs: ti.template(),
        f,
        pair,
        edge,
        ax,
        ay,
        bx,
        by,
        at_a,
        at_b,
    ):
        """Pass on to an edge's ends the integral, from a to b, of a linear function of the place."""
        start = 2 * edge
        end = 2 * ti.select(edge == 2, 0, edge + 1)
        at = Face.SIZE * f
        x0, y0 = faces[at + start], faces[at + start + 1]
        dx, dy = faces[at + end] - x0, faces[at + end + 1] - y0
        inverse = 1 / (dx * dx + dy * dy)
        t_a = ((ax - x0) * dx + (ay - y0) * dy) * inverse
        t_b = ((bx - x0) * dx + (by - y0) * dy) * inverse
        whole = 0.5 * (at_a + at_b)
        second = self.product(t_a, t_b, at_a, at_b)
        across, up = by - ay, ax - bx
        into = Pair.SIZE * pair
        self.add(pairs, into + start, (whole - second) * across)
        self.add(pairs, into + start + 1, (whole - second) * up)
        self.add(pairs, into + end, second * across)
        self.add(pairs, into + end + 1, second * up)

    @ti.func
    def move_depth(
        self, faces: ti.template(), pairs: ti.template(), f, pair, ax, ay, bx, by, at_a, at_b
    ):
        """Pass on the integral, from a to b, of a linear function times the change of w there."""
        share_a, _x, _y = self.barycentric(faces, f, ax, ay)
        share_b, _u, _v = self.barycentric(faces, f, bx, by)
        into = Pair.SIZE * pair
        slope_x = faces[Face.SIZE * f + Face.SLOPE_X]
        slope_y = faces[Face.SIZE * f + Face.SLOPE_Y]
        for i in ti.static(range(3)):
            value = self.product(share_a[i], share_b[i], at_a, at_b)
            self.add(pairs, into + Pair.W + i, value)
            self.add(pairs, into + 2 * i, -value * slope_x)
            self.add(pairs, into + 2 * i + 1, -value * slope_y)

    @ti.func
    def product(self, u_a, u_b, v_a, v_b):
        """The mean, from a to b, of the product of two linear functions."""
        return (2 * (u_a * v_a + u_b * v_b) + u_a * v_b + u_b * v_a) / 6
