"""What the far tail of a softness is worth, in error, and what it costs, in time.

    python benchmarks/tails.py                        # every family
    python benchmarks/tails.py pose --tasks 64
    python benchmarks/tails.py --speed                # a render's time alone

A fragment counts where F exceeds the renderer's `threshold`. For each family, its best annealed
softness and the shipped learned one solve the same unseen tasks with several thresholds, beside
one another. Errors are paired ratios to those with the smallest threshold, with 95% intervals;
times are ratios of whole runs, so that they hold the cost of everything else, too.

`--speed` times forward and backward of an icosphere at several scales, a logistic with softmax.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from judge_again import fixed_softnesses, methods
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

import taichi_raster as tr
from meta.evaluation.evaluate import evaluate
from meta.evaluation.stats import compare
from meta.study.plan import ANNEALED, LEARNED, soft_renderer
from scenes import icosphere_faces, timed, torch_threads

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))

import study as program  # noqa: E402

FAMILIES = ("shape2d", "occlusion", "shape3d", "pose", "shaded", "solid")
SEED = 0  # of the studies


@dataclass(frozen=True)
class Options:
    """What to try.

    Args:
        families: those of examples/study.py.
        thresholds: the first one is the reference.
        tasks: unseen instances a family.
        speed: time a render instead.
    """

    families: Positional[tuple[str, ...]] = FAMILIES
    thresholds: tuple[float, ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
    tasks: int = 32
    speed: bool = False


def main(options: Options) -> None:
    tr.init("cpu", deterministic=True)
    table = speed(options) if options.speed else errors(options)
    Console().print(table)


def errors(options: Options) -> Table:
    """Ratios of errors and of times, for each family and threshold."""
    table = Table(
        "family", "softness", "threshold", "error ratio", "failures, more %", "time ratio"
    )
    for name in options.families:
        problem = program.STUDIES[name](SEED).problem
        family = problem.family
        made = methods(program.STUDIES[name](SEED), problem, fixed_softnesses(name, False))
        for which in (ANNEALED, LEARNED):
            method, reference = made[which], None
            for threshold in options.thresholds:
                soft_renderer(method).threshold = threshold
                evaluate(method, family, 2, batch_size=2)  # compiles
                begin = time.perf_counter()
                found = evaluate(
                    method, family, options.tasks, batch_size=min(problem.batch_size, options.tasks)
                )
                seconds = time.perf_counter() - begin
                if reference is None:
                    reference = found.errors, seconds
                    continue
                shown = compare(
                    "threshold",
                    found.errors,
                    "reference",
                    reference[0],
                    family.error_floor,
                    family.failure_threshold,
                )
                table.add_row(
                    name,
                    which,
                    f"{threshold:g}",
                    shown.ratio.format(digits=3),
                    shown.failure_difference.format(100, 1),
                    f"{seconds / reference[1]:.2f}",
                )
                row = (str(column._cells[-1]) for column in table.columns)
                print(*row, sep=" | ", flush=True)
    return table


def speed(options: Options) -> Table:
    """Times of forward and backward at 256 x 256, as ratios to those of the first threshold."""
    table = Table("faces", "scale, pixels", *(f"{t:g}" for t in options.thresholds))
    faces = icosphere_faces(4, 1)
    colours = torch.rand(faces.shape, generator=torch.Generator().manual_seed(0))
    with torch_threads(1):
        for pixels in (0.25, 1.0, 4.0):
            calls = {}
            for threshold in options.thresholds:
                leaf = faces.clone().requires_grad_()
                renderer = tr.SoftRasterizer(
                    256,
                    tr.Distribution("logistic", pixels * 2 / 256),
                    tr.SoftmaxDepth(0.01),
                    near=1.0,
                    far=5.0,
                    threshold=threshold,
                )

                def call(renderer: tr.SoftRasterizer = renderer, leaf: torch.Tensor = leaf) -> None:
                    torch.autograd.grad(renderer(leaf, colours).square().sum(), leaf)

                calls[threshold] = call
            times = timed(calls, 9)
            first = times[options.thresholds[0]][1]
            cells = [f"{times[t][1]:.1f} ms, {times[t][1] / first:.2f}" for t in options.thresholds]
            table.add_row(f"{faces.shape[1]:,}", f"{pixels:g}", *cells)
    return table


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except (ValueError, OSError) as error:
        raise SystemExit(f"tails: {error}") from error
