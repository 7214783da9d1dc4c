"""Run a study of one task family: tune fixed softnesses, learn one, judge all on unseen tasks.

Each stage keeps its results in files, so that a stopped study can be resumed:

1. tune: a grid of fixed softnesses by successive halving, then a finer grid around the best of each
   class (see `meta.search`), on the tuning stream. An optional wider search also tunes the T-conorm
   and an annealed temperature.
2. learn: a softness that starts at the best fixed one; and the ablation, whose shape stays
   logistic, by the same estimator with the same effort. Optionally, each is kept only if fresh
   tasks confirm that it is better than its start.
3. judge: all methods on the same unseen tasks, of the family itself and of those they are to
   transfer to. Nothing has been tuned or trained on these tasks.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console
from torch import Tensor

import taichi_raster as tr
from meta.evaluation.evaluate import Evaluation, evaluate
from meta.evaluation.stats import Comparison, compare
from meta.inner.method import Method
from meta.outer.checkpoint import describe, fingerprint, load_json, save_json
from meta.outer.distributed import world
from meta.outer.state import TrainingResult, Validated
from meta.outer.trainer import OuterTrainer
from meta.search.fixed import FixedSoftness, Grid, finer_grid, fixed_method
from meta.search.learnable import Learnable, learnable_method
from meta.search.ranking import Tuned, TuningResult, ranking_markdown
from meta.search.tuner import BaselineTuner, Rung
from meta.study.plan import (
    ABLATION,
    ANNEALED,
    CONSTANT,
    LEARNED,
    WIDER,
    Problem,
    Study,
    soft_renderer,
)

CONFIRMATION = 2000  # the first batch of the tuning stream for it; validation begins at 1000


class StudyRun:
    """Runs a study in a folder.

    Args:
        study: what to do.
        folder: where every stage keeps its files.
        resume: use the results in `folder`, if there are any; False overwrites them stage by
            stage.
        console, quiet: where progress is shown, and whether.
    """

    def __init__(
        self,
        study: Study,
        folder: Path,
        resume: bool = False,
        console: Console | None = None,
        quiet: bool = False,
    ) -> None:
        self.study, self.folder, self.resume = study, Path(folder), resume
        self.console, self.quiet = console or Console(quiet=quiet), quiet

    # Stage 1 --------------------------------------------------------------------------------------

    def tune(self) -> dict[str, Tuned]:
        """Stage 1. Returns the best fixed softnesses by name.

        They are `CONSTANT`, `ANNEALED`, `WIDER` if there was a wider search, and "logistic", where
        the ablation starts. "logistic" is the best annealed logistic of the search, wider or not,
        that found where learning starts.
        """
        study = self.study
        results = [self._tuned(study.grid, study.rungs, "tuning")]
        if study.slow_grid is not None:
            slow_rungs = (study.rungs[0], Rung(study.rungs[-1].batches, 1))
            results.append(self._tuned(study.slow_grid, slow_rungs, "tuning slow"))
        if study.wider_grid is not None:
            results.append(self._tuned(study.wider_grid, study.rungs, "tuning wider"))
        best = _best_of_each_class(results)
        if study.finer:
            rungs = [
                replace(rung, keep=None) if i == 0 else rung
                for i, rung in enumerate(study.rungs[1:])
            ]
            for name, entry in best.items():
                grid = finer_grid(entry.config, study.gammas)
                short = "wider" if name == WIDER else name
                results.append(self._tuned(grid, rungs or study.rungs, f"finer {short}"))
        best = _best_of_each_class(results)
        text = "\n".join(ranking_markdown(result) for result in results)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "tuning.md").write_text(text)
        configurations = {name: entry.config.to_json() for name, entry in best.items()}
        save_json(
            self.folder / "best.json", {"kind": "best-fixed", "configurations": configurations}
        )
        for name, entry in best.items():
            self.console.print(
                f"{name}: {entry.config.title} (mean log error {entry.score:.3f}, failures "
                f"{entry.failure_rate:.0%}, mean {entry.mean:.4f}, median {entry.median:.4f} over "
                f"{entry.tasks} tuning tasks)"
            )
        return best

    def _tuned(self, grid: Grid, rungs: Sequence[Rung], name: str) -> TuningResult:
        study = self.study
        return BaselineTuner(
            study.problem.family,
            study.problem.family.renderer,
            study.rule,
            study.problem.steps,
            grid=grid,
            rungs=rungs,
            batch_size=study.tuning_batch,
            max_batch=study.max_batch,
            cache=self.folder / f"{name.replace(' ', '_')}.json",
            resume=self.resume,
        ).run(self.console, self.quiet)

    # Stage 2 --------------------------------------------------------------------------------------

    def start(self, best: Mapping[str, Tuned], name: str) -> Method:
        """The method at which `LEARNED` or `ABLATION` starts, on the study's own family."""
        training = self.study.training
        config = best[_start_of(best) if name == LEARNED else "logistic"].config
        learn, options = training.learn, dict(training.shape_options)
        if config.conorm is not None and learn.conorm is not None:
            learn = replace(learn, conorm=config.conorm[0])
        if config.over:  # a depth network starts as a softmax
            learn = replace(learn, depth=False)
        if name == ABLATION:
            learn, options = replace(learn, shape=False, progress=False, depth=False), {}
        return self._at(self.study.problem, config, learn, options)

    def train(self, method: Method, name: str, time_budget: float | None = None) -> TrainingResult:
        """Stage 2: learn the parameters of `method`, which is left at the best validated ones."""
        training, names = self.study.training, list(method.learnable())
        folder = self.folder / ("learned" if name == LEARNED else "ablation")
        start = method.parameter_dict()
        settings = replace(
            training.settings,
            lr={key: _by_last_word(training.rates, key) for key in names},
            max_batch=self.study.max_batch,
        )
        options = {**training.options}
        if training.estimator.takes("max_batch"):
            options["max_batch"] = self.study.max_batch
        if training.sigmas is not None:
            options["sigma"] = {key: _by_last_word(training.sigmas, key) for key in names}
        outer = replace(training.outer, floor=self.study.problem.family.error_floor)
        trainer = OuterTrainer(
            method,
            self.study.problem.family,
            outer,
            training.estimator,
            options,
            settings,
            folder,
            "auto" if self.resume else False,
            validation=outer,
        )
        result = trainer.run(
            time_budget, self.console, self.quiet, description=f"{self.study.name}: {name}"
        )
        self.console.print(f"{name}: {result.summary}")
        if training.confirm == 0:
            return result
        shown = world().from_main(lambda: self._confirm(method, start, folder))
        if shown.ratio.high < 1:
            return replace(result, confirmed=shown)
        method.load(start)
        best = Validated(start, result.start_score, 0, "start")
        return replace(result, best=best, confirmed=shown)

    def _confirm(self, method: Method, start: dict[str, Tensor], folder: Path) -> Comparison:
        """Compare what was learned with its start, on tuning tasks that no stage has used yet."""
        problem, path = self.study.problem, folder / "confirmed.json"
        learned = method.parameter_dict()
        settings = json.loads(
            json.dumps(
                {
                    "family": describe(problem.family),
                    "count": self.study.training.confirm,
                    "batch_size": problem.batch_size,
                    "method": fingerprint(method),
                }
            )
        )
        results: dict[str, Evaluation] = {}
        if self.resume and path.is_file():
            content = load_json(path, "confirmation")
            if content["settings"] == settings:
                results = {k: Evaluation.from_json(v) for k, v in content["results"].items()}
        if not results:
            for name, parameters in (("learned", learned), ("start", start)):
                method.load(parameters)
                results[name] = evaluate(
                    method,
                    problem.family,
                    self.study.training.confirm,
                    "tune",
                    problem.batch_size,
                    CONFIRMATION,
                )
            method.load(learned)
            found = {name: result.to_json() for name, result in results.items()}
            save_json(path, {"kind": "confirmation", "settings": settings, "results": found})
        return compare(
            "learned",
            results["learned"].errors,
            "its start",
            results["start"].errors,
            problem.family.error_floor,
            problem.family.failure_threshold,
        )

    # Stage 3 --------------------------------------------------------------------------------------

    def methods(
        self, best: Mapping[str, Tuned], trained: Mapping[str, Method], problem: Problem
    ) -> dict[str, Method]:
        """Every method as it solves `problem`, with the renderer of that problem's family."""
        family, rule = problem.family, self.study.rule
        fixed = {
            name: fixed_method(best[name].config, family.renderer, rule, problem.steps)
            for name in (CONSTANT, ANNEALED, WIDER)
            if name in best
        }
        return {name: moved(method, problem) for name, method in (fixed | dict(trained)).items()}

    def judge(self, methods: Mapping[str, Method], problem: Problem) -> dict[str, Evaluation]:
        """Stage 3: solve the unseen tasks of `problem` with every method that is new or changed."""
        results = {}
        for name, method in methods.items():
            path = judged_file(self.folder, problem, name)
            settings = {
                "family": describe(problem.family),
                "count": problem.count,
                "batch_size": problem.batch_size,
                "steps": problem.steps,
                "parameters": {k: v.tolist() for k, v in method.state_dict().items()},
                "method": fingerprint(method),
                "rule": describe(method.rule),
            }
            if self.resume and path.is_file():
                content = load_json(path, "evaluation")
                if content["settings"] == json.loads(json.dumps(settings)):
                    results[name] = Evaluation.from_json(content)
                    continue
            with self.console.status(f"{problem.title}: {name}"):
                results[name] = evaluate(
                    method, problem.family, problem.count, batch_size=problem.batch_size
                )
            save_json(path, {"kind": "evaluation", "settings": settings, **results[name].to_json()})
        return results

    def _at(
        self, problem: Problem, config: FixedSoftness, learn: Learnable, options: dict[str, Any]
    ) -> Method:
        return learnable_method(
            config,
            problem.family.renderer,
            self.study.rule,
            problem.steps,
            learn,
            self.study.training.table,
            **options,
        )


def moved(method: Method, problem: Problem) -> Method:
    """The method on another family; its softness is scaled by `problem.scale`."""
    old = soft_renderer(method)
    edge = old.edge
    if problem.scale != 1.0:
        edge = copy.deepcopy(edge)
        scale = cast(tr.Knots, edge.scale)  # as every method of a study has it
        with torch.no_grad():
            scale.log_values.add_(math.log(problem.scale))
    renderer = problem.family.renderer(edge, depth=old.depth, alpha=old.alpha)
    return Method(renderer, method.rule, method.lr, problem.steps, method.sharp_from)


def _start_of(best: Mapping[str, Tuned]) -> str:
    return WIDER if WIDER in best else ANNEALED


def _best_of_each_class(results: Sequence[TuningResult]) -> dict[str, Tuned]:
    """The best of several searches; configurations tried on more tasks rank first."""
    ranking = [entry for result in results for entry in result.ranking]
    merged = TuningResult(sorted(ranking, key=lambda entry: (-entry.tasks, entry.score)))
    best = {
        CONSTANT: merged.best(lambda c: c.plain and not c.annealed),
        ANNEALED: merged.best(lambda c: c.plain and c.annealed),
    }
    if not all(entry.config.plain for entry in merged.ranking):
        best[WIDER] = merged.best(lambda c: c.annealed)
    start = best[_start_of(best)].config
    logistics = [
        entry
        for entry in merged.ranking
        if entry.config.annealed and entry.config.distribution == "logistic"
    ]
    alike = [entry for entry in logistics if entry.config.plain == start.plain]
    best["logistic"] = TuningResult(alike or logistics).best(lambda config: True)
    return best


def _by_last_word(values: Mapping[str, float], name: str) -> float:
    word = name.rpartition(".")[2]
    if word not in values:
        raise ValueError(f"rates, sigmas: nothing for parameters called {word!r} ({name})")
    return values[word]


def judged_file(folder: Path, problem: Problem, method: str) -> Path:
    """The file in which a study in `folder` keeps the results of a method."""
    return Path(folder) / "judged" / f"{_file_name(problem.title)} {_file_name(method)}.json"


def _file_name(title: str) -> str:
    return "".join(c if c.isalnum() or c in "-_. " else "_" for c in title)
