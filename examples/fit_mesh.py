"""Fit a mesh to the silhouettes of any mesh.

    python examples/fit_mesh.py                       # a random body made here; about a minute
    python examples/fit_mesh.py bunny.obj             # any mesh file that trimesh reads
    python examples/fit_mesh.py bunny.obj --views 12 --steps 300

The mesh's silhouettes from `--views` directions around it are the targets; 8 more directions in
between are held out. `tr.fit_mesh` does the rest: it starts at the visual hull, the largest body
that has these silhouettes, and moves its surface by the exact derivatives of sharp pictures. Where
no silhouette says anything, smooth steps and two priors keep the surface smooth. The same function
takes photos with masks (`tr.load_capture`); here, the capture is made of pictures of the mesh.

All silhouettes are sampled (`tr.sampled_picture`), so that no renderer judges itself.

What comes out, in `out/fit_mesh/`:

    fitted.obj        the fitted mesh
    turntable.gif     the mesh (left) and the fit (right), turning
    silhouettes.png   target, fit and difference in some training and held-out views
    metrics.json      intersection over union (IoU) of the silhouettes in every view
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
from jaxtyping import Float
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
    """Fit a mesh to the silhouettes of any mesh; see the head of this file."""

    mesh: Positional[Path | None] = None
    """The target: any mesh file that trimesh reads; without it, a random body."""
    out: Path = Path("out/fit_mesh")
    """Folder that the results go to; it is made if missing."""
    views: int = 24
    """Number of training views, spread evenly over the sphere of directions; at least 2."""
    image_size: int = 128
    """Side of the silhouettes, in pixels."""
    steps: int = 120
    """Of the descent; each looks at some of the views."""
    faces: int = 10_000
    """Of the fitted mesh, at most."""
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
            ("views", 2),
            ("image_size", 16),
            ("steps", 0),
            ("faces", 4),
            ("frames", 1),
        ):
            if getattr(self, name) < low:
                raise ValueError(f"--{name.replace('_', '-')}: must be at least {low}")


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
    return run(settings, prepare(settings))


def prepare(settings: Settings) -> tr.Mesh:
    """The target. Everything that can be wrong with what the user gave goes wrong here."""
    target = tr.blob(seed=1) if settings.mesh is None else tr.load_mesh(settings.mesh)
    target = tr.normalise(target, radius=1.0)
    try:
        tr.init(arch=settings.arch, deterministic=settings.deterministic)
    except RuntimeError as error:
        raise ValueError(f"--arch: {error}") from error
    settings.out.mkdir(parents=True, exist_ok=True)
    return target


def run(settings: Settings, target: tr.Mesh) -> dict[str, Any]:
    console = Console()
    cameras = view_matrices(settings.views)
    views = Views(cameras, silhouettes(target, cameras, settings.image_size), settings.views)
    console.print(
        f"{settings.name}: {len(target.faces)} faces; {settings.views} training and "
        f"{HELD_OUT} held-out views of {settings.image_size} x {settings.image_size} pixels"
    )

    start = time.perf_counter()
    fitted = fit(views, settings, console)
    seconds = time.perf_counter() - start
    shown = silhouettes(fitted, cameras, settings.image_size)
    ious = compare(shown, views)
    metrics = {
        **{name: float(np.mean(values)) for name, values in ious.items()},
        "per_view": ious,
        "fit_seconds": round(seconds, 1),
        "settings": {name: _plain(value) for name, value in asdict(settings).items()},
    }

    tr.save_mesh(settings.out / "fitted.obj", fitted)
    (settings.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    draw_silhouettes(settings.out / "silhouettes.png", shown, views, ious)
    with console.status("turntable"):
        draw_turntable(settings.out / "turntable.gif", [target, fitted], settings.frames)
    for kind in ("training", "held_out"):
        console.print(
            f"mean IoU, {kind.replace('_', '-')} views: {metrics[f'{kind}_iou']:.4f} "
            f"(soft masks {metrics[f'{kind}_soft_iou']:.4f})"
        )
    console.print(f"fitted in {seconds:.0f} s; results in {settings.out}/")
    return metrics


def fit(views: Views, settings: Settings, console: Console) -> tr.Mesh:
    """The mesh that has the training views' silhouettes."""
    with console.status("the visual hull") as status:
        return tr.fit_mesh(
            capture(views),
            settings.faces,
            settings.steps,
            seed=settings.seed,
            done=lambda i, n, loss: status.update(f"step {i} of {n}: loss {loss:.4f}"),
        ).mesh


def capture(views: Views) -> tr.Capture:
    """The training views as photos: here, of masks alone."""
    focal = 1 / math.tan(math.radians(FOV / 2))
    return tr.Capture(
        tuple(
            tr.Photo(
                name=f"view {i}",
                camera=tr.PinholeCamera(views.cameras[i, None], (focal, focal), (0.0, 0.0)),
                image_size=(mask.shape[0], mask.shape[1]),
                silhouette=mask,
            )
            for i, mask in enumerate(views.silhouettes[: views.training])
        )
    )


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
def silhouettes(
    mesh: tr.Mesh, cameras: Float[Tensor, "K 4 4"], size: int
) -> Float[Tensor, "K H W"]:
    """Coverage by 8 x 8 samples; both sides of a face count, so that winding does not matter."""
    images = []
    for view in cameras.split(1):
        projected = tr.PerspectiveCamera(view, FOV).project(mesh.vertices[None])
        faces = tr.gather_faces(projected, mesh.faces)
        images.append(tr.sampled_picture(faces, None, size, samples=8)[..., -1])
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
        target = prepare(settings)
    except (ValueError, OSError) as error:
        sys.exit(f"fit_mesh: {error}")
    try:
        run(settings, target)
    except ImportError as error:  # of scikit-image, say: it tells how to install it
        sys.exit(f"fit_mesh: {error}")


if __name__ == "__main__":
    command_line()
