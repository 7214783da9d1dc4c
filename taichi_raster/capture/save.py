"""From a `Capture` to a folder that other programs read."""

from __future__ import annotations

import os

from taichi_raster import checks
from taichi_raster.capture.capture import Capture
from taichi_raster.capture.writers import colmap, nerfstudio


def save_capture(path: str | os.PathLike[str], capture: Capture, kind: str = "nerfstudio") -> None:
    """Write photos, masks and cameras into a folder; `load_capture` reads all of them again.

    Photos that are files are copied; others, and masks, become PNGs of 8 bits. The world is the
    capture's: where the one it was read from is left-handed, z has the other sign.

    Args:
        path: the folder, which is made if need be.
        capture: to be written.
        kind: "nerfstudio" (`transforms.json`), "colmap" (binary) or "colmap-text".

    Raises:
        ValueError: if a camera has skew, or a lens that the files do not hold; before anything
            is written.
    """
    path = checks.path("path", path)
    checks.instance("capture", capture, Capture)
    checks.choice("kind", kind, "nerfstudio", "colmap", "colmap-text")
    path.mkdir(parents=True, exist_ok=True)
    if kind == "nerfstudio":
        nerfstudio.write(path, capture)
    else:
        colmap.write(path, capture, binary=kind == "colmap")
