"""The shape of a learned softness's network."""

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
