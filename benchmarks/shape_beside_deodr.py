"""A mesh from 24 silhouettes: `examples/fit_mesh.py` by its defaults, beside DEODR.

    python benchmarks/shape_beside_deodr.py spot.obj airplane.obj
    python benchmarks/shape_beside_deodr.py spot.obj --seconds 20 --only ours hull

Targets and held-out views are those of the example: 8 x 8 samples a pixel, so that no renderer
judges itself. The same samples judge all fits. Methods:

    ours     `tr.fit_mesh`, from the visual hull
    sphere   DEODR (pip install '.[peers]') from a sphere, coarse to fine, by large smooth steps
             (`SmoothOffsets`, `UniformAdam`), with priors
    hull     the same steps of DEODR, from the hull that ours starts from

Each fit ends after `--seconds` of processor time at the latest, of all its threads: so much it has
in as many seconds on a quiet core, and other programs do not count. IoU is that of outlines, at
half coverage. The surface's error is the mean distance from one surface to the other, both ways.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from deodr_silhouettes import DeodrSilhouettes, installed
from rich.console import Console
from tyro.conf import Positional

import taichi_raster as tr

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import fit_mesh

BATCH = 8
SPHERE_RATES, HULL_RATES = (0.3, 0.03), (0.01, 0.001)  # of UniformAdam, at first and in the end
METHODS = ("ours", "sphere", "hull")


@dataclass(frozen=True)
class Options:
    """See the top of the file.

    Args:
        meshes: mesh files; they are scaled to radius 1.
        seconds: of processor time, for each fit by DEODR.
        only: some of the methods.
    """

    meshes: Positional[tuple[Path, ...]]
    seconds: float = 60.0
    only: tuple[str, ...] = METHODS

    def __post_init__(self) -> None:
        if unknown := set(self.only) - set(METHODS):
            raise ValueError(f"only: unknown {sorted(unknown)}; expected some of {METHODS}")


def main(options: Options) -> None:
    console = Console()
    torch.set_num_threads(1)
    tr.init("cpu")
    if not installed():
        console.print("DEODR is left out: it is not installed")
    for path in options.meshes:
        if path.is_file():
            compared(path, options, console)
        else:
            console.print(f"skipped: there is no {path}")


def compared(path: Path, options: Options, console: Console) -> None:
    """Fit one mesh by each method, and show what came out."""
    target = tr.normalise(tr.load_mesh(path), radius=1.0)
    settings = fit_mesh.Settings(path)
    cameras = fit_mesh.view_matrices(settings.views)
    seen = fit_mesh.silhouettes(target, cameras, settings.image_size)
    views = fit_mesh.Views(cameras, seen, settings.views)
    methods: dict[str, Callable[[], tuple[tr.Mesh, int]]] = {
        "ours": lambda: (fit_mesh.fit(views, settings, console), settings.steps)
    }
    if installed():
        methods["sphere"] = lambda: from_sphere(views, options.seconds)
        methods["hull"] = lambda: from_hull(views, options.seconds)
    for name in options.only:
        if name not in methods:
            continue
        begin = time.perf_counter(), time.process_time()
        found, steps = methods[name]()
        wall, processor = time.perf_counter() - begin[0], time.process_time() - begin[1]
        shown = fit_mesh.silhouettes(found, cameras, settings.image_size)
        iou = fit_mesh.compare(shown, views)["held_out_iou"]
        console.print(
            f"{path.stem}, {name}: held-out IoU {sum(iou) / len(iou):.4f}, surface error "
            f"{surface_error(found, target):.5f}; {len(found.faces)} faces, {steps} steps, "
            f"{wall:.1f} s, processor {processor:.1f} s"
        )


def surface_error(a: tr.Mesh, b: tr.Mesh, count: int = 5000) -> float:
    """Half the sum of both mean distances, from points of one surface to the other itself."""
    total = 0.0
    for one, other in ((a, b), (b, a)):
        rng = torch.Generator().manual_seed(0)
        points = tr.sample_surface(one.vertices[None].double(), one.faces, count, rng)
        away = tr.surface_distance(points, other.vertices[None].double(), other.faces)
        total += float(away.mean()) / 2
    return total


def from_sphere(views: fit_mesh.Views, seconds: float) -> tuple[tr.Mesh, int]:
    """Three meshes, each twice as fine as the one before, for a third of the time each."""
    mesh, taken = tr.icosphere(2, radius=0.6), 0
    for k in range(3):
        mesh = tr.subdivide(mesh) if k > 0 else mesh
        part = k / 3, (k + 1) / 3
        mesh, steps = descended(mesh, views, seconds, part, SPHERE_RATES, 4.0, (0.003, 0.0003))
        taken += steps
    return mesh, taken


def from_hull(views: fit_mesh.Views, seconds: float) -> tuple[tr.Mesh, int]:
    hull = tr.simplified(tr.visual_hull(fit_mesh.capture(views)), fit_mesh.Settings().faces)
    start = tr.Mesh(hull.vertices.float(), hull.faces)
    return descended(start, views, seconds, (0.0, 1.0), HULL_RATES, 12.0, (0.02, 0.0))


def descended(
    mesh: tr.Mesh,
    views: fit_mesh.Views,
    seconds: float,
    part: tuple[float, float],
    rates: tuple[float, float],
    smoothing: float,
    priors: tuple[float, float],
) -> tuple[tr.Mesh, int]:
    """A part of a run of so many seconds, with the rate that belongs to it."""
    draw = DeodrSilhouettes(mesh.faces, views.silhouettes.shape[-1])
    surface = tr.SmoothOffsets(mesh, smoothing)
    adam = tr.UniformAdam([surface.offsets])
    terms = [tr.LaplacianLoss(mesh.faces, len(mesh.vertices))]
    terms.append(tr.FlatteningLoss(mesh.faces, len(mesh.vertices)))
    rng = torch.Generator().manual_seed(0)
    begin, taken, progress = time.process_time(), 0, part[0]
    while progress < part[1]:
        adam.param_groups[0]["lr"] = rates[0] * (rates[1] / rates[0]) ** progress
        chosen = torch.randperm(views.training, generator=rng)[:BATCH]
        vertices = surface()[None]
        points = tr.PerspectiveCamera(views.cameras[chosen], fit_mesh.FOV).project(vertices)
        loss = tr.silhouette_iou_loss(draw(points), views.silhouettes[chosen]).mean()
        loss = (
            loss
            + torch.stack([w * t(vertices).sum() for w, t in zip(priors, terms, strict=True)]).sum()
        )
        adam.zero_grad()
        loss.backward()
        adam.step()
        taken += 1
        progress = part[0] + (time.process_time() - begin) / seconds
    return tr.Mesh(surface().detach(), mesh.faces), taken


if __name__ == "__main__":
    main(tyro.cli(Options))
