"""What is compiled into the kernels: one set of kernels exists for each `Variant` in use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Architecture:
    """What of a network is compiled into a kernel.

    Attributes:
        widths: of the hidden layers, all tanh.
        residual: whether the first hidden layer is added to the last one before its tanh.
        bias: whether units have biases.
        asinh: whether the network sees asinh(x) rather than x.
    """

    widths: tuple[int, ...]
    residual: bool
    bias: bool
    asinh: bool

    @property
    def fans(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of each layer, the output unit's last."""
        sizes = (1, *self.widths, 1)
        return list(zip(sizes[:-1], sizes[1:], strict=True))

    @property
    def offsets(self) -> list[int]:
        """Where each layer's weights begin, and last the number of weights altogether."""
        starts = [0]
        for inputs, outputs in self.fans:
            starts.append(starts[-1] + outputs * (inputs + int(self.bias)))
        return starts

    @property
    def size(self) -> int:
        return self.offsets[-1]


@dataclass(frozen=True)
class Table:
    """Where the knots of a tabulated softness lie: between width * (2^k - 1) and
    width * (2^(k + 1) - 1), k = 0 ... octaves - 1, are 2^subdivision equal cells; likewise for
    negative x.

    The weights are, first for x >= 0 and then for x <= 0, each cell's polynomial, cell after cell:
    u = c0 + c1 t + c2 t^2 + c3 t^3, where t is how far |x| is from where the cell begins. One more
    cell begins at the last knot and never ends.
    """

    width: float
    octaves: int
    subdivision: int

    @property
    def knots(self) -> int:
        """On each side, 0 and the last one included."""
        return (self.octaves << self.subdivision) + 1

    @property
    def size(self) -> int:
        return 8 * self.knots


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


class DepthFormula(Protocol):
    """A fragment's log-weight, as text for the kernels: see `depth.base.DepthFormulaFormula`."""

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
    log_weight: DepthFormula | None = None

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

    @property
    def channels(self) -> int:
        return self.corners + self.texels
