"""The Cauchy distribution: F(x) = 1/2 + atan(x) / pi, with tails that fall like 1 / x."""

import math

import taichi as ti

from taichi_raster.maths.elementary import atan2
from taichi_raster.softness.distributions.registry import DistributionFormulas, register
from taichi_raster.softness.distributions.tails import from_tails


@ti.func
def _tails(x):
    one = 1.0 + 0.0 * x
    square = 1.0 / (1.0 + x * x)
    f = square / math.pi
    return atan2(one, -x) / math.pi, atan2(one, x) / math.pi, f, -2.0 * x * f * square


def reach(threshold: float) -> float:
    return math.inf if threshold <= 0 else 1 / math.tan(math.pi * threshold)


CAUCHY = register(
    DistributionFormulas(
        "cauchy",
        *from_tails(_tails),
        reach=reach,
        saturates_at=math.inf,
        source="Petersen et al., CVPR 2022, table 1",
    )
)
