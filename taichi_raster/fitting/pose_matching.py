"""How rendered colours become those of a photo: exposure and blur."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from taichi_raster.fitting.photometric import ROUNDS, SETTLED, exposure, some_of
from taichi_raster.runtime.precision import product


def softer_by(colour: Float[Tensor, "H W 3"], objects: Tensor) -> Float[Tensor, "H W 3"]:
    """What a blur of a pixel takes away, from within objects only."""
    inside = (objects >= 0).double()
    kernel = gaussian(1.0)
    found = blurred((colour.double() * inside[..., None]).movedim(-1, 0), kernel)
    found = found / blurred(inside[None], kernel).clamp(min=1e-3)
    return found.movedim(0, -1).to(colour) - colour


@dataclass(frozen=True, eq=False)
class Matched:
    """How rendered colours become those of a photo, channel by channel.

    Attributes:
        shares: (3, 3) of the rendered colour, of what a blur takes away, and of 1.
        basis: (n, 3, 3): these three, for each pixel and channel.
    """

    shares: Float[Tensor, "3 3"]
    basis: Float[Tensor, "n 3 3"]

    def of(self, colour: Float[Tensor, "H W 3"], softer: Tensor) -> Float[Tensor, "H W 3"]:
        """A rendered picture as the photo would show it."""
        gain, blur, offset = self.shares.to(colour)
        found: Tensor = gain * colour + blur * softer + offset
        return found


def match(ours: Tensor, softer: Tensor, theirs: Tensor) -> Matched:
    """Exposure and blur of a photo, robustly: rounds of weighted least squares, to their end.

    A photo's blur makes a texture fainter where it is fine, as far away or askew. A sharp picture
    would be turned to look alike.
    """
    ours, softer, theirs = ours.double(), softer.double(), theirs.double()
    gains, offsets = exposure(ours, theirs)
    shares = torch.stack([gains, torch.zeros_like(gains), offsets])
    basis = torch.stack([ours, softer, torch.ones_like(ours)], dim=-1)
    for some, rounds in ((some_of(ours), ROUNDS), (slice(None), 2)):
        for _ in range(rounds):
            before, shares = shares, _round(basis[some], theirs[some], shares)
            if float((shares - before).abs().max()) < SETTLED:
                break
    return Matched(shares, basis)


def _round(basis: Tensor, theirs: Tensor, shares: Tensor) -> Tensor:
    error = theirs - (basis * shares.T).sum(-1)
    width = (3 * error.abs().median(dim=0).values).clamp(min=0.02)
    weighted = basis / (1 + (error / width).square())[..., None]
    normal = product(weighted.permute(1, 2, 0), basis.permute(1, 0, 2))
    normal = normal + 1e-6 * len(basis) * torch.eye(3, dtype=torch.float64)
    right = product(weighted.permute(1, 2, 0), theirs.T[..., None])
    gain, blur, offset = torch.linalg.solve(normal, right)[..., 0].T
    gain = gain.clamp(0.1, 10)
    return torch.stack([gain, torch.minimum(blur.clamp(min=-0.5 * gain), 3 * gain), offset])


def without(slopes: Tensor, basis: Tensor, weight: Tensor) -> Tensor:
    """(n, N, 3) less what exposure and blur could do as well: that is no sign of motion."""
    rows = []
    for channel in range(3):
        w, own = weight[:, channel, None], basis[:, channel]
        normal = product(own.mT, w * own) + 1e-9 * torch.eye(3, dtype=torch.float64)
        share = torch.linalg.solve(normal, product(own.mT, w * slopes[..., channel].mT))
        rows.append(slopes[..., channel] - product(own, share).mT)
    return torch.stack(rows, dim=-1)


def gaussian(width: float) -> Float[Tensor, " L"]:
    """Weights of pixels in a row, that sum to 1."""
    reach = int(3 * width + 1)
    found = torch.exp(-0.5 * (torch.arange(-reach, reach + 1).double() / width).square())
    return found / found.sum()


def blurred(pictures: Float[Tensor, "*B H W"], kernel: Tensor) -> Tensor:
    """Along rows and columns; zeros beyond the border."""
    reach = len(kernel) // 2
    for axis in (-2, -1):
        long = pictures.shape[axis]
        pad = (0, 0, reach, reach) if axis == -2 else (reach, reach)
        padded = torch.nn.functional.pad(pictures, pad)
        pictures = torch.zeros_like(pictures)
        for i, share in enumerate(kernel.tolist()):
            pictures += share * padded.narrow(axis, i, long)
    return pictures
