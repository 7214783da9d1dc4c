"""The pose of OpenCV's chessboard in its sample photos, by its texture and through the lens.

    python benchmarks/chessboard.py FOLDER

FOLDER has left01.jpg to left14.jpg and left_intrinsics.yml, of OpenCV's samples. Each start is 8
degrees and 12 mm from OpenCV's calibration, in a random direction. Each end is compared with that.
The last column is how far the calibration's own corners are off in a photo, by its file: where that
is more than in the others, it is the calibration that is off.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from tyro.conf import Positional

import taichi_raster as tr

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))

from chessboards import away, chessboard  # noqa: E402


@dataclass(frozen=True)
class Options:
    """See the top of the file.

    Args:
        folder: of the photos and their calibration.
    """

    folder: Positional[Path]


def main(options: Options) -> None:
    tr.init("cpu")
    torch.set_num_threads(1)
    mesh = chessboard()
    centre = tr.centre_and_size(mesh.vertices.double())[0][0]
    found, own = [], reprojection_errors(options.folder / "left_intrinsics.yml")
    for i, shot in enumerate(tr.load_capture(options.folder)):
        begin = time.perf_counter()
        start = away(shot.pose, mesh, i)
        fit = tr.fit_pose(mesh, shot.camera, start=start, photo=shot.image())
        seconds = time.perf_counter() - begin
        ends = [
            (pose.rotation[0].double() @ centre + pose.translation[0].double())
            for pose in (fit.pose, shot.pose)
        ]
        off = float(fit.pose.angle_to(shot.pose)), 1e3 * float((ends[0] - ends[1]).norm())
        found.append(off)
        line = f"{off[0]:.3f} degrees, {off[1]:.3f} mm, {seconds:.1f} s"
        print(f"{shot.name}: {line}; {own[i]:.2f} pixels", flush=True)
    values = torch.tensor(found)
    for name, (degrees, mm) in (
        ("median", values.median(0).values.tolist()),
        ("most", values.amax(0).tolist()),
    ):
        print(f"{name}: {degrees:.3f} degrees, {mm:.3f} mm")


def reprojection_errors(path: Path) -> list[float]:
    """Of each photo's corners, root mean square, in pixels."""
    text = path.read_text().partition("per_view_reprojection_errors")[2]
    return [float(x) for x in text.partition("data: [")[2].partition("]")[0].split(",")]


if __name__ == "__main__":
    main(tyro.cli(Options))
