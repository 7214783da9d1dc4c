"""The uniform distribution on [-1, 1]: F(x) = (1 + x) / 2, a linear ramp that saturates."""

import taichi as ti

from taichi_raster.maths.arithmetic import clamp
from taichi_raster.softness.distributions.registry import DistributionFormulas, register
from taichi_raster.softness.distributions.tails import from_tails


@ti.func
def _tails(x):
    f = ti.select(ti.abs(x) < 1.0, 0.5, 0.0 * x)
    rise = clamp(0.5 * (1.0 + x), 0.0, 1.0)
    return rise, clamp(0.5 * (1.0 - x), 0.0, 1.0), f, 0.0 * x


UNIFORM = register(
    DistributionFormulas(
        "uniform",
        *from_tails(_tails),
        reach=lambda threshold: 1.0 - 2.0 * max(threshold, 0.0),
        saturates_at=1.0,
        source="Petersen et al., CVPR 2022, table 1",
    )
)
