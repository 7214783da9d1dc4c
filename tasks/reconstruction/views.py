"""The 24 cameras of the published data set.

24 views from one distance and one elevation; view v has azimuth -15 v degrees. Those pictures come
from a left-handed world whose azimuth 0 looks along +z; ours is the same with z negated, so that
`taichi_raster.orbit` with the published angles gives the published pictures. "A viewing angle of
15" is half of the field of view (NMR and SoftRas divide by its tangent).
"""

from __future__ import annotations

from jaxtyping import Int
from torch import Tensor

import taichi_raster as tr

VIEWS = 24
DISTANCE = 2.732  # from the eye to the origin, world units
ELEVATION = 30.0  # degrees
AZIMUTH_STEP = -15.0  # degrees from one view to the next
FOV = 30.0  # degrees, of the whole image
NEAR, FAR = 1.0, 5.0
IMAGE_SIZE = 64  # pixels


def cameras(views: Int[Tensor, " B"], like: Tensor) -> tr.PerspectiveCamera:
    """B cameras, by the numbers of their views, in the dtype and on the device of `like`."""
    azimuth = AZIMUTH_STEP * views.to(like)
    return tr.PerspectiveCamera(tr.orbit(DISTANCE, ELEVATION, azimuth), FOV)
