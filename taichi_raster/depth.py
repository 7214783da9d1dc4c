"""Depth softness: how much each fragment weighs in a pixel's colour.

A depth softness is a log-weight l(z_norm) with z_norm = (far - z) / (far - near), 1 at the near
plane; a fragment's weight is its coverage times exp(l). Sums of weights do not depend on the order
of the faces.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from taichi_raster.schedule import Schedule, as_schedule


class SoftmaxDepth(nn.Module):
    """Softmax over depth: l = z_norm / gamma (Liu et al., ICCV 2019, eq. 5).

    Args:
        gamma: temperature, positive; a number, a tensor (0-d or (B,)) or a `Schedule`. Smaller is
            sharper.
        background_z: normalised depth of the background, >= 0, so that its weight is
            exp(background_z / gamma): a number or a tensor, 0-d or (B,).

    Raises:
        ValueError: for a gamma that is not positive, or a background_z that is negative.
    """

    mode = "softmax"

    def __init__(
        self, gamma: float | Tensor | Schedule = 1e-2, background_z: float | Tensor = 2e-3
    ) -> None:
        super().__init__()
        self.gamma = as_schedule("gamma", gamma)
        value = (
            background_z
            if isinstance(background_z, Tensor)
            else torch.tensor(background_z, dtype=torch.float64)
        )
        valid = value.is_floating_point() and value.ndim <= 1 and bool(torch.isfinite(value).all())
        if not valid or not bool((value >= 0).all()):
            raise ValueError(f"background_z: expected finite values >= 0, got {background_z}")
        self.background_z = value

    def at(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """gamma and background_z at progress `u`, each 0-d or (B,)."""
        return self.gamma(u), self.background_z


class HardDepth(nn.Module):
    """The nearest face that contains the pixel gives its colour, alone; no face, the background.

    Colours then have no gradient through visibility; alpha stays soft.
    """

    mode = "hard"

    def at(self, u: Tensor) -> None:
        return None
