"""Draws the figures of the README and of the documentation's concepts, into docs/figures/.

    python docs/figures.py        # under a minute
    python docs/figures.py --only softness

start: what descent sees at its start, and where it ends, under three fixed softnesses. softness:
an edge softness, as a curve and as pictures. decisions: depth and T-conorm softly decided. fringes:
a soft edge in front of another face, by four depth softnesses. loops: how inner and outer loop fit
together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch import Tensor

import taichi_raster as tr
from meta.inner.method import Method
from meta.inner.unroll import unroll
from meta.inner.updates import Adam
from tasks import Shape2D, Shape2DBatch

DPI = 110
SMALL, TEXT = 8, 9  # font sizes


@dataclass(frozen=True)
class Options:
    """Draw the figures; see the top of the file.

    Args:
        out: folder to draw into.
        only: one figure alone.
        seed: of the tasks that `start` takes its task from.
        index: which of them.
        steps: of descent in `start`.
        size: side of the pictures in pixels.
        arch: backend: cpu, cuda, vulkan or auto.
    """

    out: Path = Path("docs/figures")
    only: Literal["start", "softness", "decisions", "fringes", "loops"] | None = None
    seed: int = 0
    index: int = 1
    steps: int = 80
    size: int = 64
    arch: Literal["cpu", "cuda", "vulkan", "auto"] = "cpu"


def main(options: Options) -> None:
    torch.set_num_threads(1)
    tr.init(arch=options.arch)
    figures: dict[str, Callable[[Options], Figure]] = {
        "start": start,
        "softness": softness,
        "decisions": decisions,
        "fringes": fringes,
        "loops": loops,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    for name, draw in figures.items():
        if options.only in (None, name):
            path = options.out / f"{name}.png"
            draw(options).savefig(path, dpi=DPI)
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


# What a softness is worth -------------------------------------------------------------------------

LARGE, TINY = 0.12, 0.002
TRIANGLES, NEAR_BACKGROUND = 2, 0.4
SCALES = {
    f"scale {TINY:g}: too sharp": (TINY, TINY),
    f"scale {LARGE:g}: too soft": (LARGE, LARGE),
    f"scale {LARGE:g} to {TINY:g}, annealed": (LARGE, TINY),
}


def start(options: Options) -> Figure:
    """One task of two triangles, solved under three softnesses at once, one a batch item."""
    family = Shape2D(triangles=TRIANGLES, image_size=options.size, seed=options.seed)
    task = family.sample(options.index + 1, "tune", 0).select([options.index]).repeat(len(SCALES))
    first, last = (torch.tensor(scales) for scales in zip(*SCALES.values(), strict=True))
    edge = tr.Distribution("logistic", scale=tr.Geometric(first, last))
    depth = tr.SoftmaxDepth(1.0, background_z=NEAR_BACKGROUND)
    method = Method(family.renderer(edge, depth), Adam(), tr.Geometric(0.06, 0.006), options.steps)
    run = unroll(method, task)
    with torch.no_grad():
        seen = task.soft_image(task.start(), method.renderer, 0.0)
        ends, errors = poster(task, run.params), task.true_error(run.params)
        begin, target = (poster(task, params)[0] for params in (task.start(), task.hidden))
    figure = Figure(figsize=(11, 4.9), layout="constrained")
    axes = figure.subplots(2, 5, width_ratios=[1, 1, 1, 1, 1.25])
    picture(axes[0, 0], target, "target")
    picture(axes[1, 0], begin, "start")
    for column, (name, (scale, _)) in enumerate(SCALES.items(), start=1):
        picture(axes[0, column], seen[column - 1], name)
        picture(axes[1, column], ends[column - 1], f"error {float(errors[column - 1]):.3f}")
        if column < 3:
            curve(axes[0, 4], "logistic", scale, f"C{column - 1}", f"{scale:g}")
    axes[0, 1].set_ylabel("the start, as descent\nsees it first", fontsize=TEXT)
    axes[1, 1].set_ylabel(f"where {options.steps} steps\nof Adam end", fontsize=TEXT)
    axes[0, 4].legend(title="scale", fontsize=SMALL, title_fontsize=SMALL)
    axes[0, 4].set_title("how soft an edge is", fontsize=TEXT)
    for column, name in enumerate(SCALES):
        axes[1, 4].semilogy(run.losses[:, column], color=f"C{column}", label=name.split(":")[0])
    axes[1, 4].set_title("image error, softly rendered", fontsize=TEXT)
    axes[1, 4].set_xlabel("step", fontsize=SMALL)
    axes[1, 4].tick_params(which="both", labelsize=SMALL - 1)
    axes[1, 4].margins(y=0.5)  # room for the legend
    axes[1, 4].legend(fontsize=SMALL - 1, loc="upper right")
    return figure


def poster(task: Shape2DBatch, params: Tensor, size: int = 160) -> Tensor:
    """Sharp pictures (B, H, W, 4), larger than the task's."""
    colours = task.colours[:, :, None, :].expand(-1, -1, 3, -1)
    sharp = tr.SharpRasterizer(size, near=task.family.near, far=task.family.far)
    return sharp(tr.lift_triangles(params, task.depth), colours)


# What is softened ---------------------------------------------------------------------------------


def softness(options: Options) -> Figure:
    """F over the distance, and a triangle under it at three scales; last, the sharp reference."""
    corners = torch.tensor([[[[-0.6, -0.5], [0.65, -0.35], [-0.1, 0.65]]]])
    triangle = tr.lift_triangles(corners, torch.ones(1))
    figure = Figure(figsize=(11, 2.7), layout="constrained")
    axes = figure.subplots(1, 5, width_ratios=[1.5, 1, 1, 1, 1])
    for number, name in enumerate(("logistic", "uniform", "cauchy", "exponential_rev")):
        curve(axes[0], name, 0.1, f"C{number}", name.replace("_", " "))
    axes[0].set_title("F at scale 0.1", fontsize=TEXT)
    axes[0].legend(fontsize=SMALL)
    for axis, scale in zip(axes[1:], (0.2, 0.05, 0.01), strict=False):
        renderer = tr.SoftRasterizer(options.size, tr.Distribution("logistic", scale))
        grey(axis, renderer.silhouette(triangle)[0], f"logistic, scale {scale:g}")
    sharp = tr.SharpRasterizer(options.size)(triangle, None)[0, ..., 0]
    grey(axes[4], sharp, "the sharp reference")
    return figure


def decisions(options: Options) -> Figure:
    """Two crossing triangles at three temperatures; two with a common edge, three T-conorms."""
    xyz = torch.tensor(
        [
            [[-0.8, -0.5, 1.4], [0.8, -0.5, 2.6], [0.0, 0.85, 2.0]],  # in front on the left
            [[-0.8, 0.45, 2.6], [0.0, -0.9, 2.0], [0.8, 0.45, 1.4]],  # in front on the right
        ]
    )[None]
    colours = torch.tensor([[0.95, 0.6, 0.1], [0.15, 0.45, 0.85]])[None, :, None].expand(
        -1, -1, 3, -1
    )
    square = torch.tensor(
        [[[-0.6, -0.6], [0.6, -0.6], [0.6, 0.6]], [[-0.6, -0.6], [0.6, 0.6], [-0.6, 0.6]]]
    )[None]
    flat = tr.lift_triangles(square, torch.ones(2))
    narrow, edge = tr.Distribution("uniform", 0.06), tr.Distribution("logistic", 0.05)
    figure = Figure(figsize=(11, 2.1), layout="constrained")
    axes = figure.subplots(1, 6)
    for axis, gamma in zip(axes[:3], (1.0, 0.1, 0.01), strict=True):
        options_of = dict(near=1.0, far=3.0, background=(1.0, 1.0, 1.0))
        renderer = tr.SoftRasterizer(
            options.size, narrow, tr.SoftmaxDepth(gamma, background_z=0.0), **options_of
        )
        picture(axis, renderer(xyz, colours)[0], f"softmax, gamma {gamma:g}")
    conorms = {"max": None, "probabilistic": None, "yager": 1.0}
    for axis, (name, p) in zip(axes[3:], conorms.items(), strict=True):
        renderer = tr.SoftRasterizer(options.size, edge, alpha=tr.TConorm(name, p))
        title = name if p is None else f"{name}, p = {p:g}"
        grey(axis, renderer.silhouette(flat)[0], f"two faces, {title}")
    return figure


def fringes(options: Options) -> Figure:
    """A near triangle over a far one, both soft, beside the sharp picture."""
    xy = torch.tensor(
        [[[-0.35, -0.3], [0.45, -0.25], [0.0, 0.45]], [[-0.95, -0.85], [0.95, -0.85], [0.0, 0.95]]]
    )[None]
    faces = tr.lift_triangles(xy, torch.tensor([[1.3, 2.3]]))
    colours = torch.tensor([[0.95, 0.6, 0.1], [0.15, 0.45, 0.85]])[None, :, None].expand(
        -1, -1, 3, -1
    )
    options_of = dict(near=1.0, far=3.0, background=(1.0, 1.0, 1.0))
    figure = Figure(figsize=(11, 2.4), layout="constrained")
    axes = figure.subplots(1, 5)
    sharp = tr.SharpRasterizer(options.size, **options_of)
    picture(axes[0], sharp(faces, colours)[0], "sharp")
    depths = {
        "softmax, gamma 0.02": tr.SoftmaxDepth(0.02, background_z=0.0),
        "softmax, gamma 0.5": tr.SoftmaxDepth(0.5, background_z=0.0),
        "over, gamma 0.2": tr.OverDepth(0.2),
        "over": tr.OverDepth(),
    }
    edge = tr.Distribution("logistic", 0.04)
    for axis, (title, depth) in zip(axes[1:], depths.items(), strict=True):
        renderer = tr.SoftRasterizer(options.size, edge, depth, **options_of)
        picture(axis, renderer(faces, colours)[0], title)
    return figure


# How it is learned --------------------------------------------------------------------------------


def loops(_: Options) -> Figure:
    """The inner loop in a box, the outer loop around it."""
    figure = Figure(figsize=(11, 3.3), layout="constrained")
    axis = figure.subplots()
    axis.set(xlim=(0.1, 10.4), ylim=(0, 3.3))
    axis.axis("off")
    frame = dict(boxstyle="round,pad=0.06", linewidth=1.2)
    axis.add_patch(
        FancyBboxPatch((2.55, 0.25), 5.4, 2.1, facecolor="#eef4fb", edgecolor="C0", **frame)
    )
    axis.text(
        5.25, 2.12, "inner loop: T steps, step t at progress u = t / T", ha="center", fontsize=TEXT
    )
    boxes = {
        (0.2, 0.8): "task\n\ntarget, start,\nhidden solution",
        (2.8, 0.8): "unknowns\nx",
        (4.5, 0.8): "soft render\nand its loss\nat u",
        (6.2, 0.8): "gradient in x,\nstep at lr(u)",
        (8.4, 0.8): "outer loss:\nx against the\nhidden solution,\nor sharp renders",
    }
    for (x, y), text in boxes.items():
        width = 1.45 if 2 < x < 8 else 1.8
        axis.add_patch(
            FancyBboxPatch((x, y), width, 0.95, facecolor="white", edgecolor="0.3", **frame)
        )
        axis.text(x + width / 2, y + 0.47, text, ha="center", va="center", fontsize=SMALL)
    for begin, end in ((2.05, 2.72), (4.32, 4.42), (6.02, 6.12), (7.72, 8.32)):
        arrow(axis, (begin, 1.27), (end, 1.27))
    arrow(axis, (6.9, 0.72), (3.5, 0.72), "C0", "arc3,rad=-0.12")
    axis.text(5.2, 0.37, "T times", ha="center", fontsize=SMALL, color="C0")
    arrow(axis, (9.3, 1.85), (5.3, 2.5), "C3", "arc3,rad=0.35")
    axis.text(
        7.4,
        3.0,
        "outer loop: improves the softness, its schedules and lr, over many tasks",
        ha="center",
        fontsize=TEXT,
        color="C3",
    )
    return figure


# Small parts --------------------------------------------------------------------------------------


def curve(axis: Axes, name: str, scale: float, colour: str, label: str) -> None:
    """F over the signed distance."""
    d = torch.linspace(-0.6, 0.6, 601, dtype=torch.float64)
    axis.plot(d, tr.Distribution(name, scale).value(d), color=colour, label=label)
    axis.axvline(0, color="0.85", linewidth=0.8, zorder=0)
    axis.set_xlabel("signed distance to the edge (NDC)", fontsize=SMALL)
    axis.tick_params(labelsize=SMALL)


def picture(axis: Axes, image: Tensor, title: str) -> None:
    """An image (H, W, 3 or more), values in [0, 1]."""
    axis.imshow(image[..., :3].detach().clamp(0, 1), interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, fontsize=TEXT)


def grey(axis: Axes, alpha: Tensor, title: str) -> None:
    """An image (H, W)."""
    axis.imshow(alpha.detach(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, fontsize=TEXT)


def arrow(
    axis: Axes,
    begin: tuple[float, float],
    end: tuple[float, float],
    colour: str = "0.3",
    style: str = "arc3",
) -> None:
    """From one place to another."""
    axis.add_patch(
        FancyArrowPatch(
            begin, end, arrowstyle="-|>", mutation_scale=12, color=colour, connectionstyle=style
        )
    )


if __name__ == "__main__":
    main(tyro.cli(Options))
