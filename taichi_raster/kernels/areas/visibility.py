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

from taichi_raster.kernels.areas.crowded import Crowded
from taichi_raster.kernels.areas.layout import FLOATS, INTS, Face, Pair, Size
from taichi_raster.kernels.memory import SPREAD


@ti.data_oriented
class Visibility(Crowded):
    """Kernels over pixels; each thread ("worker") has memory of its own."""

    @ti.kernel
    def see_tiles(
        self,
        attributes: FLOATS,
        ints: INTS,
        floats: FLOATS,
        limits: FLOATS,
        memory: FLOATS,
        order: INTS,
        found: FLOATS,
        size: INTS,
    ):
        """List each pixel's fragments, and find what it sees of them; on a CPU.

        Writes `Seen` of each fragment. If there is no room for all fragments, as `tally` tells,
        tiles are left out. Only crowded tiles have `firsts` and `ends`, or all with a texture.
        `found`, cleared before, is the picture: C channels without a background, and alpha; or,
        without channels, what each of a fragment's corners has a share in: the area that is seen,
        times the corner's (perspective-correct) barycentric coordinate at its centroid.
        """
        for slot in range(size[Size.WORKERS] * SPREAD):
            if slot & (SPREAD - 1) == 0:
                worker = slot // SPREAD
                m = self.parts(
                    ints,
                    floats,
                    size,
                    attributes=attributes,
                    limits=limits,
                    memory=memory,
                    order=order,
                    values=found,
                )
                t = self.own(False)
                for tile in range(self.first_of(m, worker), self.first_of(m, worker + 1)):
                    if self.has_faces(m, tile):
                        self.cover(m, t, tile)
                        self.count(m, t, tile)
                        if self.claim(m, t, tile):
                            leaves = self.list_fragments(m, t, tile)
                            m.crowded[tile] = self.hide_tile(m, t, tile, worker, leaves)
                            if m.crowded[tile] > 0 or ti.static(self.view.channels < 0):
                                self.note_lists(m, t, tile)

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
        attributes: FLOATS,
        ints: INTS,
        floats: FLOATS,
        limits: FLOATS,
        memory: FLOATS,
        order: INTS,
        adjoints: FLOATS,
        pairs: FLOATS,
        colours: FLOATS,
        size: INTS,
    ):
        """Write what the adjoints of `found` give to each tile and face; on a CPU.

        `pairs` takes its `Pair`, `colours` the adjoints of its attributes.
        """
        for slot in range(size[Size.WORKERS] * SPREAD):
            if slot & (SPREAD - 1) == 0:
                worker = slot // SPREAD
                m = self.parts(
                    ints,
                    floats,
                    size,
                    attributes=attributes,
                    limits=limits,
                    memory=memory,
                    order=order,
                    values=adjoints,
                    pairs=pairs,
                    colours=colours,
                )
                t = self.own(True)
                for tile in range(self.first_of(m, worker), self.first_of(m, worker + 1)):
                    if self.has_faces(m, tile):
                        self.pass_pairs(m, t, tile)
                        self.pass_tile(m, tile, worker)

    @ti.kernel
    def give_back_few(
        self,
        ints: INTS,
        floats: FLOATS,
        pairs: FLOATS,
        colours: FLOATS,
        to_vertices: FLOATS,
        to_attributes: FLOATS,
        size: INTS,
    ):
        """`give_back_many` by one thread: for a few faces it takes less time than waking others.

        Both results were cleared before: nothing is written to faces that are in no tile.
        """
        ti.loop_config(serialize=True)
        for f in range(size[Size.BATCH] * size[Size.FACES]):
            m = self.parts(ints, floats, size, pairs=pairs, colours=colours)
            if m.first_places[f] < m.first_places[f + 1]:
                self.add_pairs(m, f, to_vertices, to_attributes)

    @ti.kernel
    def give_back_many(
        self,
        ints: INTS,
        floats: FLOATS,
        pairs: FLOATS,
        colours: FLOATS,
        to_vertices: FLOATS,
        to_attributes: FLOATS,
        size: INTS,
    ):
        """Sum up each face's pairs, in the order of its tiles; on a CPU."""
        for f in range(size[Size.BATCH] * size[Size.FACES]):
            m = self.parts(ints, floats, size, pairs=pairs, colours=colours)
            self.add_pairs(m, f, to_vertices, to_attributes)

    @ti.func
    def add_pairs(
        self, m: ti.template(), f, to_vertices: ti.template(), to_attributes: ti.template()
    ):
        """Write the sum of a face's pairs."""
        total = ti.Vector.zero(self.real, Pair.SIZE)
        of_colours = ti.Vector.zero(self.real, max(self.values, 1))
        for place in range(m.first_places[f], m.first_places[f + 1]):
            self.add_pair(m, m.places[place], total, of_colours)
        self.give_back(m, f, total, of_colours, to_vertices, to_attributes)

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
        """Sum up each face's pairs, in the order of its tiles; on a GPU."""
        m = self.arrays(faces=faces, boxes=boxes, size=size, pairs=pairs, colours=colours)
        for f in range(size[Size.BATCH] * size[Size.FACES]):
            base = f // size[Size.FACES] * size[Size.TILES]
            left, right, top, bottom = self.tiles_of(m, f)
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
                    self.add_pair(m, low, total, of_colours)
            self.give_back(m, f, total, of_colours, to_vertices, to_attributes)

    @ti.func
    def add_pair(self, m: ti.template(), pair, total: ti.template(), of_colours: ti.template()):
        """Add a pair's adjoints to those of its face."""
        for i in ti.static(range(Pair.SIZE)):
            total[i] += m.pairs[Pair.SIZE * pair + i]
        for i in ti.static(range(self.values)):
            of_colours[i] += m.colours[3 * self.view.channels * pair + i]

    @ti.func
    def give_back(
        self,
        m: ti.template(),
        f,
        total,
        of_colours,
        to_vertices: ti.template(),
        to_attributes: ti.template(),
    ):
        """Write a face's adjoints, of NDC and z."""
        half = 0.5 * ti.cast(ti.min(m.size[Size.HEIGHT], m.size[Size.WIDTH]), self.real)
        for i in ti.static(range(3)):
            w = m.faces[Face.SIZE * f + Face.W + i]
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
            to_attributes[self.values * f + i] = of_colours[i]
