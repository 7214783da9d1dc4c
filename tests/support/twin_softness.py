"""The eighteen distributions in plain torch, from their definitions: the oracle of edge and depth.

Each is x to (log F(x), log S(x)), S = 1 - F, in float64; -inf where F or S is exactly 0. torch
differentiates them as often as wanted, the gamma distributions also in their shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

import twin
from twin import Edge, log_or_minus_inf

GAMMA_TERMS = 150  # of the series of the incomplete gamma function: enough to x = 50


def _pair(f: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    return log_or_minus_inf(f), log_or_minus_inf(s)


def _by_halves(x: Tensor, lower: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """A symmetric distribution from F on x <= 0, where it has all its digits."""
    tail = lower(-x.abs())
    rest = 1 - tail
    return _pair(torch.where(x < 0, tail, rest), torch.where(x < 0, rest, tail))


def _on_positive(x: Tensor, of: Callable[[Tensor], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """A distribution of positive numbers: F = 0 up to 0."""
    log_f, log_s = of(torch.where(x > 0, x, 1.0))
    return torch.where(x > 0, log_f, -math.inf), torch.where(x > 0, log_s, 0.0)


def reversed_(edge: Edge) -> Edge:
    """F_rev(x) = 1 - F(-x)."""

    def edge_rev(x: Tensor) -> tuple[Tensor, Tensor]:
        log_f, log_s = edge(-x)
        return log_s, log_f

    return edge_rev


def heaviside(x: Tensor) -> tuple[Tensor, Tensor]:
    inside = (x >= 0).to(x.dtype)
    return log_or_minus_inf(inside), log_or_minus_inf(1 - inside)


def cubic_hermite(x: Tensor) -> tuple[Tensor, Tensor]:
    """3 y^2 - 2 y^3 with y = (x + 1) / 2 on [0, 1]."""
    y, rest = ((1 + x) / 2).clamp(0, 1), ((1 - x) / 2).clamp(0, 1)
    return _pair(y * y * (3 - 2 * y), rest * rest * (3 - 2 * rest))


def wigner_semicircle(x: Tensor) -> tuple[Tensor, Tensor]:
    """The area of the half disc to the left of x: (2 t - sin 2 t) / (2 pi) with t = acos(-x)."""
    inside = x.abs() < 1
    c = torch.where(inside, x, 0.0)

    def area(c: Tensor) -> Tensor:
        t = torch.acos(-c)
        return (2 * t - torch.sin(2 * t)) / (2 * math.pi)

    full = (x >= 1).to(x.dtype)
    return _pair(torch.where(inside, area(c), full), torch.where(inside, area(-c), 1 - full))


def laplace(x: Tensor) -> tuple[Tensor, Tensor]:
    return _by_halves(x, lambda x: 0.5 * torch.exp(x))


def gudermannian(x: Tensor) -> tuple[Tensor, Tensor]:
    """Of the hyperbolic secant distribution: (2 / pi) atan(exp x)."""
    return _by_halves(x, lambda x: 2 / math.pi * torch.atan(torch.exp(x)))


def cauchy(x: Tensor) -> tuple[Tensor, Tensor]:
    """1 / 2 + atan(x) / pi, as the angle of (-x, 1)."""
    one = torch.ones_like(x)
    return _pair(torch.atan2(one, -x) / math.pi, torch.atan2(one, x) / math.pi)


def reciprocal(x: Tensor) -> tuple[Tensor, Tensor]:
    """1 / 2 + x / (2 (1 + |x|))."""
    return _by_halves(x, lambda x: 0.5 / (1 - x))


def gumbel_max(x: Tensor) -> tuple[Tensor, Tensor]:
    """exp(-exp(-x)); beyond |x| = 40, F or S is 0 to any precision."""
    u = torch.exp(-x.clamp(-40, 40))
    return -u, log_or_minus_inf(-torch.expm1(-u))


def exponential(x: Tensor) -> tuple[Tensor, Tensor]:
    return _on_positive(x, lambda x: (torch.log(-torch.expm1(-x)), -x))


def levy(x: Tensor) -> tuple[Tensor, Tensor]:
    """erfc(1 / sqrt(2 x)), and erfc(y) = 2 Phi(-sqrt(2) y)."""

    def of(x: Tensor) -> tuple[Tensor, Tensor]:
        y = x.clamp_min(1e-9).rsqrt()
        return math.log(2) + torch.special.log_ndtr(-y), torch.log(torch.erf(y / math.sqrt(2)))

    return _on_positive(x, of)


def gamma(shape: Tensor | float) -> Edge:
    """P(k, x) = sum_n x^(k + n) exp(-x) / Gamma(k + n + 1): all terms positive.

    torch knows P's values but not its derivatives in k; the series has them all.
    """
    k = torch.as_tensor(shape, dtype=torch.float64)

    def of(x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.clamp_max(50)[..., None]
        n = k.reshape(k.shape + (1,) * (x.ndim - k.ndim)) + torch.arange(GAMMA_TERMS)
        log_f = torch.logsumexp(n * torch.log(x) - x - torch.lgamma(n + 1), -1)
        return log_f.clamp_max(0), log_or_minus_inf(-torch.expm1(log_f))

    return lambda x: _on_positive(x, of)


EDGES: dict[str, Edge] = {
    **twin.DISTRIBUTIONS,
    **{
        f.__name__: f
        for f in (
            heaviside,
            cubic_hermite,
            wigner_semicircle,
            laplace,
            gudermannian,
            cauchy,
            reciprocal,
            gumbel_max,
            exponential,
            levy,
        )
    },
    "gumbel_min": reversed_(gumbel_max),
    "exponential_rev": reversed_(exponential),
    "levy_rev": reversed_(levy),
}
SHAPED = ("gamma", "gamma_rev")


def edge(name: str, shape: Tensor | float | None = None) -> Edge:
    """The distribution called `name`, (log F, log S) of x."""
    if name in SHAPED:
        assert shape is not None
        return gamma(shape) if name == "gamma" else reversed_(gamma(shape))
    return EDGES[name]


def shift_sign(name: str) -> int:
    """x = d / scale + shift, but minus for the reversed distributions."""
    return -1 if name.endswith("_rev") else 1


def tabulated(at: Tensor, values: Tensor, slopes: Tensor) -> Edge:
    """F = sigmoid(u), u by cubic Hermite basis functions between knots `at` (N,), ascending, and
    along its tangents beyond; values and slopes (N,) or (B, N).
    """
    values, slopes = torch.atleast_2d(values), torch.atleast_2d(slopes)

    def u(x: Tensor) -> Tensor:
        inside = x.clamp(float(at[0]), float(at[-1]))
        i = (torch.searchsorted(at, inside.detach().contiguous()) - 1).clamp(0, len(at) - 2)

        def pick(knots: Tensor, which: Tensor) -> Tensor:
            wide = knots.expand(len(x), -1)
            return wide.gather(1, which.flatten(1)).view(which.shape)

        h = at[i + 1] - at[i]
        t = (inside - at[i]) / h
        found = pick(values, i) * (1 + 2 * t) * (1 - t) ** 2 + pick(values, i + 1) * t**2 * (
            3 - 2 * t
        )
        found = found + h * t * (1 - t) * (pick(slopes, i) * (1 - t) - pick(slopes, i + 1) * t)
        last = torch.where(x > inside, pick(slopes, i + 1), pick(slopes, i))
        return found + (x - inside) * last

    return lambda x: twin.logistic(u(x))
