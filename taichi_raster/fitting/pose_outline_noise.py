"""How uncertain a mask's outline is, by restricted likelihood of what is left of its errors.

A mask's errors are of two kinds: its outline is not where it should be, alike over some pixels; and
its pixels' values are off, each by itself. The second is measured away from outlines. For the
first, the outline is cut into pieces of a few pixels. How far the mask's outline is from the drawn
one at a piece is the sum of errors times the picture's gradient, over that of its square. With u
a random field of displacements, these distances have the covariance

    a (n n') exp(-d / l) + c [the same piece] + what the pixels' values add

for pieces with normals n and n' at a distance d. The term c is for what changes from piece to
piece, as by rounding to whole pixels. Of Matern's family of correlations, exp(-d / l) takes the
field as least smooth. That is on the safe side: a rough field that is taken for a smooth one seems
to say far more of what the pose could have explained.

An outline has so few independent pieces that the fit of six unknowns takes a good part of their
errors away. Restricted likelihood (Patterson and Thompson, Biometrika 58, 1971) knows that. Instead
of the best a, c and l, the mean over all of them is taken, by their likelihood.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from taichi_raster.fitting.pose_matching import blurred, gaussian
from taichi_raster.runtime.precision import product

_LENGTHS = (1.5, 3.0, 6.0, 12.0, 24.0)
"""Pixels: l."""

_SHARES = (0.03, 0.15, 0.4, 0.8)
"""Of c in the variance of displacements."""

_TIMES = (0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 4.5, 7.0)
"""The variance of displacements, in units of what is left of it after the fit."""

_SPACING, _MOST = 2.0, 160
"""Pixels between pieces, and how many there are at most: then they are farther apart."""

_STRONG, _FAINT = 0.5, 0.02
"""Of the largest gradient: where pieces have their middles, and up to where pixels belong to them.
"""

_LEAST = 1e-6  # square pixels: the variance of displacements, at least


@dataclass(frozen=True, eq=False)
class _Pieces:
    """Pieces of an outline.

    Attributes:
        at: (S, 2) rows and columns of their middles.
        normal: (S, 2)
        off: (S,) how far the mask's outline is from the drawn one, in pixels.
        pull: (n, S) the sums of slopes times errors, for each pixel that a piece is off.
        strength: (S,) the sum of squared gradients.
        values: (S,) the variance of `off`, for each unit of the values' variance.
    """

    at: Float[Tensor, "S 2"]
    normal: Float[Tensor, "S 2"]
    off: Float[Tensor, " S"]
    pull: Float[Tensor, "n S"]
    strength: Float[Tensor, " S"]
    values: Float[Tensor, " S"]

    @staticmethod
    def of(error: Tensor, slopes: Tensor, gradient: Tensor, valid: Tensor, width: float) -> _Pieces:
        """Of one channel's (H, W), (n, H, W), (2, H, W) and (H, W)."""
        size = gradient.double().square().sum(0).sqrt() * valid
        row, column = (size > _STRONG * size.max()).nonzero().unbind(1)
        order = size[row, column].argsort(descending=True, stable=True)
        at = _apart(torch.stack([row, column], dim=1)[order].double())
        row, column = (size > _FAINT * size.max()).nonzero().unbind(1)
        pixels = torch.stack([row, column], dim=1).double()
        nearest = torch.cat([torch.cdist(some, at).argmin(1) for some in pixels.split(4096)])

        def sums(picture: Tensor) -> Tensor:
            some = picture[..., row, column].double()
            zero = torch.zeros(*some.shape[:-1], len(at), dtype=torch.float64)
            return zero.index_add_(-1, nearest, some)

        strength = sums(size.square())
        normal = torch.nn.functional.normalize(sums(size * gradient), dim=0)
        twice = blurred(size[None], gaussian(2**0.5 * width))[0] if width > 0 else size
        pull = sums(size * slopes)
        values = sums(size * twice) / strength.square()
        return _Pieces(at, normal.T, sums(size * error) / strength, pull, strength, values)


def outline_noise(
    error: Float[Tensor, "C H W"],
    slopes: Float[Tensor, "n C H W"],
    gradient: Float[Tensor, "2 C H W"],
    valid: Bool[Tensor, "C H W"],
    width: float,
    values: float,
) -> Float[Tensor, "n n"]:
    """The covariance of the sums of slopes times errors.

    Args:
        error, slopes: of coverage, blurred by `width` pixels.
        gradient: of coverage, along columns and rows.
        valid: where there is something to compare.
        width: pixels.
        values: the variance of a pixel's value by itself, before the blur.
    """
    shown = [c for c in range(len(error)) if bool(gradient[:, c].any())]
    parts = [_Pieces.of(error[c], slopes[:, c], gradient[:, c], valid[c], width) for c in shown]
    plain = slopes.double()
    if width > 0:
        plain = blurred(plain, gaussian(width))
    flat = plain.flatten(1)
    found = values * product(flat, flat.mT)
    if not parts:
        return found
    pull = torch.cat([p.pull for p in parts], dim=1)
    return found + product(product(pull, _displacements(parts, values)), pull.mT)


def _displacements(parts: list[_Pieces], values: float) -> Float[Tensor, "S S"]:
    """The covariance of the outline's displacements, less what the pixels' values add."""
    at, normal = (torch.cat([getattr(p, name) for p in parts]) for name in ("at", "normal"))
    channel = torch.cat([torch.full((len(p.at),), float(c)) for c, p in enumerate(parts)])
    off = torch.cat([p.off for p in parts])
    slopes = torch.cat([p.pull / p.strength for p in parts], dim=1).T
    known = values * torch.cat([p.values for p in parts])
    apart = torch.where(channel[:, None] == channel, torch.cdist(at, at), torch.inf)
    alike, eye = product(normal, normal.mT), torch.eye(len(at), dtype=torch.float64)
    left = float(off.square().mean())
    left = max(left - float(known.mean()), 0.05 * left, _LEAST)
    fixed = known + 1e-3 * _LEAST
    amounts = left * torch.tensor(_TIMES, dtype=torch.float64)
    logs, bases = [], []
    for length in _LENGTHS:
        smooth = alike * torch.exp(-apart / length)
        for share in _SHARES:
            bases.append((1 - share) * smooth + share * eye)
            logs.append(_likelihoods(bases[-1], amounts, fixed, slopes, off))
    weights = torch.softmax(torch.cat(logs), 0).reshape(len(bases), -1)
    found = torch.zeros_like(eye)
    for amount, base in zip((weights * amounts).sum(1).tolist(), bases, strict=True):
        found += amount * base
    return found


def _apart(at: Float[Tensor, "N 2"]) -> Float[Tensor, "S 2"]:
    """Some of the points, the first ones first, none too near to another."""
    spacing = _SPACING
    while True:
        left = at
        taken: list[Tensor] = []
        while len(left) > 0 and len(taken) <= _MOST:
            taken.append(left[0])
            left = left[(left - left[0]).square().sum(1) >= spacing**2]
        if len(left) == 0:
            return torch.stack(taken)
        spacing *= 1.3


def _likelihoods(
    base: Float[Tensor, "S S"],
    amounts: Float[Tensor, " T"],
    fixed: Float[Tensor, " S"],
    x: Float[Tensor, "S n"],
    e: Float[Tensor, " S"],
) -> Float[Tensor, " T"]:
    """The restricted log-likelihoods of errors e, after unknowns of slopes x were fitted.

    The errors' covariances are each amount times `base`, and `fixed` on the diagonal. One basis
    makes all of these diagonal.
    """
    root = fixed.rsqrt()
    values, vectors = torch.linalg.eigh(root[:, None] * base * root)
    scale = x.square().sum(0).sqrt().clamp(min=1e-30)
    both = root[:, None] * torch.cat([x / scale, e[:, None]], dim=1)
    both = product(vectors.mT, both)
    variance = 1 + amounts[:, None] * values.clamp(min=0)
    sums = product(both.mT, both / variance[..., None])  # (T, n + 1, n + 1)
    values, vectors = torch.linalg.eigh(sums[:, :-1, :-1])
    held = values > 1e-9 * values.amax(1, keepdim=True)
    values = torch.where(held, values, 1.0)
    along = product(vectors.mT, sums[:, :-1, -1:])[..., 0] * held
    left = sums[:, -1, -1] - (along.square() / values).sum(1)
    volume = variance.log().sum(1) + fixed.log().sum() + values.log().sum(1)
    found: Tensor = -0.5 * (left + volume)
    return found
