"""Edge softnesses: fixed distributions, one small file a family, and the learned network."""

# These register their distributions.
from taichi_raster.softness import (  # noqa: F401
    cauchy,
    cubic_hermite,
    exponential,
    gamma,
    gaussian,
    gudermannian,
    gumbel,
    heaviside,
    laplace,
    levy,
    logistic,
    reciprocal,
    uniform,
    wigner_semicircle,
)
from taichi_raster.softness.edge import Distribution, EdgeSoftness
from taichi_raster.softness.mlp import MLPSoftness
from taichi_raster.softness.storage import load_softness, save_softness
from taichi_raster.softness.table import TabulatedSoftness, tabulate

__all__ = [
    "Distribution",
    "EdgeSoftness",
    "MLPSoftness",
    "TabulatedSoftness",
    "load_softness",
    "save_softness",
    "tabulate",
]
