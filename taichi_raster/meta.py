"""The package `meta`, under a name that no `meta.py` of yours hides (see companions.py)."""

import sys
from typing import TYPE_CHECKING

from taichi_raster.companions import companion

if TYPE_CHECKING:
    from meta import *  # noqa: F403

sys.modules[__name__] = companion("meta")
