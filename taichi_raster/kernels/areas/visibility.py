"""The part of each face that each pixel sees, exactly: its area and centroid, and their adjoints.

Within a pixel, the part of a face that is seen is a convex polygon (the face, cut by the pixel)
less the convex polygons of the faces in front of it. What is left is a few convex pieces. Where two
faces pass through each other, each hides the other on its side of the line where their depths are
equal. So there is no sampling, and the result does not depend on how surfaces are cut into faces.

Most fragments overlap no other. Those are measured edge by edge, and not cut at all.

The derivative is an integral along the edges (adjoints.py). Li et al. (SIGGRAPH Asia 2018) sample
it; here it is in closed form.
"""

# mypy: disable-error-code="no-untyped-def, valid-type"

import taichi as ti

from taichi_raster.kernels.areas.adjoints import Adjoints
from taichi_raster.kernels.areas.hiding import SPARE
from taichi_raster.kernels.areas.layout import FLOATS, INTS, Face, Pair, Seen, Size
from taichi_raster.kernels.areas.polygons import RECORD, At
from taichi_raster.kernels.memory import SPREAD


@ti.data_oriented
class Visibility(Adjoints):
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
        m = self.arrays(
            boxes=boxes,
            begins=begins,
            covered=covered,
            starts=starts,
            counts=ends,
            values=found,
            faces=faces,
            listed=listed,
            firsts=firsts,
            ends=ends,
            slots=slots,
            limits=limits,
            memory=memory,
            order=order,
            seen=seen,
            attributes=attributes,
            size=size,
        )
        for slot in range(size[Size.WORKERS] * SPREAD):
            if slot & (SPREAD - 1) == 0:
                worker = slot // SPREAD
                for tile in range(self.first_of(m, worker), self.first_of(m, worker + 1)):
                    self.begin(m, tile)
                    self.visit(m, tile, 2)
                    b, left, right, top, bottom = self.box_of(m, tile)
                    for row in range(top, bottom):
                        for column in range(left, right):
                            self.see(m, b, row, column, worker, False)

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
        begin: ti.i32,
        count: ti.i32,
    ):
        """`see_tiles` for pixels `begin` to before `begin + count` (see `pixel_of`), on a GPU.

        `firsts` has where the pixels' lists begin, and `ends` is a copy of that.
        """
        m = self.arrays(
            boxes=boxes,
            begins=begins,
            covered=covered,
            counts=ends,
            values=found,
            faces=faces,
            listed=listed,
            firsts=firsts,
            ends=ends,
            slots=slots,
            limits=limits,
            memory=memory,
            order=order,
            seen=seen,
            attributes=attributes,
            size=size,
        )
        for worker in range(count):
            row, column, tile = self.pixel_of(m, begin + worker)
            if row >= 0:
                b = tile // size[Size.TILES]
                self.meet(m, self.number(m, b, row, column), 2)
                self.see(m, b, row, column, worker, False)

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
        """Add to each (tile, face) what the adjoints of `found` give; on a CPU.

        `pairs` has its `Pair`, `colours` the adjoints of its attributes.
        """
        m = self.arrays(
            values=adjoints,
            pairs=pairs,
            colours=colours,
            faces=faces,
            listed=listed,
            firsts=firsts,
            ends=ends,
            slots=slots,
            limits=limits,
            memory=memory,
            order=order,
            seen=seen,
            attributes=attributes,
            size=size,
        )
        for slot in range(size[Size.WORKERS] * SPREAD):
            if slot & (SPREAD - 1) == 0:
                worker = slot // SPREAD
                for tile in range(self.first_of(m, worker), self.first_of(m, worker + 1)):
                    b, left, right, top, bottom = self.box_of(m, tile)
                    for row in range(top, bottom):
                        for column in range(left, right):
                            self.see(m, b, row, column, worker, True)

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
        begin: ti.i32,
        count: ti.i32,
    ):
        """`see_tiles_vjp` for pixels `begin` to before `begin + count`, on a GPU."""
        m = self.arrays(
            values=adjoints,
            pairs=pairs,
            colours=colours,
            faces=faces,
            listed=listed,
            firsts=firsts,
            ends=ends,
            slots=slots,
            limits=limits,
            memory=memory,
            order=order,
            seen=seen,
            attributes=attributes,
            size=size,
        )
        for worker in range(count):
            row, column, tile = self.pixel_of(m, begin + worker)
            if row >= 0:
                self.see(m, tile // size[Size.TILES], row, column, worker, True)

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
                # The slope of a face that is not drawn may be infinite.
                to_vertices[9 * f + 3 * i + 2] = 0
                if total[Pair.W + i] != 0:
                    to_vertices[9 * f + 3 * i + 2] = slope * total[Pair.W + i]
            for i in ti.static(range(self.values)):
                to_attributes[3 * self.view.channels * f + i] = of_colours[i]

    @ti.func
    def pixel_of(self, m: ti.template(), at):
        """(row, column, tile) of a GPU thread's pixel; the row is -1 outside the image.

        The first pixels of all tiles come first, then the second ones, and so on.
        """
        tiles = m.size[Size.BATCH] * m.size[Size.TILES]
        within = at // tiles
        tile = at - within * tiles
        _b, left, right, top, bottom = self.box_of(m, tile)
        row = top + within // m.size[Size.TILE]
        column = left + within % m.size[Size.TILE]
        if row >= bottom or column >= right:
            row = -1
        return row, column, tile

    @ti.func
    def number(self, m: ti.template(), b, row, column):
        """A pixel's number in the batch."""
        return (b * m.size[Size.HEIGHT] + row) * m.size[Size.WIDTH] + column

    @ti.func
    def see(self, m: ti.template(), b, row, column, worker, adjoint: ti.template()):
        """One pixel. Where `adjoint`, `found` holds the adjoints, otherwise it is written."""
        p = self.number(m, b, row, column)
        begin, end = m.firsts[p], m.ends[p]
        x = ti.cast(column, self.real) + 0.5
        y = ti.cast(m.size[Size.HEIGHT] - row, self.real) - 0.5
        zero = 0 * x
        count = end - begin
        base = worker * RECORD * (m.size[Size.LONGEST] + m.size[Size.PIECES] + SPARE)
        places = worker * 2 * m.size[Size.LONGEST]
        alone = False
        if count == 1:
            alone = m.slots[begin] < 0
        colour = ti.Vector.zero(self.real, self.view.channels + 1)
        if alone:
            if ti.static(adjoint):
                self.inner(m, p, begin, zero + 1, zero, zero, x, y)
            else:
                self.show(m, colour, begin, zero + 1, x, y)
        elif count > 0:
            if ti.static(adjoint):
                self.pass_all(m, p, begin, end, base, places, x, y)
            else:
                self.look(m, begin, end, base, places, x, y)
                for at in range(begin, end):
                    area = m.seen[Seen.SIZE * at + Seen.AREA]
                    if area > 0:
                        u = x + m.seen[Seen.SIZE * at + Seen.X] / area
                        v = y + m.seen[Seen.SIZE * at + Seen.Y] / area
                        self.show(m, colour, at, area, u, v)
                    elif ti.static(self.view.channels < 0):
                        for i in ti.static(range(3)):
                            self.write(m, 3 * at + i, 0 * x)
        if ti.static(not adjoint and self.view.channels >= 0):
            # Rounding may have added up to a little more than a pixel.
            colour[self.view.channels] = ti.min(colour[self.view.channels], 1)
            for c in ti.static(range(self.view.channels + 1)):
                self.write(m, (self.view.channels + 1) * p + c, colour[c])

    @ti.func
    def write(self, m: ti.template(), at, value):
        """Write an element of the result, which a GPU has cleared before.

        There it is added: Vulkan clears an array that a launch only writes to, and there are
        several launches.
        """
        if ti.static(self.on_cpu):
            m.values[at] = value
        else:
            m.values[at] = m.values[at] + value

    @ti.func
    def keep(self, m: ti.template(), at, area, x_sum, y_sum, hiding):
        m.seen[Seen.SIZE * at + Seen.AREA] = area
        m.seen[Seen.SIZE * at + Seen.X] = x_sum
        m.seen[Seen.SIZE * at + Seen.Y] = y_sum
        m.seen[Seen.SIZE * at + Seen.HIDING] = hiding

    @ti.func
    def show(self, m: ti.template(), colour: ti.template(), at, area, x, y):
        """Add a fragment to its pixel's colour, or write what its corners have a share in."""
        f = self.face_of(m, at)
        share = area * self.mixing(m, f, x, y)
        if ti.static(self.view.channels < 0):
            for i in ti.static(range(3)):
                self.write(m, 3 * at + i, share[i])
        else:
            corner = 3 * self.view.channels * f
            for c in ti.static(range(self.view.channels)):
                for i in ti.static(range(3)):
                    colour[c] += share[i] * m.attributes[corner + i * self.view.channels + c]
            colour[self.view.channels] += area

    @ti.func
    def look(self, m: ti.template(), begin, end, base, places, x, y):
        """Find what is seen of each of a pixel's fragments.

        As long as none overlaps another, all of each is seen, until they fill the pixel and what
        follows is behind them. Where some overlap, each is cut by those in front of it.
        """
        count = end - begin
        self.sort(m, begin, count, base, places, True, x, y)
        total, lowest = 0 * x, self.huge + 0 * x
        overlap, o = False, 0
        while o < count and not overlap:
            k = m.order[places + o]
            record = base + RECORD * k
            if total >= self.full and m.memory[record + At.LIMIT] < lowest:
                break
            f = self.face_of(m, begin + k)
            overlap = m.faces[Face.SIZE * f + Face.CUT] > 0
            self.measure(m, f, record, x, y)
            area = m.memory[record + At.AREA]
            if area > self.tiny:
                for before in range(o):
                    if not overlap:
                        other = base + RECORD * m.order[places + before]
                        overlap = self.boxes_meet(m, record, other)
                        if overlap:
                            overlap = not self.parted(m, other, record)
                        if overlap:
                            overlap = not self.parted(m, record, other)
                total += area
                lowest = ti.min(lowest, m.memory[record + At.W_MIN])
            self.keep(m, begin + k, area, m.memory[record + At.X], m.memory[record + At.Y], 0)
            o += 1
        if overlap:
            o = 0
            total, lowest = 0 * x, self.huge + 0 * x
            while o < count:
                k = m.order[places + o]
                record = base + RECORD * k
                if total >= self.full and m.memory[record + At.LIMIT] < lowest:
                    break
                self.place(m, begin, k, base, x, y)
                area, x_sum, y_sum = m.memory[record + At.AREA], 0 * x, 0 * x
                hiding = 0
                if area > self.tiny:
                    hiding = self.hidden_by(m, begin, count, k, base, places, x, y)
                    if hiding == 0:
                        x_sum, y_sum = m.memory[record + At.X], m.memory[record + At.Y]
                    else:
                        area, x_sum, y_sum = self.pieces(
                            m, begin, hiding, k, base, places, x, y, x_sum, x_sum, x_sum, False
                        )
                    total += area
                    if area > 0:
                        lowest = ti.min(lowest, m.memory[record + At.W_MIN])
                self.keep(m, begin + k, area, x_sum, y_sum, hiding)
                o += 1
        while o < count:
            self.keep(m, begin + m.order[places + o], 0 * x, 0 * x, 0 * x, 0)
            o += 1

    @ti.func
    def pass_all(self, m: ti.template(), p, begin, end, base, places, x, y):
        """Pass on the adjoints of a pixel with several fragments, or with edges."""
        count = end - begin
        some_hidden = False
        for at in range(begin, end):
            some_hidden = some_hidden or m.seen[Seen.SIZE * at + Seen.HIDING] > 0
        self.sort(m, begin, count, base, places, some_hidden, x, y)
        for k in range(count):
            at = begin + k
            area = m.seen[Seen.SIZE * at + Seen.AREA]
            if area > 0:
                u, v = (
                    m.seen[Seen.SIZE * at + Seen.X] / area,
                    m.seen[Seen.SIZE * at + Seen.Y] / area,
                )
                mean, slope_x, slope_y = self.inner(m, p, at, area, u, v, x, y)
                if mean != 0 or slope_x != 0 or slope_y != 0:
                    constant = mean - slope_x * u - slope_y * v
                    f = self.face_of(m, at)
                    hidden = m.seen[Seen.SIZE * at + Seen.HIDING] > 0
                    if not hidden and m.faces[Face.SIZE * f + Face.CUT] == 0:
                        pair = m.slots[at]
                        self.pass_edges(
                            m,
                            f,
                            ti.select(pair < 0, -1 - pair, pair),
                            x,
                            y,
                            constant,
                            slope_x,
                            slope_y,
                        )
                    elif hidden:
                        self.place(m, begin, k, base, x, y)
                        hiding = self.hidden_by(m, begin, count, k, base, places, x, y)
                        _area, _x_sum, _y_sum = self.pieces(
                            m,
                            begin,
                            hiding,
                            k,
                            base,
                            places,
                            x,
                            y,
                            constant,
                            slope_x,
                            slope_y,
                            True,
                        )
                    else:
                        self.place(m, begin, k, base, x, y)
                        self.pass_on(
                            m, begin, base + RECORD * k, f, k, x, y, constant, slope_x, slope_y
                        )
