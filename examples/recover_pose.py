"""Recover camera poses of any mesh from silhouettes: the published pose experiment.

    python examples/recover_pose.py                   # of a random body made here
    python examples/recover_pose.py cow.obj           # of any mesh file that trimesh reads
    python examples/recover_pose.py cow.obj --online  # learns the softness along

From the sharp silhouettes of 24 random views, starting 15 to 35 degrees off and at another distance
and field of view, Adam descends 1 - intersection over union of the *soft* silhouettes. Softness:

    --softness logistic --scale 0.05 0.005   a distribution, its scale annealed
    --softness logistic --scale 0.03         the same, constant
    --softness learned.safetensors           a learned one, from a file
    --online                                 a network that starts as a logistic distribution and is
                                             learned on the way: each step also takes a step on the
                                             network's weights, along the gradient of the same loss

The experiment is that of Petersen et al. (GenDR, CVPR 2022); learning the softness online, on the
same poses, is from Wu et al. (EGSR 2024). What comes out, in `out/recover_pose/`:

    poses.png         for each pose: target, start and result, framed green where it succeeded
    metrics.json      errors of each pose
    softness.safetensors   with --online: what was learned, for --softness
"""

from __future__ import annotations

import heapq
import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from jaxtyping import Float
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor
from tyro.conf import Positional

import taichi_raster as tr
from tasks.pose import LARGEST_RADIUS, Pose, PoseBatch
from tasks.pose_meshes import random_body


@dataclass(frozen=True)
class Settings:
    """Recover camera poses of any mesh from silhouettes; see the head of this file."""

    mesh: Positional[Path | None] = None
    """Any mesh file that trimesh reads, scaled only if it reaches farther than 1.5; without it, a
    random body."""
    out: Path = Path("out/recover_pose")
    """Folder that the results go to; it is made if missing."""
    softness: str = "logistic"
    """A distribution's name, or a learned softness (.safetensors)."""
    scale: tuple[float, ...] = (0.05, 0.005)
    """Of a distribution or of the network, in NDC: a constant, or the first and the last."""
    online: bool = False
    """Learn the softness on the same poses."""
    online_learning_rate: float = 0.01
    """Of Adam on the network's weights."""
    start: Literal["15-35", "35-55", "55-75"] = "15-35"
    """How far off the starts are, in degrees."""
    poses: int = 24
    """How many poses are recovered, side by side."""
    steps: int = 300
    """Steps of Adam."""
    learning_rate: float = 0.5
    """Of Adam on the poses, in scene units and degrees."""
    known_fov: bool = False
    """Tell the field of view, which is unknown in the published experiment."""
    image_size: int = 64
    """Side of the silhouettes, in pixels."""
    seed: int = 0
    """Of poses and starts."""
    faces: int | None = None
    """Reduce the mesh to about so many faces first: a step's time grows with their number."""
    arch: Literal["cpu", "vulkan", "cuda", "auto"] = "cpu"
    """Backend."""

    @property
    def name(self) -> str:
        return "a random body" if self.mesh is None else self.mesh.name

    def __post_init__(self) -> None:
        for name in ("poses", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name}: must be at least 1")
        for name in ("learning_rate", "online_learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"--{name.replace('_', '-')}: must be positive")
        if self.faces is not None and self.faces < 4:
            raise ValueError("--faces: must be at least 4")
        if len(self.scale) not in (1, 2) or not all(0 < s < math.inf for s in self.scale):
            raise ValueError("--scale: must be one or two positive numbers")
        if self.online and self.softness.endswith(".safetensors"):
            raise ValueError("--online: starts from a distribution; give its name to --softness")


def main(settings: Settings) -> dict[str, Any]:
    """Run the whole example; returns what `metrics.json` holds."""
    return run(settings, *prepare(settings))


def prepare(settings: Settings) -> tuple[Pose, tr.EdgeSoftness]:
    """Everything that can be wrong with what the user gave goes wrong here."""
    if settings.mesh is None:
        mesh = random_body(np.random.default_rng(settings.seed), torch.float32)
    else:
        mesh = tr.load_mesh(settings.mesh)
    if float(mesh.vertices.norm(dim=1).max()) > LARGEST_RADIUS:
        mesh = tr.normalise(mesh)
    if settings.faces is not None:
        mesh = reduced(mesh, settings.faces)
    try:
        tr.init(arch=settings.arch)
    except RuntimeError as error:
        raise ValueError(f"--arch: {error}") from error
    low, high = map(float, settings.start.split("-"))
    family = Pose.published(
        mesh, (low, high), settings.image_size, not settings.known_fov, settings.seed
    )
    edge = softness(settings)
    settings.out.mkdir(parents=True, exist_ok=True)
    return family, edge


def softness(settings: Settings) -> tr.EdgeSoftness:
    if settings.softness.endswith(".safetensors"):
        return tr.load_softness(settings.softness)
    if settings.online:
        return tr.MLPSoftness(scale=tr.Knots(settings.scale), init=settings.softness)
    first, last = settings.scale[0], settings.scale[-1]
    scale = first if first == last else tr.Geometric(first, last)
    return tr.Distribution(settings.softness, scale=scale)


def run(settings: Settings, family: Pose, edge: tr.EdgeSoftness) -> dict[str, Any]:
    console = Console()
    task = family.sample(settings.poses, "test", 0)
    console.print(
        f"{settings.name}: {task.corners.shape[1]} faces; {settings.poses} poses, "
        f"{settings.image_size} x {settings.image_size} pixels, starts {settings.start} degrees off"
    )
    begin = time.perf_counter()
    found = recover(task, edge, settings, console)
    seconds = time.perf_counter() - begin

    per_pose = {name: values.tolist() for name, values in task.metrics(found).items()}
    metrics = {
        "published_successes": int(sum(per_pose["published_success"])),
        "geodesic_successes": settings.poses - int(sum(per_pose["failure"])),
        "poses": settings.poses,
        "seconds": round(seconds, 1),
        "per_pose": per_pose,
        "settings": {
            **asdict(settings),
            "mesh": str(settings.mesh or settings.name),
            "out": str(settings.out),
            "scale": list(settings.scale),
        },
    }
    (settings.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    if settings.online:
        tr.save_softness(settings.out / "softness.safetensors", edge)
    draw(settings.out / "poses.png", task, found)
    console.print(table(task, found, settings))
    console.print(f"{seconds:.0f} s; results in {settings.out}/")
    return metrics


def recover(
    task: PoseBatch, edge: tr.EdgeSoftness, settings: Settings, console: Console
) -> Float[Tensor, "B K"]:
    """The unknowns after all steps; with `online`, `edge` is learned on the way."""
    renderer = task.family.renderer(edge)
    unknowns = task.start().clone().requires_grad_()
    groups = [{"params": [unknowns], "lr": settings.learning_rate, "betas": (0.9, 0.99)}]
    if settings.online:
        groups.append({"params": list(edge.parameters()), "lr": settings.online_learning_rate})
    else:
        edge.requires_grad_(False)
    descent = tr.Descent(
        torch.optim.Adam(groups),
        settings.steps,
        per_item=[True, False][: len(groups)],  # all poses share the softness
        title="recovering",
        console=console,
    )
    for step in descent:
        step.descend(task.loss(unknowns, renderer, step.progress))
    return descent.best[0]


def reduced(mesh: tr.Mesh, faces: int) -> tr.Mesh:
    """The mesh with its shortest edges collapsed into their middles, until it has so few faces.

    An edge is left alone where its ends have other common neighbours than its two triangles'
    corners, so that a closed surface stays closed.
    """
    places = dict(enumerate(mesh.vertices.double().numpy()))
    around: dict[int, set[tuple[int, ...]]] = {i: set() for i in places}
    for face in map(tuple, mesh.faces.tolist()):
        for corner in face:
            around[corner].add(face)
    neighbours = {i: {j for face in fan for j in face} - {i} for i, fan in around.items()}

    def candidates(i: int) -> list[tuple[float, int, int]]:
        """The edges of i, with their lengths."""
        return [(float(np.linalg.norm(places[i] - places[j])), i, j) for j in neighbours[i]]

    queue = [edge for i in places for edge in candidates(i) if edge[1] < edge[2]]
    heapq.heapify(queue)
    count = len(mesh.faces)
    while queue and count > faces:
        length, i, j = heapq.heappop(queue)
        if j not in neighbours.get(i, ()) or length != np.linalg.norm(places[i] - places[j]):
            continue  # one of its ends has moved or is gone
        if len(neighbours[i] & neighbours[j]) != 2 or len(around[i] & around[j]) != 2:
            continue
        count -= 2
        places[i] = (places[i] + places.pop(j)) / 2
        for face in around[i] & around[j]:
            for corner in face:
                around[corner].discard(face)
        for face in around.pop(j):
            moved = tuple(i if corner == j else corner for corner in face)
            for corner in moved:
                around[corner].discard(face)
                around[corner].add(moved)
        for k in neighbours.pop(j) - {i}:
            neighbours[k].discard(j)
            neighbours[k].add(i)
            neighbours[i].add(k)
        neighbours[i].discard(j)
        for edge in candidates(i):
            heapq.heappush(queue, edge)
    index = {i: position for position, i in enumerate(places)}
    kept = sorted({tuple(index[i] for i in face) for fan in around.values() for face in fan})
    return tr.Mesh(mesh.vertices.new_tensor(np.stack(list(places.values()))), torch.tensor(kept))


def table(task: PoseBatch, found: Float[Tensor, "B K"], settings: Settings) -> Table:
    start, end = task.metrics(task.start()), task.metrics(found)
    count = task.batch_size
    method = f"{settings.softness}{', learned online' if settings.online else ''}"
    result = Table(title=f"{method}, {settings.steps} steps")
    for name in ("", "start", "end"):
        result.add_column(name, justify="right" if name else "left")
    for name, figure in (
        ("elevation² + azimuth² < 5²", lambda m: f"{int(m['published_success'].sum())}/{count}"),
        ("angle < 5°", lambda m: f"{count - int(m['failure'].sum())}/{count}"),
        ("median angle error", lambda m: f"{m['parameter_error'].median():.2f}°"),
        ("median distance error", lambda m: f"{m['distance_error'].median():.3f}"),
        ("median field of view error", lambda m: f"{m['fov_error'].median():.2f}°"),
        ("mean IoU", lambda m: f"{m['iou'].mean():.3f}"),
    ):
        result.add_row(name, figure(start), figure(end))
    return result


@torch.no_grad()
def draw(path: Path, task: PoseBatch, found: Float[Tensor, "B K"], columns: int = 8) -> None:
    """For each pose, from top to bottom: target, start, result."""
    columns = min(columns, task.batch_size)
    bands = math.ceil(task.batch_size / columns)
    pictures = (task.target, task.sharp_image(task.start()), task.sharp_image(found))
    error = task.true_error(found)
    figure = Figure(figsize=(1.1 * columns + 0.4, 3.5 * bands), layout="constrained")
    axes = figure.subplots(3 * bands, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_visible(False)
    for i in range(task.batch_size):
        for row, (label, images) in enumerate(
            zip(("target", "start", "result"), pictures, strict=True)
        ):
            axis = axes[3 * (i // columns) + row, i % columns]
            axis.set_visible(True)
            axis.imshow(1 - images[i, ..., 0].numpy(), cmap="gray", vmin=0, vmax=1)
            axis.set_xticks([])
            axis.set_yticks([])
            if i % columns == 0:
                axis.set_ylabel(label, fontsize=8)
        colour = "tab:green" if error[i] < task.family.failure_threshold else "tab:red"
        axis.set_xlabel(f"{error[i]:.1f}° off", fontsize=8, color=colour)
        for spine in axis.spines.values():
            spine.set(color=colour, linewidth=2)
    figure.savefig(path, dpi=110)


def command_line() -> None:
    """A bad argument or file ends in one line, not in a traceback."""
    try:
        settings = tyro.cli(Settings)
        inputs = prepare(settings)
    except (ValueError, OSError) as error:
        sys.exit(f"recover_pose: {error}")
    run(settings, *inputs)


if __name__ == "__main__":
    command_line()
