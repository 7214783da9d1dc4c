"""Evaluates a distribution's formulas, by the functions of the kernels."""

from typing import Any

import taichi as ti
import torch
from jaxtyping import Float
from torch import Tensor

from taichi_raster import checks
from taichi_raster.runtime.device import runtime
from taichi_raster.runtime.thread import runs_in_runtime_thread
from taichi_raster.softness.distributions import registry


@ti.data_oriented
class _Evaluator:
    def __init__(self, formulas: registry.DistributionFormulas) -> None:
        self.formulas: tuple[Any, ...] = (
            formulas.cdf,
            formulas.log_cdf,
            formulas.log_survival,
        )
        self.shaped = formulas.shaped
        self.values = 6 if formulas.shaped else 3

    @ti.kernel
    def run(self, out: ti.types.ndarray(), x: ti.types.ndarray(), k: ti.types.ndarray(), n: ti.i32):
        for i in range(n):
            for j in ti.static(range(3)):
                if ti.static(self.shaped):
                    found = self.formulas[j](x[i], k[i])
                    for m in ti.static(range(6)):
                        out[6 * j + m, i] = found[m]
                else:
                    found = self.formulas[j](x[i])
                    for m in ti.static(range(3)):
                        out[3 * j + m, i] = found[m]


_evaluators: dict[str, _Evaluator] = {}


def formulas_at(
    name: str, x: Float[Tensor, " N"], shape: float | Float[Tensor, " N"] | None = None
) -> Float[Tensor, "R N"]:
    """Evaluate F, log F and log(1 - F) at scaled distances `x`, with their derivatives.

    Args:
        name: a registered distribution.
        x: (N,) scaled signed distances.
        shape: of a distribution that has one: a number or (N,).

    Returns:
        Without a shape, (9, N): each of the three, with its first and second derivative in x. With
        a shape k, (18, N): each with its derivatives in x, xx, k, kx, kk. The result is in the
        runtime's dtype, and autograd does not follow it.

    Raises:
        ValueError: for an unknown name, or a missing shape.
    """
    settings = runtime()
    formulas = registry.find(name)
    if formulas.shaped and shape is None:
        raise ValueError(f"shape: the distribution {name!r} needs one")
    near = x.device if checks.reached(x.device, settings) else torch.device("cpu")
    points = x.detach().to(near, settings.dtype).contiguous()
    given = torch.as_tensor(1.0 if shape is None else shape, dtype=settings.dtype)
    shapes = given.detach().to(near).expand(points.shape).contiguous()
    return _evaluate(formulas, points, shapes).to(x.device)


@runs_in_runtime_thread
def _evaluate(formulas: registry.DistributionFormulas, points: Tensor, shapes: Tensor) -> Tensor:
    if formulas.name not in _evaluators:
        _evaluators[formulas.name] = _Evaluator(formulas)
    evaluator = _evaluators[formulas.name]
    out = torch.empty(3 * evaluator.values, len(points), dtype=points.dtype, device=points.device)
    if len(points):
        evaluator.run(out, points, shapes, len(points))
    return out
