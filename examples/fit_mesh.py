"""Fit a sphere to the silhouettes of any mesh.

    python examples/fit_mesh.py                       # a random body made here; about a minute
    python examples/fit_mesh.py bunny.obj             # any mesh file that trimesh reads
    python examples/fit_mesh.py bunny.obj --softness learned.safetensors --arch vulkan

The mesh's sharp silhouettes from `--views` directions around it are
the targets; 8 more directions in between are held out. A sphere is deformed by gradient descent
until its *soft* silhouettes match: where an edge is soft, a pixel near it tells the edge which way
to move. The softness shrinks as the fit proceeds (or is a learned one, `--softness`). A Laplacian
and a flattening term keep the surface smooth where no silhouette says anything.

What comes out, in `out/fit_mesh/`:

    fitted.obj        the deformed sphere
    turntable.gif     the mesh (left) and the fit (right), turning
    silhouettes.png   target, fit and difference in some training and held-out views
    metrics.json      intersection over union (IoU) of the sharp silhouettes in every view
"""

from __future__ import annotations

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
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from torch import Tensor
from tyro.conf import Positional

import taichi_raster as tr

FOV = 30.0  # degrees
DISTANCE = 1.08 / math.sin(math.radians(FOV / 2))  # a mesh of radius 1 fills 1 / 1.08 of the image
HELD_OUT = 8


@dataclass(frozen=True)
class Settings:
    """Fit a sphere to the silhouettes of any mesh; see the head of this file."""

    mesh: Positional[Path | None] = None
    """The target: any mesh file that trimesh reads; without it, a random body."""
    out: Path = Path("out/fit_mesh")
    """Folder that the results go to; it is made if missing."""
    softness: Path | None = None
    """A learned softness (.safetensors); without it, a logistic edge whose scale is annealed."""
    views: int = 24
    """Number of training views, spread evenly over the sphere of directions."""
    image_size: int = 64
    """Side of the silhouettes, in pixels."""
    iterations: int = 240
    """Steps of Adam."""
    batch: int = 8
    """Training views that each step looks at."""
    subdivisions: int = 4
    """Of the sphere at the end: 3 is 642 vertices, 4 is 2562. It starts two levels coarser."""
    radius: float = 0.6
    """Of the sphere at the start; the target has radius 1."""
    learning_rate: float = 0.3
    """Of Adam, at the start; it falls to a tenth."""
    laplacian: float = 0.003
    """Weight of the Laplacian term."""
    flattening: float = 0.0003
    """Weight of the flattening term."""
    smoothing: float = 4.0
    """How far the pull on one vertex spreads to its neighbours; 0 moves each on its own."""
    frames: int = 36
    """Of the turntable."""
    seed: int = 0
    """Of the order of the views."""
    deterministic: bool = False
    """Sum in a fixed order, so that two runs with one seed agree to the last digit."""
    arch: Literal["cpu", "vulkan", "cuda", "auto"] = "cpu"
    """Backend."""

    @property
    def name(self) -> str:
        return "a random body" if self.mesh is None else self.mesh.name

    def __post_init__(self) -> None:
        for name, low in (
            ("views", 1),
            ("image_size", 16),
            ("iterations", 1),
            ("batch", 1),
            ("frames", 1),
        ):
            if getattr(self, name) < low:
                raise ValueError(f"--{name.replace('_', '-')}: must be at least {low}")
        if not 1 <= self.subdivisions <= 6:
            raise ValueError("--subdivisions: must be 1 to 6")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError("--learning-rate: must be positive")
        for name in ("laplacian", "flattening", "smoothing"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"--{name}: must not be negative")


@dataclass(frozen=True)
class Views:
    """What the fit may look at (training), and what only judges it (held-out)."""

    cameras: Float[Tensor, "K 4 4"]
    silhouettes: Float[Tensor, "K H W"]
    training: int  # the first so many are for training

    def split(self, per_view: Tensor) -> dict[str, Tensor]:
        return {"training": per_view[: self.training], "held_out": per_view[self.training :]}


def main(settings: Settings) -> dict[str, Any]:
    """Run the whole example; returns what `metrics.json` holds."""
    return run(settings, *prepare(settings))


def prepare(settings: Settings) -> tuple[tr.Mesh, tr.EdgeSoftness]:
    """Everything that can be wrong with what the user gave goes wrong here."""
    target = tr.blob(seed=1) if settings.mesh is None else tr.load_mesh(settings.mesh)
    target = tr.normalise(target, radius=1.0)
    try:
        tr.init(arch=settings.arch, deterministic=settings.deterministic)
    except RuntimeError as error:
        raise ValueError(f"--arch: {error}") from error
    edge = default_softness() if settings.softness is None else tr.load_softness(settings.softness)
    settings.out.mkdir(parents=True, exist_ok=True)
    return target, edge


def run(settings: Settings, target: tr.Mesh, edge: tr.EdgeSoftness) -> dict[str, Any]:
    console = Console()
    cameras = view_matrices(settings.views)
    silhouettes = sharp_silhouettes(target, cameras, settings.image_size)
    views = Views(cameras, silhouettes, settings.views)
    console.print(
        f"{settings.name}: {len(target.faces)} faces; {settings.views} training and "
        f"{HELD_OUT} held-out views of {settings.image_size} x {settings.image_size} pixels"
    )

    start = time.perf_counter()
    fitted = fit(views, edge, settings, console)
    seconds = time.perf_counter() - start
    fitted_silhouettes = sharp_silhouettes(fitted, cameras, settings.image_size)
    ious = compare(fitted_silhouettes, views)
    metrics = {
        **{name: float(np.mean(values)) for name, values in ious.items()},
        "per_view": ious,
        "fit_seconds": round(seconds, 1),
        "settings": {name: _plain(value) for name, value in asdict(settings).items()},
    }

    tr.save_mesh(settings.out / "fitted.obj", fitted)
    (settings.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    draw_silhouettes(settings.out / "silhouettes.png", fitted_silhouettes, views, ious)
    with console.status("turntable"):
        draw_turntable(settings.out / "turntable.gif", [target, fitted], settings.frames)
    for kind in ("training", "held_out"):
        console.print(
            f"mean IoU, {kind.replace('_', '-')} views: {metrics[f'{kind}_iou']:.4f} "
            f"(soft masks {metrics[f'{kind}_soft_iou']:.4f})"
        )
    console.print(f"fitted in {seconds:.0f} s; results in {settings.out}/")
    return metrics


def default_softness() -> tr.EdgeSoftness:
    """From reaching over a tenth of the image down to less than a pixel."""
    return tr.Distribution("logistic", scale=tr.Geometric(0.03, 0.005))


# The fit ----------------------------------------------------------------------------------------


def fit(views: Views, edge: tr.EdgeSoftness, settings: Settings, console: Console) -> tr.Mesh:
    """Deform a sphere until its soft silhouettes match; a coarse sphere first, then a finer one."""
    # The deformed sphere is closed: its front faces alone show its silhouette, at half the price.
    renderer = tr.SoftRasterizer(
        settings.image_size, edge=edge, depth=tr.HardDepth(), cull_backfaces=True, threshold=1e-3
    )
    generator = torch.Generator().manual_seed(settings.seed)
    levels = range(max(1, settings.subdivisions - 2), settings.subdivisions + 1)
    falling = tr.Geometric(settings.learning_rate, 0.1 * settings.learning_rate)
    mesh = tr.icosphere(levels[0], radius=settings.radius)
    for i in range(len(levels)):
        mesh = tr.subdivide(mesh) if i > 0 else mesh
        surface, priors = tr.SmoothOffsets(mesh, settings.smoothing), Priors(mesh, settings)
        start, end = (settings.iterations * k // len(levels) for k in (i, i + 1))
        descent = tr.Descent(
            tr.UniformAdam([surface.offsets]),
            end - start,
            lr=falling,
            between=(start / settings.iterations, end / settings.iterations),
            title=f"fitting {len(mesh.faces)} faces",
            console=console,
        )
        for step in descent:
            chosen = torch.randperm(views.training, generator=generator)[: settings.batch]
            vertices = surface()[None]
            rendered = soft_silhouettes(
                renderer, vertices, mesh.faces, views.cameras[chosen], step.progress
            )
            match = tr.silhouette_iou_loss(rendered, views.silhouettes[chosen]).mean()
            step.descend(match + priors(vertices))
        mesh = tr.Mesh(surface().detach(), mesh.faces)
    return mesh


class Priors:
    """What keeps the surface smooth where no silhouette says anything."""

    def __init__(self, mesh: tr.Mesh, settings: Settings) -> None:
        count = len(mesh.vertices)
        self.terms = [
            (settings.laplacian, tr.LaplacianLoss(mesh.faces, count)),
            (settings.flattening, tr.FlatteningLoss(mesh.faces, count)),
        ]

    def __call__(self, vertices: Float[Tensor, "1 V 3"]) -> Float[Tensor, ""]:
        return torch.stack([weight * loss(vertices).sum() for weight, loss in self.terms]).sum()


def soft_silhouettes(
    renderer: tr.SoftRasterizer,
    vertices: Float[Tensor, "1 V 3"],
    faces: Int[Tensor, "F 3"],
    cameras: Float[Tensor, "B 4 4"],
    progress: float,
) -> Float[Tensor, "B H W"]:
    face_vertices = tr.gather_faces(tr.PerspectiveCamera(cameras, FOV).project(vertices), faces)
    ones = torch.ones_like(face_vertices[..., :1])
    images: Tensor = renderer(face_vertices, ones, progress=progress)
    return images[..., -1]


# Views, targets and judgement -------------------------------------------------------------------


def view_matrices(training: int) -> Float[Tensor, "K 4 4"]:
    """Training views, evenly over the sphere, and then held-out ones as far as can be from all."""
    chosen = spiral(training)
    candidates = spiral(997)
    for _ in range(HELD_OUT):
        closeness = (candidates @ torch.stack(list(chosen)).T).amax(dim=1)
        chosen = torch.cat([chosen, candidates[closeness.argmin()][None]])
    elevation = torch.rad2deg(torch.asin(chosen[:, 1]))
    azimuth = torch.rad2deg(torch.atan2(chosen[:, 0], chosen[:, 2]))
    return tr.orbit(DISTANCE, elevation, azimuth)


def spiral(count: int) -> Float[Tensor, "K 3"]:
    """`count` nearly evenly spread unit vectors: Fibonacci's spiral from pole to pole."""
    k = torch.arange(count, dtype=torch.float64)
    y = 1 - (2 * k + 1) / count
    angle = k * math.pi * (3 - math.sqrt(5))
    ring = (1 - y * y).sqrt()
    return torch.stack([ring * angle.sin(), y, ring * angle.cos()], dim=1)


@torch.no_grad()
def sharp_silhouettes(
    mesh: tr.Mesh, cameras: Float[Tensor, "K 4 4"], size: int
) -> Float[Tensor, "K H W"]:
    """Sharp coverage; both sides of a face count, so that winding does not matter."""
    sharp = tr.SharpRasterizer(size)
    images = []
    for chunk in cameras.split(8):
        projected = tr.PerspectiveCamera(chunk, FOV).project(mesh.vertices[None])
        face_vertices = tr.gather_faces(projected, mesh.faces)
        images.append(sharp(face_vertices, torch.ones_like(face_vertices[..., :1]))[..., -1])
    return torch.cat(images)


def compare(fitted: Float[Tensor, "K H W"], views: Views) -> dict[str, list[float]]:
    """IoU per view: of the masks at half coverage, and of the coverages themselves."""
    hard = 1 - tr.silhouette_iou_loss((fitted > 0.5).float(), (views.silhouettes > 0.5).float())
    soft = 1 - tr.silhouette_iou_loss(fitted, views.silhouettes)
    return {
        f"{kind}_{name}": values.tolist()
        for name, all_views in (("iou", hard), ("soft_iou", soft))
        for kind, values in views.split(all_views).items()
    }


# Pictures ---------------------------------------------------------------------------------------


def draw_silhouettes(
    path: Path, fitted: Float[Tensor, "K H W"], views: Views, ious: dict[str, list[float]]
) -> None:
    """Columns: four training and four held-out views. Rows: target, fit, difference."""
    training = np.linspace(0, views.training - 1, min(4, views.training)).astype(int).tolist()
    held_out = list(range(views.training, views.training + 4))
    columns = training + held_out
    iou = ious["training_iou"] + ious["held_out_iou"]
    figure = Figure(figsize=(1.6 * len(columns), 5.6), layout="constrained")
    axes = figure.subplots(3, len(columns), squeeze=False)
    for column, view in enumerate(columns):
        goal, got = views.silhouettes[view].numpy(), fitted[view].numpy()
        missing, extra = np.clip(goal - got, 0, 1), np.clip(got - goal, 0, 1)
        both = np.minimum(goal, got) * 0.25
        difference = np.stack(
            [1 - extra - both, 1 - missing - extra - both, 1 - missing - both], -1
        )
        kind = "training" if view < views.training else "held out"
        axes[0, column].set_title(f"{kind}\nIoU {iou[view]:.3f}", fontsize=9)
        for row, image in enumerate((1 - goal, 1 - got, np.clip(difference, 0, 1))):
            axes[row, column].imshow(image, cmap="gray", vmin=0, vmax=1)
            axes[row, column].set_xticks([])
            axes[row, column].set_yticks([])
    for row, label in enumerate(("target", "fit", "difference")):
        axes[row, 0].set_ylabel(label)
    axes[2, 0].set_xlabel("red: missing\nblue: too much", fontsize=8)
    figure.savefig(path, dpi=110)


@torch.no_grad()
def draw_turntable(path: Path, meshes: list[tr.Mesh], frames: int, size: int = 224) -> None:
    """The meshes side by side, turning about the vertical axis."""
    strips = [turntable(mesh, frames, size) for mesh in meshes]
    images = [
        Image.fromarray((np.concatenate(row, axis=1).clip(0, 1) * 255).round().astype(np.uint8))
        for row in zip(*strips, strict=True)
    ]
    palette = images[0].quantize(128)
    images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    images[0].save(path, save_all=True, append_images=images[1:], duration=80, loop=0)


def turntable(mesh: tr.Mesh, frames: int, size: int) -> Float[np.ndarray, "frames size size 3"]:
    """Flat Lambert shading by a light over the viewer's shoulder; both sides of a face are lit."""
    azimuth = torch.arange(frames) * (360 / frames)
    crisp = tr.SoftRasterizer(
        size,
        edge=tr.Distribution("uniform", scale=0.2 / size),
        depth=tr.HardDepth(),
        background=(1.0, 1.0, 1.0),
        antialias=2,
    )
    base, light = torch.tensor([0.42, 0.62, 0.86]), torch.tensor([-0.45, 0.6, -0.66])
    images = []
    for view in tr.orbit(DISTANCE, 20.0, azimuth).split(1):
        corners = mesh.vertices[mesh.faces] @ view[0, :3, :3].T
        normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals = torch.nn.functional.normalize(normals, dim=1)
        normals = normals * -torch.sign(normals[:, 2:])  # towards the eye, which looks along +z
        lambert = (normals @ light).clamp_min(0)
        colours = (base * (0.3 + 0.75 * lambert[:, None]))[None, :, None].expand(-1, -1, 3, -1)
        face_vertices = tr.gather_faces(
            tr.PerspectiveCamera(view, FOV).project(mesh.vertices[None]), mesh.faces
        )
        images.append(crisp(face_vertices, colours.contiguous())[0, ..., :3].numpy())
    return np.stack(images)


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value


def command_line() -> None:
    """A bad argument or file ends in one line, not in a traceback."""
    try:
        settings = tyro.cli(Settings)
        inputs = prepare(settings)
    except (ValueError, OSError) as error:
        sys.exit(f"fit_mesh: {error}")
    run(settings, *inputs)


if __name__ == "__main__":
    command_line()
