"""A distribution's formulas at given points: the kernels' very functions, for plots and tests."""

from typing import Any

import taichi as ti
import torch
from jaxtyping import Float
from torch import Tensor

from taichi_raster.runtime import runtime
from taichi_raster.softness import registry


@ti.data_oriented
class _Evaluator:
    def __init__(self, formulas: registry.DistributionFormulas) -> None:
        self.cdf: Any = formulas.cdf
        self.log_survival: Any = formulas.log_survival

    @ti.kernel
    def run(self, out: ti.types.ndarray(), x: ti.types.ndarray(), n: ti.i32):
        for i in range(n):
            f0, f1, f2 = self.cdf(x[i])
            l0, l1, l2 = self.log_survival(x[i])
            out[0, i], out[1, i], out[2, i] = f0, f1, f2
            out[3, i], out[4, i], out[5, i] = l0, l1, l2


_evaluators: dict[tuple[int, str], _Evaluator] = {}


def formulas_at(name: str, x: Float[Tensor, " N"], shape: float | None = None) -> Float[Tensor, "6 N"]:
    """F, F', F'', L, L', L'' with L = log(1 - F), each at the scaled distances `x`.

    Args:
        name: a registered distribution.
        x: (N,) scaled signed distances d / scale.

    Returns:
        (6, N), in the runtime's dtype; no derivatives. From the x on where a distribution
        saturates, L is 0 by convention, since the kernels do not use it there.
    """
    settings = runtime()
    key = (id(settings), name)
    if key not in _evaluators:
        _evaluators[key] = _Evaluator(registry.find(name))
    points = x.detach().to(settings.dtype).contiguous()
    out = torch.empty(6, len(points), dtype=settings.dtype, device=points.device)
    if len(points):
        _evaluators[key].run(out, points, len(points))
    return out
