"""The kernels, an idea a file; one set is compiled for each `taichi_raster.layout.Variant`."""

from taichi_raster.kernels.accumulate import Accumulate, AccumulateTangent
from taichi_raster.kernels.binning import Binning
from taichi_raster.kernels.forward import Forward
from taichi_raster.kernels.layers import Layers
from taichi_raster.kernels.listed import (
    Measure,
    MeasureByAutodiff,
    MeasureTangent,
    MeasureTangentByAutodiff,
    PullListed,
    PullListedTangent,
)
from taichi_raster.kernels.lists import Lists
from taichi_raster.kernels.order import PullThrough, Through, ThroughTangent
from taichi_raster.kernels.pairs import PairKernels
from taichi_raster.kernels.pull import Pull, PullTangent
from taichi_raster.kernels.push import Push

__all__ = [
    "Accumulate",
    "AccumulateTangent",
    "Binning",
    "Forward",
    "Layers",
    "Lists",
    "Measure",
    "MeasureByAutodiff",
    "MeasureTangent",
    "MeasureTangentByAutodiff",
    "PairKernels",
    "Pull",
    "PullListed",
    "PullListedTangent",
    "PullTangent",
    "PullThrough",
    "Push",
    "Through",
    "ThroughTangent",
]
