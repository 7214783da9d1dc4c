"""The package `meta`, under a name that no `meta.py` of yours hides (see sibling_packages.py)."""

import sys
from typing import TYPE_CHECKING

from taichi_raster.sibling_packages import sibling

if TYPE_CHECKING:
    from meta import *  # noqa: F403

sys.modules[__name__] = sibling("meta")
