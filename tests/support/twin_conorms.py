"""T-conorms in plain torch by their definitions, folded pair by pair: no generators.

Petersen et al., CVPR 2022, table 2: alpha of two coverages a and b is 1 - T(s, t), with s = 1 - a
and t = 1 - b. Coverage and what it leaves, s, travel together, (a, s), so that neither 1e-20 nor
1 - 1e-20 loses its digits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Cover = tuple[Tensor, Tensor]  # (a, 1 - a)
Conorm = Callable[[Cover, Cover, Tensor], Cover]


def _leaving(s: Tensor) -> Cover:
    return 1 - s, s


def _covering(a: Tensor) -> Cover:
    return a, 1 - a


def _minus_log(x: Cover) -> Tensor:
    """-log s."""
    a, s = x
    small = a < 0.5
    return -torch.where(
        small, torch.log1p(-torch.where(small, a, 0.5)), torch.log(torch.where(small, 0.5, s))
    )


def maximum(x: Cover, y: Cover, _: Tensor) -> Cover:
    larger = x[0] >= y[0]
    return torch.where(larger, x[0], y[0]), torch.where(larger, x[1], y[1])


def probabilistic(x: Cover, y: Cover, _: Tensor) -> Cover:
    (a, s), (b, t) = x, y
    return a + b - a * b, s * t


def einstein(x: Cover, y: Cover, _: Tensor) -> Cover:
    (a, s), (b, t) = x, y
    return (a + b) / (1 + a * b), s * t / (1 + a * b)


def hamacher(x: Cover, y: Cover, p: Tensor) -> Cover:
    s, t = x[1], y[1]
    return _leaving(s * t / (p + (1 - p) * (s + t - s * t)))


def frank(x: Cover, y: Cover, p: Tensor) -> Cover:
    c = torch.log(p)
    return _leaving(torch.log1p(torch.expm1(x[1] * c) * torch.expm1(y[1] * c) / torch.expm1(c)) / c)


def yager(x: Cover, y: Cover, p: Tensor) -> Cover:
    return _covering((x[0] ** p + y[0] ** p).pow(1 / p).clamp_max(1))


def aczel_alsina(x: Cover, y: Cover, p: Tensor) -> Cover:
    h = (_minus_log(x) ** p + _minus_log(y) ** p).pow(1 / p)
    return -torch.expm1(-h), torch.exp(-h)


def dombi(x: Cover, y: Cover, p: Tensor) -> Cover:
    odds = ((x[0] / x[1]) ** p + (y[0] / y[1]) ** p).pow(1 / p)
    return odds / (1 + odds), 1 / (1 + odds)


def schweizer_sklar(x: Cover, y: Cover, p: Tensor) -> Cover:
    return _leaving((x[1] ** p + y[1] ** p - 1).pow(1 / p))


CONORMS: dict[str, Conorm] = {
    "max": maximum,
    "probabilistic": probabilistic,
    "einstein": einstein,
    "hamacher": hamacher,
    "frank": frank,
    "yager": yager,
    "aczel_alsina": aczel_alsina,
    "dombi": dombi,
    "schweizer_sklar": schweizer_sklar,
}


def alpha(name: str, log_f: Tensor, log_s: Tensor, counts: Tensor, p: Tensor) -> Tensor:
    """(B,H,W): the fold over the last axis of (B,H,W,F) fragments that count.

    One that covers its pixel fully makes alpha 1, whatever the others are.
    """
    full = (counts & (log_s == -torch.inf)).any(-1)
    counts = counts & ~full[..., None] & (log_f.exp() > 0)
    a = torch.where(counts, torch.where(counts, log_f, -1.0).exp(), 0.5)
    s = torch.where(counts, torch.where(counts, log_s, -1.0).exp(), 0.5)
    if name == "hard":
        return ((counts & (a > 0.5)).any(-1) | full).to(a.dtype)
    some = torch.zeros_like(full)
    so_far = torch.zeros_like(a[..., 0]), torch.ones_like(a[..., 0])
    for k in range(a.shape[-1]):
        both = counts[..., k] & some
        one, other = a[..., k], s[..., k]
        safe = torch.where(both, so_far[0], 0.5), torch.where(both, so_far[1], 0.5)
        joined = CONORMS[name](safe, (one, other), p)
        so_far = tuple(
            torch.where(both, j, torch.where(counts[..., k], new, old))
            for j, new, old in zip(joined, (one, other), so_far, strict=True)
        )  # type: ignore[assignment]
        some = some | counts[..., k]
    return torch.where(full, 1.0, so_far[0])
