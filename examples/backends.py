"""One source, every backend: the same render, gradient and Hessian-vector product on each.

    python examples/backends.py                   # all that this machine has; under a minute
    python examples/backends.py --arch vulkan     # one of them, beside the CPU in float64
    python -m taichi_raster                       # the short form: what works here?

Taichi compiles the same kernels for CPU, Vulkan and CUDA, in float32 or (not on Vulkan) float64.
Each backend runs in a process of its own, since one process can have only one. What is not there
is left out, with the reason. Into `out/backends/` go:

    table.md       differences to the CPU in float64, and times
    backends.png   picture, gradient and Hessian-vector product of each, and how the pictures differ
    *.npz          the numbers themselves
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import taichi_raster as tr

CONFIGURATIONS = [
    ("cpu", "f64"),
    ("cpu", "f32"),
    ("vulkan", "f32"),
    ("cuda", "f32"),
    ("cuda", "f64"),
]
REFERENCE = CONFIGURATIONS[0]
WHAT = ("picture", "gradient", "hvp")
CAPTION = (
    "Δ: difference to the CPU in float64, relative, in the Euclidean norm. Hv: the Hessian times a "
    "direction. First: until all three were there, with compilation. Later times are medians, each "
    "of all that it takes from the vertices on."
)


@dataclass(frozen=True)
class Options:
    """Compare backends on one scene; see the top of the file.

    Args:
        out: folder of the results.
        arch: cpu, vulkan or cuda, beside the reference; auto: all that are there.
        size: pixels on a side.
        subdivisions: of the mesh, a random body of 20 * 4**subdivisions faces.
        repeats: of each measurement; the median is shown.
        timeout: seconds that a backend may take.
        worker: (arch, precision): what the program starts itself with, once for each backend.
    """

    out: Path = Path("out/backends")
    arch: Literal["cpu", "vulkan", "cuda", "auto"] = "auto"
    size: int = 64
    subdivisions: int = 2
    repeats: int = 5
    timeout: float = 600.0
    worker: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        if self.size < 8:
            raise ValueError("--size: must be at least 8")
        if not 0 <= self.subdivisions <= 5:
            raise ValueError("--subdivisions: must be 0 to 5")
        if self.repeats < 1:
            raise ValueError("--repeats: must be at least 1")
        if not self.timeout > 0:
            raise ValueError("--timeout: must be positive")


def main(options: Options) -> None:
    if options.worker is not None:
        work(*options.worker, options)
        return
    console = Console()
    options.out.mkdir(parents=True, exist_ok=True)
    wanted = [c for c in CONFIGURATIONS if options.arch in ("auto", c[0]) or c == REFERENCE]
    results = {}
    for arch, precision in wanted:
        with console.status(f"{arch} {precision}"):
            outcome = started(arch, precision, options)
        if isinstance(outcome, str):
            console.print(f"{arch} {precision}: left out: {outcome}", highlight=False)
        else:
            results[arch, precision] = outcome
            console.print(f"{arch} {precision}: done")
    if REFERENCE not in results:
        raise RuntimeError("the CPU in float64 did not work: nothing to compare with")
    rows = table_rows(results)
    console.print(for_terminal(rows))
    (options.out / "table.md").write_text(for_markdown(rows))
    draw(options.out / "backends.png", results)
    console.print(f"wrote table.md and backends.png into {options.out}/")


# In a process of its own --------------------------------------------------------------------------


def work(arch: str, precision: str, options: Options) -> None:
    """Render and differentiate on one backend; write numbers and times."""
    begin = time.perf_counter()
    settings = tr.init(arch=arch, precision=precision)
    # A body, and what it is to become: a sphere, of the same vertices in other places.
    dtype, level = settings.dtype, options.subdivisions
    mesh = tr.normalise(tr.blob(seed=3, roughness=0.25, subdivisions=level, dtype=dtype))
    sphere = tr.icosphere(level, 0.75, dtype)
    camera = tr.PerspectiveCamera(tr.orbit(4.0, 25.0, 40.0).to(settings.dtype), fov=38.0)
    colours = tr.gather_faces(mesh.vertices[None] * 0.5 + 0.5, mesh.faces).clamp(0, 1)
    edge = tr.Distribution("logistic", scale=0.03)
    depth = tr.SoftmaxDepth(0.05, background_z=0.0)
    renderer = tr.SoftRasterizer(options.size, edge, depth, near=2.0, far=6.0)
    vertices = mesh.vertices.clone().requires_grad_()
    direction = sphere.vertices - mesh.vertices

    def picture(places: torch.Tensor = vertices) -> torch.Tensor:
        """Over white, by alpha: colours where alpha is next to nothing are not to count."""
        faces = tr.gather_faces(camera.project(places[None]), mesh.faces)
        colour, alpha = renderer(faces, colours)[0].split([3, 1], dim=-1)
        over_white: torch.Tensor = colour * alpha + 1 - alpha
        return over_white

    target = picture(sphere.vertices)

    def gradient(create_graph: bool = False) -> torch.Tensor:
        loss = (picture() - target).square().sum()
        return torch.autograd.grad(loss, vertices, create_graph=create_graph)[0]

    def hvp() -> torch.Tensor:
        """The derivative of (gradient . direction): twice through the renderer."""
        return torch.autograd.grad(gradient(create_graph=True), vertices, direction)[0]

    numbers = {"picture": picture(), "gradient": gradient(), "hvp": hvp()}
    times = {"first": time.perf_counter() - begin}
    for name, function in (("picture", picture), ("gradient", gradient), ("hvp", hvp)):
        times[name] = median_time(function, options.repeats)
    arrays: dict[str, Any] = {
        "places": camera.project(vertices.detach()[None])[0].double().cpu().numpy(),
        "axes": camera.view[0, :3, :3].double().cpu().numpy(),
        **{name: value.detach().double().cpu().numpy() for name, value in numbers.items()},
        **{f"seconds_{name}": seconds for name, seconds in times.items()},
    }
    np.savez(options.out / f"{arch}_{precision}.npz", **arrays)


def median_time(function: Callable[[], torch.Tensor], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function().sum().item()  # .item() waits for a GPU
        seconds.append(time.perf_counter() - begin)
    return float(np.median(seconds))


def started(arch: str, precision: str, options: Options) -> dict[str, np.ndarray] | str:
    """The numbers of one backend, or why there are none."""
    path = options.out / f"{arch}_{precision}.npz"
    path.unlink(missing_ok=True)
    command = [
        sys.executable,
        __file__,
        "--worker",
        arch,
        precision,
        "--out",
        str(options.out),
        "--size",
        str(options.size),
        "--subdivisions",
        str(options.subdivisions),
        "--repeats",
        str(options.repeats),
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=options.timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return f"did not end within {options.timeout:g} s"
    if done.returncode != 0 or not path.is_file():
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        return said[-1].removeprefix("backends: ") if said else f"ended with {done.returncode}"
    with np.load(path) as file:
        return dict(file)


# What came of it ----------------------------------------------------------------------------------


def table_rows(results: dict[tuple[str, str], dict[str, np.ndarray]]) -> list[list[str]]:
    """Headings, and a row for each backend."""
    rows = [["backend", "Δ image", "Δ grad", "Δ Hv", "first s", "image ms", "grad ms", "Hv ms"]]
    truth = results[REFERENCE]
    for (arch, precision), own in results.items():
        off = [np.linalg.norm(own[n] - truth[n]) / np.linalg.norm(truth[n]) for n in WHAT]
        rows.append(
            [
                f"{arch} {precision}",
                *(f"{value:.0e}" if value else "-" for value in off),
                f"{own['seconds_first']:.1f}",
                *(f"{1000 * own[f'seconds_{n}']:.1f}" for n in WHAT),
            ]
        )
    return rows


def for_terminal(rows: list[list[str]]) -> Table:
    table = Table(caption=CAPTION)
    for heading in rows[0]:
        table.add_column(heading, justify="left" if heading == "backend" else "right", no_wrap=True)
    for row in rows[1:]:
        table.add_row(*row)
    return table


def for_markdown(rows: list[list[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + f"\n{CAPTION}\n"


def draw(path: Path, results: dict[tuple[str, str], dict[str, np.ndarray]]) -> None:
    """A row for each backend."""
    titles = ("picture", "minus gradient", "Hessian times v", "difference of pictures\nto cpu f64")
    figure = Figure(figsize=(10.5, 2.5 * len(results) + 0.4), layout="constrained")
    axes = figure.subplots(len(results), 4, squeeze=False)
    truth = results[REFERENCE]
    for row, (name, own) in zip(axes, results.items(), strict=True):
        pixels = own["picture"].clip(0, 1)
        row[0].imshow(pixels, extent=(-1, 1, -1, 1))
        row[0].set_ylabel(" ".join(name))
        x, y, z = own["places"].T
        near = z < np.median(z)  # of the vertices, those on this side
        for axis, values in ((row[1], -own["gradient"]), (row[2], own["hvp"])):
            right, up, _ = own["axes"] @ values.T  # from the world's axes to the camera's
            axis.imshow(pixels, extent=(-1, 1, -1, 1), alpha=0.25)
            length = np.hypot(right, up)
            unit = np.percentile(length[near], 90) / 0.3  # long ones are cut
            factor = np.minimum(1, 0.5 * unit / length.clip(1e-12)) / unit
            right, up = right * factor, up * factor
            axis.quiver(
                x[near],
                y[near],
                right[near],
                up[near],
                width=0.007,
                angles="xy",
                scale_units="xy",
                scale=1,
            )
            axis.set(xlim=(-1, 1), ylim=(-1, 1))
        difference = np.abs(own["picture"] - truth["picture"]).max(axis=-1)
        shown = row[3].imshow(difference.clip(1e-9), norm=LogNorm(1e-9, 1e-4), cmap="magma")
        figure.colorbar(shown, ax=row[3])
        for axis in row:
            axis.set(xticks=[], yticks=[])
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except (ValueError, OSError, RuntimeError) as error:
        raise SystemExit(f"backends: {error}") from error
