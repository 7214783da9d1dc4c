"""The package `tasks`, under a name that no `tasks.py` of yours hides (see sibling_packages.py)."""

import sys
from typing import TYPE_CHECKING

from taichi_raster.sibling_packages import sibling

if TYPE_CHECKING:
    from tasks import *  # noqa: F403

sys.modules[__name__] = sibling("tasks")
