"""One render, as the kernels see it."""

from __future__ import annotations

from dataclasses import dataclass

from taichi_raster.runtime.layout import MIPMAPS, RUNS, TILE, Dim, Part
from taichi_raster.runtime.variant import Variant, hashed_once


@hashed_once
@dataclass(frozen=True)
class Call:
    """One render, as the kernels see it.

    Attributes:
        variant: which kernels run.
        batch, faces, height, width: B, F, H, W.
        sizes: the number of elements of each part of x; and of the texels, the last.
        near, far: depth range.
        threshold: a fragment counts if F exceeds it,
        cutoff: and if it is no farther outside than this distance in NDC.
        reach: distance in NDC beyond which no fragment counts, for binning.
        fixed_order: whether sums are taken in a fixed order.
        texture: height and width of the texture, and its stride between batch items.
        levels: where each level of its mipmaps begins, in texels.
        hidden: where fragments are composed, those that this much light reaches, or less, are not
            seen.
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
    levels: tuple[int, ...] = ()
    hidden: float = 0.0

    @property
    def tiles_x(self) -> int:
        """Tiles in a row of an image."""
        return -(-self.width // TILE)

    @property
    def tiles(self) -> int:
        """Tiles of an image."""
        return self.tiles_x * -(-self.height // TILE)

    @property
    def bands(self) -> int:
        """How many threads bin the faces of one batch item on a CPU, each for a band of tiles.

        Each goes through all faces, so that several pay only where there are many.
        """
        if self.faces < 1 << 12:
            return 1
        return max(1, min(self.tiles // self.tiles_x, 8 // self.batch))

    @property
    def x_size(self) -> int:
        """Elements of x."""
        return sum(self.sizes[: Part.TEXELS])

    @property
    def texels(self) -> int:
        """Elements of the texture, or of all textures."""
        return self.sizes[Part.TEXELS]

    @property
    def moving_texels(self) -> bool:
        """Whether there are texels that have derivatives."""
        return self.variant.texels > 0 and self.variant.moves[3]

    @property
    def one_run(self) -> bool:
        """Whether one thread does all of a batch item: all faces add to its texels, in order."""
        return self.fixed_order and self.moving_texels

    @property
    def pixels(self) -> int:
        """Pixels of the whole batch."""
        return self.batch * self.height * self.width

    @property
    def y_size(self) -> int:
        """Elements of y."""
        return self.pixels * (2 + self.variant.channels)

    def runs(self, on_gpu: bool) -> int:
        """The length of the parallel loop of kernels that go pixel by pixel."""
        return self.batch * self.slots // self.run_length(on_gpu)

    def run_length(self, on_gpu: bool) -> int:
        """How many pixels one thread processes, in order, by kernels that go pixel by pixel."""
        if self.fixed_order:
            return self.slots
        return 1 if on_gpu else TILE * TILE

    @property
    def slots(self) -> int:
        """Pixels of an image's tiles, with those beyond its border."""
        return self.tiles * TILE * TILE

    def face_runs(self, most: int = RUNS) -> tuple[int, int]:
        """(runs per batch item, faces per run) of kernels that go face by face; `most` runs in all.

        Each run has sums of its own for the parameters that its faces share.
        """
        if self.one_run:
            return 1, self.faces
        runs = max(1, min(self.faces, most // self.batch))
        length = -(-self.faces // runs)
        return -(-self.faces // length), length

    def dims(self, on_gpu: bool, pixels: int | None = None) -> list[int]:
        """The integer field, in the order of `Dim`; `pixels` replaces the number of pixels."""
        starts = [sum(self.sizes[:i]) for i in range(Part.COUNT)]
        own = {
            Dim.BATCH: self.batch,
            Dim.FACES: self.faces,
            Dim.HEIGHT: self.height,
            Dim.WIDTH: self.width,
            Dim.TILES_X: self.tiles_x,
            Dim.TILES: self.tiles,
            Dim.RUN_LENGTH: self.run_length(on_gpu),
            Dim.TEXTURE_HEIGHT: self.texture[0],
            Dim.TEXTURE_WIDTH: self.texture[1],
            Dim.TEXTURE_STRIDE: self.texture[2],
            Dim.PIXELS: self.pixels if pixels is None else pixels,
            Dim.LAST_LEVEL: max(len(self.levels) - 1, 0),
        }
        levels = [*self.levels, *[0] * (MIPMAPS - len(self.levels))]
        return [*(own[i] for i in range(Dim.PARTS)), *starts, *levels]

    def limits(self) -> list[float]:
        """The floating-point field, in the order of `Limit`."""
        return [self.near, self.far, self.threshold, self.cutoff, self.reach, self.hidden]
