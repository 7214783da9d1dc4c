"""Softenings beside other people's answers, at as many renders: smoothing, evolution, many starts.

    python benchmarks/rivals.py --resume                # three families, 128 unseen tasks each
    python benchmarks/rivals.py body --tasks 64         # one of them, fewer tasks
    python benchmarks/rivals.py --smoke                 # a minute: do all parts still run?

A step of ours is a soft picture with its backward pass. It counts as three renders, and each look
at an outline as one more. So the others get three renders for each step, and ten more. In the
second half of the table they get ten times as many. A picture is the unit: `by pixel` has the
numbers of faces beside each for nothing. Processor time is given, too; it has one thread.

The others' settings are tuned for each family and budget, by a random search on the stream "tune":
48 settings on 16 tasks, the best 6 of them on 64 fresh ones (12 on 8, and 3 on 32, where renders
are ten times as many). The annealed softness is tuned, too: `docs/results.md` has that of the first
two families, and a grid finds that of `Body`.
The softening found by hand and `tr.universal_policy()` have nothing tuned for a family; but the
policy was learned on tasks of `Shape2D` and `Pose`, of the stream "train". Both descend the sharp
picture's exact gradient in the last quarter of their steps. A quarter is by 64 tuning tasks of each
of four families: nothing, a tenth, a quarter and two fifths were tried. "Soft to the end" is the
policy without it. All are judged on the stream "test".

Into the folder go a file for each family and method, as soon as it is done, and summary.md.
It needs the package `cmaes`: pip install '.[bench]'.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import tyro
from rich.console import Console
from torch import Tensor
from tyro.conf import Positional

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import judge_again  # noqa: E402
from untuned import problem_of  # noqa: E402

import taichi_raster as tr  # noqa: E402
from benchmarks.rival_methods import (  # noqa: E402
    Evolution,
    Noisy,
    Starts,
    by_pixel,
    evolve,
    many_starts,
    smooth,
)
from meta.evaluation.evaluate import batches  # noqa: E402
from meta.evaluation.stats import compare, summarise  # noqa: E402
from meta.inner.policy_method import LOOKS, softening_method  # noqa: E402
from meta.inner.protocol import TaskBatch  # noqa: E402
from meta.inner.unroll import unroll  # noqa: E402
from meta.inner.updates import Adam  # noqa: E402
from meta.outer.checkpoint import load_json, save_json  # noqa: E402
from meta.search.fixed import FixedSoftness, Grid, finer_grid, fixed_method  # noqa: E402
from meta.search.ranking import Tuned  # noqa: E402
from meta.search.tuner import BaselineTuner, Rung  # noqa: E402
from meta.study.plan import ANNEALED, Problem  # noqa: E402
from tasks import Body  # noqa: E402

THREE = ("shape2d", "pose", "body")
SMOOTHED, PIXELS, EVOLVED = "smoothed parameters", "by pixel", "CMA-ES"
STARTS, TUNED = "many starts, annealed softness", "annealed softness"
UNTUNED, UNIVERSAL = "untuned softening", "universal policy"
SOFT = "universal policy, soft to the end"
RIVALS = (SMOOTHED, PIXELS, EVOLVED, STARTS)
OURS = (TUNED, UNTUNED, SOFT, UNIVERSAL)
BUDGETS = (1, 10)
DRAWN = {1: 48, 10: 12}  # settings that the random search tries, by budget
FEWER = {EVOLVED: 2, STARTS: 2}  # with fewer settings to tune, fewer draws
BETAS = ((0.9, 0.999), (0.5, 0.95))  # Adam's that are tried
KEPT = {1: 6, 10: 3}  # of them, tried on more tasks
TUNING = {1: (16, 64), 10: (8, 32)}  # tasks of the first round and of the second

Solve = Callable[[TaskBatch, int], Tensor]
"""The unknowns that a method finds for a batch, with a seed."""


@dataclass(frozen=True)
class Options:
    """Judge softenings and other methods at equal renders; see the top of the file.

    Args:
        families: some of shape2d, pose and body.
        tasks: unseen tasks of each.
        out: folder of the results.
        resume: keep what is there; without it the folder must be empty.
        seed: of the random search and of all samples.
        threads: of Taichi and torch.
        smoke: a few tasks and settings, to see that all parts run.
    """

    families: Positional[tuple[str, ...]] = THREE
    tasks: int = 128
    out: Path = Path("out/rivals")
    resume: bool = False
    seed: int = 0
    threads: int = 1
    smoke: bool = False


def main(options: Options) -> None:
    unknown = set(options.families) - set(THREE)
    if unknown or not options.families:
        raise ValueError(f"families: expected some of {', '.join(THREE)}, got {sorted(unknown)}")
    if options.threads < 1 or options.tasks < 1:
        raise ValueError("--threads, --tasks: expected at least 1")
    if not options.resume and options.out.is_dir() and any(options.out.iterdir()):
        raise ValueError(f"--out: {options.out} is not empty; --resume goes on with what is there")
    os.environ["TI_CPU_MAX_NUM_THREADS"] = str(options.threads)
    torch.set_num_threads(options.threads)
    tr.init(arch="cpu", deterministic=True)
    console = Console()
    rows = {}
    for name in options.families:
        rows[name] = Contest(name, options, console).results()
        (options.out / "summary.md").write_text(summary(rows))
    console.print(summary(rows), soft_wrap=True, highlight=False, markup=False)


@dataclass(frozen=True)
class Result:
    """Errors of each task, and processor time for each, in milliseconds."""

    errors: np.ndarray
    milliseconds: float


class Contest:
    """All methods on one family, the pieces kept in files of their own."""

    def __init__(self, name: str, options: Options, console: Console) -> None:
        self.name = name
        self.options = options
        self.console = console
        tasks = 4 if options.smoke else options.tasks
        self.problem = problem(name, tasks)
        self.family = self.problem.family
        self.softness, self.rule = self._softness()

    def results(self) -> dict[tuple[str, int], Result]:
        """By method and budget; our own methods have no second budget."""
        found = {(name, 1): self._judged(name, 1, self._ours(name)) for name in OURS}
        for budget in BUDGETS:
            for name in RIVALS:
                chosen = self._tuned(name, budget)
                found[name, budget] = self._judged(name, budget, self._solver(name, budget, chosen))
        return found

    def renders(self, budget: int) -> int:
        """That a rival may spend on a task."""
        return budget * (3 * self.problem.steps + LOOKS + 2)

    def _ours(self, name: str) -> Solve:
        family, steps = cast(Any, self.family), self.problem.steps
        if name == TUNED:
            method: Any = fixed_method(self.softness, family.renderer, self.rule, steps)
        else:
            policy = tr.SofteningPolicy() if name == UNTUNED else tr.universal_policy()
            options = {"sharp_from": None} if name == SOFT else {}
            method = softening_method(policy, family, steps, **options)
        return lambda task, seed: unroll(method, task).params

    def _solver(self, name: str, budget: int, chosen: Mapping[str, Any]) -> Solve:
        renders = self.renders(budget)
        if name == EVOLVED:
            evolution = Evolution(**chosen)
            return lambda task, seed: evolve(task, evolution, renders, seed)
        if name == STARTS:
            starts = Starts(**chosen)
            return lambda task, seed: many_starts(task, starts, self.softness, self.rule, seed)
        noisy = Noisy(**{**chosen, "betas": tuple(chosen["betas"])})
        descend = smooth if name == SMOOTHED else by_pixel
        return lambda task, seed: descend(cast(Any, task), noisy, renders, seed)

    def _tuned(self, name: str, budget: int) -> dict[str, Any]:
        """The best settings of a random search on tuning tasks."""
        path = self.options.out / self.name / "tuned" / f"{_file(name, budget)}.json"

        def made() -> dict[str, Any]:
            count = 2 if self.options.smoke else DRAWN[budget] // FEWER.get(name, 1)
            kept, (few, more) = KEPT[budget], TUNING[budget]
            if self.options.smoke:
                kept = few = more = 2
            rng = np.random.default_rng(self.options.seed)
            draws = [drawn(name, budget, self.problem.steps, rng) for _ in range(count)]
            first = sorted(draws, key=lambda chosen: self._score(name, budget, chosen, few, 0))
            scores = [self._score(name, budget, chosen, more, 1) for chosen in first[:kept]]
            best = int(np.argmin(scores))
            return {"chosen": first[best], "score": scores[best], "tried": count}

        return dict(self._kept(path, made)["chosen"])

    def _score(
        self, name: str, budget: int, chosen: Mapping[str, Any], tasks: int, index: int
    ) -> float:
        """The mean logarithm of the error on a batch of tuning tasks."""
        task = self.family.sample(tasks, "tune", index)
        found = self._solver(name, budget, chosen)(task, self.options.seed)
        with torch.no_grad():
            error = task.true_error(found)
        score = float(torch.log(error.double() + self.family.error_floor).mean())
        return score if math.isfinite(score) else math.inf

    def _judged(self, name: str, budget: int, solve: Solve) -> Result:
        """On the unseen tasks."""
        path = self.options.out / self.name / f"{_file(name, budget)}.json"

        def made() -> dict[str, Any]:
            count, size = self.problem.count, self.problem.batch_size
            solve(self.family.sample(2, "test", 0), self.options.seed)  # compiles
            errors, seconds = [], 0.0
            for index, task in enumerate(batches(self.family, count, "test", size)):
                cast(Any, task).target  # noqa: B018 - drawn once, not a part of the search
                begin = time.process_time()
                params = solve(task, self.options.seed + 1 + index)
                seconds += time.process_time() - begin
                with torch.no_grad():
                    errors += task.true_error(params).tolist()
            return {"errors": errors, "milliseconds": 1000 * seconds / count}

        content = self._kept(path, made)
        return Result(np.array(content["errors"]), content["milliseconds"])

    def _softness(self) -> tuple[FixedSoftness, Any]:
        """The family's tuned annealed softness: from the page of results, or found by a grid.

        With the optimiser of the family's study. For `Body`, two of Adam's settings are tried.
        """
        if self.name != "body":
            fixed = judge_again.fixed_softnesses(self.name, constant=False)[ANNEALED]
            return fixed, problem_of(self.name, 1)[0].rule
        path = self.options.out / self.name / "tuned" / "softness.json"

        def made() -> dict[str, Any]:
            grid = Grid(
                ("logistic", "gaussian"),
                scales=(0.04, 0.08, 0.16),
                ends=(0.01, 0.02),
                lrs=(0.03, 0.06, 0.12),
                decays=(True,),
                conorms=(None, ("yager", 1.0)),
            )
            rungs: tuple[Rung, ...] = (Rung(1), Rung(4, 12))
            if self.options.smoke:
                grid, rungs = Grid(("gaussian",), (0.08,), (0.01,), (0.06,), (True,)), rungs[:1]
            best = self._by_grid(grid, rungs, BETAS[0])
            finer = finer_grid(best.config)
            if self.options.smoke:
                finer = grid
            found = [(self._by_grid(finer, rungs, betas), betas) for betas in BETAS]
            best, betas = min(found, key=lambda pair: pair[0].score)
            return {"softness": best.config.to_json(), "betas": betas}

        kept = self._kept(path, made)
        return FixedSoftness.from_json(kept["softness"]), Adam(tuple(kept["betas"]))

    def _by_grid(self, grid: Grid, rungs: tuple[Rung, ...], betas: tuple[float, float]) -> Tuned:
        family, steps = cast(Any, self.family), self.problem.steps
        tuner = BaselineTuner(family, family.renderer, Adam(betas), steps, grid, rungs)
        return tuner.run(self.console, quiet=True).best_annealed

    def _kept(self, path: Path, made: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What is in the file; made, and put there, if it is missing."""
        if path.is_file():
            return load_json(path, "rivals")
        begin = time.process_time()
        content = made()
        save_json(path, {"kind": "rivals", **content})
        text = f"{path.relative_to(self.options.out)} ({time.process_time() - begin:.0f} s)"
        self.console.print(text, highlight=False)
        return content


def problem(name: str, tasks: int) -> Problem:
    """Of a family: as in its study; `Body` has none, and takes 60 steps."""
    if name == "body":
        return Problem("Body, unseen tasks", Body(), 60, tasks, min(tasks, 64))
    return problem_of(name, tasks)[1]


def drawn(name: str, budget: int, steps: int, rng: np.random.Generator) -> dict[str, Any]:
    """Settings of a rival, drawn at random."""

    def wide(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(math.log(low), math.log(high))))

    def one(*values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    if name == EVOLVED:
        return asdict(Evolution(sigma=wide(0.02, 0.6), size=one(0.6, 1.0, 2.0, 4.0)))
    if name == STARTS:
        shorter = one(2, 3, 4, 6) if budget == 1 else one(1, 2, 3, 4)
        count = budget * shorter
        length = max(1, steps // shorter)
        return asdict(Starts(count, length, wide(0.03, 0.6), one(1.0, 1.5, 2.0, 3.0)))
    return asdict(
        Noisy(
            rate=wide(0.003, 0.3),
            rate_share=one(1.0, 0.3, 0.1, 0.03),
            sigma=wide(0.01, 0.5),
            sigma_share=one(1.0, 0.3, 0.1, 0.03),
            pairs=one(1, 2, 4, 8) if budget == 1 else one(1, 2, 4, 8, 16),
            betas=one(*BETAS),
        )
    )


def summary(rows: Mapping[str, Mapping[tuple[str, int], Result]]) -> str:
    """A table for each family, and one of all."""
    heading = "| method | renders | " + " | ".join(rows) + " | ms a task |"
    lines = [heading, "|" + " --- |" * (len(rows) + 3)]
    known = next(iter(rows.values()))
    for name, budget in known:
        cells = []
        for family, results in rows.items():
            judge = problem(family, 1).family
            limits = judge.error_floor, judge.failure_threshold
            ours, soft = results[name, budget], results[SOFT, 1]
            ratio = compare(name, ours.errors, SOFT, soft.errors, *limits).ratio
            failed = summarise(name, ours.errors, limits[1]).failure.value
            shown = "1" if name == SOFT else ratio.format(digits=2)
            cells.append(f"{shown}; {100 * failed:.1f} %")
        spent = "ten times" if budget == 10 else "as many"
        cells.append(", ".join(f"{r[name, budget].milliseconds:.0f}" for r in rows.values()))
        lines.append(f"| {name} | {spent} | " + " | ".join(cells) + " |")
    text = [f"Ratio of errors to those of the {SOFT}; share that fails:", "", *lines]
    for family, results in rows.items():
        judge = problem(family, 1).family
        text += ["", f"{family}, {len(results[UNIVERSAL, 1].errors)} tasks:", ""]
        text += ["| method | renders | median error | failures, % | ms a task |"]
        text += ["|" + " --- |" * 5]
        for (name, budget), result in results.items():
            one = summarise(name, result.errors, judge.failure_threshold)
            cells = [
                name,
                str(budget),
                one.median.format(digits=4),
                one.failure.format(100, 1),
                f"{result.milliseconds:.0f}",
            ]
            text.append("| " + " | ".join(cells) + " |")
    return "\n".join([*text, "", "In brackets 95% bootstrap intervals over tasks."]) + "\n"


def _file(name: str, budget: int) -> str:
    return f"{name.replace(' ', '_').replace(',', '')}_{budget}"


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except (ValueError, OSError, RuntimeError) as error:
        raise SystemExit(f"rivals: {error}") from error
