"""A photo in fewer pixels, with all that comparing it with others takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import max_pool2d, pad

from taichi_raster.capture.capture import Photo
from taichi_raster.fitting.outline import signed_distance
from taichi_raster.scene.resampling import area_average


@dataclass(frozen=True, eq=False)
class Level:
    """A photo in fewer pixels.

    Attributes:
        fields: (1, 4, H, W): brightness, its slopes along columns and rows, and 1 well within the
            mask.
        mask, distance: (1, H, W), and the distance to its outline.
    """

    fields: Float[Tensor, "1 4 H W"]
    mask: Float[Tensor, "1 H W"]
    distance: Float[Tensor, "1 H W"]

    @staticmethod
    def of(photo: Photo, extent: int) -> Level:
        """As small as makes the mask `extent` pixels long, at most the photo's own size."""
        mask = photo.mask()
        rows, columns = (mask > 0.5).nonzero().unbind(-1)
        own = int(max(rows.max() - rows.min(), columns.max() - columns.min())) + 1
        shrink = min(1.0, extent / own)
        height, width = (max(16, round(side * shrink)) for side in photo.image_size)
        mask = area_average(mask[None], (height, width))
        grey = torch.zeros(height, width)
        if photo.picture is not None:
            grey = area_average(photo.image()[None], (height, width))[0].mean(-1)
        beside = pad(grey[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
        across = (beside[1:-1, 2:] - beside[1:-1, :-2]) / 2
        down = (beside[2:, 1:-1] - beside[:-2, 1:-1]) / 2
        within = 1 - max_pool2d((mask < 0.9).float()[None], 5, 1, 2)[0, 0]
        return Level(torch.stack([grey, across, down, within])[None], mask, signed_distance(mask))

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.mask.shape[1], self.mask.shape[2]
