"""Which rows, columns and tiles of the image a face can reach."""

from typing import Any

import taichi as ti

from taichi_raster.kernels.fragment import Face
from taichi_raster.kernels.memory import Memory
from taichi_raster.maths import geometry
from taichi_raster.maths.arithmetic import clamp
from taichi_raster.maths.dual import raw
from taichi_raster.maths.tracing import let, traced
from taichi_raster.runtime.layout import TILE, Dim, Limit


@ti.data_oriented
class Reach(Memory):
    """The pixels near enough to a face, and whether it is drawn at all. No derivative."""

    @traced
    def rows(self, face: Face, first: Any, last: Any) -> tuple[Any, Any]:
        """(top, bottom): the rows, from `first` up to `last`, that a face can reach."""
        highest, lowest = (
            extreme(*(raw(c[1]) for c in face.triangle.corners)) for extreme in (ti.max, ti.min)
        )
        return self._rows_between(face, lowest - self.reach(), highest + self.reach(), first, last)

    @traced
    def rows_of_tile(self, face: Face, first_row: Any, first_column: Any) -> tuple[Any, Any]:
        """(top, bottom): the rows of a tile that a face can reach somewhere in it.

        The region within reach of a triangle is convex: in a strip of columns, it is highest at its
        highest point, or at the end of the strip nearest to that.
        """
        left = raw(self.point(first_row, first_column)[0])
        right = raw(self.point(first_row, first_column + (TILE - 1))[0])
        lowest, highest = (self._end_of_strip(face, left, right, up) for up in (False, True))
        return self._rows_between(face, lowest, highest, first_row, first_row + TILE)

    @traced
    def lanes_of_tile(self, face: Face, first_row: Any, first_column: Any) -> tuple[Any, Any]:
        """(begin, end): the pixels of these rows, numbered row by row within the tile."""
        top, bottom = self.rows_of_tile(face, first_row, first_column)
        return let((top - first_row) * TILE), let((bottom - first_row) * TILE)

    @traced
    def columns(self, face: Face, row: Any) -> tuple[Any, Any]:
        """(left, right): the columns of a row that a face can reach."""
        y = raw(self.point(row, 0)[1])
        low, high = geometry.extent(face.triangle, 1, y, self.reach())
        width = self.dim(Dim.WIDTH)
        return self.whole(low, width, False), self.whole(high, width, True)

    @traced
    def tiles(self, face: Face) -> tuple[Any, Any, Any, Any]:
        """(top, bottom, left, right): the tiles that meet a face's bounding box.

        The box is widened by the reach.
        """
        top, bottom = self.rows(face, 0, self.dim(Dim.HEIGHT))
        x = [raw(corner[0]) for corner in face.triangle.corners]
        width = self.dim(Dim.WIDTH)
        left = self.whole(ti.min(*x) - self.reach(), width, False)
        right = self.whole(ti.max(*x) + self.reach(), width, True)
        return *_tiles(top, bottom), *_tiles(left, right)

    @traced
    def reach(self) -> Any:
        """A little more than the distance at which pairs cease to count."""
        return self.limit(Limit.REACH) * (1.0 + 1e-5)

    @traced
    def depth_range(self) -> Any:
        return self.limit(Limit.FAR) - self.limit(Limit.NEAR)

    @traced
    def front(self, triangle: geometry.Triangle) -> Any:
        """Whether a face shows its front."""
        area = raw(triangle.area)
        return let(area < 0.0) if self.variant.clockwise else let(area > 0.0)

    @traced
    def drawn(self, triangle: geometry.Triangle) -> Any:
        """Whether a face is drawn at all, wherever it lies in the image."""
        z = triangle.z.each(raw)
        if self.variant.unclipped_alpha:  # alpha asks only that 1 / z is finite
            return let(ti.min(*(ti.abs(depth) for depth in z)) > 0.0)
        shown = ti.min(*z) > 0.0
        shown = shown & (ti.min(*z) <= self.limit(Limit.FAR))
        shown = shown & (ti.max(*z) >= self.limit(Limit.NEAR))
        if self.variant.cull:
            shown = shown & self.front(triangle)
        return let(shown)

    @traced
    def whole(self, position: Any, size: Any, end: bool) -> Any:
        """The first pixel, in [0, size], whose centre is at `position` or behind it; or, for an
        `end`, the one after the last pixel before it."""
        width, height = self.dim(Dim.WIDTH), self.dim(Dim.HEIGHT)
        short = ti.cast(ti.min(width, height), self.fields.limits.dtype)
        pixel = (position * short + (size - 1)) * 0.5
        nearby = ti.floor(pixel + 0.01) + 1.0 if end else ti.ceil(pixel - 0.01)
        return let(ti.cast(clamp(nearby, 0.0, size), ti.i32))

    @traced
    def _end_of_strip(self, face: Face, left: Any, right: Any, up: bool) -> Any:
        """The highest (`up`) or lowest y within reach of a face between two columns."""
        sign = 1.0 if up else -1.0
        keys = [let(raw(corner[1]) * sign) for corner in face.triangle.corners]
        x0, x1, x2 = (raw(corner[0]) for corner in face.triangle.corners)
        second = let(ti.select(keys[1] > keys[2], x1, x2))
        farthest = ti.select(keys[0] >= ti.max(keys[1], keys[2]), x0, second)
        column = let(clamp(farthest, left, right))
        return geometry.extent(face.triangle, 0, column, self.reach())[up]

    @traced
    def _rows_between(
        self, face: Face, lowest: Any, highest: Any, first: Any, last: Any
    ) -> tuple[Any, Any]:
        height = self.dim(Dim.HEIGHT)
        top = let(ti.max(self.whole(-highest, height, False), first))
        bottom = let(ti.min(self.whole(-lowest, height, True), ti.min(last, height)))
        return top, let(ti.select(self.drawn(face.triangle), bottom, top))


def _tiles(begin: Any, end: Any) -> tuple[Any, Any]:
    """(first, last): the tiles that hold pixels from `begin` to before `end`."""
    first, last = let(begin // TILE), let((end + (TILE - 1)) // TILE)
    return first, let(ti.select(end > begin, last, first))
