"""Time the sharp renderer, beside DEODR where it is installed (pip install '.[peers]').

    python benchmarks/sharp.py
    python benchmarks/sharp.py --sizes 64 256 --subdivisions 3 5
    python benchmarks/sharp.py --gradients spot.obj      # slopes of a mesh's picture, not times

Forward and backward of RGB, gradients of the vertices and of their colours. The scene is an
icosphere with backs culled. All are timed in turn, in one process, once they are warm. Ours are
exact areas: every edge is antialiased. DEODR draws hard pictures and antialiases the edges that it
is given: those of the silhouette, as its users do, or all edges, which is the picture that is like
ours. It has one thread, and ours all cores.
Memory is what a forward and backward adds at its most (Linux; a process for each scene).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from peers import Scene, deodr
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
        repeats: timed turns of each kind.
        in_a_row: calls in a turn. With one, each finds the caches as the other renderers left them,
            and threads asleep; with ten, most find them as in a descent, which draws with one.
        warm: untimed calls of each kind before that.
        gradients: a mesh file: instead of times, how well slopes of its picture along 12 motions
            agree with central differences of pictures of 16 x 16 samples a pixel.
        processor: processor time of all threads together, for a machine that others use, too.
        memory: print, as JSON, what one scene takes, and nothing else: size, subdivisions.
    """

    sizes: tuple[int, ...] = (64, 256, 1024)
    subdivisions: tuple[int, ...] = (3, 5, 6)
    repeats: int = 15
    in_a_row: int = 1
    warm: int = 6
    gradients: Path | None = None
    processor: bool = False
    memory: tuple[int, int] | None = None


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
    if options.gradients is not None:
        for name, (cosine, slope) in slopes(options.gradients, options.sizes[0]).items():
            print(f"{name}: cosine {cosine:.4f}, slope {slope:.3f}")
        return
    table = Table("faces", "pixels", "ours, ms", *(f"{name}, ms" for name in PEERS), *RATIOS, "MiB")
    with torch_threads(1):
        for size in options.sizes:
            for subdivisions in options.subdivisions:
                table.add_row(*row(size, subdivisions, options))
    Console().print(table)


def slopes(path: Path, size: int) -> dict[str, tuple[float, float]]:
    """Each renderer's slopes along motions, against those of samples: their cosine, and a factor.

    The motions are shifts in the image and turns of the mesh, of a quarter pixel at most; what is
    differentiated is a smooth linear functional of the colours.
    """
    mesh = tr.normalise(tr.load_mesh(path), radius=0.8)
    colours = (0.5 + 0.5 * torch.sin(9 * mesh.vertices)).float()
    camera = tr.PerspectiveCamera(tr.orbit(2.7, 20.0, 30.0), fov=42.0)
    generator = torch.Generator().manual_seed(3)
    grid = torch.linspace(-1, 1, size)
    waves = torch.stack([torch.sin(5 * grid + c) for c in range(3)], dim=-1)
    weights = (waves[:, None] * waves.roll(1, dims=-1))[None]

    def place(motion: Tensor) -> Tensor:
        """(V, 3) in NDC and z: shifted, then turned."""
        x, y, z = motion[3:]
        zero = torch.zeros(())
        turn = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).view(3, 3)
        vertices = mesh.vertices.float() @ torch.linalg.matrix_exp(turn).T + motion[:3]
        return camera.project(vertices[None])[0]

    def sampled(motion: Tensor) -> float:
        faces = tr.gather_faces(place(motion)[None], mesh.faces)
        shown = tr.gather_faces(colours[None], mesh.faces)
        image = tr.sampled_picture(faces, shown, size, 16, near=1.0, far=5.0)
        return float((image[..., :3] * weights).sum())

    motions = torch.randn(12, 6, generator=generator)
    still = place(torch.zeros(6))
    speeds = [(place(m * 1e-3) - place(-m * 1e-3)) / 2e-3 for m in motions]
    steps = [0.5 / size / float(v[:, :2].norm(dim=-1).max()) for v in speeds]
    truth = [
        (sampled(m * h) - sampled(-m * h)) / (2 * h) for m, h in zip(motions, steps, strict=True)
    ]
    adjoints = {"ours": _our_adjoint(still, colours, mesh.faces, weights, size)}
    peer = _deodr_adjoint(still, colours, mesh.faces, weights, size)
    if peer is not None:
        adjoints["DEODR"] = peer
    found = {}
    expected = torch.tensor(truth)
    for name, adjoint in adjoints.items():
        values = torch.stack([(adjoint * v[:, : adjoint.shape[1]]).sum() for v in speeds])
        dot = float((values * expected).sum())
        found[name] = (
            dot / float(values.norm() * expected.norm()),
            dot / float(expected.norm()) ** 2,
        )
    return found


def _our_adjoint(
    vertices: Tensor, colours: Tensor, faces: Tensor, weights: Tensor, size: int
) -> Tensor:
    leaf = vertices.clone().requires_grad_()
    renderer = tr.SharpRasterizer(size, near=1.0, far=5.0)
    image = renderer(tr.gather_faces(leaf[None], faces), tr.gather_faces(colours[None], faces))
    return torch.autograd.grad((image[..., :3] * weights).sum(), leaf)[0]


def _deodr_adjoint(
    vertices: Tensor, colours: Tensor, faces: Tensor, weights: Tensor, size: int
) -> Tensor | None:
    """With respect to x and y in NDC: DEODR has none for depth."""
    call = deodr(Scene(vertices, colours, faces), size, weights[0].double().numpy())
    if call is None:
        return None
    call()
    moved = torch.from_numpy(call.picture.ij_b).float() * size / 2
    return moved * torch.tensor([1.0, -1.0])


NONE = "–"
PEERS = ("DEODR", "DEODR, all edges")
RATIOS = ("ours / DEODR", "ours / all edges")


def row(size: int, subdivisions: int, options: Options) -> list[str]:
    scene = Scene.of(subdivisions)
    calls: dict[str, Callable[[], Any]] = {"ours": ours(scene, size)}
    for name in PEERS:
        peer = deodr(scene, size, all_edges=name != "DEODR")
        if peer is not None:
            calls[name] = peer
    if len(calls) > 1:
        difference = np.abs(calls["DEODR"]() - calls["ours"]()[0, ..., :3].numpy()).mean()
        if difference > 0.1:
            raise ValueError(f"the two draw different scenes: colours differ by {difference:.3f}")
    timed(calls, options.warm)
    clock = time.process_time if options.processor else time.perf_counter
    times = timed(calls, options.repeats, clock, options.in_a_row)
    again = [sys.executable, __file__, "--memory", str(size), str(subdivisions)]
    printed = subprocess.run(again, capture_output=True, check=True, text=True).stdout
    memory = float(printed.splitlines()[-1])
    shown = {name: f"{t[1]:.2f} [{t[0]:.2f}, {t[2]:.2f}]" for name, t in times.items()}
    ratios = [f"{times['ours'][1] / times[p][1]:.2f}" if p in times else "" for p in PEERS]
    peers = [shown.get(name, NONE) for name in PEERS]
    cells = [f"{len(scene.faces):,}", f"{size} x {size}", shown["ours"], *peers, *ratios]
    return [*cells, f"{memory:.0f}"]


if __name__ == "__main__":
    main(tyro.cli(Options))
