"""``taichi-raster texture``: the texture that photos show of a mesh that is there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
from rich.console import Console
from tyro.conf import Positional

from taichi_raster.capture.load import load_capture
from taichi_raster.commands import outputs
from taichi_raster.commands.options import TEXELS
from taichi_raster.fitting.texture import fit_texture
from taichi_raster.runtime.device import init
from taichi_raster.scene.mesh_files import load_mesh, save_mesh


@dataclass(frozen=True)
class Texture:
    """Find the texture of a mesh from photos whose cameras are known, and write both."""

    mesh: Positional[Path]
    """The mesh, in the world of the cameras. Its texture coordinates are kept, if it has any."""
    folder: Positional[Path]
    """Photos with cameras, as for `fit`."""
    out: Path
    """The file to write: .glb, .obj or .ply."""
    masks: str | None = None
    """A folder of masks, "alpha" or "none"."""
    key: str | None = None
    """The background's colour, to make masks by."""
    size: Annotated[int | None, TEXELS] = None
    """Texels on a side."""

    def run(self) -> None:
        """Do it."""
        console = Console()
        outputs.check_file("--out", self.out, (".glb", ".obj", ".ply"), {"MESH": self.mesh})
        if self.masks is not None and self.key is not None:
            raise ValueError("--masks, --key: give one of them")
        capture = load_capture(self.folder, self.masks, self.key)
        mesh = capture.given_world(load_mesh(self.mesh))  # the mirror is its own inverse
        init("cpu")
        torch.set_num_threads(1)
        with console.status("texture") as status:
            fit = fit_texture(mesh, capture, self.size, done=status.update)
        assert fit.mesh.texture is not None
        found = replace(fit.mesh, texture=(fit.mesh.texture * 255).round() / 255)  # as in files
        save_mesh(self.out, capture.given_world(found))
        console.print(
            f"{self.out}: {len(fit.seen)} x {len(fit.seen)} texels, residual {fit.residual:.4f}"
        )
