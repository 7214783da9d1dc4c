"""Time the renderer, draw plots of what cost depends on, and save all of it as JSON.

    python benchmarks/run.py            # a few minutes
    python benchmarks/run.py --full     # larger scenes and longer unrolls: a quarter of an hour
    python benchmarks/run.py --arch vulkan

Each figure is a median with its quartiles; what is compared is timed in turn, within one run. The
baseline is a dense torch renderer of the silhouette alone, every pixel against every face. A pair
is a pixel and a face that lie within the softness's reach of each other. Ours is timed with one
thread for torch's own operations (see `scenes.torch_threads`).
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import sharp_end
import torch
import tyro
from plots import draw
from rich.console import Console
from rich.table import Table

import taichi_raster as tr
from scenes import (
    GAMMA,
    SCALE,
    Passes,
    Timing,
    dense_torch,
    icosphere_faces,
    make_renderer,
    pairs,
    passes,
    timed,
    torch_threads,
    yardsticks,
)


@dataclass(frozen=True)
class Options:
    """What to time.

    Args:
        arch: backend.
        repeats: timed calls of each kind, after one that compiles.
        full: larger scenes and longer unrolls as well.
        out: folder for benchmarks.json and the plots.
    """

    arch: Literal["auto", "cpu", "cuda", "vulkan"] = "cpu"
    repeats: int = 9
    full: bool = False
    out: Path = Path("out/benchmarks")


@dataclass(frozen=True)
class Scene:
    """An icosphere of 20 * 4**subdivisions faces in `batch` square images of `size` pixels."""

    subdivisions: int
    size: int
    batch: int = 1
    cutoff: float = 0.2

    @property
    def faces(self) -> int:
        return 20 * 4**self.subdivisions

    def __str__(self) -> str:
        return f"{self.faces:,} faces, {self.size}^2, batch {self.batch}"


SCENES = [Scene(3, 64), Scene(3, 64, 8), Scene(3, 256), Scene(4, 256), Scene(5, 256)]
SWEEPS = {
    "faces": [Scene(n, 256) for n in (2, 3, 4, 5)],
    "pixels": [Scene(3, size) for size in (64, 128, 256, 512)],
    "batch": [Scene(3, 64, batch) for batch in (1, 4, 16)],
    "reach": [Scene(3, 256, cutoff=reach) for reach in (0.01, 0.03, 0.06, 0.1, 0.138)],
}
LARGER = {"faces": Scene(6, 256), "pixels": Scene(3, 1024), "batch": Scene(3, 64, 64)}


def main(options: Options) -> None:
    runtime = tr.init(options.arch)
    console = Console(width=120)
    results: dict[str, Any] = {
        "machine": f"{runtime.arch}, {os.cpu_count()} cores, {platform.machine()}",
        "yardsticks before": yardsticks(options.repeats),
        "dense torch": time_dense(),
        "torch threads": compare_threads(options, console),
    }
    with torch_threads(1):
        results |= {
            "scenes": time_scenes(options, console, results["dense torch"]),
            "sweeps": time_sweeps(options, console),
            "softnesses": compare_softnesses(options, console),
            "depths": compare_depths(options, console),
        }
    if options.arch == "cpu":
        table, results["sharp end"] = sharp_end.table_of(sharp_end.Options())
        console.print("[bold]A step at the sharp end, beside other renderers, ms[/bold]")
        console.print(table)
    results |= {
        "alone": measure_alone(options, console),
        "yardsticks after": yardsticks(options.repeats),
    }
    for when in ("before", "after"):
        for name, timing in results[f"yardsticks {when}"].items():
            console.print(f"yardstick, {when}: {name}: {show(timing)} ms")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "benchmarks.json").write_text(json.dumps(results, indent=1))
    draw(results, options.out)
    console.print(f"benchmarks.json and plots: {options.out}")


def time_together(scenes: list[Scene], repeats: int) -> list[dict[str, Any]]:
    """All passes of all scenes, in turn."""
    calls = {}
    for scene in scenes:
        faces = icosphere_faces(scene.subdivisions, scene.batch)
        for name, call in passes(faces, scene.size, scene.cutoff).items():
            calls[scene, name] = call
    times = timed(calls, repeats)
    results = []
    for scene in scenes:
        row: dict[str, Any] = {name: t for (of, name), t in times.items() if of == scene}
        both = row["forward + backward"][1]
        faces = icosphere_faces(scene.subdivisions, scene.batch)
        row["pairs"] = pairs(faces, scene.size, scene.cutoff)
        row["ns a pair"] = both * 1e6 / row["pairs"]
        row["HVP ratio"] = row["Hessian-vector"][1] / both
        results.append(row)
    return results


def time_dense() -> Timing:
    """The dense torch renderer on the first scene, with all of torch's threads."""
    dense: Passes = {"": dense_torch(icosphere_faces(3, 1), 64)}
    return timed(dense, 3)[""]


def compare_threads(options: Options, console: Console) -> dict[str, dict[str, Timing]]:
    """Forward and backward, where torch's own operations take all threads, or one: one after the
    other, as threads that still spin would disturb the other's time.
    """
    table = Table("scene", "all torch threads", "one", "ratio")
    results: dict[str, dict[str, Timing]] = {}
    for scene in SCENES[:3]:
        faces = icosphere_faces(scene.subdivisions, scene.batch)
        call = {"": passes(faces, scene.size, scene.cutoff)["forward + backward"]}
        found = {"all": timed(call, 2 * options.repeats)[""]}
        with torch_threads(1):
            found["one"] = timed(call, 2 * options.repeats)[""]
        results[str(scene)] = found
        ratio = found["all"][1] / found["one"][1]
        table.add_row(str(scene), *map(show, found.values()), f"{ratio:.2f}")
    console.print(table)
    return results


def time_scenes(options: Options, console: Console, dense: Timing) -> dict[str, Any]:
    table = Table("scene", "forward", "fwd + bwd", "Hessian-vector", "HVP ratio", "ns / pair")
    results = {}
    for scene, row in zip(SCENES, time_together(SCENES, options.repeats), strict=True):
        results[str(scene)] = row
        times = [row[name] for name in ("forward", "forward + backward", "Hessian-vector")]
        table.add_row(
            str(scene), *map(show, times), f"{row['HVP ratio']:.1f}", f"{row['ns a pair']:.0f}"
        )
    console.print(table)
    ratio = dense[1] / results[str(SCENES[0])]["forward + backward"][1]
    console.print(f"dense torch, silhouette, {SCENES[0]}: {show(dense)}: {ratio:.0f} x ours")
    return results


def time_sweeps(options: Options, console: Console) -> dict[str, Any]:
    table = Table("what varies", "scene", "reach", "fwd + bwd", "million pairs", "ns / pair")
    results: dict[str, Any] = {}
    for name, scenes in SWEEPS.items():
        if options.full and name in LARGER:
            scenes = [*scenes, LARGER[name]]
        results[name] = []
        for scene, timing in zip(scenes, time_together(scenes, options.repeats), strict=True):
            reach = min(scene.cutoff, 0.138)
            row = {**vars(scene), "faces": scene.faces, "reach": reach, **timing}
            results[name].append(row)
            both = show(row["forward + backward"])
            cost = f"{row['pairs'] / 1e6:.2f}", f"{row['ns a pair']:.0f}"
            table.add_row(name, str(scene), f"{reach:.3f}", both, *cost)
    console.print(table)
    return results


def compare_softnesses(options: Options, console: Console) -> dict[str, Timing]:
    """Forward and backward of 1,280 faces at 256^2, all with the logistic's reach."""
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
    calls: Passes = {
        name: lambda r=r: r(faces, colours).square().sum().backward()  # type: ignore[misc]
        for name, r in renderers.items()
    }
    times = timed(calls, 2 * options.repeats)
    table = Table("softness", "forward + backward", "/ logistic")
    for name, timing in times.items():
        table.add_row(name, show(timing), f"{timing[1] / times['logistic'][1]:.2f}")
    console.print(table)
    return times


def compare_depths(options: Options, console: Console) -> dict[str, Timing]:
    """Forward and backward of 320 faces at 64^2; `OverDepth` lists fragments and composes them."""
    faces = icosphere_faces(2, 1).to(tr.runtime().dtype).requires_grad_()
    colours = torch.rand(faces.shape).to(faces)
    depths = {
        "softmax": tr.SoftmaxDepth(GAMMA),
        "over": tr.OverDepth(),
        "over, gamma 0.01": tr.OverDepth(GAMMA),
    }
    renderers = {
        f"{name}, scale {scale:.2g}": make_renderer(64, tr.Distribution("logistic", scale), depth=d)
        for scale in (SCALE, SCALE / 3)
        for name, d in depths.items()
    }
    calls: Passes = {
        name: lambda r=r: r(faces, colours).square().sum().backward()  # type: ignore[misc]
        for name, r in renderers.items()
    }
    times = timed(calls, options.repeats)
    table = Table("depth", "forward + backward", "/ softmax")
    for name, timing in times.items():
        softmax = times[f"softmax, {name.split(', ')[-1]}"]
        table.add_row(name, show(timing), f"{timing[1] / softmax[1]:.1f}")
    console.print(table)
    return times


def measure_alone(options: Options, console: Console) -> dict[str, Any]:
    """What needs a process of its own (see alone.py)."""
    results: dict[str, Any] = {}
    names = ["first-image", "first-image again", "deterministic", "unroll-50"]
    with tempfile.TemporaryDirectory() as cache:
        for name in names + ["unroll-500", "large"] * options.full:
            results[name] = in_process(name.split()[0], options.arch, cache)
            cells = [
                f"{key} {show(value) if isinstance(value, list) else value}"
                if not isinstance(value, float)
                else f"{key} {value:.2f}"
                for key, value in results[name].items()
            ]
            console.print(f"[bold]{name}[/bold]: {'; '.join(cells)}", highlight=False)
    return results


def in_process(name: str, arch: str, cache: str) -> dict[str, Any]:
    """A measurement of alone.py, with Taichi's compiled kernels kept in `cache`."""
    folder = Path(__file__).parent
    path = os.pathsep.join([str(folder.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(folder / "alone.py"), name, arch],
        env={**os.environ, "TI_OFFLINE_CACHE_FILE_PATH": cache, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def show(timing: Timing | list[float]) -> str:
    low, median, high = timing
    return f"{median:.1f} [{low:.1f}, {high:.1f}]"


if __name__ == "__main__":
    main(tyro.cli(Options))
