"""One render, as the kernels see it."""

from __future__ import annotations

from dataclasses import dataclass

from taichi_raster.runtime.layout import GROUP, RUNS, TILE, Part
from taichi_raster.runtime.variant import Variant


@dataclass(frozen=True)
class Call:
    """One render, as the kernels see it.

    Attributes:
        variant: which kernels.
        batch, faces, height, width: B, F, H, W.
        sizes: elements of x's parts.
        texture: height and width of the texture, and its stride from item to item.
        near, far: depth range; threshold: a fragment counts when F exceeds it; cutoff: and when
            it is no farther outside than this; reach: distance beyond which no fragment counts,
            for binning.
        fixed_order: sum in a fixed order, one thread a batch item.
    """

    variant: Variant
    batch: int
    faces: int
    height: int
    width: int
    sizes: tuple[int, ...]
    near: float
    far: float
    threshold: float
    cutoff: float
    reach: float
    fixed_order: bool
    texture: tuple[int, int, int] = (0, 0, 0)

    @property
    def tiles_x(self) -> int:
        return -(-self.width // TILE)

    @property
    def tiles(self) -> int:
        return self.tiles_x * -(-self.height // TILE)

    @property
    def groups_x(self) -> int:
        return -(-self.tiles_x // GROUP)

    @property
    def groups(self) -> int:
        return self.groups_x * -(-self.height // (TILE * GROUP))

    @property
    def grouped(self) -> bool:
        """Whether it pays to bin groups of tiles first."""
        return self.tiles * self.faces > 1 << 17

    @property
    def bands(self) -> int:
        """How many threads a CPU puts to listing the faces of one batch item's tiles, each for a
        band of them; as each goes through all faces, that pays where there are many."""
        if self.faces < 1 << 12:
            return 1
        return max(1, min(self.tiles // self.tiles_x, 8 // self.batch))

    @property
    def x_size(self) -> int:
        return sum(self.sizes)

    @property
    def pixels(self) -> int:
        return self.batch * self.height * self.width

    @property
    def y_size(self) -> int:
        return self.pixels * (2 + self.variant.channels)

    def runs(self, on_gpu: bool) -> int:
        """The length of the outer, parallel loop of kernels that go pixel by pixel."""
        return self.batch * self.slots // self.run_length(on_gpu)

    def run_length(self, on_gpu: bool) -> int:
        """How many pixels one thread does, in order."""
        if self.fixed_order:
            return self.slots
        return 1 if on_gpu else TILE * TILE

    @property
    def slots(self) -> int:
        """Pixels of an image's tiles, those beyond its borders included."""
        return self.tiles * TILE * TILE

    def face_runs(self) -> tuple[int, int]:
        """(runs in each batch item, faces in each) for kernels that go face by face on a CPU.

        A thread takes a run, and adds up what its faces share for itself; but all add to the same
        texels, which a single run does in a fixed order.
        """
        if self.fixed_order and self.variant.moves[1] and self.variant.texels > 0:
            return 1, self.faces
        runs = max(1, min(self.faces, RUNS // self.batch))
        length = -(-self.faces // runs)
        return -(-self.faces // length), length

    def dims(self, on_gpu: bool, pixels: int | None = None) -> list[int]:
        """The contents of the integer field, in the order of `Dim`; `pixels` instead of its own."""
        starts = [sum(self.sizes[:i]) for i in range(Part.COUNT)]
        return [
            self.batch, self.faces, self.height, self.width, self.tiles_x, self.tiles,
            self.run_length(on_gpu), *self.texture, self.groups, self.groups_x,
            self.pixels if pixels is None else pixels, *starts,
        ]  # fmt: skip

    def limits(self) -> list[float]:
        """The contents of the floating-point field, in the order of `Limit`."""
        return [self.near, self.far, self.threshold, self.cutoff, self.reach]
