"""A differentiable rasterizer that learns its own softness."""

from taichi_raster.aggregation import TConorm
from taichi_raster.depth import HardDepth, SoftmaxDepth
from taichi_raster.rasterizer import SoftRasterizer
from taichi_raster.runtime import Runtime, init, runtime
from taichi_raster.schedule import Constant, Geometric, Knots, Schedule
from taichi_raster.sharp import SharpRasterizer
from taichi_raster.softness import (
    Distribution,
    EdgeSoftness,
    MLPSoftness,
    load_softness,
    save_softness,
)
