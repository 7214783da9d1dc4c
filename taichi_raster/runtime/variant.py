"""What is compiled into the kernels: one set of kernels exists for each `Variant` in use."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


def hashed_once(kind: type[T]) -> type[T]:
    """Decorator: instances of a frozen dataclass keep their hash, which each launch asks for.

    It stays out of pickles: strings have other hashes in another process.
    """
    compute: Any = kind.__hash__

    def kept(self: T) -> int:
        found: int | None = self.__dict__.get("_hash")
        if found is None:
            found = self.__dict__["_hash"] = compute(self)
        return found

    def state(self: T) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_hash"}

    setattr(kind, "__hash__", kept)  # noqa: B010 - mypy takes no assignment to a method
    setattr(kind, "__getstate__", state)  # noqa: B010
    return kind


@dataclass(frozen=True)
class Architecture:
    """The architecture of a softness's network.

    Attributes:
        widths: of the hidden layers, all tanh.
        residual: whether the first hidden layer is added to the last one before its tanh.
        bias: whether units have biases.
        asinh: whether the network's input is asinh(x) instead of x.
    """

    widths: tuple[int, ...]
    residual: bool
    bias: bool
    asinh: bool

    @property
    def fans(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of each layer; the last is the output unit."""
        sizes = (1, *self.widths, 1)
        return list(pairwise(sizes))

    @property
    def offsets(self) -> list[int]:
        """Where each layer's weights begin, and at the end the total number of weights."""
        starts = [0]
        for inputs, outputs in self.fans:
            starts.append(starts[-1] + outputs * (inputs + int(self.bias)))
        return starts

    @property
    def size(self) -> int:
        """The number of weights."""
        return self.offsets[-1]


@dataclass(frozen=True)
class Table:
    """The layout of a tabulated softness.

    Octave k = 0 ... octaves - 1 reaches from |x| = width * (2^k - 1) to width * (2^(k + 1) - 1).
    It has 2^subdivision equal cells. One more cell begins at the last knot and never ends.

    The weights are the polynomials of all cells for x >= 0, then of all cells for x <= 0. Each is
    u = c0 + c1 t + c2 t^2 + c3 t^3, with t the distance of |x| from the beginning of its cell.
    """

    width: float
    octaves: int
    subdivision: int

    @property
    def knots(self) -> int:
        """The number of knots on each side, with 0 and the last one."""
        return (self.octaves << self.subdivision) + 1

    @property
    def size(self) -> int:
        """The number of weights: four for each cell, on both sides."""
        return 8 * self.knots


@dataclass(frozen=True)
class EdgeVariant:
    """The compiled part of an edge softness.

    Attributes:
        distribution: its registered name; for a network or a table, that applied to its output.
        network: the architecture of a network, the layout of a table, or None.
        squared: whether F is evaluated at sign(d) d^2 instead of d.
    """

    distribution: str
    network: Architecture | Table | None = None
    squared: bool = False


class DepthFormula(Protocol):
    """The formula of a fragment's log-weight; `depth.base.LogWeightFormula` implements it."""

    @property
    def network(self) -> Architecture | None:
        """The shape of its network, or None."""

    @property
    def relative(self) -> bool:
        """Whether depths are taken relative to the pixel's largest."""

    @property
    def looped(self) -> bool:
        """Whether it takes loops."""

    def at(self, kernel: Any, b: Any, z_norm: Any, reference: Any) -> Any:
        """The log-weight in a kernel."""

    def __hash__(self) -> int: ...


@dataclass(frozen=True)
class DepthVariant:
    """The compiled part of a depth softness.

    Attributes:
        colour: where a pixel's colour comes from: a weighted sum of all fragments (``"weights"``),
            the ``"nearest"`` face, or ``"fragments"`` that torch composes; ``"none"``: only alpha.
        log_weight: the formula for ``"weights"``.
    """

    colour: str
    log_weight: DepthFormula | None = None

    @property
    def network(self) -> Architecture | None:
        """The architecture of the log-weight's network, or None."""
        return None if self.log_weight is None else self.log_weight.network

    @property
    def looped(self) -> bool:
        """Whether evaluating the formula takes loops."""
        return self.log_weight is not None and self.log_weight.looped


@hashed_once
@dataclass(frozen=True)
class Variant:
    """Everything that is compiled into a kernel.

    Attributes:
        edge, depth: the compiled parts of the softnesses.
        conorm: name of the T-conorm.
        corners: D, the number of attribute channels at corners.
        texture: ``"none"``, ``"surface"``, or the wrap mode of an image: ``"clamp"``, ``"repeat"``.
        texels: the number of texture channels; C is texels + corners.
        mipmapped: whether an image has mipmaps.
        perspective: whether attributes are interpolated perspective-correctly.
        cull: whether back faces are dropped.
        clockwise: whether clockwise faces show their front.
        clipped: whether barycentric coordinates are clipped instead of the nearest point's.
        unclipped_alpha: whether alpha keeps what near, far and culling take from colour.
        orthographic: whether depth is linear in the image.
        moves: which of (vertices, appearance at corners, parameters, texels) get a derivative.
    """

    edge: EdgeVariant
    depth: DepthVariant
    conorm: str = "probabilistic"
    corners: int = 1
    texture: str = "none"
    texels: int = 0
    mipmapped: bool = False
    perspective: bool = True
    cull: bool = False
    clockwise: bool = False
    clipped: bool = False
    unclipped_alpha: bool = False
    orthographic: bool = False
    moves: tuple[bool, bool, bool, bool] = (True, False, False, False)

    @property
    def channels(self) -> int:
        """C, the number of attribute channels."""
        return self.corners + self.texels


NO_DERIVATIVES = (True, False, False, False)
"""`Variant.moves` of kernels that are not differentiated, so that all calls share them."""


@lru_cache(maxsize=1024)
def without_derivatives(variant: Variant, conorm: str | None = None) -> Variant:
    """The variant of kernels that are not differentiated; `conorm` replaces its T-conorm."""
    return replace(variant, conorm=conorm or variant.conorm, moves=NO_DERIVATIVES)
