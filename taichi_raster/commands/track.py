"""``taichi-raster track``: where an object stands, in each frame of a video."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from tyro.conf import Positional

from taichi_raster.capture.video import read_video
from taichi_raster.commands import outputs, views
from taichi_raster.commands.cameras import chosen_camera
from taichi_raster.commands.options import COUNT, FOCAL, SEED
from taichi_raster.commands.pose import read_pose
from taichi_raster.fitting.pose_inputs import has_colours
from taichi_raster.fitting.progress import progress_bar
from taichi_raster.fitting.tracking import TrackedPose, track_pose
from taichi_raster.runtime.device import init
from taichi_raster.scene.camera import PinholeCamera
from taichi_raster.scene.files.writing import write_together
from taichi_raster.scene.mesh import Mesh
from taichi_raster.scene.mesh_files import load_mesh

SHOWN = 60
"""Frames of the overlay, at most."""

LONGEST = 480
"""Of its pictures, in pixels."""


@dataclass(frozen=True)
class Track:
    """Follow a textured mesh through a video.

    OUT/poses.json gets `rotation` (3 x 3) and `translation` of each frame: object to camera, in
    OpenCV's axes and the mesh's units; `covariance` (6 x 6) of a turn in radians and a shift of the
    centre; `converged`, and why not. OUT/overlay.gif shows frames with the mesh in every other
    square of a chessboard: red where its pose was not found. What was tracked before a file ends
    early is kept.
    """

    mesh: Positional[Path]
    """The object, with a texture or colours."""
    video: Positional[Path]
    """The video."""
    start: Path
    """A pose.json: about where the object is in the first frame; see `taichi-raster pose`."""
    out: Path
    """Folder of the results."""
    camera: Path | None = None
    """A calibration of OpenCV's or ROS'; without, give --focal."""
    focal: Annotated[float | None, FOCAL] = None
    """The focal length in pixels, for a camera without a lens that looks through the middle."""
    every: Annotated[int, COUNT] = 1
    """Take the first of so many frames."""
    tries: Annotated[int, COUNT] = 100
    """Poses that are looked at in each frame in which the object is lost."""
    seed: Annotated[int, SEED] = 0
    """Of these."""

    def run(self) -> int:
        """Do it; 2 if the object was found in less than half of the frames."""
        console = Console()
        read = {
            "MESH": self.mesh,
            "VIDEO": self.video,
            "--camera": self.camera,
            "--start": self.start,
        }
        outputs.check_folder(self.out, ("poses.json", "overlay.gif"), read)
        mesh, start = load_mesh(self.mesh), read_pose(self.start)
        if not has_colours(mesh):
            raise ValueError(f"{self.mesh}: has no texture and no colours to be followed by")
        frames = read_video(self.video, self.every)
        first = next(frames)
        camera = chosen_camera(self.camera, self.focal, (first.shape[0], first.shape[1]))
        outputs.made(self.out)
        init("cpu")
        torch.set_num_threads(1)
        found: list[TrackedPose] = []
        overlay = _Overlay(mesh, camera)
        wrong: Exception | None = None

        def shown() -> Iterator[np.ndarray]:
            overlay.frame = first
            yield first
            for frame in frames:
                overlay.frame = frame
                yield frame

        tracked = track_pose(mesh, shown(), camera, start, tries=self.tries, seed=self.seed)
        with progress_bar(console) as bar:
            task = bar.add_task("frames", total=None, note="")
            try:
                for pose in tracked:
                    found.append(pose)
                    overlay.add(pose)
                    bar.update(task, advance=1, note=pose.reason or "found")
            except (ValueError, OSError, KeyboardInterrupt) as error:
                wrong = error if isinstance(error, Exception) else InterruptedError("interrupted")
        self._write(found, overlay)
        count = sum(pose.converged for pose in found)
        console.print(
            f"found in {count} of {len(found)} frames; {self.out}/poses.json, "
            f"{self.out}/overlay.gif"
        )
        if wrong is not None:
            raise wrong
        return 0 if 2 * count >= len(found) else 2

    def _write(self, found: list[TrackedPose], overlay: _Overlay) -> None:
        frames = [
            {
                "frame": pose.frame * self.every,
                "converged": pose.converged,
                "reason": pose.reason,
                "rotation": pose.pose.rotation[0].tolist(),
                "translation": pose.pose.translation[0].tolist(),
                "covariance": pose.covariance.tolist() if pose.converged else None,
                "agreement": None if math.isnan(pose.agreement) else pose.agreement,
            }
            for pose in found
        ]
        content: dict[str, Any] = {
            "frame": "OpenCV: x right, y down, z forward; camera = rotation * object + translation",
            "poses": frames,
        }
        write_together({self.out / "poses.json": (json.dumps(content, indent=1) + "\n").encode()})
        if overlay.images:
            views.save_gif(self.out / "overlay.gif", overlay.images)


class _Overlay:
    """Pictures of some frames with the mesh over them: each 2nd, 4th, ... as they become many."""

    def __init__(self, mesh: Mesh, camera: PinholeCamera) -> None:
        self.mesh, self.camera = mesh, camera
        self.frame: np.ndarray = np.zeros((0, 0, 3), np.uint8)
        self.images: list[Image.Image] = []
        self.step = 1

    def add(self, found: TrackedPose) -> None:
        """With the mesh in a pose, over the frame of now."""
        if found.frame % self.step != 0:
            return
        height, width = self.frame.shape[:2]
        shrink = min(1.0, LONGEST / max(height, width))
        size = round(height * shrink), round(width * shrink)
        photo = Image.fromarray(self.frame).resize((size[1], size[0]), Image.Resampling.BOX)
        below = torch.from_numpy(np.asarray(photo).copy()).float() / 255
        seen = replace(self.camera, view=found.pose.view.to(self.camera.view))
        drawn = views.picture(self.mesh, seen, size)
        tint = drawn[..., :3] if found.converged else drawn.new_tensor([0.9, 0.1, 0.1])
        cover = drawn[..., 3:] * _squares(size)  # so that edges are seen to meet, or not
        self.images.append(views.as_image(below + (tint - below) * cover))
        if len(self.images) >= SHOWN:
            self.images, self.step = self.images[::2], 2 * self.step


def _squares(size: tuple[int, int]) -> torch.Tensor:
    """(h, w, 1): squares of a chessboard."""
    side = max(min(size) // 8, 4)
    row, column = torch.arange(size[0]) // side, torch.arange(size[1]) // side
    return ((row[:, None] + column) % 2).float()[..., None]
