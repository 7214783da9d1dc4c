"""``taichi-raster render``: a picture or a turntable of a mesh."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from tyro.conf import Positional

from taichi_raster.commands import views
from taichi_raster.runtime.device import init
from taichi_raster.scene.camera import PerspectiveCamera
from taichi_raster.scene.mesh import normalise
from taichi_raster.scene.mesh_files import load_mesh
from taichi_raster.scene.views import orbit


@dataclass(frozen=True)
class Render:
    """Draw a mesh: a PNG from one side, or a GIF that turns."""

    mesh: Positional[Path]
    """The mesh: OBJ, PLY, GLB, OFF, STL, ..."""
    out: Path
    """The file to write: .png or .gif."""
    size: int = 512
    """Of the picture, in pixels."""
    elevation: float = 20.0
    """Of the eye, in degrees."""
    azimuth: float = 30.0
    """Of the eye, in degrees."""
    frames: int = 36
    """Of a GIF."""

    def run(self) -> None:
        """Do it."""
        if self.out.suffix.lower() not in (".png", ".gif"):
            raise ValueError(f"--out: must end in .png or .gif, got {self.out.name!r}")
        if not self.out.parent.is_dir():
            raise ValueError(f"--out: there is no folder {self.out.parent}")
        if not 8 <= self.size <= 8192:
            raise ValueError(f"--size: expected 8 to 8192, got {self.size}")
        if self.frames < 1:
            raise ValueError(f"--frames: expected at least 1, got {self.frames}")
        mesh = normalise(load_mesh(self.mesh), radius=1.0)
        init("cpu")
        torch.set_num_threads(1)
        if self.out.suffix.lower() == ".gif":
            up = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
            views.turntable(mesh, up, self.out, self.frames, self.size)
            return
        camera = PerspectiveCamera(orbit(3.2, self.elevation, self.azimuth), fov=42.0)
        shown = views.picture(mesh, camera, (self.size, self.size), 4, background=1.0)
        views.as_image(shown[..., :3]).save(self.out)
