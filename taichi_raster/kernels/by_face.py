"""Kernels that go face by face: on a CPU, a thread takes a run of a batch item's faces."""

from typing import Any

import taichi as ti

from taichi_raster.kernels.fragment import Face
from taichi_raster.kernels.memory import TEXELS
from taichi_raster.kernels.pairs import PairKernels
from taichi_raster.runtime.layout import Dim


@ti.data_oriented
class FaceKernels(PairKernels):
    """A subclass says what is done with a face."""

    def run_face(self, face: Face, run: Any) -> None:
        """Do a face of a run; a `ti.func`."""
        raise NotImplementedError

    @ti.kernel
    def run_faces(
        self,
        runs: ti.i32,
        runs_per_item: ti.i32,
        faces: ti.i32,
        length: ti.i32,
        texels: TEXELS,
        tangents: TEXELS,
        adjoints: TEXELS,
    ):
        self.bind(texels, tangents, adjoints)
        self.parallel(runs, length, self.run_of_faces, (runs_per_item, faces))

    @ti.func
    def run_of_faces(self, run, runs_per_item, faces):
        b = run // runs_per_item
        begin = (run - b * runs_per_item) * faces
        for index in range(begin, ti.min(begin + faces, self.dims[Dim.FACES])):
            self.hold(b)
            self.run_face(self.face(b, index), run)
            self.release()
