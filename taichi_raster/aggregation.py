"""How the coverages of a pixel's fragments become one alpha: T-conorms by additive generators.

Every Archimedean T-conorm is A = g_inverse(sum_k g(a_k)) for an increasing generator g with
g(0) = 0 (Klement, Mesiar, Pap, *Triangular Norms*, 2000, ch. 3). The kernels add up g over the
fragments; torch applies the inverse. Fragments with a = 1 exactly, whose g may be infinite, are
counted instead of added: alpha is 1 there, with zero gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import taichi as ti
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Generator:
    """One T-conorm.

    Attributes:
        name: what users call it.
        generate: Taichi function ``(F, F', F'', L, L', L'') -> (G, G', G'')`` of G = g(F(x)) with
            respect to x, from the coverage F and L = log(1 - F) with their slopes.
        inverse: torch function from the sum S to alpha.
    """

    name: str
    generate: Callable[..., Any]
    inverse: Callable[[Tensor], Tensor]


@ti.func
def _probabilistic(f0, f1, f2, l0, l1, l2):
    return -l0, -l1, -l2


_GENERATORS = {
    g.name: g
    for g in [
        Generator("probabilistic", _probabilistic, lambda s: -torch.expm1(-s)),
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
    """A T-conorm by name: ``"probabilistic"`` is 1 - prod(1 - a_k), with g(a) = -log(1 - a).

    Raises:
        ValueError: for an unknown name (the message lists the known ones) or a parameter `p` that
            the T-conorm does not have.
    """

    def __init__(self, name: str = "probabilistic", p: float | None = None) -> None:
        super().__init__()
        self.generator = generator(name)
        if p is not None:
            raise ValueError(f"p: the T-conorm {name!r} has no parameter")

    def resolve(self, total: Tensor, saturated: Tensor) -> Tensor:
        """Alpha from the sum over fragments and the mask of pixels with a saturated one."""
        alpha = self.generator.inverse(torch.where(saturated, torch.zeros_like(total), total))
        return torch.where(saturated, torch.ones_like(total), alpha)

    def extra_repr(self) -> str:
        return repr(self.generator.name)
