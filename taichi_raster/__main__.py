"""``python -m taichi_raster``: which backends, precisions and devices work here.

With the name of a command it does what ``taichi-raster`` does.
"""

from __future__ import annotations

import sys

from taichi_raster.commands import backends

if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        from taichi_raster.commands.app import main

        sys.exit(main())
    sys.exit(backends.main())
