"""The shape of a learned softness's network, and of a table that stands in for it."""

from __future__ import annotations

from dataclasses import dataclass


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
