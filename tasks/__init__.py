"""Families of inverse-rendering tasks, one a file, which meet the Protocols of `meta`."""

from tasks.body import Body, BodyBatch
from tasks.occlusion import Occlusion, OcclusionBatch
from tasks.picture import Picture, PictureBatch
from tasks.pose import Pose, PoseBatch
from tasks.shape2d import FAILURE_THRESHOLD, Shape2D, Shape2DBatch
from tasks.shape3d import Shape3D, Shape3DBatch

__all__ = [
    "FAILURE_THRESHOLD",
    "Body",
    "BodyBatch",
    "Occlusion",
    "OcclusionBatch",
    "Picture",
    "PictureBatch",
    "Pose",
    "PoseBatch",
    "Shape2D",
    "Shape2DBatch",
    "Shape3D",
    "Shape3DBatch",
]
