"""The hard decision: F is 0 outside and 1 inside, with zero slope."""

import taichi as ti

from taichi_raster.softness.distributions.registry import DistributionFormulas, register
from taichi_raster.softness.distributions.tails import from_tails


@ti.func
def _tails(x):
    inside = ti.select(x >= 0.0, 1.0, 0.0 * x)
    return inside, 1.0 - inside, 0.0 * x, 0.0 * x


HEAVISIDE = register(
    DistributionFormulas(
        "heaviside",
        *from_tails(_tails),
        reach=lambda threshold: 0.0,
        saturates_at=0.0,
        source="Petersen et al., CVPR 2022, table 1",
    )
)
