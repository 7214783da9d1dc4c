"""Lists the faces that can touch each tile of pixels, on a GPU. No derivative.

Torch sorts and adds up in between; see engine/tile_lists.py. Few tiles and faces: a thread for each
tile and each face marks whether they meet, and the sums of these marks say where the face's entry
in the tile's list is. Many: each face counts the tiles of its rectangle, and a thread for each such
pair names the tile, by which torch sorts the pairs.
"""

from typing import Any

import taichi as ti

from taichi_raster.kernels.pairs import PairKernels
from taichi_raster.maths.tracing import let, traced
from taichi_raster.runtime.layout import Dim

NUMBERS: Any = ti.types.ndarray(dtype=ti.i32, ndim=1)
"""A kernel's argument: whole numbers in torch's memory."""


@ti.data_oriented
class BinningGPU(PairKernels):
    """Lists of faces, tile after tile, in the order of the faces."""

    @ti.kernel
    def mark(self, count: ti.i32, marks: NUMBERS):
        """Write 1 for each tile and face that meet, else 0, tile after tile."""
        self.each(count, self.mark_one, (marks,))

    @ti.kernel
    def fill(self, count: ti.i32, ends: NUMBERS):
        """Write the lists, given the sums of the marks up to each and with it."""
        self.each(count, self.fill_one, (ends,))

    @ti.kernel
    def count(self, faces: ti.i32, counts: NUMBERS):
        """Write how many tiles each face's rectangle has."""
        self.each(faces, self.count_one, (counts,))

    @ti.kernel
    def name(self, pairs: ti.i32, owners: NUMBERS, begins: NUMBERS, tiles: NUMBERS):
        """Write the tile of each pair, given its face, and where each face's pairs begin."""
        self.each(pairs, self.name_one, (owners, begins, tiles))

    @ti.func
    def mark_one(self, i, marks: ti.template()):
        tile, face = self.tile_and_face(i)
        b = tile // self.dims[Dim.TILES]
        in_image = tile - b * self.dims[Dim.TILES]
        row = in_image // self.dims[Dim.TILES_X]
        column = in_image - row * self.dims[Dim.TILES_X]
        top, bottom, left, right = self.tiles(self.face(b, face))
        meet = (row >= top) & (row < bottom) & (column >= left) & (column < right)
        marks[i] = ti.select(meet, 1, 0)

    @ti.func
    def fill_one(self, i, ends: ti.template()):
        tile, face = self.tile_and_face(i)
        end = ends[i]
        begin = 0
        if i > 0:
            begin = ends[i - 1]
        else:
            self.fields.tile_begin[0] = 0
        if end > begin:
            self.fields.tile_faces[begin] = face
        if face == self.dims[Dim.FACES] - 1:
            self.fields.tile_begin[tile + 1] = end

    @ti.func
    def count_one(self, i, counts: ti.template()):
        top, bottom, left, right = self.tiles(self.face_of_batch(i))
        counts[i] = (bottom - top) * (right - left)

    @ti.func
    def name_one(self, i, owners: ti.template(), begins: ti.template(), tiles: ti.template()):
        owner = owners[i]
        top, _, left, right = self.tiles(self.face_of_batch(owner))
        place = i - begins[owner]
        down = place // (right - left)
        row, column = top + down, left + place - down * (right - left)
        first = owner // self.dims[Dim.FACES] * self.dims[Dim.TILES]
        tiles[i] = first + row * self.dims[Dim.TILES_X] + column

    @ti.func
    def tile_and_face(self, i):
        tile = i // self.dims[Dim.FACES]
        return tile, i - tile * self.dims[Dim.FACES]

    @traced
    def face_of_batch(self, i: Any) -> Any:
        """A face by its number in the whole batch."""
        b = let(i // self.dim(Dim.FACES))
        return self.face(b, let(i - b * self.dim(Dim.FACES)))
