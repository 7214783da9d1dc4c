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

SPARE = 3
"""Records of a worker for intermediate results, behind those of its faces and pieces."""


class Seen:
    """What is kept of a fragment."""

    AREA = 0
    X = 1  # integrals of x and y over the part that is seen, relative to the pixel's centre
    Y = 2
    SIZE = 3


@ti.data_oriented
class Visibility(Footprints):
    """Kernels over pixels; each thread ("worker") has memory of its own."""

    @ti.kernel
    def see_tiles(
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
        weights: FLOATS,
        size: INTS,
    ):
        """What each pixel sees of its fragments; on a CPU.

        Writes `Seen` of each, and what each of its corners has a share in: the part's area times
        the corner's (perspective-correct) barycentric coordinate at the part's centroid.
        """
        for slot in range(size[Size.WORKERS] * 512):
            if slot & 511 == 0:
                worker = slot // 512
                for tile in range(self.first_of(worker, size), self.first_of(worker + 1, size)):
                    b, left, right, top, bottom = self.box_of(tile, size)
                    for row in range(top, bottom):
                        p = (b * size[Size.HEIGHT] + row) * size[Size.WIDTH]
                        for column in range(left, right):
                            begin, end = firsts[p + column], ends[p + column]
                            if end > begin:
                                self.see(
                                    faces,
                                    listed,
                                    slots,
                                    limits,
                                    memory,
                                    order,
                                    seen,
                                    weights,
                                    weights,
                                    size,
                                    row,
                                    column,
                                    begin,
                                    end,
                                    worker,
                                    False,
                                )

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
        adjoints: FLOATS,
        pairs: FLOATS,
        size: INTS,
    ):
        """Add to each (tile, face) `Pair` what the adjoints of the weights give; on a CPU."""
        for slot in range(size[Size.WORKERS] * 512):
            if slot & 511 == 0:
                worker = slot // 512
                for tile in range(self.first_of(worker, size), self.first_of(worker + 1, size)):
                    b, left, right, top, bottom = self.box_of(tile, size)
                    for row in range(top, bottom):
                        p = (b * size[Size.HEIGHT] + row) * size[Size.WIDTH]
                        for column in range(left, right):
                            begin, end = firsts[p + column], ends[p + column]
                            if end > begin:
                                self.see(
                                    faces,
                                    listed,
                                    slots,
                                    limits,
                                    memory,
                                    order,
                                    seen,
                                    adjoints,
                                    pairs,
                                    size,
                                    row,
                                    column,
                                    begin,
                                    end,
                                    worker,
                                    True,
                                )

    @ti.func
    def see(
        self,
        faces: ti.template(),
        listed: ti.template(),
        slots: ti.template(),
        limits: ti.template(),
        memory: ti.template(),
        order: ti.template(),
        seen: ti.template(),
        weights: ti.template(),
        pairs: ti.template(),
        size: ti.template(),
        row,
        column,
        begin,
        end,
        worker,
        adjoint: ti.template(),
    ):
        """One pixel, whose fragments are `slots[begin:end]`.

        Where `adjoint`, `weights` are the weights' adjoints; otherwise they are written.
        """
        x = ti.cast(column, self.real) + 0.5
        y = ti.cast(size[Size.HEIGHT] - row, self.real) - 0.5
        count = end - begin
        base = worker * RECORD * (size[Size.LONGEST] + size[Size.PIECES] + SPARE)
        places = worker * 2 * size[Size.LONGEST]
        alone = count == 1 and slots[begin] < 0
        if alone:
            if ti.static(not adjoint):
                seen[Seen.SIZE * begin] = 1
                seen[Seen.SIZE * begin + 1] = 0
                seen[Seen.SIZE * begin + 2] = 0
        else:
            for k in range(count):
                self.place(
                    faces, listed, slots, limits, memory, order, size, begin, k, base, places, x, y
                )
        total = 0 * x
        lowest = self.huge + total
        for o in range(count):
            k = 0
            if not alone:
                k = order[places + o]
            at = begin + k
            record = base + RECORD * k
            pair = slots[at]
            pair = ti.select(pair < 0, -1 - pair, pair)
            f = listed[pair]
            if not alone:
                if ti.static(not adjoint):
                    area, x_sum, y_sum = 0 * x, 0 * x, 0 * x
                    # What is behind a full pixel is not seen.
                    open_yet = total < 1 - 10 * self.tiny or memory[record + At.W_MAX] >= lowest
                    if open_yet and memory[record + At.AREA] > self.tiny:
                        area, x_sum, y_sum = self.pieces(
                            faces, listed, slots, limits, memory, order, pairs, size, begin,
                            count, k, base, places, x, y, area, x_sum, y_sum, False
                        )  # fmt: skip
                    total += area
                    if area > 0:
                        lowest = ti.min(lowest, memory[record + At.W_MIN])
                    seen[Seen.SIZE * at + Seen.AREA] = area
                    seen[Seen.SIZE * at + Seen.X] = x_sum
                    seen[Seen.SIZE * at + Seen.Y] = y_sum
            area = seen[Seen.SIZE * at + Seen.AREA]
            if area > 0:
                x_mean = seen[Seen.SIZE * at + Seen.X] / area
                y_mean = seen[Seen.SIZE * at + Seen.Y] / area
                if ti.static(adjoint):
                    mean, slope_x, slope_y = self.inner(
                        faces, weights, pairs, f, pair, at, area, x_mean, y_mean, x, y
                    )
                    if not alone and (mean != 0 or slope_x != 0 or slope_y != 0):
                        a, b, c = self.pieces(
                            faces, listed, slots, limits, memory, order, pairs, size, begin,
                            count, k, base, places, x, y,
                            mean - slope_x * x_mean - slope_y * y_mean, slope_x, slope_y, True
                        )  # fmt: skip
                else:
                    share = self.mixing(faces, f, x + x_mean, y + y_mean)
                    for i in ti.static(range(3)):
                        weights[3 * at + i] = area * share[i]
            elif ti.static(not adjoint):
                for i in ti.static(range(3)):
                    weights[3 * at + i] = 0 * area

    # --- a pixel's fragments ----------------------------------------------------------------------

    @ti.func
    def place(
        self,
        faces: ti.template(),
        listed: ti.template(),
        slots: ti.template(),
        limits: ti.template(),
        memory: ti.template(),
        order: ti.template(),
        size: ti.template(),
        begin,
        k,
        base,
        places,
        x,
        y,
    ):
        """Cut fragment `k` by the pixel, measure it, and put it into the order of depth."""
        pair = slots[begin + k]
        record = base + RECORD * k
        covers = pair < 0
        f = listed[ti.select(covers, -1 - pair, pair)]
        at = Face.SIZE * f
        half = 0.5 + 0 * x
        if covers:
            put(memory, record, 0, -half, -half, BORDER)
            put(memory, record, 1, half, -half, BORDER)
            put(memory, record, 2, half, half, BORDER)
            put(memory, record, 3, -half, half, BORDER)
            memory[record] = 4
        else:
            self.cut(faces, limits, memory, size, f, k, base, record, x, y)
        area, _x_sum, _y_sum = moments(memory, record)
        memory[record + At.AREA] = area
        low, high = faces[at + Face.W_MIN], faces[at + Face.W_MAX]
        slope_x, slope_y = faces[at + Face.SLOPE_X], faces[at + Face.SLOPE_Y]
        w0 = self.w_at(faces, f, x, y)
        w_min, w_max = high, low
        left, right, lower, upper = half, -half, half, -half
        for i in range(ti.cast(memory[record], ti.i32)):
            u = memory[record + At.FIRST + 3 * i]
            v = memory[record + At.FIRST + 3 * i + 1]
            w = w0 + slope_x * u + slope_y * v
            w_min, w_max = ti.min(w_min, w), ti.max(w_max, w)
            left, right = ti.min(left, u), ti.max(right, u)
            lower, upper = ti.min(lower, v), ti.max(upper, v)
        memory[record + At.W_MIN] = ti.max(w_min, low)
        memory[record + At.W_MAX] = ti.min(ti.max(w_max, low), high)
        memory[record + At.LEFT] = left
        memory[record + At.RIGHT] = right
        memory[record + At.BOTTOM] = lower
        memory[record + At.TOP] = upper
        # Nearest first; of equals the one that is listed first.
        o = k
        while o > 0:
            before = order[places + o - 1]
            if memory[base + RECORD * before + At.W_MAX] >= memory[record + At.W_MAX]:
                break
            order[places + o] = before
            o -= 1
        order[places + o] = k

    @ti.func
    def cut(
        self,
        faces: ti.template(),
        limits: ti.template(),
        memory: ti.template(),
        size: ti.template(),
        f,
        k,
        base,
        record,
        x,
        y,
    ):
        """The part of a face within the pixel and within [near, far], into `record`."""
        at = Face.SIZE * f
        spare = base + RECORD * (size[Size.LONGEST] + size[Size.PIECES])
        source, target = record, spare
        turned = faces[at + Face.SIGN] < 0
        for i in ti.static(range(3)):
            corner = ti.select(turned, (3 - i) % 3, i)
            edge = ti.select(turned, 2 - i, i)
            put(
                memory,
                record,
                i,
                faces[at + 2 * corner] - x,
                faces[at + 2 * corner + 1] - y,
                LABELS * k + edge,
            )
        memory[record] = 3
        sides = ti.select(faces[at + Face.CUT] > 0, 6, 4)
        for side in range(sides):
            a, b, c = 0 * x, 0 * x, 0.5 + 0 * x
            needed = True
            label = BORDER
            if side < 4:
                a = ti.select(side == 0, 1, ti.select(side == 1, -1, 0)) + a
                b = ti.select(side == 2, 1, ti.select(side == 3, -1, 0)) + b
                low = c
                for i in ti.static(range(3)):
                    low = ti.min(low, a * (faces[at + 2 * i] - x) + b * (faces[at + 2 * i + 1] - y))
                needed = low < -0.5
            else:
                a, b, c = self.clip_line(faces, limits, f, side == 4, x, y)
                label = LABELS * k + CLIPPED
            if needed:
                split(memory, source, target, target, a, b, c, label, False)
                source, target = target, source
        if source != record:
            copy(memory, source, record)

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
        count,
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
        """Sum up the pieces of fragment `k` that are seen: their moments.

        Where `adjoint`, each piece's edges pass on the adjoint of the integral of
        a_in + b_in x + c_in y.
        """
        longest = size[Size.LONGEST]
        stack = base + RECORD * longest
        room = size[Size.PIECES]
        current = base + RECORD * (longest + room)
        record = base + RECORD * k
        f = self.face_of(listed, slots, begin + k)
        hiding = self.hidden_by(
            faces, listed, slots, limits, memory, order, size, begin, count, k, base, places, x, y
        )
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
        left, right = memory[record + At.LEFT], memory[record + At.RIGHT]
        lower, upper = memory[record + At.BOTTOM], memory[record + At.TOP]
        w_min = memory[record + At.W_MIN]
        for o in range(count):
            j = order[places + o]
            other = base + RECORD * j
            if memory[other + At.W_MAX] < w_min:
                break
            if (
                j != k
                and memory[other + At.LEFT] < right
                and memory[other + At.RIGHT] > left
                and memory[other + At.BOTTOM] < upper
                and memory[other + At.TOP] > lower
                and memory[other + At.AREA] > self.tiny
            ):
                relation = self.compare(
                    faces, limits, memory, size, self.face_of(listed, slots, begin + j), f,
                    slots[begin + j] < 0, j < k, base, record, x, y
                )  # fmt: skip
                if relation > 0:
                    order[places + longest + found] = 2 * j + relation - 1
                    found += 1
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
        adjoints: ti.template(),
        pairs: ti.template(),
        f,
        pair,
        at,
        area,
        x_mean,
        y_mean,
        x,
        y,
    ):
        """The adjoint of the integral of what is seen, for a part that does not change.

        Returns (value at the part's centroid, slopes in x and y) of the function whose integral's
        adjoint the edges pass on.
        """
        share, in_x, in_y = self.barycentric(faces, f, x + x_mean, y + y_mean)
        mean, slope_x, slope_y = 0 * x, 0 * x, 0 * x
        mixed = share
        if ti.static(self.view.perspective and not self.view.orthographic):
            for i in ti.static(range(3)):
                mixed[i] = share[i] * faces[Face.SIZE * f + Face.W + i]
        whole = mixed.sum()
        mixed = mixed / whole
        for i in ti.static(range(3)):
            mean += adjoints[3 * at + i] * mixed[i]
        into = Pair.SIZE * pair
        for i in ti.static(range(3)):
            change = adjoints[3 * at + i] - mean
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
