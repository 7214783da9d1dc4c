"""Hard depth test: the colour of the nearest face."""

from __future__ import annotations

import torch
from torch import Tensor

from taichi_raster.depth.base import DepthSoftness, DepthState, PixelColours
from taichi_raster.runtime.variant import DepthVariant
from taichi_raster.softness.archive import Entry
from taichi_raster.softness.serialization import Stored


class HardDepth(DepthSoftness):
    """Gives each pixel the colour of the nearest face that contains its centre.

    Where no face does, it shows the background. Of depths that are equal but for rounding, as at a
    silhouette, a face that shows its front is nearer than one that shows its back; then the one
    with the lower index, also where faces overlap in one plane. Colours have no gradient through
    visibility; alpha stays soft.
    """

    variant = DepthVariant("nearest")
    kind = "hard"

    def at(self, u: Tensor) -> DepthState:
        one = torch.ones((), dtype=torch.float64, device="cpu")
        return DepthState(one, one, 0 * one, 0 * one)

    def compose(
        self, found: PixelColours, state: DepthState, floor: Tensor, background: Tensor | None
    ) -> Tensor:
        if background is None:
            return found.colours
        return found.colours + (1 - found.weight) * background

    def describe(self) -> str:
        return "hard"

    def stored(self) -> Stored:
        return {}, {}

    @classmethod
    def built(cls, entry: Entry) -> HardDepth:  # noqa: ARG003 - an interface
        return cls()
