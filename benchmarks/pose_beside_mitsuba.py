"""The pose of a mesh from one silhouette: outline steps, beside Mitsuba 3 with a tuned rate.

    python benchmarks/pose_beside_mitsuba.py MESH
    python benchmarks/pose_beside_mitsuba.py MESH --seconds 600  # until then; once more to resume

Poses, starts and ours are those of `pose_beside_deodr.py`. Mitsuba has Adam on the squared
difference of the pictures, for 60 steps, with the rate that does best on other poses, for each
angle anew. It uses one core. Pictures have 16 samples a pixel. The outline has one sample for each
pixel, 65,536 in all: with 16, steps take much longer, and what is noisy is the picture all the
same. Dr.Jit compiles once and finds its kernels again.

Every run is written to a file as soon as it is done. Poses are taken in turn, all angles before the
next pose, so that there are equally many of each whenever it ends.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pose_fit
import torch
import tyro
from mitsuba_silhouettes import MitsubaSilhouettes, why_not
from pose_beside_deodr import RATES, Outlines, Peer, Track, medians
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

import taichi_raster as tr

STEPS = 60
EDGES = 1


@dataclass(frozen=True)
class Options:
    """See the top of the file.

    Args:
        mesh: any closed mesh file; it is scaled to radius 1.
        angles: in degrees, from the truth to the start.
        poses: for each angle, at most.
        tuning: other poses, for each angle, on which each rate is tried.
        size: pixels on a side.
        samples: of each pixel.
        seconds: no run begins that would probably end later.
        results: the file of the runs that are done; those in it are not done again.
        seed: of poses and starts.
    """

    mesh: Positional[Path]
    angles: tuple[float, ...] = (20.0, 40.0, 60.0)
    poses: int = 20
    tuning: int = 2
    size: int = 256
    samples: int = 16
    seconds: float = 1800.0
    results: Path = Path("out/pose_beside_mitsuba.json")
    seed: int = 0


Run = dict[str, Any]
"""``degrees`` off in the end, seconds ``spent`` in all and to the ``solution``: of the clock and of
the processor."""


class Runs:
    """What is done, and the time that is left."""

    def __init__(self, options: Options) -> None:
        self.path, self.end, self.longest = options.results, time.monotonic() + options.seconds, 0.0
        setting = [str(options.mesh), options.size, options.samples, options.seed]
        self.all: dict[str, Any] = {"setting": setting}
        if self.path.is_file():
            self.all = json.loads(self.path.read_text())
            if self.all["setting"] != setting:
                raise ValueError(f"results: {self.path} is of another setting; name another file")

    def run(self, name: str, method: Callable[[], Track]) -> Run | None:
        """One that is done, or does it; None if no time is left."""
        if name not in self.all:
            begin = time.monotonic()
            if begin + self.longest > self.end:
                return None
            track = method()
            self.longest = max(self.longest, time.monotonic() - begin)
            solved = track.solution
            self.all[name] = {
                "degrees": track.degrees[-1],
                "spent": track.spent[-1],
                "solution": solved,
            }
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(self.all, indent=1))
        found: Run = self.all[name]
        return found


def main(options: Options) -> None:
    console = Console()
    reason = why_not() if options.mesh.is_file() else f"there is no {options.mesh}"
    if reason is not None:
        console.print(f"skipped: {reason}")
        return
    import drjit

    drjit.set_thread_count(1)
    torch.set_num_threads(1)
    tr.init(arch="cpu")
    mesh = tr.normalise(tr.load_mesh(options.mesh), radius=1.0)
    ours = Outlines(mesh, options.size)
    draw = MitsubaSilhouettes(mesh.faces, options.size, options.samples, EDGES)
    peer = Peer(mesh, "Mitsuba", draw, (1,))
    setting = pose_fit.Options(options.mesh, size=options.size, seed=options.seed)
    first = pose_fit.made(mesh, options.angles[0], 0, setting)
    ours(first), peer(first)  # both compile
    peer.steps, runs = STEPS, Runs(options)

    def mitsuba(angle: float, index: int, rate: float) -> Run | None:
        peer.rate = rate
        problem = pose_fit.made(mesh, angle, index, setting)
        return runs.run(f"Mitsuba {angle:g} {index} {rate:g}", lambda: peer(problem))

    rates: dict[float, float] = {}
    for angle in options.angles:
        tried = []
        for rate in RATES:
            found = [mitsuba(angle, -1 - i, rate) for i in range(options.tuning)]
            if None in found:
                console.print("no time is left for tuning: run again to resume")
                return
            good = [r["solution"][0] for r in found if r is not None and r["solution"]]
            tried.append((-len(good), sum(good), rate))
        rates[angle] = min(tried)[2]  # most solved first, then soonest
        said = ", ".join(f"{rate:g}: {-count}" for count, _, rate in tried)
        console.print(f"from {angle:g}°, of {options.tuning} poses solved by rate: {said}")
    table = Table("", "", "solved", "median off", "to solution, s", "whole, s")
    table.title = f"{len(mesh.faces)} faces, {options.size} x {options.size} pixels"
    columns: dict[tuple[float, str], list[Run]] = {}
    for i in range(options.poses):
        pair: dict[tuple[float, str], Run | None] = {}
        for angle, rate in rates.items():
            problem = pose_fit.made(mesh, angle, i, setting)
            name = f"Mitsuba, rate {rate:g}, {STEPS} steps"
            pair[angle, name] = mitsuba(angle, i, rate)
            pair[angle, "ours"] = runs.run(f"ours {angle:g} {i}", lambda p=problem: ours(p))
        if None in pair.values():
            console.print(f"no time is left: {i} of {options.poses} poses")
            break
        for key, run in pair.items():
            if run is not None:
                columns.setdefault(key, []).append(run)
    for (angle, name), found in columns.items():
        solved = [r["solution"] for r in found if r["solution"] is not None]
        table.add_row(
            f"from {angle:g}°",
            name,
            f"{len(solved)} of {len(found)}",
            f"{statistics.median(r['degrees'] for r in found):.3f}°",
            medians(solved) if solved else "",
            medians([r["spent"] for r in found]),
        )
    console.print(table)


if __name__ == "__main__":
    main(tyro.cli(Options))
