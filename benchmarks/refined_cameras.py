"""How near `tr.refine_cameras` brings cameras that were moved, on photos whose cameras are known.

    python benchmarks/refined_cameras.py FOLDER --degrees 1 --seed 3

Each camera is turned by so many degrees about the object's centre, about any axis, and shifted by
as many percent of the object's size along each axis. With 0 degrees, it is the known cameras that
are refined. Angles are between rotations, after the world has been turned to fit.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

import taichi_raster as tr
from taichi_raster.fitting import refinement
from taichi_raster.fitting.refinement import in_given_world


def perturbed(capture: tr.Capture, degrees: float, seed: int) -> tr.Capture:
    centre, size = tr.centre_and_size(tr.visual_hull(capture, cells=48).vertices.double())
    generator = torch.Generator().manual_seed(seed)
    photos = []
    for photo in capture:
        axis = torch.randn(3, generator=generator, dtype=torch.float64)
        shift = torch.randn(3, generator=generator, dtype=torch.float64)
        row = torch.cat([math.radians(degrees) * axis / axis.norm(), 0.01 * degrees * shift])
        view = photo.pose.moved(row[None], centre, size).view
        photos.append(replace(photo, camera=replace(photo.camera, view=view)))
    return tr.Capture(tuple(photos), capture.mirrored)


def angles(capture: tr.Capture, truth: tr.Capture) -> Tensor:
    right = [photo.pose for photo in truth]
    aligned = in_given_world([photo.pose for photo in capture], right)
    return torch.cat([a.angle_to(b) for a, b in zip(aligned, right, strict=True)])


def report(name: str, found: Tensor) -> None:
    print(f"{name}: mean {found.mean():.3f}, largest {found.max():.3f} degrees", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--degrees", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--colours", action="store_true", help="as if there were no features")
    settings = parser.parse_args()
    if settings.colours:
        refinement.FEW = 1 << 30
    tr.init(arch="cpu")
    torch.set_num_threads(1)
    truth = tr.load_capture(settings.folder)
    capture = perturbed(truth, settings.degrees, settings.seed)
    report("given", angles(capture, truth))
    start = time.perf_counter(), time.process_time()
    found = tr.refine_cameras(capture, done=lambda text: print(text, flush=True))
    report("refined", angles(found, truth))
    wall, own = time.perf_counter() - start[0], time.process_time() - start[1]
    print(f"{wall:.0f} s, {own:.0f} s of them on a core")
