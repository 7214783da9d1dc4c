"""Sharp pictures, as targets and to judge fits."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

import taichi_raster as tr

NEAR, FAR = 1.0, 5.0


def coverage(face_vertices: Tensor, size: int) -> Float[Tensor, "BK H W"]:
    """The share of each pixel that faces cover, exactly."""
    return coloured(face_vertices, size, None)[..., 0]


def coloured(
    face_vertices: Tensor, size: int, colours: Tensor | None
) -> Float[Tensor, "BK H W C+1"]:
    """The mean colour of each pixel over black, and its coverage."""
    return tr.SharpRasterizer(size, near=NEAR, far=FAR)(face_vertices, colours)


def mean_iou(fit: Tensor, goal: Tensor) -> Float[Tensor, " B"]:
    """IoU of coverages (B, K, H, W): sum of minima over sum of maxima, averaged over views.

    Two empty ones agree.
    """
    apart = tr.coverage_iou_loss(fit.flatten(0, 1), goal.flatten(0, 1))
    return 1 - apart.unflatten(0, fit.shape[:2]).mean(dim=1)


def side_by_side(images: Float[Tensor, "B K H W C"]) -> Float[Tensor, "B H KW C"]:
    """The views of an instance in one picture."""
    return images.transpose(1, 2).flatten(2, 3)
