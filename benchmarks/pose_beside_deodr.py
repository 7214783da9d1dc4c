"""The pose of a mesh from one silhouette: outline steps without tuning, beside DEODR with tuning.

    python benchmarks/pose_beside_deodr.py MESH
    python benchmarks/pose_beside_deodr.py MESH --angles 60 --poses 20
    python benchmarks/pose_beside_deodr.py knot --angles 20 40 60 90

Rotation and place are unknown, and camera, mesh and starts are those of `pose_fit.py`. Targets are
sampled (`tr.sampled_picture`), so that neither renderer judges itself. Both are timed in turn, pose
by pose, in one process; what both need before (the mesh, its neighbours, its coarse stand-in) is
made once.

    ours    `tr.outline_step`, first of a coarse stand-in in 64 x 64 pixels, then of the mesh in
            all. A step that fits worse is taken back, and damped more. If the picture does not fit
            in the end, it begins again from eight more turns
    DEODR   Adam on the squared difference of the pictures; the rate and the number of steps that do
            best on six other poses, for each angle anew (pip install '.[peers]')

`apart` starts show no pixel in common with their target: the place, too, has to be found from afar.
Solved means less than 1 degree off in the end, symmetries counted: six turns of the knot look the
same. Time to solution is that until the last step that is not; it knows the truth, and so favours
neither's way to stop. Processor time, of all threads, is in parentheses. Without the mesh's file,
or DEODR, it says so and leaves it out. Mitsuba takes long: see `pose_beside_mitsuba.py`.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pose_fit
import torch
import tyro
from deodr_silhouettes import DeodrSilhouettes, installed
from pose_fit import DISTANCE, Pose, Problem, made, rotation
from rich.console import Console
from rich.table import Table
from torch import Tensor
from tyro.conf import Positional

import taichi_raster as tr

NEAR, FAR = 0.5, 100.0  # whatever a start does on its way
COARSE, CELL = 64, 0.08  # pixels, and cubes of the stand-in: about two pixels of those
FITS = 0.02  # mismatch of a silhouette
TURNS, TURN = 8, 0.8  # more starts, and how far from the first, in radians
RATES, STEPS = (0.04, 0.08, 0.16), (30, 60, 120)  # of DEODR's Adam
SOLVED = 1.0  # degrees
KNOT = "knot"  # 5,760 faces; made here, so that there is always a mesh
AWAY = 2.3  # between start and target, of a mesh of radius 1


@dataclass(frozen=True)
class Options:
    """See the top of the file.

    Args:
        mesh: any closed mesh file, or "knot" for a torus knot; it is scaled to radius 1.
        angles: in degrees, from the truth to the start.
        poses: for each angle.
        size: pixels on a side.
        apart: how many starts that do not overlap with their target; turned by the first angle.
        seed: of poses and starts.
    """

    mesh: Positional[Path]
    angles: tuple[float, ...] = (20.0, 40.0, 60.0)
    poses: int = 20
    size: int = 256
    apart: int = 20
    seed: int = 0


def now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


@dataclass
class Track:
    """Degrees off after each step, and the time until then; looking at them takes none.

    Attributes:
        spent: seconds, and those of the processor in all threads.
    """

    problem: Problem
    degrees: list[float] = field(default_factory=list)
    spent: list[tuple[float, float]] = field(default_factory=list)
    begin: tuple[float, float] = field(default_factory=now)

    def note(self, turn: Tensor) -> None:
        at = now()
        self.degrees.append(self.problem.off(turn))
        self.spent.append((at[0] - self.begin[0], at[1] - self.begin[1]))
        looked = now()
        self.begin = (
            self.begin[0] + looked[0] - at[0],
            self.begin[1] + looked[1] - at[1],
        )

    @property
    def solution(self) -> tuple[float, float] | None:
        """What was spent until it is solved for good."""
        good = len(list(itertools.takewhile(lambda d: d < SOLVED, reversed(self.degrees))))
        return self.spent[-good] if good else None


class Outlines:
    """The pose by steps of its outline, coarse to fine; everything here is the same for all."""

    name = "ours"

    def __init__(self, mesh: tr.Mesh, size: int) -> None:
        self.levels = [(tr.proxy_mesh(mesh, CELL), COARSE, 20), (mesh, size, 10)]

    def __call__(self, problem: Problem) -> Track:
        track = Track(problem)
        coarse, fine = ([*level, *seen(problem, level[1])] for level in self.levels)
        pose, mismatch = self.fitted(problem, track, torch.zeros(1, 6), *coarse)
        pose, mismatch = self.fitted(problem, track, pose, *fine)
        if mismatch > FITS:
            many = torch.cat([pose, torch.cat([turns(), torch.zeros(TURNS, 3)], dim=1)])
            other, _ = self.fitted(problem, track, many, *coarse)
            other, least = self.fitted(problem, track, other, *fine)
            if least > mismatch:
                track.note(pose[:, :3])
        return track

    def fitted(
        self,
        problem: Problem,
        track: Track,
        poses: Tensor,
        mesh: tr.Mesh,
        size: int,
        steps: int,
        target: Tensor,
        distance: Tensor,
    ) -> tuple[Tensor, float]:
        """The best of some starts (N, 6), and how badly it fits.

        A single one takes a step back that fits worse.
        """
        sharp = tr.SharpRasterizer(size, near=NEAR, far=FAR, cull_backfaces=True)

        def points(poses: Tensor) -> Tensor:
            turned = rotation(poses[:, :3]) @ problem.start
            return pose_fit.projected(mesh, turned, problem.shifted + poses[:, 3:])

        def draw(points: Tensor) -> Tensor:
            return sharp(tr.gather_faces(points, mesh.faces), None)[..., 0]

        damping, least, kept = 1e-3, math.inf, poses[:1]
        for _ in range(steps):
            found = tr.outline_step(points, poses, draw, target, distance, damping)
            best = int(found.mismatch.argmin())
            if float(found.mismatch[best]) > least and len(poses) == 1:
                poses, damping = kept, 30 * damping  # a step too far
                continue
            least, kept = float(found.mismatch[best]), poses[best, None]
            poses = poses + found.step
            if float(found.motion.max()) < 0.1 * 2 / size:
                kept = poses[best, None]
                track.note(kept[:, :3])
                break
            track.note(kept[:, :3])
        return kept, least


def seen(problem: Problem, size: int) -> tuple[Tensor, Tensor]:
    target = tr.area_average(problem.target, size)
    return target, tr.signed_distance(target)


def turns() -> Tensor:
    """(TURNS, 3): about axes in all directions."""
    axes = torch.randn(TURNS, 3, generator=torch.Generator().manual_seed(0))
    return TURN * torch.nn.functional.normalize(axes, dim=1)


class Peer:
    """Another renderer and Adam, by a rate and a number of steps."""

    def __init__(
        self,
        mesh: tr.Mesh,
        title: str,
        draw: Callable[[Tensor], Tensor],
        steps: tuple[int, ...] = STEPS,
    ) -> None:
        self.mesh, self.title, self.draw, self.choice = mesh, title, draw, steps
        self.rate, self.steps = RATES[0], steps[0]

    @property
    def name(self) -> str:
        return f"{self.title}, rate {self.rate}, {self.steps} steps"

    def tune(self, problems: Sequence[Problem]) -> None:
        """Most solved first, then soonest."""
        found = []
        choices = list(itertools.product(RATES, self.choice))
        for self.rate, self.steps in choices:
            times = [t for t in (self(problem).solution for problem in problems) if t is not None]
            found.append((-len(times), sum(t for t, _ in times), self.rate, self.steps))
        self.rate, self.steps = min(found)[2:]

    def __call__(self, problem: Problem) -> Track:
        track, pose = Track(problem), Pose(problem)
        adam = torch.optim.Adam([pose.turn, pose.move], betas=(0.5, 0.9))
        for i in range(self.steps):
            drawn = self.draw(pose.points(self.mesh, pose.turn, pose.move))
            adam.param_groups[0]["lr"] = self.rate * 0.1 ** (i / self.steps)
            adam.zero_grad()
            (drawn - problem.target).square().sum().backward()
            adam.step()
            track.note(pose.turn.detach())
        return track


def main(options: Options) -> None:
    console = Console()
    knot = str(options.mesh) == KNOT
    if not (knot or options.mesh.is_file()):
        console.print(f"skipped: there is no {options.mesh}")
        return
    torch.set_num_threads(1)
    tr.init(arch="cpu")
    loaded = tr.torus_knot(sides=16, sectors=180) if knot else tr.load_mesh(options.mesh)
    mesh = tr.normalise(loaded, radius=1.0)
    ours = Outlines(mesh, options.size)
    peer = None
    if installed():
        peer = Peer(mesh, "DEODR", DeodrSilhouettes(mesh.faces, options.size))
    else:
        console.print("DEODR is left out: it is not installed")
    setting = pose_fit.Options(options.mesh, size=options.size, seed=options.seed)
    title = f"{len(mesh.faces)} faces, {options.size} x {options.size} pixels"
    table = Table("", "", "solved", "median off", "to solution, s", "whole, s", title=title)
    for angle in options.angles:
        problems = [made(mesh, angle, i, setting) for i in range(options.poses)]
        if peer is not None:
            peer.tune([made(mesh, angle, -1 - i, setting) for i in range(6)])
        show(table, f"from {angle:g}°", [ours] if peer is None else [ours, peer], problems)
    if options.apart:
        problems = [apart(mesh, options.angles[0], i, setting) for i in range(options.apart)]
        show(table, "apart", [ours], problems)
    console.print(table)


def apart(mesh: tr.Mesh, angle: float, index: int, options: pose_fit.Options) -> Problem:
    """Like `made`, but farther from the camera, and with the start beside the target."""
    problem = made(mesh, angle, index, options)
    rng = torch.Generator().manual_seed(index)
    where = 2 * math.pi * torch.rand((), generator=rng)
    half = AWAY / 2 * torch.stack([where.cos(), where.sin(), torch.zeros(())])[None]
    deeper = torch.tensor([[0.0, 0.0, -DISTANCE]])
    place, start = deeper + half, deeper - half
    truth, first = (
        tr.gather_faces(pose_fit.projected(mesh, turned, where), mesh.faces)
        for turned, where in ((problem.truth, place), (problem.start, start))
    )
    target, drawn = (
        tr.sampled_picture(faces, None, options.size)[..., -1] for faces in (truth, first)
    )
    if bool((target * drawn).any()):
        raise ValueError("the start overlaps with its target")
    return Problem(problem.truth, place, problem.start, start, target, problem.same)


def show(
    table: Table, where: str, methods: Sequence[Outlines | Peer], problems: Sequence[Problem]
) -> None:
    tracks: list[list[Track]] = [[] for _ in methods]
    for method in methods:
        method(problems[0])  # compiles, and grows what memory it takes
    for problem in problems:
        for found, method in zip(tracks, methods, strict=True):
            found.append(method(problem))
    for method, found in zip(methods, tracks, strict=True):
        solved = [t for t in (track.solution for track in found) if t is not None]
        table.add_row(
            where,
            method.name,
            f"{len(solved)} of {len(found)}",
            f"{statistics.median(t.degrees[-1] for t in found):.3f}°",
            medians(solved) if solved else "",
            medians([track.spent[-1] for track in found]),
        )


def medians(times: Sequence[tuple[float, float]]) -> str:
    wall, processor = (statistics.median(column) for column in zip(*times, strict=True))
    return f"{wall:.3f} ({processor:.3f})"


if __name__ == "__main__":
    main(tyro.cli(Options))
