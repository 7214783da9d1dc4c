"""The package `tasks`, under a name that no `tasks.py` of yours hides (see companions.py)."""

import sys
from typing import TYPE_CHECKING

from taichi_raster.companions import companion

if TYPE_CHECKING:
    from tasks import *  # noqa: F403

sys.modules[__name__] = companion("tasks")
