"""Families that nothing was tuned or learned on: one softening for all, beside experts.

    python benchmarks/unseen_families.py --resume           # about an hour of a core
    python benchmarks/unseen_families.py body --tasks 64

The families are a camera's focal length and lens from a known object, a jointed figure's angles,
triangles with unknown colours, several objects in one picture, and an object's pose together with
its colours. The one softening is the one found by hand (`tr.SofteningPolicy()`) and the learned
policy (`tr.universal_policy()`), neither of which has seen any of these. An expert tunes a softness
for each family: distribution, first and last scale, learning rate of Adam, and for silhouettes the
T-conorm, on tasks of the stream "tune"; it is judged once more with a sharp end like ours. All are
judged on tasks of the stream "test".

Into the folder go a file for each method and family, as soon as it is done, and summary.md.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from rich.console import Console
from tyro.conf import Positional

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from untuned import (  # noqa: E402
    SHARPENED,
    UNIVERSAL,
    UNTUNED,
    Row,
    by_policy,
    ended_sharply,
    judged,
    summary,
)

import taichi_raster as tr  # noqa: E402
from meta.inner.protocol import StudyFamily  # noqa: E402
from meta.inner.updates import Adam  # noqa: E402
from meta.outer.checkpoint import describe  # noqa: E402
from meta.search.fixed import FixedSoftness, Grid, fixed_method  # noqa: E402
from meta.search.tuner import BaselineTuner, Rung  # noqa: E402
from meta.study.plan import ANNEALED, Problem  # noqa: E402
from tasks import Arrangement, Body, Calibration, Painted, Picture  # noqa: E402

STEPS = 60
RUNGS = (Rung(1), Rung(4, 6))
TUNING_BATCH = 16


@dataclass(frozen=True)
class Case:
    """A family, how many unseen tasks it is judged on, and what its expert tries."""

    title: str
    family: StudyFamily
    tasks: int
    batch_size: int
    rates: tuple[float, ...]
    silhouettes: bool = False


def cases() -> dict[str, Case]:
    """All of them, by name."""
    rates = (0.02, 0.04, 0.08, 0.16)
    return {
        "calibration": Case(
            "Focal length and lens", Calibration(), 256, 64, (0.005, 0.01, 0.02, 0.04), True
        ),
        "body": Case("Jointed figure", Body(), 256, 64, rates, True),
        "picture": Case(
            "Triangles and colours",
            Picture(triangles=(12, 16), colours=True, image_size=48),
            256,
            32,
            (0.04, 0.08, 0.16, 0.32),
        ),
        "arrangement": Case("Several objects", Arrangement(), 64, 16, rates),
        "painted": Case("Pose and colours", Painted(), 64, 16, rates),
    }


@dataclass(frozen=True)
class Options:
    """Judge one softening for all on families it has not seen; see the top of the file.

    Args:
        families: some of calibration, body, picture, arrangement, painted; all by default.
        tasks: most unseen tasks of each.
        steps: inner steps of every method.
        out: folder of the results.
        resume: keep what is there and still holds; without it, all is judged anew.
        threads: of Taichi and torch.
        arch: backend.
    """

    families: Positional[tuple[str, ...]] = ()
    tasks: int = 256
    steps: int = STEPS
    out: Path = Path("out/unseen_families")
    resume: bool = False
    threads: int = 1
    arch: str = "cpu"


def main(options: Options) -> None:
    if min(options.threads, options.tasks, options.steps) < 1:
        raise ValueError("--threads, --tasks, --steps: expected at least 1")
    os.environ["TI_CPU_MAX_NUM_THREADS"] = str(options.threads)
    torch.set_num_threads(options.threads)
    tr.init(arch=options.arch, deterministic=True)
    known = cases()
    unknown = sorted(set(options.families) - set(known))
    if unknown:
        raise ValueError(f"{unknown[0]}: expected some of {', '.join(known)}")
    console = Console()
    rows = []
    for name in options.families or known:
        case = known[name]
        count = min(options.tasks, case.tasks)
        problem = Problem(
            case.title, case.family, options.steps, count, min(count, case.batch_size)
        )
        folder = options.out / name
        results = {}
        for method, (made, settings) in methods(case, problem, folder, options.resume).items():
            begin = time.process_time()
            path = folder / f"{method.replace(' ', '_')}.json"
            results[method] = judged(path, made, settings, problem, options.resume)
            seconds = time.process_time() - begin
            text = f"{name}: {method}: median {np.median(results[method].errors):.4g}"
            console.print(f"{text} ({seconds:.0f} s)", soft_wrap=True, highlight=False)
        rows.append(Row(problem, results))
        (options.out / "summary.md").write_text(summary(rows))
    console.print(summary(rows), soft_wrap=True, highlight=False, markup=False)


def methods(
    case: Case, problem: Problem, folder: Path, resume: bool
) -> dict[str, tuple[Callable[[Any], Any], dict[str, Any]]]:
    """For each method, what makes it for a batch of tasks, and what its results depend on."""
    family, steps = case.family, problem.steps
    config = expert(case, folder / "tuning.json", resume)
    tuned = fixed_method(config, family.renderer, Adam(), steps)
    settings = {"softness": config.to_json(), "rule": describe(Adam())}
    return {
        ANNEALED: (lambda _: tuned, settings),
        SHARPENED: ended_sharply(tuned, settings),
        UNTUNED: by_policy(tr.SofteningPolicy(), problem),
        UNIVERSAL: by_policy(tr.universal_policy(), problem),
    }


def expert(case: Case, cache: Path, resume: bool) -> FixedSoftness:
    """The best annealed softness of a grid, by tasks of the stream "tune", for `STEPS` steps."""
    pixel = 2 / int(getattr(case.family, "image_size"))  # noqa: B009 - no part of the Protocol
    grid = Grid(
        ("gaussian", "uniform"),
        (0.03, 0.06, 0.12),
        (pixel / 4, pixel / 2),
        case.rates,
        (True,),
        conorms=(None, ("yager", 1.0)) if case.silhouettes else (None,),
    )
    tuner = BaselineTuner(
        case.family, case.family.renderer, Adam(), STEPS, grid, RUNGS, TUNING_BATCH, 64
    )
    cache.parent.mkdir(parents=True, exist_ok=True)
    return replace(tuner, cache=cache, resume=resume).run(quiet=True).best_annealed.config


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except (ValueError, OSError, RuntimeError) as error:
        raise SystemExit(f"unseen_families: {error}") from error
