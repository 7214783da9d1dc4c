"""Families of inverse-rendering tasks, one a file, which meet the Protocols of `meta`."""

from tasks.arrangement import Arrangement
from tasks.body import Body
from tasks.calibration import Calibration
from tasks.occlusion import Occlusion, OcclusionBatch
from tasks.painted import Painted
from tasks.picture import Picture, PictureBatch
from tasks.pose import Pose, PoseBatch
from tasks.scenes import SceneBatch, SceneFamily
from tasks.shape2d import FAILURE_THRESHOLD, Shape2D, Shape2DBatch
from tasks.shape3d import Shape3D, Shape3DBatch

__all__ = [
    "FAILURE_THRESHOLD",
    "Arrangement",
    "Body",
    "Calibration",
    "Occlusion",
    "OcclusionBatch",
    "Painted",
    "Picture",
    "PictureBatch",
    "Pose",
    "PoseBatch",
    "SceneBatch",
    "SceneFamily",
    "Shape2D",
    "Shape2DBatch",
    "Shape3D",
    "Shape3DBatch",
]
