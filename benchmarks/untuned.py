"""Softenings that know nothing of the problem, beside each family's own tuned one.

    python benchmarks/untuned.py --resume                       # six families, 64 unseen tasks each
    python benchmarks/untuned.py pose shape3d --tasks 16        # some of them, fewer tasks
    python benchmarks/untuned.py shape2d/three pose/far --out out/untuned_transfer    # transfers
    python benchmarks/untuned.py pose --size 128 --steps 240 --out out/untuned_128    # other sizes

The one found by hand is `tr.SofteningPolicy()`, as `tr.untuned_softening` has it: its scales and
steps follow from how far outlines are apart at the start, and from the size of a pixel. With
`--policy FILE` there is another, learned by `benchmarks/learn_universal.py`. The others are the
fixed softnesses that docs/results.md lists: tuned for each family, its learning rate included, and
used with the optimiser of the family's study; and the best annealed one once more, with a sharp end
like ours. All take the same number of steps on the same tasks
of the stream "test", seed 0: those of the studies, which nothing here was tuned on.

Into the folder go a file for each method and problem, as soon as it is done, and summary.md.
"""

from __future__ import annotations

import copy
import json
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

import judge_again  # noqa: E402

import taichi_raster as tr  # noqa: E402
from meta.evaluation.evaluate import Evaluation, batches  # noqa: E402
from meta.evaluation.stats import compare, summarise  # noqa: E402
from meta.inner.method import Method  # noqa: E402
from meta.inner.policy_method import softening_method  # noqa: E402
from meta.inner.protocol import TaskBatch  # noqa: E402
from meta.inner.unroll import unroll  # noqa: E402
from meta.outer.checkpoint import describe, fingerprint, load_json, save_json  # noqa: E402
from meta.search.fixed import fixed_method  # noqa: E402
from meta.study.plan import ANNEALED, WIDER, Problem, Study  # noqa: E402
from meta.study.study import moved  # noqa: E402
from taichi_raster.presets.policy import SHARP_FROM  # noqa: E402

SIX = ("shape2d", "occlusion", "pose", "shaded", "shape3d", "solid")
UNTUNED, UNIVERSAL = "untuned", "universal"
SHARPENED = "best annealed, sharp end"
SHOWN = (UNTUNED, UNIVERSAL, SHARPENED)
RESAMPLES = 10_000

Made = Callable[[TaskBatch], Method]


@dataclass(frozen=True)
class Options:
    """Judge one untuned softening on all families; see the top of the file.

    Args:
        families: FAMILY, or FAMILY/PROBLEM for one of its study's transfers.
        tasks: unseen tasks of each.
        out: folder of the results.
        resume: keep what is there and still holds; without it, all is judged anew.
        policy: a learned policy to judge as well.
        size: side of the pictures in pixels, instead of the study's.
        steps: inner steps, instead of the study's.
        threads: of Taichi and torch.
        arch: backend.
    """

    families: Positional[tuple[str, ...]] = SIX
    tasks: int = 64
    out: Path = Path("out/untuned")
    resume: bool = False
    policy: Path | None = None
    size: int | None = None
    steps: int | None = None
    threads: int = 1
    arch: str = "cpu"


@dataclass(frozen=True)
class Row:
    """A problem, and what was found on it by each method's name."""

    problem: Problem
    results: dict[str, Evaluation]

    def log_ratios(self, method: str, reference: str) -> np.ndarray:
        """Of a method's errors to the reference's, task by task."""
        floor = self.problem.family.error_floor
        ours, theirs = (self.results[name].errors for name in (method, reference))
        return np.log((ours + floor) / (theirs + floor))


def main(options: Options) -> None:
    if options.threads < 1 or options.tasks < 1:
        raise ValueError("--threads, --tasks: expected at least 1")
    found = [problem_of(name, options.tasks) for name in options.families]
    chosen = [(study, changed(problem, options.size, options.steps)) for study, problem in found]
    os.environ["TI_CPU_MAX_NUM_THREADS"] = str(options.threads)
    torch.set_num_threads(options.threads)
    tr.init(arch=options.arch, deterministic=True)
    console = Console()
    rows = []
    for name, (study, problem) in zip(options.families, chosen, strict=True):
        results = {}
        for method, (made, settings) in methods(study, problem, options.policy).items():
            path = options.out / name.replace("/", "_") / f"{method.replace(' ', '_')}.json"
            begin = time.perf_counter()
            results[method] = judged(path, made, settings, problem, options.resume)
            seconds = time.perf_counter() - begin
            text = f"{problem.title}: {method}: median {np.median(results[method].errors):.4g}"
            console.print(f"{text} ({seconds:.0f} s)", soft_wrap=True, highlight=False)
        rows.append(Row(problem, results))
        (options.out / "summary.md").write_text(summary(rows))
    console.print(summary(rows), soft_wrap=True, highlight=False, markup=False)


def problem_of(name: str, tasks: int) -> tuple[Study, Problem]:
    """The study and the problem of FAMILY or FAMILY/PROBLEM, with so many unseen tasks."""
    family, _, other = name.partition("/")
    study, problem = judge_again.problems_of(f"{family}/{other or family}")[0]
    return study, replace(problem, count=tasks, batch_size=min(tasks, problem.batch_size))


def changed(problem: Problem, size: int | None, steps: int | None) -> Problem:
    """The same problem with pictures of another size, and another number of steps."""
    family: Any = problem.family
    if size is not None:
        family = replace(family, image_size=size)
    return replace(problem, family=family, steps=steps or problem.steps)


def methods(
    study: Study, problem: Problem, learned: Path | None = None
) -> dict[str, tuple[Made, dict[str, Any]]]:
    """For each method, what makes it for a batch of tasks, and what its results depend on."""
    tuned = judge_again.fixed_softnesses(study.name, constant=False)
    if tuned[WIDER] == tuned[ANNEALED]:
        del tuned[WIDER]
    found: dict[str, tuple[Made, dict[str, Any]]] = {}
    for name, config in tuned.items():
        method = fixed_method(config, problem.family.renderer, study.rule, problem.steps)
        method = moved(method, problem)
        settings = {"softness": config.to_json(), "rule": describe(study.rule)}
        found[name] = (lambda _, method=method: method), settings
        if name == ANNEALED:
            found[SHARPENED] = ended_sharply(method, settings)
    policies = {UNTUNED: tr.SofteningPolicy()}
    if learned is not None:
        policies[UNIVERSAL] = tr.load_policy(learned)
    return found | {name: by_policy(policy, problem) for name, policy in policies.items()}


def ended_sharply(method: Method, settings: dict[str, Any]) -> tuple[Made, dict[str, Any]]:
    """The same method with a sharp end, and what its results depend on."""
    ended = copy.copy(method)
    ended.sharp_from = SHARP_FROM
    return (lambda _: ended), {**settings, "sharp_from": SHARP_FROM}


def by_policy(
    policy: tr.SofteningPolicy, problem: Problem, **options: Any
) -> tuple[Made, dict[str, Any]]:
    """The method of a policy, and what its results depend on."""
    method = softening_method(policy, problem.family, problem.steps, **options)
    return (lambda _: method), {"policy": fingerprint(policy), "sharp_from": method.sharp_from}


def judged(
    path: Path, made: Made, settings: dict[str, Any], problem: Problem, resume: bool
) -> Evaluation:
    """Results on the unseen tasks, from the file if it has them."""
    family = problem.family
    whole = {
        "family": describe(family),
        "steps": problem.steps,
        "count": problem.count,
        "batch_size": problem.batch_size,
        **settings,
    }
    if resume and path.is_file():
        content = load_json(path, "untuned")
        if content["settings"] == json.loads(json.dumps(whole)):
            return Evaluation.from_json(content["results"])
    errors, starts = [], []
    for task in batches(family, problem.count, "test", problem.batch_size):
        run = unroll(made(task), task)
        with torch.no_grad():
            errors.append(task.true_error(run.params))
            starts.append(task.true_error(task.start()))
    arrays = [torch.cat(parts).double().numpy() for parts in (errors, starts)]
    result = Evaluation(arrays[0], arrays[1], {})
    save_json(path, {"kind": "untuned", "settings": whole, "results": result.to_json()})
    return result


def summary(rows: list[Row]) -> str:
    """The table, and the geometric means over families."""
    heading = (
        "| tasks | n | softening | median error | tuned | failures % | tuned "
        "| error / tuned | failures, more % | error / wider search |"
    )
    lines = [heading, "|" + " --- |" * 10]
    texts = []
    both = all(UNIVERSAL in row.results for row in rows)
    for method in (name for name in SHOWN if all(name in row.results for row in rows)):
        lines += [line(row, method) for row in rows]
        logs = [row.log_ratios(method, ANNEALED) for row in rows]
        value, low, high = geometric_mean(logs)
        worst = max(float(np.exp(values.mean())) for values in logs)
        texts.append(
            f"{method}: geometric mean over {len(rows)} families {value:.3f} "
            f"[{low:.3f}, {high:.3f}], largest {worst:.3f}."
        )
    if both:
        logs = [row.log_ratios(UNIVERSAL, UNTUNED) for row in rows]
        value, low, high = geometric_mean(logs)
        each = ", ".join(f"{np.exp(values.mean()):.3f}" for values in logs)
        texts.append(f"{UNIVERSAL} / {UNTUNED}: {value:.3f} [{low:.3f}, {high:.3f}] ({each}).")
    texts.append("In brackets 95% bootstrap intervals over tasks.")
    return "\n".join([*lines, "", *texts]) + "\n"


def line(row: Row, method: str) -> str:
    """One row of the table."""
    family = row.problem.family
    limits = family.error_floor, family.failure_threshold
    ours, theirs = (
        summarise(name, row.results[name].errors, limits[1]) for name in (method, ANNEALED)
    )
    against = {
        name: compare(method, row.results[method].errors, name, result.errors, *limits)
        for name, result in row.results.items()
        if name not in SHOWN
    }
    best = against[ANNEALED]
    cells = [
        row.problem.title,
        str(ours.count),
        method,
        *(f"{s.median.value:.4g}" for s in (ours, theirs)),
        *(f"{100 * s.failure.value:.1f}" for s in (ours, theirs)),
        best.ratio.format(digits=3),
        best.failure_difference.format(100, 1),
        against.get(WIDER, best).ratio.format(digits=3),
    ]
    return "| " + " | ".join(cells) + " |"


def geometric_mean(logs: list[np.ndarray], seed: int = 0) -> tuple[float, float, float]:
    """Of the families' ratios, each as much as any other, and the ends of its 95% interval.

    Tasks are resampled within each family.
    """
    rng = np.random.default_rng(seed)
    means = [
        values[rng.integers(0, len(values), (RESAMPLES, len(values)))].mean(axis=1)
        for values in logs
    ]
    low, high = np.quantile(np.exp(np.mean(means, axis=0)), [0.025, 0.975])
    return float(np.exp(np.mean([values.mean() for values in logs]))), float(low), float(high)


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except (ValueError, OSError, RuntimeError) as error:
        raise SystemExit(f"untuned: {error}") from error
