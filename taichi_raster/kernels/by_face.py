"""Kernels that go face by face: a thread takes a run of a batch item's faces."""

from typing import Any

import taichi as ti

from taichi_raster.kernels.fragment import Face
from taichi_raster.kernels.memory import TEXELS
from taichi_raster.kernels.pairs import PairKernels
from taichi_raster.runtime.layout import Dim


@ti.data_oriented
class FaceKernels(PairKernels):
    """A subclass says what is done with a face."""

    def run_face(self, face: Face, run: Any, part: tuple[Any, Any]) -> None:
        """Do a part of a face of a run, from its first element to before its last; a `ti.func`."""
        raise NotImplementedError

    @ti.kernel
    def run_faces(
        self,
        runs: ti.i32,
        runs_per_item: ti.i32,
        faces: ti.i32,
        length: ti.i32,
        first: ti.i32,
        last: ti.i32,
        texels: TEXELS,
        tangents: TEXELS,
        adjoints: TEXELS,
    ):
        """`first` and `last`: which part of each face, in a subclass's own terms."""
        self.bind(texels, tangents, adjoints)
        self.parallel(runs, length, self.run_of_faces, (runs_per_item, faces, (first, last)))

    @ti.func
    def run_of_faces(self, run, runs_per_item, faces, part: ti.template()):
        b = run // runs_per_item
        begin = (run - b * runs_per_item) * faces
        for index in range(begin, ti.min(begin + faces, self.dims[Dim.FACES])):
            self.hold(b)
            self.run_face(self.face(b, index), run, part)
            self.release()
