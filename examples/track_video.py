"""Follow an object through a video by its texture; it is hidden for a while, and found again.

    python examples/track_video.py                                # a clip that is made here
    python examples/track_video.py toy.glb clip.mp4 pose.json --focal 640

pose.json says about where the object is in the first frame (`examples/pose_from_photo.py` writes
one, and `taichi-raster pose`). What comes out, in `out/track_video/`: tracked.gif, the frames with
the mesh over every other square, red where it was not found; and poses.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image
from torch import Tensor
from tyro.conf import Positional

import taichi_raster as tr
from pose_from_photo import chessboard, landscape, over, painted_body, pinhole, seen


@dataclass(frozen=True)
class Options:
    """See the top of the file."""

    mesh: Positional[Path | None] = None
    """With a texture or colours."""
    video: Positional[Path | None] = None
    """Any file that FFmpeg reads."""
    start: Positional[Path | None] = None
    """A pose.json."""
    focal: float = 640.0
    """Of the camera, in pixels."""
    frames: int = 24
    """Of the clip that is made here."""
    size: int = 180
    """Of that clip: its shorter side."""
    out: Path = Path("out/track_video")
    """Folder of the results."""


def main(options: Options) -> list[tr.TrackedPose]:
    given = [options.mesh, options.video, options.start]
    if any(given) and not all(given):
        raise ValueError("mesh, video, start: give all three, or none")
    tr.init("cpu")
    frames: Iterable[np.ndarray]
    if options.mesh and options.video and options.start:
        mesh, frames = tr.load_mesh(options.mesh), list(tr.read_video(options.video))
        told = json.loads(options.start.read_text())
        start = tr.Pose(torch.tensor(told["rotation"]), torch.tensor(told["translation"]))
        camera = pinhole(options.focal, frames[0].shape[:2])
    else:
        mesh, size = painted_body(), (options.size, options.size * 4 // 3)
        camera = pinhole(1.6 * options.size, size)
        frames = [frame(mesh, camera, i, options.frames, size) for i in range(options.frames)]
        start = true_pose(0.0)
    found, pictures = [], []
    for now, picture in zip(tr.track_pose(mesh, frames, camera, start), frames, strict=True):
        print(f"frame {now.frame}: {now.reason or f'found, {now.agreement:.2f} agree'}")
        found.append(now)
        pictures.append(overlay(mesh, camera, now, torch.from_numpy(picture).float() / 255))
    print(f"found in {sum(now.converged for now in found)} of {len(found)} frames")
    options.out.mkdir(parents=True, exist_ok=True)
    poses = [{**now.pose.to_dict()[0], "converged": now.converged} for now in found]
    (options.out / "poses.json").write_text(json.dumps(poses, indent=1) + "\n")
    gif = options.out / "tracked.gif"
    pictures[0].save(gif, save_all=True, append_images=pictures[1:], duration=80, loop=0)
    return found


def true_pose(progress: float) -> tr.Pose:
    """Of the clip that is made here, from 0 to 1."""
    turn = torch.tensor([[0.5 + 0.7 * progress, -0.6 + 0.4 * progress, 0.2]])
    place = torch.tensor([[-0.4 + 0.8 * progress, 0.15 - 0.3 * progress, 3.4 - 0.4 * progress]])
    return tr.Pose.from_rotation_vector(turn, place)


def frame(
    mesh: tr.Mesh, camera: tr.Camera, number: int, count: int, size: tuple[int, int]
) -> np.ndarray:
    """(H, W, 3): the body before a landscape; for a sixth of the clip behind a board."""
    progress = number / max(count - 1, 1)
    picture = over(seen(mesh, camera, true_pose(progress), size), landscape(size))
    if 0.5 < progress < 0.67:
        picture[:, size[1] // 5 : size[1] * 4 // 5] = torch.tensor([0.45, 0.35, 0.3])
    return (picture.clamp(0, 1) * 255).byte().numpy()


def overlay(mesh: tr.Mesh, camera: tr.Camera, now: tr.TrackedPose, picture: Tensor) -> Image.Image:
    height, width = picture.shape[:2]
    drawn = seen(mesh, camera, now.pose, (height, width)) * chessboard(height, width)
    if not now.converged:
        drawn[..., :3] = drawn[..., 3:] * torch.tensor([0.9, 0.1, 0.1])
    return Image.fromarray((over(drawn, picture).clamp(0, 1) * 255).byte().numpy())


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(f"track_video: {error}") from error
