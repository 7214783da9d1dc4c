"""What a sharp end is worth where targets are not exact: noise, and masks that are 0 or 1.

    python benchmarks/inexact_targets.py           # Pose and Shape2D, 64 tuning tasks each

The softening found by hand solves each task twice: soft to the end, and with a sharp end. Targets
are exact pictures, with normal noise of each value, or rounded: silhouettes to 0 and 1, colours to
quarters. A table has the median errors, and the geometric mean of their ratios.
"""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor
from tyro.conf import Positional

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from untuned import problem_of  # noqa: E402

import taichi_raster as tr  # noqa: E402
from meta.inner.policy_method import softening_method  # noqa: E402
from meta.inner.unroll import unroll  # noqa: E402
from meta.study.plan import Problem  # noqa: E402
from taichi_raster.presets.policy import SHARP_FROM  # noqa: E402

KINDS = ("exact", "noise 0.05", "noise 0.2", "rounded")


@dataclass(frozen=True)
class Options:
    """Compare a soft and a sharp end on targets that are not exact; see the top of the file.

    Args:
        families: some of pose and shape2d.
        tasks: of the stream "tune", for each.
        threads: of Taichi and torch.
    """

    families: Positional[tuple[str, ...]] = ("pose", "shape2d")
    tasks: int = 64
    threads: int = 1


def main(options: Options) -> None:
    unknown = sorted(set(options.families) - {"pose", "shape2d"})
    if unknown:
        raise ValueError(f"{unknown[0]}: expected pose or shape2d")
    if options.threads < 1 or options.tasks < 2:
        raise ValueError("--threads, --tasks: expected at least 1 and 2")
    os.environ["TI_CPU_MAX_NUM_THREADS"] = str(options.threads)
    torch.set_num_threads(options.threads)
    tr.init(arch="cpu", deterministic=True)
    print("| family | target | soft to the end | sharp end | ratio | standard error, % |")
    print("|" + " --- |" * 6)
    for name in options.families:
        problem = problem_of(name, options.tasks)[1]
        for kind in KINDS:
            print(line(problem, kind), flush=True)


def line(problem: Problem, kind: str) -> str:
    """A row of the table."""
    family: Any = problem.family
    task = family.sample(problem.count, "tune", 7)
    task = replace(task, _cache={**task._cache, "target": spoilt(task.target, kind)})
    errors = []
    for sharp_from in (None, SHARP_FROM):
        policy = tr.SofteningPolicy()
        method = softening_method(policy, family, problem.steps, sharp_from=sharp_from)
        run = unroll(method, task)
        with torch.no_grad():
            errors.append(task.true_error(run.params).double().numpy())
    soft, sharp = errors
    logs = np.log((sharp + family.error_floor) / (soft + family.error_floor))
    cells = (
        problem.title,
        kind,
        f"{np.median(soft):.4g}",
        f"{np.median(sharp):.4g}",
        f"{math.exp(logs.mean()):.2f}",
        f"{100 * logs.std(ddof=1) / math.sqrt(len(logs)):.0f}",
    )
    return "| " + " | ".join(cells) + " |"


def spoilt(target: Tensor, kind: str) -> Tensor:
    """A target with noise, or rounded."""
    if kind == "exact":
        return target
    if kind == "rounded":
        levels = 1 if target.shape[-1] == 1 else 4
        return (levels * target).round() / levels
    sigma = float(kind.split()[1])
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    return (target + sigma * noise.to(target)).clamp(0, 1)


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except (ValueError, OSError, RuntimeError) as error:
        raise SystemExit(f"inexact_targets: {error}") from error
