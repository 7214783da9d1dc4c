"""Lists of the fragments that add to the sum of the two largest coverages, in order of depth."""

from typing import Any

import taichi as ti

from taichi_raster.kernels.depth_sort import DepthSort
from taichi_raster.kernels.fragment import Fragment, Meeting
from taichi_raster.maths.dual import raw
from taichi_raster.maths.tracing import let, traced
from taichi_raster.runtime.layout import Limit


@ti.data_oriented
class SortOfLargestTwo(DepthSort):
    """Lists of those fragments alone that may add something, up to where they hide the rest.

    That is, those that are among the two largest so far of the faces that show the same side. The
    coverage of a face that shows its back is listed as negative. A kernel returns twice `depth`
    where lists are too short.
    """

    @ti.func
    def finish(self, q, found, depth, hides):
        for empty in range(ti.min(found, depth), depth):
            self.fields.layers[q * depth + empty] = -1
        return ti.select(found > depth, 2 * depth, found)

    @ti.func
    def insert(self, begin, found, depth, face, z, cover):
        """Insert a face into a pixel's list, and drop what then adds nothing; how many are found.

        It is `depth` + 1 from then on where there was no place for one.
        """
        count, larger = found, 0
        for i in range(ti.min(found, depth)):
            other_z = self.fields.layer_depths[begin + i]
            nearer = other_z < z or (other_z == z and self.fields.layers[begin + i] < face)
            other = self.fields.layer_covers[begin + i]
            alike = (other > 0.0) == (cover > 0.0)
            if nearer and alike and ti.abs(other) >= ti.abs(cover):
                larger += 1
        if larger < 2 and found >= depth:
            count = depth + 1
        elif larger < 2:
            at, before = begin + found, True
            while at > begin and before:
                other_z, other = self.fields.layer_depths[at - 1], self.fields.layers[at - 1]
                before = z < other_z or (z == other_z and face < other)
                if before:
                    self.fields.layer_depths[at], self.fields.layers[at] = other_z, other
                    self.fields.layer_covers[at] = self.fields.layer_covers[at - 1]
                    at -= 1
            self.fields.layer_depths[at], self.fields.layers[at] = z, face
            self.fields.layer_covers[at] = cover
            count = self.thin(begin, found + 1)
        return count

    @ti.func
    def thin(self, begin, found):
        """Keep those of a list that add something; how many they are."""
        front_one, front_two, back_one, back_two = 0.0, 0.0, 0.0, 0.0
        covered, kept = 0.0, 0
        for i in range(found):
            signed = self.fields.layer_covers[begin + i]
            cover, front = ti.abs(signed), signed > 0.0
            second = ti.select(front, front_two, back_two)
            if cover > second and 1.0 - covered > self.fields.limits[Limit.HIDDEN]:
                self.fields.layer_depths[begin + kept] = self.fields.layer_depths[begin + i]
                self.fields.layers[begin + kept] = self.fields.layers[begin + i]
                self.fields.layer_covers[begin + kept] = signed
                if front:
                    front_two = ti.min(front_one, cover)
                    front_one = ti.max(front_one, cover)
                else:
                    back_two = ti.min(back_one, cover)
                    back_one = ti.max(back_one, cover)
                covered = ti.max(front_one + front_two, back_one + back_two)
                kept += 1
        return kept

    @traced
    def cover_of(self, m: Meeting, f: Fragment) -> Any:
        cover = raw(f.edge.f)
        return let(ti.select(self.front(m.face.triangle), cover, -cover))
