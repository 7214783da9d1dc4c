"""How one call's inputs lie in the flat vector x, and its sums in the flat vector y.

x is, one part after the other (see `Part`): face vertices (B, F, 3, 3); attributes at face corners
(B, F, 3, D); texture coordinates at face corners (B, F, 3, 2); texels; the edge network's weights
(B, P); the depth network's weights (B, Q); and the other parameters (B, len(Slot)). Every batch
item has its own parameters, so that threads do not contend for them and a sum over items has a
fixed order. y is (2 + C, B, H, W): the T-conorm's sum, the colour weight, and the weighted
attributes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Protocol

from taichi_raster.runtime.network_shape import Architecture, Table

SHIFT = 3
TILE = 1 << SHIFT  # pixels on a side
RUNS = 64  # runs that the CPU's parallel loops are cut into, one for each batch item at least
GROUP = 8  # tiles on a side of a group


class Slot:
    """Places among an item's parameters."""

    SCALE = 0
    SHAPE = 1
    SHIFT = 2
    P = 3
    GAMMA = 4
    DEPTH_SHAPE = 5
    DEPTH_SHIFT = 6
    COUNT = 7


class Part:
    """The parts of x, in order."""

    VERTICES = 0
    CORNERS = 1
    UV = 2
    TEXELS = 3
    EDGE_WEIGHTS = 4
    DEPTH_WEIGHTS = 5
    PARAMETERS = 6
    COUNT = 7


@dataclass(frozen=True)
class EdgeVariant:
    """What of an edge softness is compiled in.

    Attributes:
        distribution: registered name (of the logit, for a network).
        network: architecture of a learned softness, or a table's layout, or None.
        squared: whether it sees sign(d) d^2 instead of d.
    """

    distribution: str
    network: Architecture | Table | None = None
    squared: bool = False


class LogWeight(Protocol):
    """A fragment's log-weight, as text for the kernels: see `depth.base.LogWeightFormula`."""

    @property
    def network(self) -> Architecture | None: ...

    @property
    def relative(self) -> bool: ...

    @property
    def looped(self) -> bool: ...

    def at(self, kernel: Any, b: Any, z_norm: Any, reference: Any) -> Any: ...

    def __hash__(self) -> int: ...


@dataclass(frozen=True)
class DepthVariant:
    """What of a depth softness is compiled in.

    Attributes:
        colour: where a pixel's colour comes from: ``"weights"`` of all fragments, the ``"nearest"``
            face alone, or its ``"fragments"``, which are measured here and composed elsewhere;
            ``"none"``: only alpha.
        log_weight: of a fragment, for ``"weights"``.
    """

    colour: str
    log_weight: LogWeight | None = None

    @property
    def network(self) -> Architecture | None:
        """The shape of the network in the log-weight, if there is one."""
        return None if self.log_weight is None else self.log_weight.network

    @property
    def looped(self) -> bool:
        """Whether its formula takes loops."""
        return self.log_weight is not None and self.log_weight.looped


@dataclass(frozen=True)
class Variant:
    """What is compiled into a kernel: one set of kernels exists for each variant in use.

    Attributes:
        edge, depth: see there.
        conorm: name of the T-conorm.
        corners: D, attribute channels at corners.
        texture: ``"none"``, ``"surface"``, ``"clamp"`` or ``"repeat"`` (images).
        texels: texture channels; C is texels + corners.
        perspective: whether attributes are interpolated perspective-correctly.
        cull: whether back faces are dropped; clockwise: whether these are the front.
        clipped: whether barycentric coordinates are clipped instead of the nearest point's.
        unclipped_alpha: whether alpha keeps what near, far and culling take from colour.
        orthographic: whether depth is linear in the image.
        moves: which of (vertices, appearance, parameters) get a derivative.
    """

    edge: EdgeVariant
    depth: DepthVariant
    conorm: str = "probabilistic"
    corners: int = 1
    texture: str = "none"
    texels: int = 0
    perspective: bool = True
    cull: bool = False
    clockwise: bool = False
    clipped: bool = False
    unclipped_alpha: bool = False
    orthographic: bool = False
    moves: tuple[bool, bool, bool] = (True, False, False)

    def __post_init__(self) -> None:
        values = tuple(getattr(self, field.name) for field in fields(self))
        object.__setattr__(self, "_hash", hash(values))

    def __hash__(self) -> int:  # worked out once: each launch looks its kernel up
        return self._hash  # type: ignore[attr-defined]

    @property
    def channels(self) -> int:
        return self.corners + self.texels


class Dim:
    """Places in the small integer field that tells the kernels the sizes of the call at hand."""

    BATCH = 0
    FACES = 1
    HEIGHT = 2
    WIDTH = 3
    TILES_X = 4
    TILES = 5  # in one image
    RUN_LENGTH = 6  # pixels that one thread does in order
    TEXTURE_HEIGHT = 7
    TEXTURE_WIDTH = 8
    TEXTURE_STRIDE = 9  # elements from one batch item's texture to the next; 0 if shared
    GROUPS = 10  # in one image
    GROUPS_X = 11
    PIXELS = 12  # in the whole batch
    PARTS = 13  # where the parts of x begin


class State:
    """Planes of the field that keeps, for each pixel, what must not be differentiated.

    OFFSET is what was subtracted from all log-weights; REFERENCE the normalised depth that a
    softmax's depths were taken relative to; PEAK what was subtracted from the exponents of the
    T-conorm's terms; SATURATED the number of fragments with coverage exactly 1.
    """

    OFFSET = 0
    REFERENCE = 1
    PEAK = 2
    SATURATED = 3
    COUNT = 4


class Entry:
    """Planes of the field of listed pairs: the pixel's row and column, and the face's number in the
    whole batch."""

    ROW = 0
    COLUMN = 1
    FACE = 2
    COUNT = 3


class Hides:
    """When what is in front hides the rest of a pixel's fragments: SUM, when the coverages of front
    faces, or of back faces, add up to 1 (the sharp reference); PRODUCT, when less than the
    threshold passes through all of them; NOTHING: never."""

    SUM = 0
    PRODUCT = 1
    NOTHING = 2


class Limit:
    """Places in the small floating-point field beside it; behind them lies, for each batch item,
    the background's depth (softmax) or log-weight."""

    NEAR = 0
    FAR = 1
    THRESHOLD = 2
    CUTOFF = 3
    REACH = 4
    COUNT = 5


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
