"""Time the renderer beside a dense torch one, on an icosphere; all comparisons are within one run.

    python benchmarks/run.py            # two or three minutes
    python benchmarks/run.py --full     # larger scenes as well
    python benchmarks/run.py --arch vulkan

Prints medians with their spread (half the interquartile range) for the forward pass, forward and
backward, and a Hessian-vector product, beside a dense torch renderer of the same silhouette (all
pixels against all faces); what learned softnesses cost beside a fixed one; and how long the first
image takes. Writes all of it to out/benchmarks.json.

A pair is a pixel and a face that lie within the softness's reach of each other.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
        full: larger scenes as well.
        out: JSON file of the results.
    """

    arch: Literal["auto", "cpu", "cuda", "vulkan"] = "cpu"
    repeats: int = 7
    full: bool = False
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
    results = {
        "yardsticks": yardsticks,
        "scenes": time_scenes(options, console),
        "softnesses": compare_softnesses(options, console),
        "first image": time_first_image(options, console),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1))


SCENES = ((3, 64, 1), (3, 64, 8), (3, 256, 1), (4, 256, 1), (5, 256, 1))
LARGE = ((3, 512, 1), (3, 1024, 1), (6, 256, 1))


def time_scenes(options: Options, console: Console) -> dict[str, dict]:
    columns = ("forward", "+ backward", "Hessian-vector", "dense torch + backward")
    table = Table("scene", *columns, "dense / ours", "HVP / (f + b)", "ns a pair, f + b")
    results = {}
    for subdivisions, size, batch in SCENES + LARGE * options.full:
        faces = icosphere_faces(subdivisions, batch)
        name = f"{faces.shape[1]:,} faces, {size}^2, batch {batch}"
        row: dict[str, Any] = time_scene(faces, size, options.repeats)
        cells = [f"{row[c][0]:.1f} ± {row[c][1]:.1f}" if c in row else "" for c in columns]
        both = row["+ backward"][0]
        dense = f"{row[columns[3]][0] / both:.0f}" if columns[3] in row else ""
        row["pairs"] = pairs(faces, size)
        row["ns a pair"] = both * 1e6 / row["pairs"]
        second = f"{row['Hessian-vector'][0] / both:.1f}"
        table.add_row(name, *cells, dense, second, f"{row['ns a pair']:.0f}")
        results[name] = row
    console.print(table)
    return results


def compare_softnesses(options: Options, console: Console) -> dict[str, list[float]]:
    """Forward and backward at equal support, in turn, so that all see the same machine."""
    faces = icosphere_faces(3, 1).to(tr.runtime().dtype).requires_grad_()
    colours = torch.rand(faces.shape).to(faces)

    def network(learns: bool, tabulated: bool) -> tr.EdgeSoftness:
        edge = tr.MLPSoftness(scale=SCALE).requires_grad_(learns)  # starts as the logistic
        return tr.tabulate(edge) if tabulated else edge

    edges = {
        "logistic": tr.Distribution("logistic", SCALE),
        "table of a network": network(False, True),
        "table, network learns": network(True, True),
        "network in the kernel": network(False, False),
        "network in the kernel, learns": network(True, False),
    }
    renderers = {name: make_renderer(256, edge) for name, edge in edges.items()}
    times: dict[str, list[float]] = {name: [] for name in edges}
    for turn in range(options.repeats + 1):
        for name, renderer in renderers.items():
            begin = time.perf_counter()
            renderer(faces, colours).square().sum().backward()
            if turn > 0:
                times[name].append(1e3 * (time.perf_counter() - begin))
    base = statistics.median(times["logistic"])
    table = Table("softness, 1,280 faces, 256^2", "forward + backward", "/ logistic")
    for name, values in times.items():
        median = statistics.median(values)
        table.add_row(name, f"{median:.1f}", f"{median / base:.2f}")
    console.print(table)
    return times


FIRST_IMAGE = """
import sys, time, torch
begin = time.perf_counter()
import taichi_raster as tr
tr.init({arch!r})
faces = torch.tensor([[[[-0.5, -0.5, 2], [0.5, -0.5, 2], [0, 0.5, 2]]]], dtype=tr.runtime().dtype)
renderer = tr.SoftRasterizer(64, tr.Distribution("logistic", 0.01), tr.SoftmaxDepth(0.01))
renderer(faces, torch.ones_like(faces))
print(time.perf_counter() - begin)
renderer(faces.requires_grad_(), torch.ones_like(faces)).sum().backward()
print(time.perf_counter() - begin)
"""


def time_first_image(options: Options, console: Console) -> dict[str, list[float]]:
    """Seconds to the first image and gradient in a new process, torch's import apart."""
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "TI_OFFLINE_CACHE_FILE_PATH": folder}
        for name in ("empty cache", "warm cache"):
            code = FIRST_IMAGE.format(arch=options.arch)
            command = [sys.executable, "-c", code]
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=True
            )
            results[name] = [float(line) for line in done.stdout.split()[-2:]]
            image, gradient = results[name]
            console.print(f"first image, {name}: {image:.1f} s; first gradient: {gradient:.1f} s")
    return results


def pairs(faces: Tensor, size: int) -> float:
    """How many pixels and faces lie within reach: triangles' areas, widened by the reach."""
    corners = faces[..., :2].double()
    sides = corners.roll(-1, dims=-2) - corners
    area = (sides[..., 0, 0] * sides[..., 1, 1] - sides[..., 0, 1] * sides[..., 1, 0]).abs() / 2
    reach = min(SCALE * math.log(1e6), CUTOFF)
    widened = area + sides.norm(dim=-1).sum(-1) * reach + math.pi * reach**2
    return float(widened.sum()) * (size / 2) ** 2


def make_renderer(size: int, edge: tr.EdgeSoftness) -> tr.SoftRasterizer:
    depth = tr.SoftmaxDepth(gamma=GAMMA)
    return tr.SoftRasterizer(size, edge, depth, near=1.0, far=5.0, cutoff=CUTOFF)


def icosphere_faces(subdivisions: int, batch: int) -> Tensor:
    """A sphere of radius 0.7 seen from 2.7 away, filling about 0.7 of the half-width."""
    mesh = tr.icosphere(subdivisions, 0.7)
    camera = tr.PerspectiveCamera(tr.orbit(2.7, 20.0, torch.arange(batch) * 15.0), fov=42.0)
    return tr.gather_faces(camera.project(mesh.vertices[None].float()), mesh.faces)


def time_scene(faces: Tensor, size: int, repeats: int) -> dict[str, tuple[float, float]]:
    """Median and spread of each kind of pass, in milliseconds."""
    faces = faces.to(tr.runtime().dtype).requires_grad_()
    colours = torch.rand(faces.shape, generator=torch.Generator().manual_seed(0)).to(faces)
    renderer = make_renderer(size, tr.Distribution("logistic", scale=SCALE))

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
