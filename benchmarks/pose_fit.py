"""The pose of a mesh from one silhouette: coarse to fine without tuning, beside constant softness.

    python benchmarks/pose_fit.py MESH
    python benchmarks/pose_fit.py MESH --angles 20 60 --poses 20 --size 128
    python benchmarks/pose_fit.py MESH --finer 1 --first 0.1 --angles 40 --only coarse "in all"

Rotation and place are unknown. The start is turned about a random axis by 20, 40 or 60 degrees, and
shifted by up to a tenth of the radius. Targets are supersampled (`tr.sampled_picture`), so that no
renderer judges itself. One pose after the other is solved, compilation aside. Methods:

    coarse to fine   the first scale and step measured in the picture (`picture_start`,
                     `ImageSteps`), size by `coarse_size`, a `proxy_mesh` while it is soft
    in all pixels    the same, at full size with all faces
    constant         a logistic of a quarter of a pixel; Adam, whose learning rate is found for the
                     first angle, on other poses than those that count

Solved means less than 1 degree off, symmetries counted. Without the mesh's file, it says so and
ends.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import scipy.spatial
import torch
import tyro
from rich.console import Console
from torch import Tensor
from tyro.conf import Positional

import taichi_raster as tr

FOV, DISTANCE = 30.0, 4.5
NEAR, FAR = 2.0, 8.0
HALF = DISTANCE * math.tan(math.radians(FOV / 2))  # of the picture, at the mesh
CAMERA = tr.PerspectiveCamera(tr.look_at((0.0, 0.0, DISTANCE)), FOV)
RATES = (0.003, 0.01, 0.03, 0.1)


@dataclass(frozen=True)
class Options:
    """See the top of the file.

    Args:
        mesh: any mesh file; it is scaled to radius 1.
        angles: in degrees, from the truth to the start.
        poses: for each angle.
        size: pixels on a side.
        steps: of each fit.
        finer: how often each face is cut into four.
        first: the scale to begin with, in NDC, instead of that measured in the picture.
        pixels: what the softness may span, for `coarse_size`.
        only: some of the methods, by the beginnings of their names.
        seed: of poses and starts.
    """

    mesh: Positional[Path]
    angles: tuple[float, ...] = (20.0, 40.0, 60.0)
    poses: int = 10
    size: int = 256
    steps: int = 60
    finer: int = 0
    first: float | None = None
    pixels: float = 1.0
    only: tuple[str, ...] = ("coarse", "in all", "constant")
    seed: int = 0


@dataclass(frozen=True)
class Problem:
    """One pose to be found.

    Attributes:
        truth, start: (1, 3, 3) rotations; place, shifted: (1, 3) translations.
        target: (1, H, W) coverage.
        same: (N, 3, 3): turns of the mesh that nobody can see, see `symmetries`.
    """

    truth: Tensor
    place: Tensor
    start: Tensor
    shifted: Tensor
    target: Tensor
    same: Tensor

    def off(self, turn: Tensor) -> float:
        """Degrees from the truth, or from what looks like it, after a turn (1, 3)."""
        found = rotation(turn.double()) @ self.start.double()
        chords = (found - self.truth.double() @ self.same).norm(dim=(1, 2)) / math.sqrt(8)
        # An arc cosine has no thousandths of a degree.
        return math.degrees(2 * math.asin(min(1.0, float(chords.min()))))


@lru_cache(maxsize=1)
def symmetries(mesh: tr.Mesh) -> Tensor:
    """(N, 3, 3): those turns by 60, 90, 120 and 180 degrees that map the vertices onto themselves.

    About the axes of the mesh's coordinates, one after another; no turn is among them.
    """
    vertices = mesh.vertices.double() - mesh.vertices.double().mean(dim=0)
    tree = scipy.spatial.cKDTree(vertices)
    about = torch.eye(3, dtype=torch.float64) * math.pi
    once = [rotation(axis[None] * t)[0] for axis in about for t in (0, 1 / 3, 1 / 2, 2 / 3, 1)]
    near = 1e-3 * float(vertices.norm(dim=1).max())
    kept = [t for t in once if tree.query(vertices @ t.mT)[0].max() < near]
    group: list[Tensor] = [torch.eye(3, dtype=torch.float64)]
    for turn in group:  # which grows
        for after in kept:
            both = after @ turn
            if all(float((both - other).abs().max()) > 1e-3 for other in group):
                group.append(both)
    return torch.stack(group)


def rotation(vectors: Tensor) -> Tensor:
    """(B, 3, 3), about axes by their lengths in radians."""
    zero = torch.zeros_like(vectors[:, 0])
    x, y, z = vectors.unbind(1)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).view(-1, 3, 3)
    return torch.linalg.matrix_exp(cross)


def projected(mesh: tr.Mesh, turned: Tensor, place: Tensor) -> Tensor:
    """(1, V, 3) in NDC."""
    return CAMERA.project(mesh.vertices @ turned.mT + place[:, None])


def made(mesh: tr.Mesh, angle: float, index: int, options: Options) -> Problem:
    rng = torch.Generator().manual_seed(1000 * options.seed + index)
    axis = torch.nn.functional.normalize(torch.randn(2, 3, generator=rng), dim=1)
    truth = rotation(axis[:1] * math.pi * torch.rand(1, generator=rng))
    place, shift = 0.1 * (2 * torch.rand(2, 1, 3, generator=rng) - 1)
    target = tr.sampled_picture(
        tr.gather_faces(projected(mesh, truth, place), mesh.faces), None, options.size
    )
    start = rotation(axis[1:] * math.radians(angle)) @ truth
    return Problem(truth, place, start, place + shift, target[..., -1], symmetries(mesh))


class Pose:
    """The unknowns of a problem, and what they show."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.turn = torch.zeros(1, 3, requires_grad=True)
        self.move = torch.zeros(1, 3, requires_grad=True)

    def corners(self, mesh: tr.Mesh) -> Tensor:
        return tr.gather_faces(self.points(mesh, self.turn, self.move), mesh.faces)

    def points(self, mesh: tr.Mesh, turn: Tensor, move: Tensor) -> Tensor:
        problem = self.problem
        return projected(mesh, rotation(turn) @ problem.start, problem.shifted + move)


class Proxies:
    """The mesh at several finenesses, made once."""

    def __init__(self, mesh: tr.Mesh) -> None:
        cells = [0.01 * 2**k for k in range(5)]  # of a mesh of radius 1
        self.made = [(cell, tr.proxy_mesh(mesh, cell)) for cell in cells]
        self.mesh = mesh

    def at(self, scale: float) -> tr.Mesh:
        """The coarsest whose cubes are no larger than a scale in NDC."""
        fitting = [proxy for cell, proxy in self.made if cell <= scale * HALF]
        return fitting[-1] if fitting else self.mesh


def soft(edge: tr.EdgeSoftness, size: int) -> tr.SoftRasterizer:
    return tr.SoftRasterizer(
        size,
        edge,
        alpha=tr.TConorm("yager", 1.0),
        near=NEAR,
        far=FAR,
        cull_backfaces=True,
        threshold=1e-3,
    )


def coarse_to_fine(problem: Problem, proxies: Proxies, options: Options, coarse: bool) -> float:
    pose = Pose(problem)
    sharp = tr.SharpRasterizer(options.size, near=NEAR, far=FAR, cull_backfaces=True)
    with torch.no_grad():
        drawn = sharp(pose.corners(proxies.mesh), None)[..., -1]
    begin = tr.picture_start(drawn, problem.target, options.steps)
    falling = begin.scale
    if options.first is not None:
        falling = tr.Geometric(options.first, 0.5 / options.size)  # a quarter of a pixel
    renderer = soft(tr.Distribution("gaussian", falling), options.size)
    rough = proxies.made[-1][1]  # enough to measure steps by
    steps = tr.ImageSteps(
        torch.optim.Adam([pose.turn, pose.move], betas=(0.5, 0.9)),
        lambda turn, move: pose.points(rough, turn, move),
        begin.eta,
    )
    mesh, size = proxies.mesh, (options.size, options.size)
    for step in tr.Descent(steps, options.steps):
        scale = float(falling(torch.tensor(step.progress)))
        if coarse:
            mesh, size = (
                proxies.at(scale),
                tr.coarse_size(options.size, scale, None, options.pixels),
            )
        image = tr.at_size(renderer, size).silhouette(pose.corners(mesh), step.progress)
        step.descend(tr.silhouette_iou_loss(image, tr.area_average(problem.target, size)))
    return problem.off(pose.turn.detach())


def constant(problem: Problem, proxies: Proxies, options: Options, rate: float) -> float:
    pose = Pose(problem)
    renderer = soft(tr.Distribution("logistic", 0.5 / options.size), options.size)
    adam = torch.optim.Adam([pose.turn, pose.move], betas=(0.5, 0.9))
    for step in tr.Descent(adam, options.steps, lr=tr.Geometric(rate, 0.1 * rate)):
        image = renderer.silhouette(pose.corners(proxies.mesh), step.progress)
        step.descend(tr.silhouette_iou_loss(image, problem.target))
    return problem.off(pose.turn.detach())


def main(options: Options) -> None:
    console = Console()
    if not options.mesh.is_file():
        console.print(f"skipped: there is no {options.mesh}")
        return
    torch.set_num_threads(1)
    tr.init(arch="cpu")
    mesh = tr.normalise(tr.load_mesh(options.mesh), radius=1.0)
    for _ in range(options.finer):
        mesh = tr.subdivide(mesh)
    begin = time.perf_counter()
    proxies = Proxies(mesh)
    counts = [len(proxy.faces) for _, proxy in proxies.made]
    console.print(
        f"{len(mesh.faces)} faces; proxies of {counts} in {time.perf_counter() - begin:.2f} s; "
        f"{options.size} x {options.size} pixels, {options.steps} steps"
    )
    rate = tuned(mesh, proxies, options) if "constant" in options.only else RATES[0]
    methods: dict[str, Callable[[Problem], float]] = {
        "coarse to fine": lambda p: coarse_to_fine(p, proxies, options, True),
        "in all pixels": lambda p: coarse_to_fine(p, proxies, options, False),
        f"constant, rate {rate:g}": lambda p: constant(p, proxies, options, rate),
    }
    for angle in options.angles:
        problems = [made(mesh, angle, i, options) for i in range(options.poses)]
        found: list[Tensor] = []
        for name, method in methods.items():
            if not name.startswith(options.only):
                continue
            method(problems[0])  # compiles, and grows what memory it takes
            said, off = judged(method, problems)
            console.print(f"from {angle:g}°  {name:20s} {said}")
            found.append(off)
            if len(found) > 1:
                ratio = (found[0] / off).log().mean().exp()
                console.print(f"    the first's error over this one's, paired: {ratio:.2f}")


def tuned(mesh: tr.Mesh, proxies: Proxies, options: Options) -> float:
    """The rate of `constant` with the least mean error on four other poses."""
    others = [made(mesh, options.angles[0], -1 - i, options) for i in range(4)]
    return min(RATES, key=lambda rate: sum(constant(p, proxies, options, rate) for p in others))


def judged(method: Callable[[Problem], float], problems: list[Problem]) -> tuple[str, Tensor]:
    """What to print, and the degrees off, (N,)."""
    rows = []
    for problem in problems:
        begin = time.perf_counter(), time.process_time()
        off = method(problem)
        rows.append((off, time.perf_counter() - begin[0], time.process_time() - begin[1]))
    off, wall, cpu = torch.tensor(rows, dtype=torch.float64).unbind(1)
    said = (
        f"{int((off < 1).sum())} of {len(rows)} solved, median {off.median():.2f}° off; "
        f"{wall.median():.2f} s, processor time {cpu.median():.2f} s"
    )
    return said, off


if __name__ == "__main__":
    main(tyro.cli(Options))
