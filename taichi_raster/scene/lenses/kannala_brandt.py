"""The fisheye lens, by a polynomial in the angle from the axis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from taichi_raster.scene.lenses.base import (
    MARGIN,
    WIDEST,
    Lens,
    check_coefficients,
    first_root,
    numbers,
)

_NEAR_AXIS = 1e-4
"""Below this squared radius, atan(r) / r and its slope are taken from their series."""


@dataclass(frozen=True, eq=False)
class KannalaBrandtLens(Lens):
    """Kannala's and Brandt's fisheye lens (IEEE PAMI 28, 2006), as in OpenCV's module fisheye.

    A point at the angle θ from the axis is shown at the distance
    θ (1 + k1 θ² + k2 θ⁴ + k3 θ⁶ + k4 θ⁸) from the centre. Without coefficients that is the
    equidistant fisheye. Cameras show what lies before them, so its field of view ends below 180
    degrees.

    Attributes:
        radial: (k1, ..., k4), or the first of them: numbers, or a tensor (n,) or (B, n).

    Raises:
        ValueError: for another number of coefficients, or one that is not finite.
    """

    radial: Float[Tensor, "*B n"] | tuple[float | Tensor, ...] = (0.0,)

    def __post_init__(self) -> None:
        check_coefficients("radial", self.radial, 1, 4)

    def rows(self) -> Tensor:
        """k1 to k4."""
        radial = numbers("radial", self.radial)
        return torch.nn.functional.pad(radial, (0, 4 - radial.shape[-1]))

    def of_rows(self, rows: Tensor) -> KannalaBrandtLens:
        """A lens of such rows."""
        return KannalaBrandtLens(rows)

    def _factor(self, r2: Tensor) -> tuple[Tensor, Tensor]:
        k1, k2, k3, k4 = self._columns(r2[..., None])
        angle, slope = _arctangent(r2)  # θ / r and its slope in r²
        square = r2 * angle * angle
        factor = 1 + square * (k1 + square * (k2 + square * (k3 + square * k4)))
        by_square = k1 + square * (2 * k2 + square * (3 * k3 + 4 * square * k4))
        of_square = angle * angle + 2 * r2 * angle * slope
        return angle * factor, slope * factor + angle * by_square * of_square

    @staticmethod
    def _fold(row: np.ndarray) -> float:
        k1, k2, k3, k4 = row
        angle = first_root(np.array([9 * k4, 0, 7 * k3, 0, 5 * k2, 0, 3 * k1, 0, 1]))
        return float(np.tan(MARGIN * angle)) if MARGIN * angle < np.pi / 2 else WIDEST


def _arctangent(r2: Tensor) -> tuple[Tensor, Tensor]:
    """atan(r) / r as a function of r², and its slope."""
    near = r2 < _NEAR_AXIS
    far = torch.where(near, torch.ones_like(r2), r2)
    r = far.sqrt()
    value = torch.atan(r) / r
    slope = (1 / (1 + far) - value) / (2 * far)
    s = torch.where(near, r2, torch.zeros_like(r2))
    series = 1 - s * (1 / 3 - s * (1 / 5 - s * (1 / 7 - s / 9)))
    series_slope = -1 / 3 + s * (2 / 5 - s * (3 / 7 - s * (4 / 9 - s * 5 / 11)))
    return torch.where(near, series, value), torch.where(near, series_slope, slope)
