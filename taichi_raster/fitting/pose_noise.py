"""What a term's errors say of its noise: its scale, and how far neighbouring pixels agree.

The covariance of an M-estimate is that of its sandwich (Huber, Robust Statistics, 1981), B^-1 M
B^-1. The errors of pixels next to each other are not independent: M has their correlation by
distance (Conley, J. of Econometrics 92, 1999), measured in the errors themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from taichi_raster.fitting.pose_outline_noise import outline_noise
from taichi_raster.runtime.precision import product

_FARTHEST = 1 / 8  # of the picture's shorter side: pixels farther apart are independent
_FAINT = 0.05  # correlations below that are taken as 0, and so are those farther out
_AROUND, _PRIOR = 9, 9  # pixels; pixels of the mean variance that are added
_TUNING = {"squares": torch.inf, "cauchy": 2.385, "tukey": 4.685}
"""Of the scale of Gaussian errors: 95% as good as least squares for those."""


@dataclass(frozen=True, eq=False)
class Field:
    """A term at a pose: errors and how they change, pixel by pixel.

    Attributes:
        error: (C, H, W) measured less predicted.
        slopes: (n, C, H, W) of what is predicted, by each unknown.
        valid: (C, H, W) where there is something to compare.
        robust: how errors count: "squares", "cauchy" or "tukey".
        least: the scale of errors, at least.
        gradient: (2, C, H, W) of what is predicted, along columns and rows, where errors are those
            of an outline; see `outline_noise`.
        blur: pixels by which error and slopes are blurred.
        values: the variance of a pixel's error by itself, before the blur, where those are of an
            outline.
    """

    error: Float[Tensor, "C H W"]
    slopes: Float[Tensor, "n C H W"]
    valid: Bool[Tensor, "C H W"]
    robust: str
    least: float
    gradient: Float[Tensor, "2 C H W"] | None = None
    blur: float = 0.0
    values: float = 0.0

    def scale(self) -> float:
        """Of the errors: robust where they count so."""
        if self.robust == "squares":
            return self.least
        error = self.error[self.valid]
        spread = 1.4826 * float(error.abs().median()) if error.numel() > 0 else 0.0
        return max(spread, self.least)

    def cost(self, scale: float, where: Bool[Tensor, "C H W"]) -> float:
        """Half the robust sum of squares: if errors count so, the mean of these pixels."""
        error = self.error[where]
        if error.numel() == 0:
            return torch.inf
        if self.robust == "squares":
            return float(error.square().sum()) / 2
        width = _TUNING[self.robust] * scale
        ratio = (error / width).square()
        if self.robust == "cauchy":
            return float(width**2 * torch.log1p(ratio).mean() / 2)
        return float(width**2 * (1 - (1 - ratio.clamp(max=1)) ** 3).mean() / 6)


@dataclass(frozen=True, eq=False)
class Normal:
    """The normal equations of a term, in which a unit is as sure as in those of all others.

    Attributes:
        matrix, slope: (n, n), (n,): of Gauss and Newton's step, by robust weights.
        bread, noise: (n, n): B and M of the sandwich.
        pixels: how many independent errors there are.
        scale: of errors.
        whole: by how much a difference in cost is to be multiplied.
    """

    matrix: Float[Tensor, "n n"]
    slope: Float[Tensor, " n"]
    bread: Float[Tensor, "n n"]
    noise: Float[Tensor, "n n"]
    pixels: float
    scale: float
    whole: float


def normal_of(field: Field, last: bool = False) -> Normal:
    """The normal equations of one term, with its noise measured; with more care at the `last`."""
    scale = field.scale()
    error, ratio = field.error, (field.error / (_TUNING[field.robust] * scale)).square()
    if field.robust == "cauchy":
        weight = 1 / (1 + ratio)
        bend = (1 - ratio) / (1 + ratio).square()
    elif field.robust == "tukey":
        weight = (1 - ratio).clamp(min=0).square()
        bend = (1 - ratio).clamp(min=0) * (1 - 5 * ratio)
    else:
        weight = bend = torch.ones_like(error)
    moving = field.slopes.square().sum(0)
    counted = field.valid & (moving > 1e-4 * moving.amax())
    weight, bend = weight * field.valid, bend * field.valid
    pulled = (weight * error * counted).double()
    slopes = field.slopes.double()
    flat = slopes.flatten(1)
    matrix = product(flat * weight.flatten(), flat.mT)
    bread = matrix * max(float(bend.sum() / weight.sum().clamp(min=1e-30)), 0.1)
    slope = product(flat, (weight * error).double().flatten()[:, None])[:, 0]
    kept = counted & (weight > 0.1)
    many = max(float(kept.sum()), 1.0)
    if last and field.gradient is not None:
        noise = outline_noise(
            field.error, slopes, field.gradient, field.valid, field.blur, field.values
        )
        return _normal(field, matrix, slope, bread, noise, torch.inf, scale)
    deviation = _deviation(pulled, kept, 1e-2 * field.least)
    spread = _correlated(pulled / deviation * kept, kept)
    scaled = slopes * deviation * kept
    noise = product(scaled.flatten(1), _convolved(scaled, spread).flatten(1).mT)
    plain = product(scaled.flatten(1), scaled.flatten(1).mT)
    alike = float(noise.trace() / plain.trace().clamp(min=1e-30))
    return _normal(field, matrix, slope, bread, noise, many / max(alike, 1.0), scale)


def _normal(
    field: Field,
    matrix: Tensor,
    slope: Tensor,
    bread: Tensor,
    noise: Tensor,
    pixels: float,
    scale: float,
) -> Normal:
    unit = max(float(noise.trace() / matrix.trace().clamp(min=1e-30)), 1e-30)
    whole = (1.0 if field.robust == "squares" else float(field.valid.sum())) / unit
    noise = positive(noise) / unit**2
    return Normal(matrix / unit, slope / unit, bread / unit, noise, pixels, scale, whole)


def _deviation(
    pulled: Float[Tensor, "C H W"], kept: Bool[Tensor, "C H W"], least: float
) -> Float[Tensor, "C H W"]:
    """The standard deviation of errors round about each pixel: it differs, as by how askew."""
    one = kept.double()
    squares, many = (
        torch.nn.functional.avg_pool2d(x[None], _AROUND, 1, _AROUND // 2)[0]
        for x in (pulled.square() * one, one)
    )
    mean = float((pulled.square() * one).sum()) / max(float(one.sum()), 1.0)
    share = _PRIOR / _AROUND**2
    return ((squares + share * mean) / (many + share)).sqrt().clamp(min=least)


def _correlated(pulled: Float[Tensor, "C H W"], kept: Bool[Tensor, "C H W"]) -> Tensor:
    """(2 R + 1, 2 R + 1): how far errors agree, by how far they are apart; 1 in the middle."""
    reach = max(2, int(_FARTHEST * min(pulled.shape[1:])))
    products = _lags(pulled, reach)
    pairs = _lags(kept.double(), reach)
    span = torch.arange(-reach, reach + 1).double()
    apart = (span[:, None].square() + span.square()).sqrt()
    ring = apart.round().long()
    sums, counts = (
        torch.zeros(2 * reach + 1).double().index_add(0, ring.flatten(), x.flatten())
        for x in (products, pairs)
    )
    found = (sums / counts.clamp(min=1))[: reach + 1]
    found = (found / found[0].clamp(min=1e-300)).clamp(max=1)
    found[0] = 1
    faint = (found < _FAINT).nonzero()
    if len(faint) > 0:
        found[int(faint[0]) :] = 0
    found = torch.nn.functional.pad(found, (0, reach))
    return found[ring]


def _lags(fields: Float[Tensor, "C H W"], reach: int) -> Float[Tensor, "L L"]:
    """Sums over pixels of products with the pixel so far beside and below, of all channels."""
    height, width = fields.shape[1:]
    shape = height + reach, width + reach
    spectrum = torch.fft.rfft2(fields, s=shape)
    found = torch.fft.irfft2(spectrum.abs().square(), s=shape).sum(0)
    index = torch.arange(-reach, reach + 1)
    picked: Tensor = found[index % shape[0]][:, index % shape[1]]
    return picked


def _convolved(fields: Float[Tensor, "*B H W"], kernel: Float[Tensor, "L L"]) -> Tensor:
    """With a symmetric kernel, and zeros beyond the border."""
    height, width = fields.shape[-2:]
    reach = len(kernel) // 2
    shape = height + reach, width + reach
    placed = torch.zeros(shape).to(kernel)
    index = torch.arange(-reach, reach + 1)
    placed[(index % shape[0])[:, None], (index % shape[1])[None]] = kernel
    spectrum = torch.fft.rfft2(fields, s=shape) * torch.fft.rfft2(placed)
    found: Tensor = torch.fft.irfft2(spectrum, s=shape)[..., :height, :width]
    return found


def positive(matrix: Tensor) -> Tensor:
    """The nearest matrix whose inverse exists; unknowns that nothing says anything of stay free."""
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
    least = 1e-12 * float(values.abs().max().clamp(min=1e-30))
    return product(product(vectors, torch.diag(values.clamp(min=least))), vectors.mT)
