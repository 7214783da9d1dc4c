"""The uniform distribution on [-1, 1]: F(x) = (1 + x) / 2, a linear ramp that saturates."""

import taichi as ti

from taichi_raster.softness.registry import DistributionFormulas, register


@ti.func
def cdf(x):
    inside = ti.abs(x) < 1.0
    return ti.math.clamp(0.5 + 0.5 * x, 0.0, 1.0), ti.select(inside, 0.5, 0.0), 0.0 * x


@ti.func
def log_survival(x):
    """Finite for x < 1; from 1 on the kernels count the fragment as saturated instead."""
    rest = ti.select(x < 1.0, 1.0 - x, 1.0)
    inside = ti.abs(x) < 1.0
    hazard = ti.select(inside, 1.0 / rest, 0.0)
    return ti.select(inside, ti.log(0.5 * rest), 0.0), -hazard, -hazard * hazard


def reach(threshold: float) -> float:
    return 1.0 - 2.0 * max(threshold, 0.0)


UNIFORM = register(
    DistributionFormulas(
        "uniform", cdf, log_survival, reach, 1.0, "Petersen et al., CVPR 2022, table 1"
    )
)
