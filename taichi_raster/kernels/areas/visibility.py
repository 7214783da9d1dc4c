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

from taichi_raster.kernels.areas.layout import FLOATS, INTS, Face, Pair, Size
from taichi_raster.kernels.areas.pixels import Pixels
from taichi_raster.kernels.memory import SPREAD


@ti.data_oriented
class Visibility(Pixels):
    """Kernels over pixels; each thread ("worker") has memory of its own."""

    @ti.kernel
    def see_tiles(
        self,
        faces: FLOATS,
        boxes: INTS,
        begins: INTS,
        listed: INTS,
        covered: FLOATS,
        owners: INTS,
        starts: INTS,
        firsts: INTS,
        ends: INTS,
        slots: INTS,
        entries: INTS,
        spots: INTS,
        marks: INTS,
        crowded: INTS,
        limits: FLOATS,
        memory: FLOATS,
        order: INTS,
        seen: FLOATS,
        attributes: FLOATS,
        found: FLOATS,
        size: INTS,
    ):
        """List each pixel's fragments, and find what it sees of them; on a CPU.

        Turns `ends` from counts into the ends of the lists. Writes `Seen` of each fragment.
        `crowded` is 1 for tiles where some fragments are cut by others. `found`, cleared before, is
        the picture: C channels without a background, and alpha; or, without channels, what each
        of a fragment's corners has a share in: the area that is seen, times the corner's
        (perspective-correct) barycentric coordinate at its centroid.
        """
        m = self.arrays(
            boxes=boxes,
            begins=begins,
            covered=covered,
            owners=owners,
            starts=starts,
            entries=entries,
            spots=spots,
            marks=marks,
            crowded=crowded,
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
                    if self.has_faces(m, tile):
                        self.begin(m, tile)
                        self.list_fragments(m, tile)
                        self.see_tile(m, tile, worker, False)
                        self.show_fragments(m, tile)

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
        begins: INTS,
        listed: INTS,
        owners: INTS,
        starts: INTS,
        entries: INTS,
        spots: INTS,
        marks: INTS,
        crowded: INTS,
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
            begins=begins,
            listed=listed,
            owners=owners,
            starts=starts,
            entries=entries,
            spots=spots,
            marks=marks,
            crowded=crowded,
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
                    if self.has_faces(m, tile):
                        self.pass_fragments(m, tile)
                        self.see_tile(m, tile, worker, True)

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
