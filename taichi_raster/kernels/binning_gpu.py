"""Lists the faces that can touch each tile of pixels: count, scan, fill. No derivative.

For large images, groups of GROUP x GROUP tiles are listed first, so that a tile only looks through
its group's faces. The lists are as long as they need to be.
"""

from typing import Any

import taichi as ti

from taichi_raster.kernels.pairs import PairKernels
from taichi_raster.maths.dual import raw
from taichi_raster.maths.tracing import let, traced
from taichi_raster.runtime.layout import GROUP, TILE, Dim, Limit


@ti.data_oriented
class BinningGPU(PairKernels):
    """Lists of faces, tile after tile, in the order of the faces."""

    @ti.kernel
    def count(self, tiles: ti.i32, length: ti.i32, grouped: ti.i32):
        self.parallel(tiles, length, self.visit_tile, (grouped, False))

    @ti.kernel
    def fill(self, tiles: ti.i32, length: ti.i32, grouped: ti.i32):
        self.parallel(tiles, length, self.visit_tile, (grouped, True))

    @ti.kernel
    def scan(self, tiles: ti.i32) -> ti.i32:
        return self.sum_up(self.fields.tile_begin, tiles)

    @ti.kernel
    def scan_only(self, tiles: ti.i32):
        self.sum_up(self.fields.tile_begin, tiles)

    @ti.kernel
    def count_groups(self, groups: ti.i32, length: ti.i32):
        self.parallel(groups, length, self.visit_group, (False,))

    @ti.kernel
    def fill_groups(self, groups: ti.i32, length: ti.i32):
        self.parallel(groups, length, self.visit_group, (True,))

    @ti.kernel
    def scan_groups(self, groups: ti.i32) -> ti.i32:
        return self.sum_up(self.fields.group_begin, groups)

    @ti.func
    def visit_tile(self, tile, grouped, fills: ti.template()):
        b, row, column = self.tile_at(tile)
        group = self.group_of(b, row, column)
        lists = ti.static(self.fields.tile_begin, self.fields.tile_faces)
        self.visit(tile, b, row, column, TILE, group, grouped, lists, fills)

    @ti.func
    def visit_group(self, group, fills: ti.template()):
        b, row, column = self.group_at(group)
        lists = ti.static(self.fields.group_begin, self.fields.group_faces)
        self.visit(group, b, row, column, ti.static(GROUP * TILE), 0, 0, lists, fills)

    @ti.func
    def visit(
        self, i, b, row, column, side, group, grouped, lists: ti.template(), fills: ti.template()
    ):
        """Count the faces of square number i of pixels, or, where `fills`, list them."""
        begins, faces = ti.static(lists)
        self.hold(b)
        at = begins[i] if ti.static(fills) else 0
        for k in range(self.begin(group, grouped), self.end(group, grouped)):
            face = self.candidate(k, grouped)
            if self.reaches(b, face, row, column, side):
                if ti.static(fills):
                    faces[at] = face
                at += 1
        if ti.static(not fills):
            begins[i + 1] = at
        self.release()

    @ti.kernel
    def scan_groups_only(self, groups: ti.i32):
        self.sum_up(self.fields.group_begin, groups)

    @ti.func
    def sum_up(self, begin: ti.template(), n):
        """Turn counts into beginnings; returns the total, or -1 if it does not fit in 31 bits."""
        total = ti.cast(0, ti.i64)
        ti.loop_config(serialize=True)
        for i in range(n):
            total += begin[i + 1]
            begin[i + 1] = ti.cast(total, ti.i32)
        begin[0] = 0
        return ti.select(total < ti.cast(2**31 - 1, ti.i64), ti.cast(total, ti.i32), -1)

    @ti.func
    def group_of(self, b, row, column):
        """The group of the tile that begins at a pixel."""
        side = ti.static(GROUP * TILE)
        return b * self.dims[Dim.GROUPS] + row // side * self.dims[Dim.GROUPS_X] + column // side

    @ti.func
    def group_at(self, group):
        """(batch item, first row, first column) of a group of tiles."""
        b = group // self.dims[Dim.GROUPS]
        in_image = group - b * self.dims[Dim.GROUPS]
        gy = in_image // self.dims[Dim.GROUPS_X]
        gx = in_image - gy * self.dims[Dim.GROUPS_X]
        return b, gy * (GROUP * TILE), gx * (GROUP * TILE)

    @ti.func
    def begin(self, group, grouped):
        return ti.select(grouped == 1, self.fields.group_begin[group * grouped], 0)

    @ti.func
    def end(self, group, grouped):
        last = self.fields.group_begin[group * grouped + 1]
        return ti.select(grouped == 1, last, self.dims[Dim.FACES])

    @ti.func
    def candidate(self, k, grouped):
        return ti.select(grouped == 1, self.fields.group_faces[k * grouped], k)

    @traced
    def reaches(self, b: Any, face: Any, row: Any, column: Any, side: Any) -> Any:
        """Whether a face's bounding box, widened by the reach, meets a square of pixels."""
        first = self.point(row, column).each(raw)
        last = self.point(row + (side - 1), column + (side - 1)).each(raw)
        triangle = self.face(b, face).triangle
        reach = self.limit(Limit.REACH)
        low, high = (
            [let(extreme(*(raw(c[j]) for c in triangle.corners))) for j in range(2)]
            for extreme in (ti.min, ti.max)
        )
        hit = (low[0] - reach <= last[0]) & (high[0] + reach >= first[0])
        hit = hit & ((low[1] - reach <= first[1]) & (high[1] + reach >= last[1]))
        return let(hit & self.drawn(triangle))
