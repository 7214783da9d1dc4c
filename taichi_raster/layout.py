"""How one call's inputs lie in the flat vector x, and its sums in the flat vector y.

x is, one after the other: face vertices (B, F, 3, 3), face attributes (B, F, 3, C), softness
weights (B, P), scale (B,), gamma (B,): every batch item has its own parameters, so that threads do
not contend for them and a sum over items has a fixed order. y is (B, H, W, 2 + C): the T-conorm's
sum, the colour weight, and the weighted attributes.
"""

from __future__ import annotations

from dataclasses import dataclass

from taichi_raster.softness.mlp_kernel import Architecture

TILE = 8  # pixels on a side


@dataclass(frozen=True)
class Variant:
    """What is compiled into a kernel: one set of kernels exists for each variant in use.

    Attributes:
        distribution: registered name of the edge softness (of the logit, for a network).
        network: architecture of a learned softness, or None.
        conorm: name of the T-conorm.
        depth: ``"softmax"`` or ``"hard"``.
        channels: C, attribute channels.
        perspective: whether attributes are interpolated perspective-correctly.
        cull: whether back faces are dropped.
        moves: which of (vertices, attributes, parameters) get a derivative.
    """

    distribution: str
    network: Architecture | None
    conorm: str
    depth: str
    channels: int
    perspective: bool
    cull: bool
    moves: tuple[bool, bool, bool]


class Dim:
    """Places in the small integer field that tells the kernels the sizes of the call at hand."""

    BATCH = 0
    FACES = 1
    HEIGHT = 2
    WIDTH = 3
    TILES_X = 4
    TILES = 5  # in one image
    RUN_LENGTH = 6  # pixels that one thread does in order
    AT_ATTRIBUTES = 7  # where the parts of x begin
    AT_WEIGHTS = 8
    AT_SCALE = 9
    AT_GAMMA = 10


class Limit:
    """Places in the small floating-point field beside it."""

    NEAR = 0
    FAR = 1
    THRESHOLD = 2
    CUTOFF = 3
    REACH = 4


@dataclass(frozen=True)
class Call:
    """One render, as the kernels see it.

    Attributes:
        variant: which kernels.
        batch, faces, height, width: B, F, H, W.
        sizes: elements of x's five parts.
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
    sizes: tuple[int, int, int, int, int]
    near: float
    far: float
    threshold: float
    cutoff: float
    reach: float
    fixed_order: bool

    @property
    def tiles_x(self) -> int:
        return -(-self.width // TILE)

    @property
    def tiles(self) -> int:
        return self.tiles_x * -(-self.height // TILE)

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
        """The length of the outer, parallel loop."""
        return self.batch * self._slots // self.run_length(on_gpu)

    def run_length(self, on_gpu: bool) -> int:
        """How many pixels one thread does, in order."""
        if self.fixed_order:
            return self._slots
        return 1 if on_gpu else TILE * TILE

    @property
    def _slots(self) -> int:
        return self.tiles * TILE * TILE

    def dims(self, on_gpu: bool) -> list[int]:
        """The contents of the integer field, in the order of `Dim`."""
        starts = [sum(self.sizes[:i]) for i in range(1, 5)]
        return [
            self.batch, self.faces, self.height, self.width, self.tiles_x, self.tiles,
            self.run_length(on_gpu), *starts,
        ]  # fmt: skip

    def limits(self) -> list[float]:
        """The contents of the floating-point field, in the order of `Limit`."""
        return [self.near, self.far, self.threshold, self.cutoff, self.reach]
