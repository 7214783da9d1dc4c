"""T-conorms: they combine the coverages of a pixel's fragments into one alpha.

Every Archimedean T-conorm is A = g_inverse(sum_k g(a_k)) for an increasing generator g with
g(0) = 0 (Klement, Mesiar, Pap, *Triangular Norms*, 2000, ch. 3). The kernels sum g over the
fragments, and torch applies the inverse. Fragments with a = 1 exactly, whose g may be infinite, are
counted instead of summed: alpha is 1 there, with zero gradient.

Generators that are powers would overflow or vanish. They are given by their exponent e, and the
kernels sum exp(e - peak), with the pixel's largest e as peak. The peak cancels, so that it needs no
gradient. Below, s = 1 - a and L = log s. Formulas are those of Petersen et al., CVPR 2022, table 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from taichi_raster.maths.dual import (
    exp,
    expm1,
    expm1_ratio,
    log,
    log1p,
    log1p_ratio,
    raw,
    select,
    upto,
)
from taichi_raster.softness.schedule import Constant, Schedule, Shift, as_shift

_LARGEST_ODDS = 60.0  # log(a / s); beyond, a fragment covers its pixel fully in any precision
_LARGEST_FACTOR = 28.0  # the same in float32, if derivatives contain the third power of the odds


@dataclass(frozen=True)
class Generator:
    """The additive generator of a T-conorm, and its inverse. It has a `term` or an `exponent`.

    Attributes:
        name: the T-conorm's name.
        inverse: in torch, ``(sum, peak, p) -> alpha``.
        term: in kernels, ``(a, L, p) -> g(a)``.
        exponent: in kernels, ``(a, L, p) -> e`` with g(a) = exp(e), or exp(e) - 1 if `grounded`.
        grounded: see `exponent`.
        domain: the allowed p, in words, and a test for it; None if there is no p.
        largest_alone: whether the largest a takes the place of the sum.
    """

    name: str
    inverse: Callable[[Tensor, Tensor, Tensor], Tensor]
    term: Callable[[Any, Any, Any], Any] | None = None
    exponent: Callable[[Any, Any, Any], Any] | None = None
    grounded: bool = False
    domain: tuple[str, Callable[[Tensor], Tensor]] | None = None
    largest_alone: bool = False

    def scaled(self, e: Any, peak: Any) -> Any:
        """g(a) exp(-peak), from the exponent e."""
        if not self.grounded:
            return exp(e - peak)
        small = raw(e) < 0.5
        near = expm1(select(small, e, 0.5)) * exp(-peak)
        return select(small, near, exp(e - peak) - exp(-peak))


def _hamacher(a: Any, L: Any, p: Any) -> Any:
    """log(1 + p r) / p with the odds r = a / s; r itself at p = 0."""
    odds = exp(upto(log(a) - L, _LARGEST_FACTOR))
    return odds * log1p_ratio(odds * p)


def _hamacher_inverse(total: Tensor, _: Tensor, p: Tensor) -> Tensor:
    odds = total * _expm1_ratio((p * total).clamp(max=_LARGEST_ODDS))
    return odds / (1 + odds)


def _frank(a: Any, L: Any, p: Any) -> Any:
    """-log((p^s - 1) / (p - 1)); computed from a where a is small, from s where s is."""
    c = log(p)
    by = (raw(a) < 0.5) & (raw(a) * raw(c) < 1.0)
    small = select(by, a, 0.0)
    by_a = -log1p(-(small * p) * expm1_ratio(-(small * c)) / expm1_ratio(c))
    by_s = -L - log(expm1_ratio(exp(L) * c) / expm1_ratio(c))
    return select(by, by_a, by_s)


def _frank_inverse(total: Tensor, _: Tensor, p: Tensor) -> Tensor:
    c = p.log()
    fall = torch.expm1(-total)
    y = _expm1_ratio(c) * fall / p
    far = c * y < -0.5  # where 1 + c y cancels; p > 2 there
    near = -y * _log1p_ratio(torch.where(far, torch.zeros_like(y), c * y))
    rest = torch.where(far, torch.exp(-total) - fall / p, torch.ones_like(y))
    return torch.where(far, -rest.log() / torch.where(far, c, torch.ones_like(c)), near)


def _log_norm(total: Tensor, peak: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """log (sum_k h_k^p)^(1/p) from the sum of exp(p log h_k - peak), and whether it has terms."""
    some = total > 0
    logs = torch.where(some, total, torch.ones_like(total)).log()
    root = (torch.where(some, peak, torch.zeros_like(peak)) + logs) / p
    return root.clamp(max=_LARGEST_ODDS), some


def _yager_inverse(total: Tensor, peak: Tensor, p: Tensor) -> Tensor:
    root, some = _log_norm(total, peak, p)
    return torch.where(some, root.clamp(max=0).exp(), torch.zeros_like(root))


def _aczel_alsina_inverse(total: Tensor, peak: Tensor, p: Tensor) -> Tensor:
    root, some = _log_norm(total, peak, p)
    return torch.where(some, -torch.expm1(-root.exp()), torch.zeros_like(root))


def _dombi_inverse(total: Tensor, peak: Tensor, p: Tensor) -> Tensor:
    root, some = _log_norm(total, peak, p)
    return torch.where(some, torch.sigmoid(root), torch.zeros_like(root))


def _schweizer_sklar_inverse(total: Tensor, peak: Tensor, p: Tensor) -> Tensor:
    low = peak.clamp(max=1)
    small = torch.log1p(torch.where(peak > 1, torch.zeros_like(total), total) * low.exp())
    large = peak + torch.log(torch.exp(-peak) + torch.where(peak > 1, total, 1))
    return -torch.expm1(torch.where(peak > 1, large, small) / p)


_POSITIVE = ("positive", lambda p: p > 0)

_GENERATORS = {
    g.name: g
    for g in [
        Generator("hard", lambda s, peak, p: (s > 0.5).to(s), largest_alone=True),
        Generator("max", lambda s, peak, p: s, largest_alone=True),
        Generator("probabilistic", lambda s, peak, p: -torch.expm1(-s), term=lambda a, L, p: -L),
        Generator(
            "einstein",
            lambda s, peak, p: _hamacher_inverse(s, peak, torch.full_like(p, 2.0)),
            term=lambda a, L, p: _hamacher(a, L, 2.0),
        ),
        Generator("hamacher", _hamacher_inverse, term=_hamacher, domain=(">= 0", lambda p: p >= 0)),
        Generator("frank", _frank_inverse, term=_frank, domain=_POSITIVE),
        Generator(
            "yager",
            _yager_inverse,
            exponent=lambda a, L, p: log(a) * p,
            domain=_POSITIVE,
        ),
        Generator(
            "aczel_alsina",
            _aczel_alsina_inverse,
            exponent=lambda a, L, p: log(-L) * p,
            domain=_POSITIVE,
        ),
        Generator(
            "dombi",
            _dombi_inverse,
            exponent=lambda a, L, p: (log(a) - L) * p,
            domain=_POSITIVE,
        ),
        Generator(
            "schweizer_sklar",
            _schweizer_sklar_inverse,
            exponent=lambda a, L, p: L * p,
            grounded=True,
            domain=("negative", lambda p: p < 0),
        ),
    ]
}


def generator(name: str) -> Generator:
    """The generator of the T-conorm called `name`.

    Raises:
        ValueError: if there is none; the message lists the known ones.
    """
    if name not in _GENERATORS:
        raise ValueError(f"name: unknown T-conorm {name!r}; known: {', '.join(_GENERATORS)}")
    return _GENERATORS[name]


class TConorm(nn.Module):
    """Combines coverages a_k in [0, 1] into alpha (Petersen et al., CVPR 2022, table 2).

    Args:
        name: ``"probabilistic"`` (1 - prod(1 - a)), ``"einstein"``, ``"hamacher"`` (p >= 0),
            ``"frank"`` (p > 0; 1 is probabilistic), ``"yager"`` (p > 0), ``"aczel_alsina"``
            (p > 0), ``"dombi"`` (p > 0), ``"schweizer_sklar"`` (p < 0), ``"max"`` (the largest a),
            or ``"hard"`` (1 if any a exceeds 1/2; no gradient).
        p: the parameter, for those that have one: a number, a tensor (0-d or (B,); an
            `nn.Parameter` is learned), or a `Schedule`.

    Attributes:
        p: the parameter as a `Schedule`; 1 if there is none.

    Raises:
        TypeError: for a p of another type.
        ValueError: for an unknown name (the message lists the known ones), for a missing p, for
            one that the T-conorm does not have, or one out of range.

    Example:
        >>> alpha = TConorm("yager", p=1.0)  # min(1, a_1 + a_2 + ...)
    """

    def __init__(
        self, name: str = "probabilistic", p: float | Tensor | Schedule | None = None
    ) -> None:
        super().__init__()
        domain = generator(name).domain
        self.name = name
        if domain is None and p is not None:
            raise ValueError(f"p: the T-conorm {name!r} has no parameter")
        if domain is not None and p is None:
            raise ValueError(f"p: the T-conorm {name!r} needs a parameter, {domain[0]}")
        self.p = as_shift("p", 1.0 if p is None else p)
        if isinstance(self.p, Constant | Shift):
            self.at(torch.ones((), device="cpu"))

    @property
    def generator(self) -> Generator:
        """The generator; looked up, so that the module can be pickled."""
        return generator(self.name)

    def at(self, u: Tensor) -> Tensor:
        """p at progress `u`, 0-d or (B,); 1 if there is none."""
        p = self.p(u)
        domain = self.generator.domain
        if domain is None:
            return p
        ok = p.is_floating_point() and p.ndim <= 1 and bool(torch.isfinite(p.detach()).all())
        if not (ok and bool(domain[1](p.detach()).all())):
            raise ValueError(
                f"p: {self.generator.name!r} needs a finite p that is {domain[0]}, a number or "
                f"(B,), got {p.tolist()}"
            )
        return p

    def resolve(self, total: Tensor, peak: Tensor, saturated: Tensor, p: Tensor) -> Tensor:
        """Alpha (B, H, W) from the sums over fragments.

        Args:
            total: (B, H, W) sums of the generator.
            peak: (B, H, W) subtracted from the exponents.
            saturated: (B, H, W) whether a fragment has a coverage of exactly 1.
            p: (B,).
        """
        total = total.masked_fill(saturated, 0.0)
        alpha = self.generator.inverse(total, peak, p[:, None, None])
        return alpha.masked_fill(saturated, 1.0)

    def extra_repr(self) -> str:
        return repr(self.name)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "p" not in self._modules:  # pickled when p could be a tensor
            held: dict[str, Any] = self._parameters if "p" in self._parameters else self.__dict__
            self.p = as_shift("p", held.pop("p"))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if f"{prefix}p" in state_dict:  # saved when p could be a parameter
            state_dict[f"{prefix}p.value"] = state_dict.pop(f"{prefix}p")
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _expm1_ratio(x: Tensor) -> Tensor:
    """(exp(x) - 1) / x, 1 at 0."""
    small = x.abs() < 1e-3
    away = torch.where(small, torch.ones_like(x), x)
    near = torch.where(small, x, torch.zeros_like(x))
    series = 1 + near / 2 * (1 + near / 3 * (1 + near / 4 * (1 + near / 5 * (1 + near / 6))))
    return torch.where(small, series, torch.expm1(away) / away)


def _log1p_ratio(y: Tensor) -> Tensor:
    """log(1 + y) / y, 1 at 0."""
    small = y.abs() < 1e-3
    away = torch.where(small, torch.ones_like(y), y)
    near = torch.where(small, y, torch.zeros_like(y))
    series = 1 - near * (1 / 2 - near * (1 / 3 - near * (1 / 4 - near * (1 / 5 - near / 6))))
    return torch.where(small, series, torch.log1p(away) / away)
