"""Edge softnesses: fixed distributions, one small file each, and the learned network."""

from taichi_raster.softness import gaussian, logistic, uniform  # noqa: F401 - register themselves
from taichi_raster.softness.edge import Distribution, EdgeSoftness
from taichi_raster.softness.mlp import MLPSoftness
from taichi_raster.softness.storage import load_softness, save_softness

__all__ = ["Distribution", "EdgeSoftness", "MLPSoftness", "load_softness", "save_softness"]
