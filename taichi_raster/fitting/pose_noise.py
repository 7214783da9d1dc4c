"""What a term's errors say of its noise: its scale, and how far neighbouring pixels agree.

The covariance of an M-estimate is that of its sandwich (Huber, Robust Statistics, 1981), B^-1 M
B^-1. The errors of pixels next to each other are not independent: M has their correlation by
distance (Conley, J. of Econometrics 92, 1999), measured in the errors themselves. A fit makes the
errors that are left smaller and less alike than they were. As the fit is known, so is by how much:
that is added (Cressie, Statistics for Spatial Data, 1993, on the bias of residuals' variograms).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from taichi_raster.fitting.pose_outline_noise import outline_noise
from taichi_raster.runtime.precision import product

_FARTHEST = 1 / 8  # of the picture's shorter side: pixels farther apart are independent
_FAINT = 0.05  # correlations below that are taken as 0, and so are those farther out
_ROUNDS = 5  # of making up for what the fit has taken of the errors, at most
_SETTLED = 0.01  # of the noise: rounds that change less are the last
_ALIKE = 0.8  # of the variance of errors: if it changes less, they are alike as far as before
_LEAST_BEND = 0.1  # of the curvature of weighted squares
_ONE_CHANNEL = 0.01  # of the largest variance of mixed channels: others are the same again
_HELD, _LEAST_FREEDOM = 0.9, 4.0  # which region is to be right
_QUARTER = 0.3186  # of Gaussian errors of scale 1, a quarter is smaller
_AROUND, _PRIOR = 9, 9  # pixels; independent ones of the mean variance that are added
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
            tenth, quarter = (float(off.kthvalue(1 + len(off) // n).values) for n in (10, 4))
            spread = min(spread, max(min(self.most, quarter / _QUARTER), tenth / 2))
        return max(spread, self.least)

    def moving_part(self) -> Field:
        """The rows and columns that have something that moves."""
        moving = self.valid.any(0) & (self.slopes != 0).flatten(0, 1).any(0)
        if not bool(moving.any()):
            return self
        row, column = (moving.any(axis).nonzero() for axis in (1, 0))
        part = slice(int(row[0]), int(row[-1]) + 1), slice(int(column[0]), int(column[-1]) + 1)
        gradient = None if self.gradient is None else self.gradient[..., part[0], part[1]]
        error, slopes, valid = (
            x[..., part[0], part[1]] for x in (self.error, self.slopes, self.valid)
        )
        return replace(self, error=error, slopes=slopes, valid=valid, gradient=gradient)

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
        matrix, slope: (n, n), (n,): of weighted least squares.
        bread, noise: (n, n): B and M of the sandwich; B is the curvature of the robust cost, too.
        scale: of errors.
        whole: by how much a difference in cost is to be multiplied.
        unit: what matrices are divided by.
        variance: of errors by their weights.
    """

    matrix: Float[Tensor, "n n"]
    slope: Float[Tensor, " n"]
    bread: Float[Tensor, "n n"]
    noise: Float[Tensor, "n n"]
    scale: float
    whole: float
    unit: float
    variance: float


def normal_of(field: Field, before: Normal | None = None, last: bool = False) -> Normal:
    """The normal equations of one term, with its noise measured; with more care at the `last`.

    Where errors are about as large as `before`, they are taken to be alike as far as then.
    """
    reach = _reach(field.error)
    field = field.moving_part()
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
    bread = matrix
    if field.robust != "squares":
        bread = _between(matrix, product(flat * bend.flatten(), flat.mT))
    slope = product(flat, (weight * error).double().flatten()[:, None])[:, 0]
    kept = counted & (weight > 0.1)
    variance = float((pulled.square() * kept).sum()) / max(float(kept.sum()), 1.0)
    if before is not None and _ALIKE < variance / before.variance < 1 / _ALIKE:
        noise = before.noise * before.unit**2 * (variance / before.variance)
    elif last and field.gradient is not None:
        noise = outline_noise(
            field.error, slopes, field.gradient, field.valid, field.blur, field.values
        )
    else:
        given = _Errors.of(pulled, slopes, weight, kept, reach, 1e-2 * field.least)
        noise = given.noise(matrix, _ROUNDS if last else 0)
    unit = max(float(noise.trace() / matrix.trace().clamp(min=1e-30)), 1e-30)
    whole = (1.0 if field.robust == "squares" else float(field.valid.sum())) / unit
    noise = positive(noise) / unit**2
    variance = max(variance, 1e-30)
    return Normal(matrix / unit, slope / unit, bread / unit, noise, scale, whole, unit, variance)


@dataclass(frozen=True, eq=False)
class _Errors:
    """Errors of standard deviation 1, in channels that are independent of each other.

    Attributes:
        errors: (C, H, W)
        scaled: (n, C, H, W): their sums with errors are what the normal equations have.
        moved: (n, C, H, W): how errors change by each unknown.
        kept: (H, W) where there are errors.
        pairs: (L, L) how many pixels are so far apart, times C.
        reach: pixels.
    """

    errors: Float[Tensor, "C H W"]
    scaled: Float[Tensor, "n C H W"]
    moved: Float[Tensor, "n C H W"]
    kept: Bool[Tensor, "H W"]
    pairs: Float[Tensor, "L L"]
    reach: int

    @staticmethod
    def of(
        pulled: Tensor, slopes: Tensor, weight: Tensor, kept: Tensor, reach: int, least: float
    ) -> _Errors:
        """Of a grey photo, three channels say no more than one."""
        shown = _Spectra(kept.shape[1:], reach)
        one, plain = shown.of(kept.double()), shown.of(pulled * kept)
        pairs = shown.lags(one, one)
        alike = _by_distance(shown.lags(plain, plain), pairs)
        alike = alike / alike.amax().clamp(min=1e-300)
        deviation = _deviation(pulled, kept, float(alike.square().sum()), least)
        errors, scaled = pulled / deviation * kept, slopes * deviation * kept
        moved = slopes * weight / deviation * kept
        if len(errors) > 1:
            flat, many = errors.flatten(1), kept.double().flatten(1).sum(1)
            alike = product(flat, flat.mT) / (many[:, None] * many).sqrt().clamp(min=1.0)
            values, vectors = torch.linalg.eigh(alike)
            some = values > _ONE_CHANNEL * values[-1].clamp(min=1e-30)
            pairs = pairs * (int(some.sum()) / len(errors))
            sizes = values[some].clamp(min=1e-30).sqrt()
            to, back = vectors[:, some].mT / sizes[:, None], vectors[:, some].mT * sizes[:, None]
            errors = _mixed(to, errors)
            scaled, moved = (
                _mixed(by, x.transpose(0, 1)).transpose(0, 1)
                for by, x in ((back, scaled), (to, moved))
            )
        return _Errors(errors, scaled, moved, kept.any(0), pairs, reach)

    def noise(self, matrix: Float[Tensor, "n n"], rounds: int) -> Float[Tensor, "n n"]:
        """The covariance of the sums of `scaled` times errors.

        In some rounds, what least squares by `matrix` has taken of the errors is made up for.
        """
        spectra = _Spectra(self.kept.shape, self.reach)
        errors, scaled = spectra.of(self.errors), spectra.of(self.scaled)
        measured = products = spectra.lags(errors, errors)
        felt_as = spectra.power(_by_distance(products, self.pairs))
        noise = spectra.seen_through(felt_as, scaled)
        if rounds > 0:
            inverse, moved = torch.linalg.inv(positive(matrix)), spectra.of(self.moved)
        for _ in range(rounds):
            felt = spectra.back(scaled * felt_as) * self.kept
            # With P = A' H^-1 B, of rows A, `moved`, and B, `scaled`, and errors e of covariance R,
            # there is left e - P e, whose covariance is R - P R - R P' + P R P'.
            twice = product(2 * inverse, felt.flatten(1))
            once = product(product(product(inverse, noise), inverse), self.moved.flatten(1))
            other = spectra.of((twice - once).reshape(self.moved.shape))
            taken = spectra.lags(moved.flatten(0, 1), other.flatten(0, 1))
            products = measured + (taken + taken.flip(0, 1)) / 2
            felt_as = spectra.power(_by_distance(products, self.pairs))
            old, noise = noise, spectra.seen_through(felt_as, scaled)
            if abs(float(noise.trace() / old.trace().clamp(min=1e-300)) - 1) < _SETTLED:
                break
        return noise * _widened(self._freedom(products), len(matrix)) if rounds > 0 else noise

    def _freedom(self, products: Float[Tensor, "L L"]) -> float:
        """Of chi-squared, as which the measured power is about distributed.

        As that of a spectrum by a window of lags: twice the pixels, by the lags that count
        (Priestley, Spectral Analysis and Time Series, 1981, section 6.2).
        """
        counted = int((_by_distance(products, self.pairs) != 0).sum())
        return 2 * float(self.pairs.amax()) / max(counted, 1)


@dataclass(frozen=True, eq=False)
class _Spectra:
    """Pictures by Fourier's transform, with zeros beyond their borders for `reach` pixels."""

    size: Sequence[int]
    reach: int

    @property
    def shape(self) -> tuple[int, int]:
        from scipy.fft import next_fast_len  # here, as SciPy takes a while to import

        height, width = (int(next_fast_len(n + self.reach, real=True)) for n in self.size)
        return height, width

    def of(self, pictures: Float[Tensor, "*B H W"]) -> Tensor:
        """The spectra of pictures."""
        found: Tensor = torch.fft.rfft2(pictures, s=self.shape)
        return found

    def back(self, spectra: Tensor) -> Float[Tensor, "*B H W"]:
        """The pictures of spectra."""
        found: Tensor = torch.fft.irfft2(spectra, s=self.shape)
        return found[..., : self.size[0], : self.size[1]]

    def lags(self, one: Tensor, two: Tensor) -> Float[Tensor, "L L"]:
        """Sums of products with the pixel so far beside and below, of all channels."""
        found = torch.fft.irfft2((one.conj() * two).sum(0), s=self.shape)
        rows, columns = self._places
        picked: Tensor = found[rows, columns]
        return picked

    def power(self, alike: Float[Tensor, "L L"]) -> Tensor:
        """The spectrum of a symmetric kernel.

        Of what is measured, it may be negative here and there, as that of no covariance is.
        """
        placed = torch.zeros(self.shape).to(alike)
        placed[self._places] = alike
        found: Tensor = torch.fft.rfft2(placed).real.clamp(min=0)
        return found

    def seen_through(self, power: Tensor, fields: Tensor) -> Float[Tensor, "n n"]:
        """The covariance of the sums of fields, by their spectra, times noise of such a power."""
        height, width = self.shape
        twice = torch.full((width // 2 + 1,), 2.0, dtype=torch.float64)
        twice[0] = 1  # the other half of a real picture's spectrum is not there
        if width % 2 == 0:
            twice[-1] = 1
        flat = torch.view_as_real(fields * (power * twice).sqrt()).flatten(1)
        return product(flat, flat.mT) / (height * width)

    @property
    def _places(self) -> tuple[Tensor, Tensor]:
        index = torch.arange(-self.reach, self.reach + 1)
        return (index % self.shape[0])[:, None], (index % self.shape[1])[None]


def _mixed(shares: Float[Tensor, "K C"], channels: Float[Tensor, "C ..."]) -> Tensor:
    """Sums of channels by shares, (K, ...)."""
    mixed: Tensor = product(shares, channels.flatten(1)).unflatten(1, channels.shape[1:])
    return mixed


def _by_distance(
    products: Float[Tensor, "L L"], pairs: Float[Tensor, "L L"]
) -> Float[Tensor, "L L"]:
    """How far errors agree, by how far they are apart: the mean of their products."""
    reach = len(products) // 2
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


def _deviation(
    pulled: Float[Tensor, "C H W"], kept: Bool[Tensor, "C H W"], area: float, least: float
) -> Float[Tensor, "C H W"]:
    """The standard deviation of errors round about each pixel: it differs, as by how askew.

    `area` is how many pixels have errors that are alike. The fewer independent ones there are round
    about, the more the mean of all counts.
    """
    one = kept.double()
    squares, many = (
        torch.nn.functional.avg_pool2d(x[None], _AROUND, 1, _AROUND // 2)[0]
        for x in (pulled.square() * one, one)
    )
    mean = float((pulled.square() * one).sum()) / max(float(one.sum()), 1.0)
    share = _PRIOR * max(area, 1.0) / _AROUND**2
    return ((squares + share * mean) / (many + share)).sqrt().clamp(min=least)


def _widened(freedom: float, unknowns: int) -> float:
    """By how much noise that was measured with so little freedom is to be taken as larger.

    The squared distance of the truth is distributed as by Fisher and Snedecor's F, not as
    chi-squared (Hotelling 1931): with it, regions of 90% hold 90%.
    """
    from scipy.special import chdtri, fdtri  # here, as SciPy takes a while to import

    count = min(unknowns, 6)
    left = max(freedom - unknowns, _LEAST_FREEDOM)
    return float(count * fdtri(count, left, _HELD) / chdtri(count, 1 - _HELD))


def _reach(pictures: Float[Tensor, "C H W"]) -> int:
    return max(2, int(_FARTHEST * min(pictures.shape[1:])))


def _between(matrix: Tensor, curvature: Tensor) -> Tensor:
    """The curvature, but for directions in which that of weighted squares says far more, or less.

    Where most errors are large, a robust cost may bend the other way.
    """
    values, vectors = torch.linalg.eigh(positive(matrix))
    root, inverse = values.sqrt(), values.rsqrt()
    within = product(vectors.mT, product(curvature, vectors)) * inverse[:, None] * inverse
    shares, axes = torch.linalg.eigh((within + within.mT) / 2)
    axes = root[:, None] * axes
    found = product(axes * shares.clamp(_LEAST_BEND, 1), axes.mT)
    return product(vectors, product(found, vectors.mT))


def positive(matrix: Tensor) -> Tensor:
    """The nearest matrix whose inverse exists; unknowns that nothing says anything of stay free."""
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
    least = 1e-12 * float(values.abs().max().clamp(min=1e-30))
    return product(product(vectors, torch.diag(values.clamp(min=least))), vectors.mT)
