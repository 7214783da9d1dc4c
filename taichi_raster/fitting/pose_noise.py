"""What a term's errors say of its noise: its scale, and how far neighbouring pixels agree.

The covariance of an M-estimate is that of its sandwich (Huber, Robust Statistics, 1981), B^-1 M
B^-1. The errors of pixels next to each other are not independent: M has their correlation by
distance (Conley, J. of Econometrics 92, 1999), measured in the errors themselves. A fit makes the
errors that are left smaller and less alike than they were. As the fit is known, so is by how much:
that is added (Cressie, Statistics for Spatial Data, 1993, on the bias of residuals' variograms).
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
_ROUNDS = 5  # of making up for what the fit has taken of the errors
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
        most: the scale of errors that are those of the object, and not of something before it.
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
    most: float = torch.inf

    def scale(self) -> float:
        """Of the errors: robust where they count so."""
        if self.robust == "squares":
            return self.least
        error = self.error[self.valid]
        if error.numel() == 0:
            return self.least
        off = error.abs()
        spread = 1.4826 * float(off.median())
        if spread > self.most:  # something stands before it: the nearest tenth has to count
            nearest = float(off.kthvalue(1 + len(off) // 10).values)
            spread = min(spread, max(self.most, nearest / 2))
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
        scale: of errors.
        whole: by how much a difference in cost is to be multiplied.
    """

    matrix: Float[Tensor, "n n"]
    slope: Float[Tensor, " n"]
    bread: Float[Tensor, "n n"]
    noise: Float[Tensor, "n n"]
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
    if last and field.gradient is not None:
        noise = outline_noise(
            field.error, slopes, field.gradient, field.valid, field.blur, field.values
        )
        return _normal(field, matrix, slope, bread, noise, scale)
    deviation = _deviation(pulled, kept, 1e-2 * field.least)
    errors, scaled = pulled / deviation * kept, slopes * deviation * kept
    spread = _correlated(errors, kept)
    noise = _seen_through(spread, scaled)
    for _ in range(_ROUNDS if last else 0):
        taken = _taken(spread, slopes * weight / deviation * kept, scaled, matrix)
        spread = _correlated(errors, kept, taken)
        noise = _seen_through(spread, scaled)
    return _normal(field, matrix, slope, bread, noise, scale)


def _normal(
    field: Field,
    matrix: Tensor,
    slope: Tensor,
    bread: Tensor,
    noise: Tensor,
    scale: float,
) -> Normal:
    unit = max(float(noise.trace() / matrix.trace().clamp(min=1e-30)), 1e-30)
    whole = (1.0 if field.robust == "squares" else float(field.valid.sum())) / unit
    noise = positive(noise) / unit**2
    return Normal(matrix / unit, slope / unit, bread / unit, noise, scale, whole)


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


def _correlated(
    errors: Float[Tensor, "C H W"],
    kept: Bool[Tensor, "C H W"],
    taken: Float[Tensor, "L L"] | None = None,
) -> Float[Tensor, "L L"]:
    """How far errors agree, by how far they are apart: the mean of their products.

    `taken` are the sums of products, for each shift, that a fit takes away.
    """
    reach = _reach(errors)
    products = _lags(errors, errors, reach)
    if taken is not None:
        products = products + taken
    pairs = _lags(kept.double(), kept.double(), reach)
    span = torch.arange(-reach, reach + 1).double()
    ring = (span[:, None].square() + span.square()).sqrt().round().long()
    sums, counts = (
        torch.zeros(2 * reach + 1).double().index_add(0, ring.flatten(), x.flatten())
        for x in (products, pairs)
    )
    found = (sums / counts.clamp(min=1))[: reach + 1]
    found = found.clamp(max=float(found[0].clamp(min=1e-300)))
    faint = (found < _FAINT * found[0]).nonzero()
    if len(faint) > 0:
        found[int(faint[0]) :] = 0
    found = torch.nn.functional.pad(found, (0, reach))
    return found[ring]


def _taken(
    spread: Float[Tensor, "L L"],
    moved: Float[Tensor, "n C H W"],
    scaled: Float[Tensor, "n C H W"],
    matrix: Float[Tensor, "n n"],
) -> Float[Tensor, "L L"]:
    """What least squares takes away of the sums of products of errors, for each shift.

    With P = A' H^-1 B, of rows A, `moved`, and B, `scaled`, and errors e of covariance R, there is
    left e - P e, whose covariance is R - P R - R P' + P R P'.
    """
    inverse = torch.linalg.inv(positive(matrix))
    felt = _convolved(scaled, spread)
    noise = product(scaled.flatten(1), felt.flatten(1).mT)
    twice = product(inverse, felt.flatten(1))
    once = product(product(product(inverse, noise), inverse), moved.flatten(1))
    other = (2 * twice - once).reshape(moved.shape)
    found = _lags(moved.flatten(0, 1), other.flatten(0, 1), _reach(moved[0]))
    return (found + found.flip(0, 1)) / 2


def _seen_through(spread: Float[Tensor, "L L"], fields: Float[Tensor, "n C H W"]) -> Tensor:
    """(n, n): the covariance of the sums of fields times errors."""
    return product(fields.flatten(1), _convolved(fields, spread).flatten(1).mT)


def _reach(pictures: Float[Tensor, "C H W"]) -> int:
    return max(2, int(_FARTHEST * min(pictures.shape[1:])))


def _lags(
    one: Float[Tensor, "C H W"], two: Float[Tensor, "C H W"], reach: int
) -> Float[Tensor, "L L"]:
    """Sums over pixels of products with the pixel so far beside and below, of all channels."""
    height, width = one.shape[1:]
    shape = height + reach, width + reach
    first = torch.fft.rfft2(one, s=shape)
    second = first if one is two else torch.fft.rfft2(two, s=shape)
    found = torch.fft.irfft2((first.conj() * second).sum(0), s=shape)
    index = torch.arange(-reach, reach + 1)
    picked: Tensor = found[index % shape[0]][:, index % shape[1]]
    return picked


def _convolved(fields: Float[Tensor, "*B H W"], kernel: Float[Tensor, "L L"]) -> Tensor:
    """With a symmetric kernel, and zeros beyond the border.

    Of what is measured, the spectrum may be negative here and there, as that of no covariance is.
    """
    height, width = fields.shape[-2:]
    reach = len(kernel) // 2
    shape = height + reach, width + reach
    placed = torch.zeros(shape).to(kernel)
    index = torch.arange(-reach, reach + 1)
    placed[(index % shape[0])[:, None], (index % shape[1])[None]] = kernel
    spectrum = torch.fft.rfft2(fields, s=shape) * torch.fft.rfft2(placed).real.clamp(min=0)
    found: Tensor = torch.fft.irfft2(spectrum, s=shape)[..., :height, :width]
    return found


def positive(matrix: Tensor) -> Tensor:
    """The nearest matrix whose inverse exists; unknowns that nothing says anything of stay free."""
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
    least = 1e-12 * float(values.abs().max().clamp(min=1e-30))
    return product(product(vectors, torch.diag(values.clamp(min=least))), vectors.mT)
