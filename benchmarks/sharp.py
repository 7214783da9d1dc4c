"""Time the sharp renderer, beside DEODR where it is installed (pip install '.[peers]').

    python benchmarks/sharp.py
    python benchmarks/sharp.py --sizes 64 256 --subdivisions 3 5

Forward and backward of RGB, gradients of the vertices and of their colours. The scene is an
icosphere with backs culled. Both are timed in turn, in one process. DEODR draws hard pictures whose
silhouettes alone are antialiased; ours are exact areas. It has one thread, and ours all cores.
Memory is what a forward and backward adds at its most (Linux; a process for each scene).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor

import taichi_raster as tr
from scenes import timed, torch_threads


@dataclass(frozen=True)
class Options:
    """What to time.

    Args:
        sizes: sides of the picture, in pixels.
        subdivisions: of the icosphere: 20 faces, times 4 for each.
        repeats: timed calls of each kind, after one that compiles.
        memory: print, as JSON, what one scene takes, and nothing else: size, subdivisions.
    """

    sizes: tuple[int, ...] = (64, 256, 1024)
    subdivisions: tuple[int, ...] = (3, 5, 6)
    repeats: int = 11
    memory: tuple[int, int] | None = None


@dataclass(frozen=True)
class Scene:
    """A sphere in front of a camera.

    Attributes:
        vertices: (V, 3): x and y in NDC, and z; colours: (V, 3); faces: (F, 3).
    """

    vertices: Tensor
    colours: Tensor
    faces: Tensor

    @staticmethod
    def of(subdivisions: int) -> Scene:
        mesh = tr.icosphere(subdivisions, 0.7)
        camera = tr.PerspectiveCamera(tr.orbit(2.7, 20.0, 30.0), fov=42.0)
        vertices = camera.project(mesh.vertices[None].float())[0]
        colours = torch.rand(vertices.shape, generator=torch.Generator().manual_seed(0))
        return Scene(vertices, colours, mesh.faces)


def ours(scene: Scene, size: int) -> Callable[[], Tensor]:
    """Forward and backward."""
    vertices = tr.gather_faces(scene.vertices[None], scene.faces).requires_grad_()
    colours = tr.gather_faces(scene.colours[None], scene.faces).requires_grad_()
    renderer = tr.SharpRasterizer(size, near=1.0, far=5.0, cull_backfaces=True)
    weights = torch.randn(1, size, size, 4, generator=torch.Generator().manual_seed(1))

    def call() -> Tensor:
        image = renderer(vertices, colours)
        torch.autograd.grad(image, (vertices, colours), weights)
        return image.detach()

    return call


def deodr(scene: Scene, size: int) -> Callable[[], np.ndarray] | None:
    """The same by DEODR; None if it is not installed."""
    try:
        from deodr.differentiable_renderer import Scene2D
    except ImportError:
        return None
    places = (scene.vertices[:, :2] * torch.tensor([1.0, -1.0]) + 1) * size / 2
    faces = scene.faces.numpy()
    count, corners = len(faces), len(places)
    picture = Scene2D(
        faces=faces.astype(np.uint32),
        faces_uv=np.zeros((count, 3), np.uint32),
        ij=places.double().numpy(),
        depths=scene.vertices[:, 2].double().numpy(),
        textured=np.zeros(count, bool),
        uv=np.zeros((1, 2)),
        shade=np.zeros(corners),
        colors=scene.colours.double().numpy(),
        shaded=np.zeros(count, bool),
        edgeflags=np.zeros((count, 3), bool),
        height=size,
        width=size,
        nb_colors=3,
        texture=np.zeros((2, 2, 3)),
        background_color=np.zeros(3),
        clockwise=False,
        backface_culling=True,
        perspective_correct=False,  # it has no gradient of that
        integer_pixel_centers=False,
    )
    beside = neighbours(faces)
    weights = np.random.default_rng(1).standard_normal((size, size, 3))

    def call() -> np.ndarray:
        corner = picture.ij[faces]
        edge, diagonal = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
        front = edge[:, 0] * diagonal[:, 1] - edge[:, 1] * diagonal[:, 0] < 0
        picture.edgeflags = front[:, None] & ~front[beside]  # the silhouette
        picture.clear_gradients()
        image, _ = picture.render(1)
        picture.render_backward(weights, make_copies=False)
        return image

    return call


def neighbours(faces: np.ndarray) -> np.ndarray:
    """(F, 3): the face on the other side of each edge of a closed mesh."""
    owner = {(u, v): f for f, (a, b, c) in enumerate(faces) for u, v in ((a, b), (b, c), (c, a))}
    return np.array([[owner[v, u] for u, v in ((a, b), (b, c), (c, a))] for a, b, c in faces])


def added_memory(size: int, subdivisions: int) -> float:
    """MiB that a forward and backward adds to this process, at its most."""
    call = ours(Scene.of(subdivisions), size)
    ours(Scene.of(1), 8)()  # compiles
    Path("/proc/self/clear_refs").write_text("5")  # forgets the process's most so far
    before = memory_now("VmRSS")
    call()
    return memory_now("VmHWM") - before


def memory_now(which: str) -> float:
    """MiB of this process, or the most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) / 1024


def main(options: Options) -> None:
    tr.init("cpu")
    if options.memory is not None:
        print(json.dumps(added_memory(*options.memory)))
        return
    table = Table("faces", "pixels", "ours, ms", "DEODR, ms", "ours / DEODR", "MiB")
    with torch_threads(1):
        for size in options.sizes:
            for subdivisions in options.subdivisions:
                table.add_row(*row(size, subdivisions, options.repeats))
    Console().print(table)


def row(size: int, subdivisions: int, repeats: int) -> list[str]:
    scene = Scene.of(subdivisions)
    calls: dict[str, Callable[[], Any]] = {"ours": ours(scene, size)}
    peer = deodr(scene, size)
    if peer is not None:
        calls["DEODR"] = peer
        difference = np.abs(peer() - calls["ours"]()[0, ..., :3].numpy()).mean()
        if difference > 0.1:
            raise ValueError(f"the two draw different scenes: colours differ by {difference:.3f}")
    times = timed(calls, repeats)
    again = [sys.executable, __file__, "--memory", str(size), str(subdivisions)]
    printed = subprocess.run(again, capture_output=True, check=True, text=True).stdout
    memory = float(printed.splitlines()[-1])
    shown = {name: f"{t[1]:.2f} [{t[0]:.2f}, {t[2]:.2f}]" for name, t in times.items()}
    ratio = f"{times['ours'][1] / times['DEODR'][1]:.2f}" if peer is not None else ""
    pixels = f"{size} x {size}"
    return [
        f"{len(scene.faces):,}",
        pixels,
        shown["ours"],
        shown.get("DEODR", "–"),
        ratio,
        f"{memory:.0f}",
    ]


if __name__ == "__main__":
    main(tyro.cli(Options))
