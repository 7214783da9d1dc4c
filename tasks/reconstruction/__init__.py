"""Single-view reconstruction: a network that predicts a mesh from one image.

It is trained through the soft renderer alone, as by Liu et al. (ICCV 2019, SoftRas) and their
successors. The parts are the data set in its published format (`nmr`), or one made here (`dataset`,
`shapes`); the network (`model`); the training (`training`, `softness`); and the evaluation
(`evaluation`, `sheet`). See `examples/reconstruct.py`.
"""

from tasks.reconstruction.dataset import DataSettings, make_dataset, render_views, voxel_rule
from tasks.reconstruction.evaluation import (
    Scores,
    evaluate,
    mean_shapes,
    scores_markdown,
)
from tasks.reconstruction.model import (
    Decoder,
    Encoder,
    ModelSettings,
    Reconstructor,
    build_model,
    load_model,
    save_model,
)
from tasks.reconstruction.nmr import CLASS_NAMES, SPLITS, NMRDataset
from tasks.reconstruction.npz import DataFileError
from tasks.reconstruction.presets import PRESETS, Preset
from tasks.reconstruction.shapes import FAMILIES, random_object
from tasks.reconstruction.sheet import draw_prediction, draw_sheet
from tasks.reconstruction.softness import SoftnessSettings, build_softness
from tasks.reconstruction.training import Trainer, TrainSettings, cross_renders
from tasks.reconstruction.views import cameras
from tasks.reconstruction.voxels import voxelise

__all__ = [
    "CLASS_NAMES",
    "FAMILIES",
    "PRESETS",
    "SPLITS",
    "DataFileError",
    "DataSettings",
    "Decoder",
    "Encoder",
    "ModelSettings",
    "NMRDataset",
    "Preset",
    "Reconstructor",
    "Scores",
    "SoftnessSettings",
    "TrainSettings",
    "Trainer",
    "build_model",
    "build_softness",
    "cameras",
    "cross_renders",
    "draw_prediction",
    "draw_sheet",
    "evaluate",
    "load_model",
    "make_dataset",
    "mean_shapes",
    "random_object",
    "render_views",
    "save_model",
    "scores_markdown",
    "voxel_rule",
    "voxelise",
]
