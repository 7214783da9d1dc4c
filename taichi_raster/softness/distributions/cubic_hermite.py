"""The cubic Hermite ramp on [-1, 1]: F = y^2 (3 - 2 y) with y = (1 + x) / 2."""

import math

import taichi as ti

from taichi_raster.maths.arithmetic import clamp
from taichi_raster.softness.distributions.registry import DistributionFormulas, register
from taichi_raster.softness.distributions.tails import from_tails


@ti.func
def _tails(x):
    inside = ti.abs(x) < 1.0
    y, rest = clamp(0.5 * (1.0 + x), 0.0, 1.0), clamp(0.5 * (1.0 - x), 0.0, 1.0)
    f, f1 = ti.select(inside, 3.0 * y * rest, 0.0), ti.select(inside, -1.5 * x, 0.0)
    return y * y * (3.0 - 2.0 * y), rest * rest * (3.0 - 2.0 * rest), f, f1


def reach(threshold: float) -> float:
    t = min(max(threshold, 0.0), 1.0)
    return 2.0 * math.sin(math.asin(1.0 - 2.0 * t) / 3.0)


CUBIC_HERMITE = register(
    DistributionFormulas(
        "cubic_hermite",
        *from_tails(_tails),
        reach=reach,
        saturates_at=1.0,
        source="Petersen et al., CVPR 2022, table 1",
    )
)
