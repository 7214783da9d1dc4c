"""The lens of most cameras: radial and tangential terms, or OpenCV's rational model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from taichi_raster.scene.lenses.base import MARGIN, Lens, check_coefficients, first_root, numbers


@dataclass(frozen=True, eq=False)
class BrownConradyLens(Lens):
    """Brown's and Conrady's lens, with the coefficients of OpenCV, up to its rational model.

    With r² = x² + y² and g = (1 + k1 r² + k2 r⁴ + k3 r⁶) / (1 + k4 r² + k5 r⁴ + k6 r⁶)::

        x' = g x + 2 p1 x y + p2 (r² + 2 x²)
        y' = g y + p1 (r² + 2 y²) + 2 p2 x y

    x is right and y is down. See OpenCV's page of the module calib3d.

    Attributes:
        radial: (k1, ..., k6), or the first of them: numbers, or a tensor (n,) or (B, n).
        tangential: (p1, p2), as radial.

    Raises:
        ValueError: for another number of coefficients, or one that is not finite.

    Example:
        >>> lens = BrownConradyLens(radial=(-0.28, 0.07), tangential=(0.001, -0.0008))
        >>> camera = tr.PerspectiveCamera(view, fov=60.0, lens=lens)
    """

    radial: Float[Tensor, "*B n"] | tuple[float | Tensor, ...] = (0.0,)
    tangential: Float[Tensor, "*B 2"] | tuple[float | Tensor, float | Tensor] = (0.0, 0.0)

    def __post_init__(self) -> None:
        check_coefficients("radial", self.radial, 1, 6)
        check_coefficients("tangential", self.tangential, 2, 2)
        self.rows()  # of one batch

    @classmethod
    def from_opencv(cls, coefficients: Any) -> BrownConradyLens:
        """From OpenCV's k1, k2, p1, p2, k3, k4, k5, k6, s1, ..., s4, tx, ty, or the first of them.

        Args:
            coefficients: 4, 5, 8, 12 or 14 numbers, or (B, n).

        Raises:
            ValueError: for another number of them, or if those beyond the eighth are not 0: a thin
                prism or a tilted sensor, which this lens does not have.
        """
        found = numbers("coefficients", coefficients)
        count = found.shape[-1] if found.ndim in (1, 2) else 0
        if count not in (4, 5, 8, 12, 14):
            raise ValueError(
                "coefficients: must be 4, 5, 8, 12 or 14 numbers, in OpenCV's order, got shape "
                f"{tuple(found.shape)}"
            )
        if bool((found[..., 8:] != 0).any()):
            raise ValueError(
                "coefficients: those of a thin prism (s1 to s4) and of a tilted sensor (tx, ty) "
                f"must be 0, got {found[..., 8:].tolist()}; calibrate without them"
            )
        radial = torch.cat([found[..., :2], found[..., 4:8]], dim=-1)
        return cls(radial, found[..., 2:4])

    def rows(self) -> Tensor:
        """k1 to k6, p1, p2."""
        radial = numbers("radial", self.radial)
        radial = torch.nn.functional.pad(radial, (0, 6 - radial.shape[-1]))
        tangential = numbers("tangential", self.tangential).to(radial)
        batch = max(len(radial), len(tangential))
        for name, rows in (("radial", radial), ("tangential", tangential)):
            if len(rows) not in (1, batch):
                raise ValueError(f"{name}: has batch {len(rows)} where the other has {batch}")
        return torch.cat([radial.expand(batch, 6), tangential.expand(batch, 2)], dim=-1)

    def of_rows(self, rows: Tensor) -> BrownConradyLens:
        """A lens of such rows."""
        return BrownConradyLens(rows[..., :6], rows[..., 6:])

    def _factor(self, r2: Tensor) -> tuple[Tensor, Tensor]:
        k1, k2, k3, k4, k5, k6, _, _ = self._columns(r2[..., None])
        above, below = 1 + r2 * (k1 + r2 * (k2 + r2 * k3)), 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
        slope_above = k1 + r2 * (2 * k2 + 3 * r2 * k3)
        slope_below = k4 + r2 * (2 * k5 + 3 * r2 * k6)
        factor = above / below
        return factor, (slope_above - factor * slope_below) / below

    def _tangential(self, points: Tensor) -> tuple[Tensor | None, Tensor | None]:
        *_, p1, p2 = self._columns(points)
        return p1, p2

    @staticmethod
    def _fold(row: np.ndarray) -> float:
        """By the smaller eigenvalue of the Jacobian, which is symmetric.

        Its radial part has the eigenvalues g and (r g)'; the tangential part adds at least
        -6 r |(p1, p2)|, which it does in one direction (Weyl's inequality says that no more is
        lost). So the lens is one-to-one while both exceed 6 r |(p1, p2)|, up to a pole of g.
        """
        # Polynomials in r, the highest power first, as NumPy has them.
        k, shift = row[:6], 6 * np.hypot(*row[6:])
        above, below = np.zeros(7), np.zeros(7)
        above[[0, 2, 4, 6]], below[[0, 2, 4, 6]] = [*k[2::-1], 1], [*k[:2:-1], 1]
        plain = np.polymul(above, [1, 0])  # r times the numerator
        slope = np.polysub(
            np.polymul(np.polyder(plain), below), np.polymul(plain, np.polyder(below))
        )
        square = np.polymul([shift, 0], np.polymul(below, below))
        radial: np.ndarray = np.polysub(slope, square)
        across: np.ndarray = np.polysub(np.polymul(above, below), square)
        return MARGIN * min(map(first_root, (radial, across, below)))
