"""The reciprocal sigmoid: F(x) = 1/2 + x / (1 + |x|) / 2, with tails that fall like 1 / x."""

import math

import taichi as ti

from taichi_raster.softness.distributions.registry import DistributionFormulas, register
from taichi_raster.softness.distributions.tails import from_tails


@ti.func
def _tails(x):
    r = 1.0 / (1.0 + ti.abs(x))
    tail = 0.5 * r
    rise = ti.select(x >= 0.0, 1.0 - tail, tail)
    f = tail * r
    return rise, ti.select(x >= 0.0, tail, 1.0 - tail), f, ti.select(x >= 0.0, -2.0, 2.0) * f * r


def reach(threshold: float) -> float:
    if threshold <= 0:
        return math.inf
    return 0.5 / threshold - 1 if threshold < 0.5 else 1 - 0.5 / (1 - threshold)


RECIPROCAL = register(
    DistributionFormulas(
        "reciprocal",
        *from_tails(_tails),
        reach=reach,
        saturates_at=math.inf,
        source="Petersen et al., CVPR 2022, table 1",
    )
)
