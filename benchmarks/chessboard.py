"""The pose of OpenCV's chessboard in its sample photos, by its texture and through the lens.

    python benchmarks/chessboard.py FOLDER

FOLDER has left01.jpg to left14.jpg and left_intrinsics.yml, of OpenCV's samples. Each start is 8
degrees and 12 mm from OpenCV's calibration, in a random direction. Each end is compared with that.
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
    found = []
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
        print(f"{shot.name}: {off[0]:.3f} degrees, {off[1]:.3f} mm, {seconds:.1f} s", flush=True)
    values = torch.tensor(found)
    for name, (degrees, mm) in (
        ("median", values.median(0).values.tolist()),
        ("most", values.amax(0).tolist()),
    ):
        print(f"{name}: {degrees:.3f} degrees, {mm:.3f} mm")


if __name__ == "__main__":
    main(tyro.cli(Options))
