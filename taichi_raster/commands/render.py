"""``taichi-raster render``: a picture or a turntable of a mesh."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from tyro.conf import Positional

from taichi_raster.commands import outputs, views
from taichi_raster.commands.options import Within
from taichi_raster.runtime.device import init
from taichi_raster.scene.camera import PerspectiveCamera
from taichi_raster.scene.mesh import Mesh, normalise
from taichi_raster.scene.mesh_files import load_mesh
from taichi_raster.scene.views import orbit

FRAMES = 36
"""Of a GIF."""


@dataclass(frozen=True)
class Render:
    """Draw a mesh: a PNG from one side, or a GIF that turns."""

    mesh: Positional[Path]
    """The mesh: OBJ, PLY, GLB, OFF, STL, ..."""
    out: Path
    """The file to write: .png or .gif."""
    size: Annotated[int, Within(8, 8192)] = 512
    """Of the picture, in pixels."""
    elevation: Annotated[float, Within(-90, 90)] = 20.0
    """Of the eye, in degrees."""
    azimuth: Annotated[float, Within(-36000, 36000)] = 30.0
    """Of the eye, in degrees; of a GIF, where it begins."""
    frames: Annotated[int | None, Within(1, 10_000)] = None
    """Of a GIF; 36 by default."""

    def run(self) -> None:
        """Do it."""
        outputs.check_file("--out", self.out, (".png", ".gif"), {"MESH": self.mesh})
        turning = self.out.suffix.lower() == ".gif"
        if self.frames is not None and not turning:
            raise ValueError(f"--frames: are those of a .gif, and --out is {self.out.name!r}")
        mesh = normalise(load_mesh(self.mesh), radius=1.0)
        init("cpu")
        torch.set_num_threads(1)
        if not turning:
            views.as_image(self._picture(mesh, self.azimuth, 4)).save(self.out)
            return
        count = FRAMES if self.frames is None else self.frames
        ways = [self.azimuth + 360 * frame / count for frame in range(count)]
        views.save_gif(self.out, [views.as_image(self._picture(mesh, way, 2)) for way in ways])

    def _picture(self, mesh: Mesh, azimuth: float, samples: int) -> torch.Tensor:
        camera = PerspectiveCamera(orbit(3.2, self.elevation, azimuth), fov=42.0)
        size = self.size, self.size
        return views.picture(mesh, camera, size, samples, background=1.0)[..., :3]
