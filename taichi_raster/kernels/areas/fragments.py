"""A face within a pixel: its depth, its measures, and the polygon that the pixel cuts out of it."""

# mypy: disable-error-code="no-untyped-def, valid-type"

import taichi as ti

from taichi_raster.kernels.areas.layout import Face, Label, Seen
from taichi_raster.kernels.areas.polygons import RECORD, At, put
from taichi_raster.kernels.areas.tile_lists import TileLists

LOCAL = 12
"""Room for corners of a face within a pixel: 3, and one for each of six cuts; three to spare."""


@ti.data_oriented
class Fragments(TileLists):
    """Functions of one fragment.

    `f` is its face, `k` its place in its pixel's list, `begin` where that list begins, `base` and
    `places` where the thread's own numbers and integers do, and (x, y) the pixel's centre.
    """

    # --- depth ------------------------------------------------------------------------------------

    @ti.func
    def entry(self, m: ti.template(), at):
        """The fragment at a place of the pixels' lists. On a GPU, the lists hold the fragments."""
        found = at
        if ti.static(self.on_cpu):
            found = m.lists[at]
        return found

    @ti.func
    def face_of(self, m: ti.template(), at):
        pair = m.slots[at]
        return m.listed[ti.select(pair < 0, -1 - pair, pair)]

    @ti.func
    def w_at(self, m: ti.template(), f, x, y):
        """w with `ORDER` at a point."""
        at = Face.SIZE * f
        w = m.faces[at + Face.W] + m.faces[at + Face.ORDER]
        return (
            w
            + m.faces[at + Face.SLOPE_X] * (x - m.faces[at])
            + m.faces[at + Face.SLOPE_Y] * (y - m.faces[at + 1])
        )

    @ti.func
    def in_front(self, m: ti.template(), f, other, x, y):
        """By how much face `f` is in front of another, as a line."""
        at, beside = Face.SIZE * f, Face.SIZE * other
        return (
            m.faces[at + Face.SLOPE_X] - m.faces[beside + Face.SLOPE_X],
            m.faces[at + Face.SLOPE_Y] - m.faces[beside + Face.SLOPE_Y],
            self.w_at(m, f, x, y) - self.w_at(m, other, x, y),
        )

    @ti.func
    def clip_line(self, m: ti.template(), f, near, x, y):
        """The line where a face reaches near, or far; positive within the range."""
        at = Face.SIZE * f
        sign = ti.select(near, -1, 1)
        limit = m.limits[ti.select(near, 0, 1)]
        value = -limit if ti.static(self.view.orthographic) else 1 / limit
        w0 = self.w_at(m, f, x, y) - m.faces[at + Face.ORDER]
        return (
            sign * m.faces[at + Face.SLOPE_X],
            sign * m.faces[at + Face.SLOPE_Y],
            sign * (w0 - value),
        )

    @ti.func
    def edge_line(self, m: ti.template(), f, edge, x, y):
        """The line of a face's edge; positive inside."""
        at = Face.SIZE * f
        start = at + 2 * edge
        end = at + 2 * ti.select(edge == 2, 0, edge + 1)
        sign = m.faces[at + Face.SIGN]
        x0, y0 = m.faces[start] - x, m.faces[start + 1] - y
        dx, dy = (
            sign * (m.faces[end] - m.faces[start]),
            sign * (m.faces[end + 1] - m.faces[start + 1]),
        )
        return -dy, dx, dy * x0 - dx * y0

    @ti.func
    def line(self, m: ti.template(), f, other, which, x, y):
        """A line of the polygon in which face `f` hides face `other`; positive inside.

        0 to 2: an edge; 3: where it is in front of the other; 4 and 5: where it reaches near, far.
        """
        a, b, c = 0 * x, 0 * x, 0 * x
        if which < 3:
            a, b, c = self.edge_line(m, f, which, x, y)
        elif which == 3:
            a, b, c = self.in_front(m, f, other, x, y)
        else:
            a, b, c = self.clip_line(m, f, which == 4, x, y)
        return a, b, c

    @ti.func
    def sort(self, m: ti.template(), begin, count, base, places, needed, x, y):
        """Order fragments, which are not placed yet, by the most that w can be, if `needed`."""
        for k in range(count):
            record = base + RECORD * k
            m.memory[record + At.COUNT] = -1
            o = k
            if needed:
                f = self.face_of(m, self.entry(m, begin + k))
                w, spread = self.depth_at(m, f, x, y)
                limit = ti.min(w + spread, m.faces[Face.SIZE * f + Face.W_MAX])
                m.memory[record + At.LIMIT] = limit
                # Nearest first; of equals the one that is listed first.
                while o > 0:
                    before = m.order[places + o - 1]
                    if m.memory[base + RECORD * before + At.LIMIT] >= limit:
                        break
                    m.order[places + o] = before
                    o -= 1
            m.order[places + o] = k

    @ti.func
    def keep(self, m: ti.template(), at, area, x_sum, y_sum, hiding):
        """Write a fragment's `Seen`."""
        m.seen[Seen.SIZE * at + Seen.AREA] = area
        m.seen[Seen.SIZE * at + Seen.X] = x_sum
        m.seen[Seen.SIZE * at + Seen.Y] = y_sum
        m.seen[Seen.SIZE * at + Seen.HIDING] = hiding

    # --- measures ---------------------------------------------------------------------------------

    @ti.func
    def measure(self, m: ti.template(), f, record, x, y):
        """Measure a face within a pixel without cutting it: by Green's theorem, edge by edge.

        The area within the pixel is the integral of x dy along the face's edges, with x and y
        clamped to the pixel. Only for faces within [near, far].
        """
        at = Face.SIZE * f
        half = 0.5 + 0 * x
        xs = ti.Vector([m.faces[at] - x, m.faces[at + 2] - x, m.faces[at + 4] - x])
        ys = ti.Vector([m.faces[at + 1] - y, m.faces[at + 3] - y, m.faces[at + 5] - y])
        sign = m.faces[at + Face.SIGN]
        # Most pixels on a face's outline have one edge in them, and lie inside of the others.
        inside, edge = 0, 0
        for i in ti.static(range(3)):
            j = ti.static((i + 1) % 3)
            value, reach = self.across(xs[i], ys[i], xs[j], ys[j])
            if sign * value >= reach:
                inside += 1
            else:
                edge = i
        area, x_sum, y_sum = 0 * x, 0 * x, 0 * x
        if inside == 2:
            end = ti.select(edge == 2, 0, edge + 1)
            x0, y0 = m.faces[at + 2 * edge] - x, m.faces[at + 2 * edge + 1] - y
            x1, y1 = m.faces[at + 2 * end] - x, m.faces[at + 2 * end + 1] - y
            area, x_sum, y_sum = self.along(x0, y0, x1, y1, True)
            area += sign * half  # and the pixel's own sides
            x_sum -= ti.select(y1 - y0 > -self.least, 0.125, -0.125)
        else:
            for i in ti.static(range(3)):
                j = ti.static((i + 1) % 3)
                a, b, c = self.along(xs[i], ys[i], xs[j], ys[j], False)
                area += a
                x_sum += b
                y_sum += c
        m.memory[record + At.AREA] = sign * area
        m.memory[record + At.X] = sign * x_sum
        m.memory[record + At.Y] = sign * y_sum
        turned = sign < 0
        for i in ti.static(range(3)):
            m.memory[record + At.TRIANGLE + 2 * i] = ti.select(turned, xs[(3 - i) % 3], xs[i])
            m.memory[record + At.TRIANGLE + 2 * i + 1] = ti.select(turned, ys[(3 - i) % 3], ys[i])
        m.memory[record + At.LEFT] = ti.max(xs.min(), -half)
        m.memory[record + At.RIGHT] = ti.min(xs.max(), half)
        m.memory[record + At.BOTTOM] = ti.max(ys.min(), -half)
        m.memory[record + At.TOP] = ti.min(ys.max(), half)
        w, spread = self.depth_at(m, f, x, y)
        m.memory[record + At.W_MIN] = ti.max(w - spread, m.faces[at + Face.W_MIN])

    @ti.func
    def across(self, x0, y0, x1, y1):
        """(on which side of a segment's line the pixel's centre is, and by how much at most)."""
        dx, dy = x1 - x0, y1 - y0
        return dy * x0 - dx * y0, 0.5 * (ti.abs(dx) + ti.abs(dy))

    @ti.func
    def along(self, x0, y0, x1, y1, endless: ti.template()):
        """Integrals of x dy, x^2 / 2 dy and x y dy along a segment, clamped to the pixel.

        `endless`: along its line.
        """
        dx, dy = self.not_zero(x1 - x0), self.not_zero(y1 - y0)
        return self.along_line(x0, y0, dx, dy, 1 / dx, 1 / dy, endless)

    @ti.func
    def along_line(self, x0, y0, dx, dy, across, up, endless: ti.template()):
        """`along`, given the segment's direction and 1 / dx, 1 / dy."""
        low, first, last, high = self.within_line(x0, y0, across, up, endless)
        before, after = self.clamp(x0 + low * dx), self.clamp(x0 + high * dx)
        xa, xb = self.clamp(x0 + first * dx), self.clamp(x0 + last * dx)
        start, end = self.clamp(y0 + low * dy), self.clamp(y0 + high * dy)
        ya, yb = self.clamp(y0 + first * dy), self.clamp(y0 + last * dy)
        rise, climb, fall = ya - start, yb - ya, end - yb
        area = before * rise + 0.5 * (xa + xb) * climb + after * fall
        x_sum = 0.5 * (before * before * rise + after * after * fall)
        x_sum += (xa * xa + xa * xb + xb * xb) * climb / 6
        y_sum = 0.5 * (before * (ya + start) * rise + after * (end + yb) * fall)
        y_sum += climb * (xa * (2 * ya + yb) + xb * (ya + 2 * yb)) / 6
        return area, x_sum, y_sum

    @ti.func
    def clamp(self, value):
        return self.least_of(self.most(value, -0.5), 0.5)

    @ti.func
    def least_of(self, one, other):
        """The less of two numbers. `ti.min` also looks for NaN, which takes a branch."""
        return ti.select(one < other, one, other)

    @ti.func
    def most(self, one, other):
        """The larger of two numbers."""
        return ti.select(one > other, one, other)

    @ti.func
    def not_zero(self, difference):
        return ti.select(ti.abs(difference) < self.least, self.least, difference)

    @ti.func
    def within(self, x0, y0, x1, y1, endless: ti.template()):
        """Where a segment is within the pixel's rows, and, between those, within the pixel.

        Four parameters, 0 at the start and 1 at the end, in this order: enters the rows, enters the
        pixel, leaves the pixel, leaves the rows. The first two are equal to the last two if it does
        not. They lie in [0, 1] unless the segment is taken as `endless`.
        """
        across, up = 1 / self.not_zero(x1 - x0), 1 / self.not_zero(y1 - y0)
        return self.within_line(x0, y0, across, up, endless)

    @ti.func
    def within_line(self, x0, y0, across, up, endless: ti.template()):
        """`within`, given 1 / dx and 1 / dy."""
        a, b = (-0.5 - y0) * up, (0.5 - y0) * up
        low, high = self.least_of(a, b), self.most(a, b)
        if ti.static(not endless):
            low = self.least_of(self.most(low, 0.0), 1.0)
            high = self.most(self.least_of(high, 1.0), low)
        c, d = (-0.5 - x0) * across, (0.5 - x0) * across
        first = self.least_of(self.most(self.least_of(c, d), low), high)
        last = self.least_of(self.most(self.most(c, d), first), high)
        return low, first, last, high

    # --- the polygon ------------------------------------------------------------------------------

    @ti.func
    def place(self, m: ti.template(), begin, k, base, x, y):
        """Cut fragment `k` by the pixel and by [near, far], and measure it, unless that is done."""
        record = base + RECORD * k
        if m.memory[record + At.COUNT] < 0:
            pair = m.slots[self.entry(m, begin + k)]
            covers = pair < 0
            f = m.listed[ti.select(covers, -1 - pair, pair)]
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
                    labels[i] = Label.BORDER
                for i in ti.static(range(3)):
                    m.memory[record + At.TRIANGLE + 2 * i] = ti.static((-3, 3, 0)[i]) * half
                    m.memory[record + At.TRIANGLE + 2 * i + 1] = ti.static((-3, -3, 6)[i]) * half
            else:
                n = 3
                turned = m.faces[at + Face.SIGN] < 0
                for i in ti.static(range(3)):
                    corner = ti.select(turned, (3 - i) % 3, i)
                    xs[i] = m.faces[at + 2 * corner] - x
                    ys[i] = m.faces[at + 2 * corner + 1] - y
                    labels[i] = Label.EACH * k + ti.select(turned, 2 - i, i)
                    m.memory[record + At.TRIANGLE + 2 * i] = xs[i]
                    m.memory[record + At.TRIANGLE + 2 * i + 1] = ys[i]
                left, right = ti.min(xs[0], xs[1], xs[2]), ti.max(xs[0], xs[1], xs[2])
                low, high = ti.min(ys[0], ys[1], ys[2]), ti.max(ys[0], ys[1], ys[2])
                for side in range(ti.select(m.faces[at + Face.CUT] > 0, 6, 4)):
                    a, b, c = 0 * x, 0 * x, half
                    needed = True
                    label = Label.BORDER
                    if side < 4:
                        lower = ti.select(side == 0, left, low)
                        upper = ti.select(side == 1, -right, -high)
                        needed = ti.select(side % 2 == 0, lower, upper) < -half
                        a = ti.select(side == 0, 1, ti.select(side == 1, -1, 0)) + a
                        b = ti.select(side == 2, 1, ti.select(side == 3, -1, 0)) + b
                    else:
                        a, b, c = self.clip_line(m, f, side == 4, x, y)
                        label = Label.EACH * k + Label.CLIPPED
                    if needed and n > 0:
                        target = LOCAL - source
                        end = target
                        u, v, mark = xs[source], ys[source], labels[source]
                        d = a * u + b * v + c
                        for i in range(n):
                            following = source + ti.select(i + 1 < n, i + 1, 0)
                            u_next, v_next = xs[following], ys[following]
                            mark_next = labels[following]
                            d_next = a * u_next + b * v_next + c
                            if d > 0 and end < target + LOCAL:
                                xs[end], ys[end], labels[end] = u, v, mark
                                end += 1
                            if (d > 0) != (d_next > 0) and end < target + LOCAL:
                                t = d / (d - d_next)
                                xs[end] = u + t * (u_next - u)
                                ys[end] = v + t * (v_next - v)
                                labels[end] = ti.select(d > 0, label, mark)
                                end += 1
                            u, v, mark, d = u_next, v_next, mark_next, d_next
                        n = end - target
                        source = target
            slope_x, slope_y = m.faces[at + Face.SLOPE_X], m.faces[at + Face.SLOPE_Y]
            w0 = self.w_at(m, f, x, y)
            w_min, w_max = self.huge + 0 * x, -self.huge + 0 * x
            x_min, x_max, y_min, y_max = half, -half, half, -half
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
                    x_min, x_max = ti.min(x_min, u), ti.max(x_max, u)
                    y_min, y_max = ti.min(y_min, v), ti.max(y_max, v)
                    put(m.memory, record, i, u, v, labels[source + i])
            m.memory[record + At.COUNT] = n
            m.memory[record + At.AREA] = 0.5 * area
            m.memory[record + At.X] = x_sum / 6
            m.memory[record + At.Y] = y_sum / 6
            least, most = m.faces[at + Face.W_MIN], m.faces[at + Face.W_MAX]
            m.memory[record + At.W_MIN] = ti.min(ti.max(w0 + w_min, least), most)
            m.memory[record + At.W_MAX] = ti.max(ti.min(w0 + w_max, most), least)
            m.memory[record + At.LEFT] = x_min
            m.memory[record + At.RIGHT] = x_max
            m.memory[record + At.BOTTOM] = y_min
            m.memory[record + At.TOP] = y_max
