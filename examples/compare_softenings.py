"""The same problems, solved by several softenings.

    python examples/compare_softenings.py                    # a third of a minute
    python examples/compare_softenings.py --learned out/learn_softness/learned_softness.safetensors
    python examples/gallery.py                               # what every softening looks like

Two triangles are to be recovered from one sharp picture by 40 steps of Adam; all that differs is
how the edges are softened meanwhile. These settings are sensible, not tuned: for a fair comparison
of tuned ones see examples/learn_softness.py. Into `out/compare_softenings/` go:

    table.md         errors and failures, with intervals
    convergence.png  errors and failures over the steps
    solved.png       what each makes of the first problems
    solving.gif      one problem, the one they differ on most, while it is solved
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from matplotlib.figure import Figure
from rich.console import Console
from torch import Tensor

import taichi_raster as tr
from meta.console import progress_bar
from meta.evaluation.stats import markdown_table, summarise
from meta.inner.method import Method
from meta.inner.unroll import trajectory
from meta.inner.updates import Adam
from meta.search.fixed import FixedSoftness, fixed_method
from meta.study.figures import picture_grid, solving_gif
from tasks.shape2d import FAILURE_THRESHOLD, Shape2D, Shape2DBatch

# Distribution, scale at the first and at the last step (NDC), learning rate, and that it decays.
SOFTENINGS = {
    "hardly soft": FixedSoftness("logistic", 0.003, 0.003, 0.1, True),
    "very soft": FixedSoftness("logistic", 0.15, 0.15, 0.1, True),
    "uniform": FixedSoftness("uniform", 0.2, 0.04, 0.1, True),
    "logistic": FixedSoftness("logistic", 0.06, 0.01, 0.1, True),
    "gaussian": FixedSoftness("gaussian", 0.12, 0.02, 0.1, True),
    "cauchy": FixedSoftness("cauchy", 0.06, 0.01, 0.1, True),
}


@dataclass(frozen=True)
class Options:
    """Solve the same problems by several softenings; see the top of the file.

    Args:
        out: folder of the results.
        arch: backend: cpu, vulkan, cuda, or auto.
        problems: how many.
        triangles: in each picture.
        steps: of Adam.
        size: pixels on a side.
        learned: a learned softness (.safetensors) to compare as well.
        seed: of the problems.
    """

    out: Path = Path("out/compare_softenings")
    arch: Literal["cpu", "vulkan", "cuda", "auto"] = "cpu"
    problems: int = 64
    triangles: int = 2
    steps: int = 40
    size: int = 24
    learned: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("problems", "triangles", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name}: must be at least 1")
        if self.size < 8:
            raise ValueError("--size: must be at least 8")


def main(options: Options) -> None:
    tr.init(arch=options.arch)
    console = Console()
    family = Shape2D(options.triangles, image_size=options.size, seed=options.seed)
    task = family.sample(options.problems, "test", 0)

    # A method is a renderer, an update rule, a learning rate and a number of steps.
    methods = {
        name: fixed_method(config, family.renderer, Adam(), options.steps)
        for name, config in SOFTENINGS.items()
    }
    if options.learned is not None:
        renderer = family.renderer(tr.load_softness(options.learned))
        rate = SOFTENINGS["gaussian"].lr_schedule()
        methods["learned"] = Method(renderer, Adam(), rate, options.steps)

    paths: dict[str, Tensor] = {}  # (steps + 1, problems, ...) unknowns
    with progress_bar(console) as progress:
        bar = progress.add_task("solving", total=len(methods), note="")
        for name, method in methods.items():
            progress.update(bar, note=name)
            paths[name] = trajectory(method, task)
            progress.update(bar, advance=1)

    options.out.mkdir(parents=True, exist_ok=True)
    with console.status("judging and drawing"):
        errors = {name: judged(task, path) for name, path in paths.items()}
        report(errors, options.out / "table.md", console)
        draw_convergence(options.out / "convergence.png", errors)
        draw(task, paths, errors, options.out, console)
    console.print(
        f"wrote table.md, convergence.png, solved.png and solving.gif into {options.out}/"
    )


@torch.no_grad()
def judged(task: Shape2DBatch, path: Tensor) -> np.ndarray:
    """(steps + 1, problems): RMS distances of the corners to the hidden ones, in NDC."""
    return torch.stack([task.true_error(unknowns) for unknowns in path]).double().cpu().numpy()


def report(errors: dict[str, np.ndarray], path: Path, console: Console) -> None:
    summaries = [summarise(name, own[-1]) for name, own in errors.items()]
    path.write_text(markdown_table(summaries))
    for s in summaries:
        console.print(
            f"{s.name:12s} median error {s.median.format(digits=3)}, "
            f"failures {s.failure.format(100, 0)} %",
            highlight=False,
        )


def draw_convergence(path: Path, errors: dict[str, np.ndarray]) -> None:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    median, failed = figure.subplots(1, 2)
    for name, own in errors.items():
        median.semilogy(np.median(own, axis=1), label=name)
        failed.plot(100 * (own > FAILURE_THRESHOLD).mean(axis=1), label=name)
    median.set(xlabel="step", ylabel="median vertex error (NDC)")
    failed.set(xlabel="step", ylabel=f"errors above {FAILURE_THRESHOLD:g} (%)", ylim=(0, 102))
    median.legend(fontsize=8)
    figure.savefig(path, dpi=110)


@torch.no_grad()
def draw(
    task: Shape2DBatch,
    paths: dict[str, Tensor],
    errors: dict[str, np.ndarray],
    out: Path,
    console: Console,
) -> None:
    # Shown in more pixels than they were solved in, and with next to no softness.
    crisp = tr.SoftRasterizer(
        96,
        tr.Distribution("uniform", scale=1e-3),
        tr.HardDepth(),
        near=task.family.near,
        far=task.family.far,
        antialias=2,
    )
    count = min(5, task.batch_size)
    few = task.select(list(range(count)))
    shown = {"target": few.hidden, "start": few.start()}
    shown |= {name: path[-1, :count] for name, path in paths.items()}
    columns = {name: few.soft_image(unknowns, crisp, 1.0) for name, unknowns in shown.items()}
    picture_grid(out / "solved.png", columns, [f"problem {i}" for i in range(count)])

    ends = np.log(np.stack([own[-1] for own in errors.values()]) + 1e-3)
    chosen = int(ends.std(axis=0).argmax())
    one = task.select([chosen])
    films = {
        name: one.repeat(len(path)).soft_image(path[:, chosen], crisp, 1.0)
        for name, path in paths.items()
    }
    target = one.soft_image(one.hidden, crisp, 1.0)[0]
    solving_gif(out / "solving.gif", {"target": target, **films}, side=144)
    console.print(f"solving.gif shows problem {chosen}, on which they differ most")


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except (ValueError, OSError, RuntimeError) as error:
        raise SystemExit(f"compare_softenings: {error}") from error
