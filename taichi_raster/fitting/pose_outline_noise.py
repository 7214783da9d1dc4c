"""How uncertain a mask's outline is, by restricted likelihood of what is left of its errors.

A mask's errors are of two kinds: its outline is not where it should be, alike over some pixels; and
its pixels' values are off, each by itself. With u a random field of displacements, an error is the
picture's gradient times u, so that errors have the covariance

    a (gx gx' + gy gy') exp(-d^2 / 2 l^2) + b exp(-d^2 / 4 w^2)

at a distance d, with w the width that the pictures were blurred by. An outline has so few
independent pieces that the fit of six unknowns takes a good part of their errors away. Restricted
likelihood (Patterson and Thompson, Biometrika 58, 1971) knows that. Instead of the best a, b and l,
the mean over all of them is taken, by their likelihood.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from taichi_raster.runtime.precision import product

_LENGTHS = (0.75, 1.5, 3.0, 6.0, 12.0, 24.0)
"""Pixels: l."""

_SHARES = (0.02, 0.2, 0.6, 1.0)
"""Of b in the mean variance."""

_MOST = 250
"""Pixels whose likelihood is evaluated; the covariance is that of all."""


def outline_noise(
    error: Float[Tensor, "C H W"],
    slopes: Float[Tensor, "n C H W"],
    gradient: Float[Tensor, "2 C H W"],
    kept: Bool[Tensor, "C H W"],
    width: float,
) -> Float[Tensor, "n n"]:
    """The covariance of the sums of slopes times errors.

    Args:
        error, slopes: of coverage, blurred by `width` pixels.
        gradient: of coverage, along columns and rows.
        kept: where slopes are not 0.
    """
    channel, row, column = kept.nonzero().unbind(1)
    at = torch.stack([row, column], dim=1).double()
    part = slice(None, None, max(1, -(-len(at) // _MOST)))
    few = _pairs(at[part], channel[part])
    alike = _value_kernel(few, width)
    x, e = slopes[:, kept][:, part].double().T, error[kept][part].double()
    g = gradient[:, kept][:, part].double()
    outer = product(g.T, g)
    mean = float(outer.diagonal().mean())
    logs, sizes = [], []
    for length in _LENGTHS:
        moved = outer / mean * torch.exp(-0.5 * few / length**2)
        for share in _SHARES:
            matrix = (1 - share) * moved + share * alike
            log, size = _likelihood(matrix, x, e)
            logs.append(log)
            sizes.append(size)
    weights = torch.softmax(torch.tensor(logs, dtype=torch.float64), 0)
    weights = (weights * torch.tensor(sizes, dtype=torch.float64)).reshape(len(_LENGTHS), -1)
    shares = torch.tensor(_SHARES, dtype=torch.float64)
    outline, values = (weights * (1 - shares)).sum(1) / mean, float((weights * shares).sum())
    many = slopes[:, kept].double()
    full = gradient[:, kept].double()
    found = torch.zeros(len(many), len(many), dtype=torch.float64)
    for rows in torch.arange(len(at)).split(1024):
        squares = _pairs(at, channel, rows)
        some = product(full[:, rows].T, full)
        kernel = values * _value_kernel(squares, width)
        for length, amount in zip(_LENGTHS, outline.tolist(), strict=True):
            kernel += amount * some * torch.exp(-0.5 * squares / length**2)
        found += product(many[:, rows], product(kernel, many.T))
    return found


def _pairs(at: Tensor, channel: Tensor, rows: Tensor | None = None) -> Tensor:
    """Squared distances, infinite between channels."""
    rows = torch.arange(len(at)) if rows is None else rows
    squares = (at[rows, None] - at[None]).square().sum(-1)
    return torch.where(channel[rows, None] == channel[None], squares, torch.inf)


def _value_kernel(squares: Tensor, width: float) -> Tensor:
    return torch.exp(-0.25 * squares / width**2) if width > 0 else (squares == 0).double()


def _likelihood(matrix: Tensor, x: Tensor, e: Tensor) -> tuple[float, float]:
    """(restricted log-likelihood, variance) of errors e, after unknowns of slopes x were fitted."""
    matrix = matrix + 1e-4 * torch.eye(len(matrix)).to(matrix)
    factor = torch.linalg.cholesky(matrix)
    white = torch.linalg.solve_triangular(factor, torch.cat([x, e[:, None]], dim=1), upper=False)
    x, e = white[:, :-1], white[:, -1]
    scale = x.square().sum(0).sqrt().clamp(min=1e-30)
    values, vectors = torch.linalg.eigh(product((x / scale).T, x / scale))
    held = values > 1e-9
    basis = product(x / scale, vectors[:, held]) / values[held].sqrt()
    e = e - product(basis, product(basis.T, e[:, None]))[:, 0]
    free = max(len(e) - int(held.sum()), 1)
    variance = max(float(e.square().sum()) / free, 1e-12)
    volume = 2 * float(factor.diagonal().log().sum()) + float(values[held].log().sum())
    volume += 2 * float(scale.log().sum())
    return -0.5 * (free * float(torch.tensor(variance).log()) + volume), variance
