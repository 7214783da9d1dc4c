"""``taichi-raster view``: a mesh in a window, or in the browser."""

from __future__ import annotations

import logging
import os
import sys
import time
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import taichi as ti
import torch
from numpy import ndarray
from rich.console import Console
from tyro.conf import Positional

from taichi_raster.commands import outputs, views
from taichi_raster.commands.options import COUNT, Within
from taichi_raster.fitting.report import write_report
from taichi_raster.runtime.device import init
from taichi_raster.scene.camera import PerspectiveCamera
from taichi_raster.scene.mesh import Mesh, normalise
from taichi_raster.scene.mesh_files import load_mesh
from taichi_raster.scene.views import orbit

MESHES = ("mesh.glb", "mesh.obj", "mesh.ply")
"""What a folder of results may hold, the best first."""

SIZE = 720
"""Of a window, in pixels."""


@dataclass(frozen=True)
class View:
    """Look at a mesh, or at the results of `fit`: drag to turn, the wheel or + and - to come near.

    With --browser, the page is shown that `fit` or `pose` has written; for a mesh alone, one is
    made beside it.
    """

    what: Positional[Path]
    """A mesh file, or a folder of results."""
    browser: bool = False
    """Show a page in the browser instead of a window."""
    size: Annotated[int | None, Within(32, 4096)] = None
    """Of the window, in pixels; 720 by default."""
    frames: Annotated[int | None, COUNT] = None
    """Quit after so many."""
    screenshot: Path | None = None
    """Write what the window shows to this PNG before quitting."""

    def run(self) -> None:
        """Do it."""
        if not self.what.exists():
            raise FileNotFoundError(f"{self.what}: there is no such file or folder")
        if self.browser:
            for name in ("size", "frames", "screenshot"):
                if getattr(self, name) is not None:
                    raise ValueError(f"--{name}: is for a window; --browser has none")
            page = _page(self.what)
            shown = webbrowser.open(page.resolve().as_uri())
            Console().print(f"{page}" if shown else f"no browser was found; open {page}")
            return
        if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
            raise ValueError("there is no display (DISPLAY is not set); --browser needs none here")
        path = _mesh_of(self.what)
        if self.screenshot is not None:
            outputs.check_file("--screenshot", self.screenshot, (".png",), {"the window": path})
        mesh = normalise(load_mesh(path), radius=1.0)
        init("cpu")
        torch.set_num_threads(1)
        logging.getLogger("taichi_raster").setLevel(logging.ERROR)
        _Window(mesh, SIZE if self.size is None else self.size).loop(self.frames, self.screenshot)


def _mesh_of(what: Path) -> Path:
    if what.is_file():
        return what
    found = next((what / name for name in MESHES if (what / name).is_file()), None)
    if found is None:
        raise FileNotFoundError(f"{what}: has none of {', '.join(MESHES)}")
    return found


def _page(what: Path) -> Path:
    """The report of a folder, or a page made of a mesh."""
    if what.is_dir() and (what / "report.html").is_file():
        return what / "report.html"
    mesh = _mesh_of(what)
    page = mesh.with_suffix(".html")
    if page.exists() and page.read_text(errors="replace").find(_TEXT) < 0:
        raise ValueError(f"{page}: is there already, and was not made by this command")
    write_report(page, mesh.name, mesh=load_mesh(mesh), text=_TEXT)
    return page


_TEXT = "Drag to turn the mesh. Made by taichi-raster view."


class _Window:
    """A `ti.GUI`, which needs no graphics driver, around pictures of our own."""

    def __init__(self, mesh: Mesh, size: int) -> None:
        self.mesh, self.size = mesh, size
        self.gui: Any = ti.GUI("taichi-raster", (size, size))
        self.azimuth, self.elevation, self.distance = 30.0, 20.0, 3.2
        self.held: tuple[float, float] | None = None
        self.running = True

    def loop(self, frames: int | None, screenshot: Path | None) -> None:
        """Until the window is closed."""
        shown, changed, still = 0, True, False
        picture = np.zeros((self.size, self.size, 3), np.float32)
        while self.running and (frames is None or shown < frames):
            if changed or not still:
                picture = self._picture(1 if changed else 4)  # rough while it moves
                still = not changed
            self.gui.set_image(picture)
            self.gui.show()
            shown += 1
            changed = self._events()
            if not changed and still:
                time.sleep(0.02)
        if screenshot is not None:
            pixels = torch.from_numpy(np.ascontiguousarray(picture[:, ::-1].swapaxes(0, 1)))
            views.as_image(pixels).save(screenshot)

    def _picture(self, samples: int) -> ndarray:
        """(x, y, 3), y upwards, as the window takes it."""
        camera = PerspectiveCamera(orbit(self.distance, self.elevation, self.azimuth), fov=42.0)
        image = views.picture(self.mesh, camera, (self.size, self.size), samples, 1.0)[..., :3]
        return np.ascontiguousarray(image.numpy().swapaxes(0, 1)[:, ::-1])

    def _events(self) -> bool:
        """Whether anything is to be drawn anew."""
        gui, before = self.gui, (self.azimuth, self.elevation, self.distance)
        for event in gui.get_events():
            pressed = event.type == ti.GUI.PRESS
            if pressed and event.key in (ti.GUI.ESCAPE, ti.GUI.EXIT, "q"):
                self.running = False
            elif event.key == ti.GUI.LMB:
                self.held = (event.pos[0], event.pos[1]) if pressed else None
            elif event.key == ti.GUI.WHEEL:
                self._near(event.delta[1] > 0)
            elif pressed and event.key in ("=", "+", "-"):
                self._near(event.key != "-")
            elif event.type == ti.GUI.MOTION and self.held is not None:
                x, y = event.pos
                self.azimuth -= 180 * (x - self.held[0])
                self.elevation = min(max(self.elevation - 180 * (y - self.held[1]), -89.0), 89.0)
                self.held = x, y
        self.running = self.running and bool(gui.running)
        return before != (self.azimuth, self.elevation, self.distance)

    def _near(self, nearer: bool) -> None:
        self.distance = min(max(self.distance * (0.9 if nearer else 1 / 0.9), 1.3), 20.0)
