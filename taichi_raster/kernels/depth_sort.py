"""The fragments that a pixel sees, in order of depth. No derivative."""

from typing import Any

import taichi as ti

from taichi_raster.kernels.fragment import Fragment, Meeting
from taichi_raster.kernels.pairs import PairKernels
from taichi_raster.maths.dual import raw
from taichi_raster.maths.tracing import let, traced
from taichi_raster.maths.variables import Lanes
from taichi_raster.runtime.layout import SHIFT, TILE, Dim, EarlyStop, Limit


class TilePairs:
    """A face and the pixels of a tile.

    Attributes:
        cover: coverage, as by `DepthSort.cover_of`; 0 where the pair does not count.
        z: depth, as by `PairKernels.order`.
        found: how many fragments each pixel has had so far.
    """

    _data_oriented = True

    def __init__(self) -> None:
        self.cover, self.z = Lanes(TILE * TILE), Lanes(TILE * TILE)
        self.found = Lanes(TILE * TILE, 0)


@ti.data_oriented
class DepthSort(PairKernels):
    """Lists of faces for each pixel, nearest first, then -1.

    A pixel is done when no more fragments count, or when those listed hide the rest (see
    `EarlyStop`). Each kernel returns how many fragments the longest list has; or, if that is more
    than `depth`, how many it may need. On a CPU a thread takes a tile: it measures all pixels of a
    face together, then sorts them in.
    """

    in_order = True

    @ti.kernel
    def collect_tiles(self, tiles: ti.i32, length: ti.i32, depth: ti.i32, hides: ti.i32) -> ti.i32:
        needed = 0
        self.parallel(tiles, length, self.collect_tile, (depth, hides, needed))
        return needed

    @ti.kernel
    def collect_pixels(self, slots: ti.i32, depth: ti.i32, hides: ti.i32) -> ti.i32:
        needed = 0
        self.parallel_pixels(slots, self.collect_pixel, (depth, hides, needed))
        return needed

    @ti.func
    def collect_tile(self, tile, depth, hides, needed: ti.template()):
        b, first_row, first_column = self.tile_at(tile)
        self.hold(b)
        pairs = self.tile_pairs()
        columns = ti.min(TILE, self.dims[Dim.WIDTH] - first_column)
        for k in range(self.fields.tile_begin[tile], self.fields.tile_begin[tile + 1]):
            index = self.fields.tile_faces[k]
            face = self.face(b, index)
            begin, end = self.lanes_of_tile(face, first_row, first_column)
            for lane in range(begin, end):
                m = self.meet_in_tile(face, first_row, first_column, lane)
                if ti.static(self.loops):
                    pairs.cover.at(lane).set(0.0)
                    if m.near:
                        self.note(m, pairs, lane)
                else:
                    self.note(m, pairs, lane)
            for lane in range(begin, end):
                cover = pairs.cover.at(lane).value
                if (lane & (TILE - 1)) < columns and cover != 0.0:
                    q = self.pixel_index(
                        b, first_row + (lane >> SHIFT), first_column + (lane & (TILE - 1))
                    )
                    found = pairs.found.at(lane).value
                    z = pairs.z.at(lane).value
                    pairs.found.at(lane).set(self.insert(q * depth, found, depth, index, z, cover))
        most = 0
        for row in range(first_row, ti.min(first_row + TILE, self.dims[Dim.HEIGHT])):
            for i in range(columns):
                q = self.pixel_index(b, row, first_column + i)
                found = pairs.found.at((row - first_row) * TILE + i).value
                most = ti.max(most, self.finish(q, found, depth, hides))
        self.release()
        ti.atomic_max(needed, most)

    @ti.func
    def collect_pixel(self, b, row, column, tile, depth, hides, needed: ti.template()):
        q, found = self.pixel_index(b, row, column), 0
        for k in range(self.fields.tile_begin[tile], self.fields.tile_begin[tile + 1]):
            face = self.fields.tile_faces[k]
            m = self.meet(self.face(b, face), row, column)
            if m.near:
                f = self.weigh(m)
                if f.counts:
                    cover = self.cover_of(m, f)
                    found = self.insert(q * depth, found, depth, face, self.order(m, f), cover)
        ti.atomic_max(needed, self.finish(q, found, depth, hides))

    @ti.func
    def finish(self, q, found, depth, hides):
        """End a pixel's list where it hides the rest; how many it has, or should have had."""
        begin = q * depth
        transmittance = 1.0
        hidden, layer = False, 0
        while layer < ti.min(found, depth) and not hidden:
            transmittance *= 1.0 - self.fields.layer_covers[begin + layer]
            if hides == EarlyStop.PRODUCT:
                hidden = transmittance <= self.fields.limits[Limit.HIDDEN]
            layer += 1
        for empty in range(layer, depth):
            self.fields.layers[begin + empty] = -1
        return ti.select(found > depth and not hidden, found, layer)

    @ti.func
    def insert(self, begin, found, depth, face, z, cover):
        """Insert a face into a pixel's list, sorted by depth, then by number; how many are found.

        At most `depth` faces stay in it.
        """
        at, before = begin + ti.min(found, depth), True
        while at > begin and before:
            other_z, other = self.fields.layer_depths[at - 1], self.fields.layers[at - 1]
            before = z < other_z or (z == other_z and face < other)
            if before:
                if at < begin + depth:
                    self.fields.layer_depths[at], self.fields.layers[at] = other_z, other
                    self.fields.layer_covers[at] = self.fields.layer_covers[at - 1]
                at -= 1
        if at < begin + depth:
            self.fields.layer_depths[at], self.fields.layers[at], self.fields.layer_covers[at] = (
                z,
                face,
                cover,
            )
        return found + 1

    @traced
    def tile_pairs(self) -> TilePairs:
        return TilePairs()

    @traced
    def note(self, m: Meeting, pairs: TilePairs, lane: Any) -> None:
        f = self.weigh(m)
        pairs.z.at(lane).set(self.order(m, f))
        pairs.cover.at(lane).set(ti.select(f.counts, self.cover_of(m, f), 0.0))

    @traced
    def cover_of(self, m: Meeting, f: Fragment) -> Any:
        return let(raw(f.edge.f))


@ti.data_oriented
class SortOfAll(DepthSort):
    """Lists of all fragments, whatever hides them; each list is sorted once it is complete."""

    @ti.func
    def insert(self, begin, found, depth, face, z, cover):
        if found < depth:
            self.fields.layer_depths[begin + found] = z
            self.fields.layers[begin + found] = face
        return found + 1

    @ti.func
    def finish(self, q, found, depth, hides):
        begin, count = q * depth, ti.min(found, depth)
        if found <= depth:
            self.sort(begin, count)
        for empty in range(count, depth):
            self.fields.layers[begin + empty] = -1
        return found

    @ti.func
    def sort(self, begin, count):
        """Shell's sort, by depth, then by number: few are just inserted one after the other."""
        gap = 1
        while gap < count // 3:
            gap = 3 * gap + 1
        while gap > 0:
            for i in range(begin + gap, begin + count):
                z, face = self.fields.layer_depths[i], self.fields.layers[i]
                at, before = i, True
                while at >= begin + gap and before:
                    other_z, other = (
                        self.fields.layer_depths[at - gap],
                        self.fields.layers[at - gap],
                    )
                    before = z < other_z or (z == other_z and face < other)
                    if before:
                        self.fields.layer_depths[at], self.fields.layers[at] = other_z, other
                        at -= gap
                self.fields.layer_depths[at], self.fields.layers[at] = z, face
            gap //= 3
