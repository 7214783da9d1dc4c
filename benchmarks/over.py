"""Time `OverDepth` beside a softmax: a textured mesh of 14,400 faces, at the scales of a descent.

    python benchmarks/over.py
    python benchmarks/over.py --size 128 --scales 0.03 0.01
    python benchmarks/over.py --skip 0.1  # leave out scales where an old version takes minutes

Forward and backward of RGB, gradients of the vertices and of the texture, in milliseconds of
processor time. All are timed in turn, in one process; the least counts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor

import taichi_raster as tr
from scenes import torch_threads


@dataclass(frozen=True)
class Options:
    """What to time.

    Args:
        size: side of the picture, in pixels.
        scales: of a logistic, in NDC.
        repeats: timed calls of each kind, after one that compiles.
        gamma: of the order; 0 for the hard order.
        precision: of the kernels.
        still: no gradient of the texture.
        antialias: how many times larger each way pictures are drawn, before they are averaged.
        out: a JSON file for the figures.
    """

    size: int = 256
    scales: tuple[float, ...] = (0.1, 0.03, 0.01, 0.004)
    repeats: int = 5
    gamma: float = 0.0
    precision: str = "f32"
    still: bool = False
    antialias: int = 1
    out: Path | None = None


def knot() -> tuple[Tensor, Tensor]:
    """The projected faces (1, F, 3, 3) of a torus knot, and texture coordinates (1, F, 3, 2)."""
    mesh = tr.torus_knot(sides=24, sectors=300)
    camera = tr.PerspectiveCamera(tr.orbit(2.7, 20.0, 30.0), fov=42.0)
    vertices = tr.gather_faces(camera.project(mesh.vertices[None].float()), mesh.faces)
    place = mesh.vertices.float() / mesh.vertices.abs().max()
    uv = tr.gather_faces(0.5 + 0.5 * place[None, :, :2], mesh.faces)
    return vertices, uv


def step(options: Options, scale: float, depth: tr.DepthSoftness) -> Callable[[], Tensor]:
    """Forward and backward."""
    vertices, uv = (t.to(tr.runtime().dtype) for t in knot())
    g = torch.Generator().manual_seed(0)
    image = torch.rand(1, 256, 256, 3, generator=g).to(vertices).requires_grad_(not options.still)
    vertices.requires_grad_()
    leaves = [vertices] if options.still else [vertices, image]
    renderer = tr.SoftRasterizer(
        options.size,
        tr.Distribution("logistic", scale),
        depth,
        near=1.0,
        far=5.0,
        antialias=options.antialias,
    )

    def gradient() -> Tensor:
        picture = renderer(vertices, tr.UVTexture(uv, image))
        return torch.autograd.grad(picture.square().sum(), leaves)[0]

    return gradient


def main(options: Options) -> None:
    tr.init("cpu", precision=options.precision)
    console = Console(width=120)
    depths: dict[str, tr.DepthSoftness] = {"softmax": tr.SoftmaxDepth(0.01)}
    if options.gamma > 0:
        depths["soft order"] = tr.OverDepth(options.gamma)
    else:
        depths["largest two"] = tr.OverDepth()
        depths["product"] = tr.OverDepth(union="product")
    table = Table("scale", *(f"{name}, ms" for name in depths), "by the softmax's")
    found = {}
    with torch_threads(1):
        for scale in options.scales:
            calls = [step(options, scale, depth) for depth in depths.values()]
            best = [float("inf")] * len(calls)
            for turn in range(options.repeats + 1):
                for i, call in enumerate(calls):
                    begin = time.process_time()
                    call()
                    if turn > 0:
                        best[i] = min(best[i], 1e3 * (time.process_time() - begin))
            found[scale] = best
            ratios = ", ".join(f"{t / best[0]:.2f}" for t in best[1:])
            table.add_row(str(scale), *(f"{t:,.0f}" for t in best), ratios)
            console.print(f"{scale}:", *(f"{t:.0f}" for t in best))
    console.print(table)
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(tyro.cli(Options))
