"""Untangle an occlusion: from one picture, which shape lies in front of which?

    python examples/untangle_occlusion.py                   # a quarter of a minute
    python examples/untangle_occlusion.py --gamma 0.01      # a depth that is hardly soft
    python examples/untangle_occlusion.py --shapes 8 --arch vulkan

Coloured shapes overlap. All that is unknown is how deep each of them lies; the start is random. A
sharp picture does not change until two depths change places, so its gradient is exactly zero. With
a soft depth, what lies behind shines through a little, the more the nearer it is: now the picture
tells every shape whether it should come forward, and the order untangles itself. Into
`out/untangle_occlusion/` go:

    untangled.png   six problems: target, before and after; and the order on the way
    untangling.gif  four of them while they are solved, softly and sharply
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from matplotlib.figure import Figure
from rich.console import Console
from torch import Tensor

import taichi_raster as tr
from meta.study.figures import solving_gif
from tasks.occlusion import FAR, NEAR, Occlusion, OcclusionBatch

FRAMES = 40  # moments at which the depths are kept, for the film and the curves
POSTER = 96  # pixels on a side of each of its pictures


@dataclass(frozen=True)
class Options:
    """Find the depth order of overlapping shapes; see the top of the file.

    Args:
        out: folder of the pictures.
        arch: backend: cpu, vulkan, cuda, or auto.
        problems: solved side by side.
        shapes: in a picture.
        steps: of Adam.
        gamma: softness of depth, as a share of the depth range: a constant, or the first and the
            last.
        scale: softness of the edges, in NDC.
        learning_rate: of Adam.
        size: pixels on a side.
        seed: of the problems.
    """

    out: Path = Path("out/untangle_occlusion")
    arch: Literal["cpu", "vulkan", "cuda", "auto"] = "cpu"
    problems: int = 64
    shapes: int = 5
    steps: int = 100
    gamma: tuple[float, ...] = (0.3, 0.1)
    scale: float = 0.02
    learning_rate: float = 0.1
    size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("problems", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name}: must be at least 1")
        if not 2 <= self.shapes <= 12:
            raise ValueError("--shapes: must be 2 to 12")
        if self.size < 16:
            raise ValueError("--size: must be at least 16")
        if len(self.gamma) not in (1, 2) or not all(0 < g < math.inf for g in self.gamma):
            raise ValueError("--gamma: must be one or two positive numbers")
        for name in ("scale", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"--{name.replace('_', '-')}: must be positive")


def main(options: Options) -> None:
    tr.init(arch=options.arch)
    console = Console()
    family = Occlusion(options.shapes, image_size=options.size, seed=options.seed)
    task = family.sample(options.problems, "test", 0)

    # Softmax depth: a shape at depth share z counts exp((1 - z) / gamma), the nearest most.
    depth = tr.SoftmaxDepth(tr.Geometric(options.gamma[0], options.gamma[-1]))
    renderer = family.renderer(tr.Distribution("gaussian", scale=options.scale), depth)
    path = untangle(task, renderer, options, console)

    accuracy = torch.stack([order_accuracy(task, depths) for depths in path.values()])
    for name, i in (("before", 0), ("after", -1)):
        solved = int((accuracy[i] == 1).sum())
        console.print(
            f"{name:6s}  pairs in the right order {accuracy[i].mean():.1%}, "
            f"whole pictures {solved} of {options.problems}"
        )
    options.out.mkdir(parents=True, exist_ok=True)
    with console.status("drawing"):
        draw_problems(options.out / "untangled.png", task, path, accuracy)
        draw_film(options.out / "untangling.gif", task, renderer, path)
    console.print(f"wrote untangled.png and untangling.gif into {options.out}/")


def order_accuracy(task: OcclusionBatch, depths: Tensor) -> Tensor:
    """Of each problem, the share of visibly overlapping pairs that are in the right order."""
    in_front = depths[:, :, None] < depths[:, None, :]
    return (in_front & task.shown).sum(dim=(1, 2)) / task.shown.sum(dim=(1, 2))


def untangle(
    task: OcclusionBatch, renderer: tr.SoftRasterizer, options: Options, console: Console
) -> dict[int, Tensor]:
    """Plain gradient descent on the depths of all problems; returns some iterates, by step."""
    depths = task.start().clone().requires_grad_()
    adam = torch.optim.Adam([depths], lr=options.learning_rate)
    wanted = {round(i * options.steps / FRAMES) for i in range(FRAMES + 1)}
    path = {0: depths.detach().clone()}
    for step in (descent := tr.Descent(adam, options.steps, title="untangling", console=console)):
        step.descend(task.loss(depths, renderer, step.progress))
        if descent.taken in wanted:
            path[descent.taken] = depths.detach().clone()
    return path


@torch.no_grad()
def draw_problems(
    path: Path, task: OcclusionBatch, depths: dict[int, Tensor], accuracy: Tensor
) -> None:
    """The first six problems, and the order of all on the way."""
    steps = list(depths)
    count = min(6, task.batch_size)
    shown, crisp = task.select(list(range(count))), poster_renderer()
    rows = {
        "target": shown.soft_image(shown.solution, crisp, 1.0),
        "before": shown.soft_image(depths[0][:count], crisp, 1.0),
        "after": shown.soft_image(depths[steps[-1]][:count], crisp, 1.0),
    }
    figure = Figure(figsize=(1.35 * count + 4.4, 4.3), layout="constrained")
    ((left, right),) = figure.subfigures(1, 2, squeeze=False, width_ratios=[1.35 * count, 4.4])
    axes = left.subplots(3, count, squeeze=False)
    for row, (name, pictures) in enumerate(rows.items()):
        for column in range(count):
            axis = axes[row, column]
            axis.imshow(pictures[column, ..., :3].clamp(0, 1).numpy())
            axis.set(xticks=[], yticks=[])
            if row > 0:
                right_order = accuracy[0 if row == 1 else -1, column]
                axis.set_xlabel(f"order {right_order:.0%}", fontsize=8)
        axes[row, 0].set_ylabel(name)
    plot = right.subplots()
    plot.plot(steps, 100 * accuracy.mean(dim=1), label="pairs in the right order")
    plot.plot(steps, 100 * (accuracy == 1).float().mean(dim=1), label="pictures all in order")
    plot.set(xlabel="step", ylabel="%", ylim=(0, 102), title=f"{task.batch_size} problems")
    plot.legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=110)


@torch.no_grad()
def draw_film(
    path: Path, task: OcclusionBatch, renderer: tr.SoftRasterizer, depths: dict[int, Tensor]
) -> None:
    """Four problems at once: target, the soft picture that is descended, the sharp one."""
    count = min(4, task.batch_size)
    shown, crisp = task.select(list(range(count))), poster_renderer()
    softly = poster_renderer(renderer.edge, renderer.depth)
    soft, sharp = [], []
    for step, at in depths.items():
        soft.append(tiled(shown.soft_image(at[:count], softly, step / max(depths))))
        sharp.append(tiled(shown.soft_image(at[:count], crisp, 1.0)))
    columns = {"soft": torch.stack(soft), "sharp": torch.stack(sharp)}
    solving_gif(path, {"target": tiled(shown.soft_image(shown.solution, crisp, 1.0)), **columns})


def poster_renderer(
    edge: tr.EdgeSoftness | None = None, depth: tr.DepthSoftness | None = None
) -> tr.SoftRasterizer:
    """More pixels; with edges of next to no softness, and the nearest hiding all else, if not told
    otherwise.
    """
    edge = edge or tr.Distribution("uniform", scale=1e-3)
    return tr.SoftRasterizer(POSTER, edge, depth or tr.HardDepth(), near=NEAR, far=FAR, antialias=2)


def tiled(pictures: Tensor) -> Tensor:
    """Up to four pictures (n, H, W, C) as one (2 H, 2 W, C)."""
    padded = torch.cat([pictures, pictures.new_zeros(4 - len(pictures), *pictures.shape[1:])])
    return torch.cat([torch.cat([*padded[:2]], dim=1), torch.cat([*padded[2:]], dim=1)])


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except (ValueError, OSError, RuntimeError) as error:
        raise SystemExit(f"untangle_occlusion: {error}") from error
