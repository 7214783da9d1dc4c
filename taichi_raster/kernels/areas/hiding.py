"""What hides a fragment, and the pieces of it that are left."""

# mypy: disable-error-code="no-untyped-def, valid-type"

import taichi as ti

from taichi_raster.kernels.areas.fragments import Fragments
from taichi_raster.kernels.areas.layout import Face, Label, Size
from taichi_raster.kernels.areas.polygons import CORNERS, RECORD, At, copy, halve, moments, split

SPARE = 3
"""Records of a worker for intermediate results, behind those of its faces and pieces."""


@ti.data_oriented
class Hiding(Fragments):
    """Functions of a pixel's fragments together."""

    @ti.func
    def pass_on(self, m: ti.template(), begin, record, f, k, x, y, constant, slope_x, slope_y):
        """Pass on the adjoints of a piece's edges; see adjoints.py."""
        raise NotImplementedError

    @ti.func
    def boxes_meet(self, m: ti.template(), one, other):
        """Whether two polygons' bounding boxes overlap."""
        return (
            m.memory[other + At.LEFT] < m.memory[one + At.RIGHT]
            and m.memory[other + At.RIGHT] > m.memory[one + At.LEFT]
            and (m.memory[other + At.BOTTOM] < m.memory[one + At.TOP])
            and (m.memory[other + At.TOP] > m.memory[one + At.BOTTOM])
        )

    @ti.func
    def parted(self, m: ti.template(), one, other):
        """Whether an edge of one triangle has the other triangle on its outer side."""
        here, there = one + At.TRIANGLE, other + At.TRIANGLE
        x = ti.Vector([m.memory[there], m.memory[there + 2], m.memory[there + 4]])
        y = ti.Vector([m.memory[there + 1], m.memory[there + 3], m.memory[there + 5]])
        found = False
        for i in ti.static(range(3)):
            j = ti.static((i + 1) % 3)
            x0, y0 = m.memory[here + 2 * i], m.memory[here + 2 * i + 1]
            dx, dy = m.memory[here + 2 * j] - x0, m.memory[here + 2 * j + 1] - y0
            most = (dx * (y - y0) - dy * (x - x0)).max()
            found = found or most <= self.near * (ti.abs(dx) + ti.abs(dy))
        return found

    @ti.func
    def apart(self, m: ti.template(), f, record, x, y):
        """Whether an edge of face `f` has a polygon on its outer side."""
        at = Face.SIZE * f
        sign = m.faces[at + Face.SIGN]
        count = ti.cast(m.memory[record], ti.i32)
        found = False
        for edge in range(3):
            if not found:
                start = at + 2 * edge
                end = at + 2 * ti.select(edge == 2, 0, edge + 1)
                x0, y0 = m.faces[start] - x, m.faces[start + 1] - y
                dx = sign * (m.faces[end] - m.faces[start])
                dy = sign * (m.faces[end + 1] - m.faces[start + 1])
                most = -self.huge + 0 * x
                for i in range(count):
                    corner = record + At.FIRST + 3 * i
                    most = ti.max(
                        most, dx * (m.memory[corner + 1] - y0) - dy * (m.memory[corner] - x0)
                    )
                found = most <= self.near * (ti.abs(dx) + ti.abs(dy))
        return found

    @ti.func
    def hidden_by(self, m: ti.template(), begin, count, k, base, places, x, y):
        """Place fragment `k`, and list those that hide part of it; returns how many there are.

        An entry is twice the fragment's place, plus one if it passes through `k`. `count` is that
        of the pixel's fragments, or 0 where it is known that none hides `k`.
        """
        longest = m.size[Size.LONGEST]
        record = base + RECORD * k
        f = self.face_of(m, self.entry(m, begin + k))
        found = 0
        w_min = 0 * x
        for o in range(-1, count):
            j = k
            if o >= 0:
                j = m.order[places + o]
            other = base + RECORD * j
            if o >= 0 and m.memory[other + At.LIMIT] < w_min:
                break
            self.place(m, begin, j, base, x, y)
            if o < 0:
                w_min = m.memory[record + At.W_MIN]
                if m.memory[record + At.AREA] <= self.tiny:
                    break
            elif j != k:
                near = m.memory[other + At.W_MAX] >= w_min and m.memory[other + At.AREA] > self.tiny
                if near:
                    near = self.boxes_meet(m, record, other)
                hider = self.face_of(m, self.entry(m, begin + j))
                if near:
                    near = not self.parted(m, record, other)
                if near:
                    near = not self.parted(m, other, record)
                if near:
                    near = not self.apart(m, hider, record, x, y)
                if near:
                    near = not self.apart(m, f, other, x, y)
                if near:
                    relation = self.compare(
                        m,
                        hider,
                        f,
                        m.slots[self.entry(m, begin + j)] < 0,
                        j < k,
                        base,
                        record,
                        x,
                        y,
                    )
                    if relation > 0:
                        m.order[places + longest + found] = 2 * j + relation - 1
                        found += 1
        return found

    @ti.func
    def compare(self, m: ti.template(), f, other, covers, first, base, record, x, y):
        """Whether face `f` hides the other, whose polygon is `record`, where they overlap.

        0: nowhere; 1: everywhere; 2: on one side of a line. `covers`: it covers the pixel. `first`:
        it is listed first, which decides if both are in one plane.
        """
        one = base + RECORD * (m.size[Size.LONGEST] + m.size[Size.PIECES] + 1)
        source, target = record, one
        if not covers:
            lines = ti.select(m.faces[Face.SIZE * f + Face.CUT] > 0, 5, 3)
            for side in range(lines):
                if m.memory[source] > 2:
                    a, b, c = self.line(m, f, other, ti.select(side < 3, side, side + 1), x, y)
                    split(m.memory, source, target, target, a, b, c, Label.BORDER, False)
                    source = target
                    target = ti.select(target == one, one + RECORD, one)
        relation = 0
        area, _x_sum, _y_sum = moments(m.memory, source)
        if area > self.tiny:
            a, b, c = self.in_front(m, f, other, x, y)
            low, high = self.huge + 0 * x, -self.huge + 0 * x
            for i in range(ti.cast(m.memory[source], ti.i32)):
                corner = source + At.FIRST + 3 * i
                d = a * m.memory[corner] + b * m.memory[corner + 1] + c
                low, high = ti.min(low, d), ti.max(high, d)
            noise = (
                0.25
                * self.tie
                * ti.max(
                    ti.abs(m.faces[Face.SIZE * f + Face.W_MAX]),
                    ti.abs(m.faces[Face.SIZE * f + Face.W_MIN]),
                )
            )
            if low > -noise and high < noise:
                relation = ti.select(first, 1, 0)
            elif low > -noise:
                relation = 1
            elif high > noise:
                relation = 2
        return relation

    @ti.func
    def pieces(
        self,
        m: ti.template(),
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
        longest = m.size[Size.LONGEST]
        stack = base + RECORD * longest
        room = m.size[Size.PIECES]
        current = base + RECORD * (longest + room)
        record = base + RECORD * k
        f = self.face_of(m, self.entry(m, begin + k))
        area, x_sum, y_sum = 0 * x, 0 * x, 0 * x
        copy(m.memory, record, stack)
        m.memory[stack + At.NEXT] = 0
        top = 1
        while top > 0:
            top -= 1
            copy(m.memory, stack + RECORD * top, current)
            following = ti.cast(m.memory[current + At.NEXT], ti.i32)
            here = True
            if m.memory[current] > CORNERS - 6 and top < room:
                halve(m.memory, current, stack + RECORD * top)
                top += 1
            while here and following < hiding:
                packed = m.order[places + longest + following]
                following += 1
                if top + 6 < room:  # otherwise the piece counts as seen
                    j = packed // 2
                    hider = self.face_of(m, self.entry(m, begin + j))
                    made = self.subtract(m, hider, f, j, packed & 1, base, top, following, x, y)
                    if made >= 0:
                        top += made
                        here = False
            if here:
                if ti.static(adjoint):
                    self.pass_on(m, begin, current, f, k, x, y, a_in, b_in, c_in)
                else:
                    a, b, c = moments(m.memory, current)
                    area += a
                    x_sum += b
                    y_sum += c
        return area, x_sum, y_sum

    @ti.func
    def subtract(self, m: ti.template(), f, other, j, passes_through, base, top, following, x, y):
        """Take away from the current piece, of face `other`, what face `f` hides of it.

        Pushes what is left and returns how many pieces that are; -1 if nothing is hidden. `j` is
        the place of `f` in the pixel's list.
        """
        stack = base + RECORD * m.size[Size.LONGEST]
        current = stack + RECORD * m.size[Size.PIECES]
        source, target = current, current + RECORD
        made = 0
        cut = m.faces[Face.SIZE * f + Face.CUT] > 0
        for side in range(ti.select(cut, 6, 3 + passes_through)):
            if m.memory[source] > 2 and (side != 3 or passes_through == 1):
                a, b, c = self.line(m, f, other, side, x, y)
                label = side
                if side == 3:
                    label = Label.EQUAL
                if side > 3:
                    label = Label.CLIPPED
                rest = stack + RECORD * (top + made)
                split(m.memory, source, target, rest, a, b, c, Label.EACH * j + label, True)
                source = target
                target = ti.select(target == current + RECORD, target + RECORD, current + RECORD)
                area, _x_sum, _y_sum = moments(m.memory, rest)
                if area > self.tiny:
                    m.memory[rest + At.NEXT] = following
                    made += 1
        area, _x_sum, _y_sum = moments(m.memory, source)
        if area <= self.tiny:
            made = -1
        return made
