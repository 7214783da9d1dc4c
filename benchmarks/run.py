"""Time the renderer beside a dense torch one, on an icosphere; all comparisons are within one run.

    python benchmarks/run.py            # a minute or two
    python benchmarks/run.py --arch vulkan

Prints medians with their spread (half the interquartile range) for the forward pass, forward and
backward, and a Hessian-vector product, beside a dense torch renderer of the same silhouette (all
pixels against all faces), and writes them to out/benchmarks.json.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor

import taichi_raster as tr
from taichi_raster.sharp import nearest_point, pixel_centres

SCALE, GAMMA, CUTOFF = 0.01, 0.01, 0.2


@dataclass(frozen=True)
class Options:
    """What to time.

    Args:
        arch: backend.
        repeats: timed calls of each kind, after one that compiles.
        out: JSON file of the results.
    """

    arch: Literal["auto", "cpu", "cuda", "vulkan"] = "cpu"
    repeats: int = 7
    out: Path = Path("out/benchmarks.json")


def main(options: Options) -> None:
    runtime = tr.init(options.arch)
    console = Console()
    console.print(f"{runtime.arch}, {torch.get_num_threads()} torch threads; milliseconds")
    matrix, values = torch.randn(1024, 1024), torch.randn(10**7)
    yardsticks = {
        "1024^2 matrix product": timed(lambda: matrix @ matrix, options.repeats),
        "tanh of 1e7 values": timed(lambda: torch.tanh(values), options.repeats),
    }
    for name, (median, half) in yardsticks.items():
        console.print(f"yardstick: {name} {median:.1f} ± {half:.1f}")
    columns = ("forward", "+ backward", "Hessian-vector", "dense torch + backward")
    table = Table("scene", *columns, "dense / ours")
    results = {}
    for subdivisions, size, batch in ((3, 64, 1), (3, 64, 8), (3, 256, 1), (4, 256, 1)):
        faces = icosphere_faces(subdivisions, batch)
        name = f"{faces.shape[1]:,} faces, {size}^2, batch {batch}"
        row = time_scene(faces, size, options.repeats)
        results[name] = row
        cells = [f"{row[c][0]:.0f} ± {row[c][1]:.0f}" if c in row else "" for c in columns]
        ratio = row["dense torch + backward"][0] / row["+ backward"][0] if len(row) == 4 else None
        table.add_row(name, *cells, f"{ratio:.0f}" if ratio else "")
    console.print(table)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"yardsticks": yardsticks, "scenes": results}, indent=1))


def icosphere_faces(subdivisions: int, batch: int) -> Tensor:
    """A sphere of radius 0.7 seen from 2.7 away, filling about 0.7 of the half-width."""
    mesh = tr.icosphere(subdivisions, 0.7)
    camera = tr.PerspectiveCamera(tr.orbit(2.7, 20.0, torch.arange(batch) * 15.0), fov=42.0)
    return tr.gather_faces(camera.project(mesh.vertices[None].float()), mesh.faces)


def time_scene(faces: Tensor, size: int, repeats: int) -> dict[str, tuple[float, float]]:
    """Median and spread of each kind of pass, in milliseconds."""
    faces = faces.to(tr.runtime().dtype).requires_grad_()
    colours = torch.rand(faces.shape, generator=torch.Generator().manual_seed(0)).to(faces)
    renderer = tr.SoftRasterizer(
        size,
        edge=tr.Distribution("logistic", scale=SCALE),
        depth=tr.SoftmaxDepth(gamma=GAMMA),
        near=1.0,
        far=5.0,
        cutoff=CUTOFF,
    )

    def gradient(create_graph: bool = False) -> Tensor:
        loss = renderer(faces, colours).square().sum()
        return torch.autograd.grad(loss, faces, create_graph=create_graph)[0]

    def hessian_vector() -> Tensor:
        return torch.autograd.grad(gradient(create_graph=True).square().sum(), faces)[0]

    def dense() -> Tensor:
        return torch.autograd.grad(dense_silhouette(faces, size).square().sum(), faces)[0]

    row = {
        "forward": timed(lambda: renderer(faces.detach(), colours), repeats),
        "+ backward": timed(gradient, repeats),
        "Hessian-vector": timed(hessian_vector, repeats),
    }
    if size <= 64 and len(faces) == 1:
        row["dense torch + backward"] = timed(dense, 3)
    return row


def dense_silhouette(faces: Tensor, size: int) -> Tensor:
    """Alpha alone, every pixel against every face."""
    points = pixel_centres(size, size).to(faces)[:, :, None]
    distance, _ = nearest_point(points, faces[0, None, None, :, :, :2])
    return -torch.expm1(-torch.nn.functional.softplus(distance / SCALE).sum(-1))


def timed(call: Callable[[], object], repeats: int) -> tuple[float, float]:
    """(median, half the interquartile range) in milliseconds, after one call that is not timed."""
    call()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - begin))
    low, median, high = statistics.quantiles(times, n=4)
    return median, (high - low) / 2


if __name__ == "__main__":
    main(tyro.cli(Options))
