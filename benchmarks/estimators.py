"""Compare the outer-gradient estimators at equal compute: quality against wall-clock on Shape2D.

    python benchmarks/estimators.py                  # 8 estimators x 5 seeds x 60 s: under an hour
    python benchmarks/estimators.py --budget 10 --seeds 2 --only exact es

All start at the same well-tuned annealed logistic, with its shape, scale and learning-rate
schedules learnable, and train by `OuterTrainer` at a constant outer learning rate for the same
time, one run after another. At equal marks the clock is stopped, and the iterate and the running
average of iterates are scored on tasks of the tuning stream: the mean of log(error + 1e-3), lower
is better. The best so far is what a training would keep; at the end it solves unseen tasks. Seeds
change the training tasks and the search directions, not what is judged on.

Into `out/estimators/` go estimators.json (finished runs are kept: a stopped comparison goes on
where it was), estimators.png and estimators.md. Compare on a machine that has nothing else to do.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
import tyro
from rich.console import Console
from torch import Tensor

import taichi_raster as tr
from meta.estimators import (
    es_gradient,
    exact_gradient,
    first_order_gradient,
    online_gradient,
    pes_gradient,
    truncated_gradient,
)
from meta.evaluation.evaluate import candidate_errors, evaluate
from meta.evaluation.stats import FAILURE_THRESHOLD
from meta.inner.method import Method
from meta.inner.updates import Adam
from meta.outer.checkpoint import load_checkpoint, load_json, require_equal, save_json
from meta.outer.estimator import Estimator
from meta.outer.loss import OuterLoss
from meta.outer.settings import TrainerSettings
from meta.outer.trainer import OuterTrainer
from meta.search.fixed import FixedSoftness
from meta.search.learnable import learnable_shape
from tasks import Shape2D

matplotlib.use("Agg")
import matplotlib.pyplot as plt

KIND = "estimator-benchmark"
START = FixedSoftness("logistic", 0.16, 0.01, 0.1, True)
TRUE = OuterLoss("true")
SOFT = OuterLoss("soft", "identity")  # the published one
NEVER = 10**6
VALIDATION_INDEX = 1000


@dataclass(frozen=True)
class Entry:
    """An estimator as one would use it: what it minimises, its options, tasks, rates and clip.

    `sigma` marks evolution strategies: perturbations of the weights and of the schedules.
    """

    estimator: Estimator
    outer: OuterLoss = TRUE
    options: dict[str, Any] = field(default_factory=dict)
    sigma: tuple[float, float] | None = None
    tasks: int = 32
    lr: tuple[float, float] = (0.03, 0.06)
    clip: float = 1.0

    def recipe(self) -> str:
        """All of it as a text: a run that was made by another one is made again."""
        return repr(replace(self, estimator=self.estimator.name))  # type: ignore[arg-type]


SEARCH = {"pairs": 4, "directions": "per_task"}
ENTRIES = {
    "exact": Entry(exact_gradient),
    "truncated, all windows": Entry(truncated_gradient, options={"window": 10}),
    "truncated, last window": Entry(truncated_gradient, options={"window": 10, "windows": "last"}),
    "es": Entry(es_gradient, options=SEARCH, sigma=(0.08, 0.15), tasks=16),
    "pes, all windows": Entry(
        pes_gradient, options={**SEARCH, "window": 10}, sigma=(0.08, 0.15), tasks=16
    ),
    "pes, final loss": Entry(
        pes_gradient,
        options={**SEARCH, "window": 10, "losses": "last"},
        sigma=(0.08, 0.15),
        tasks=16,
    ),
    "first_order": Entry(first_order_gradient, SOFT, lr=(0.003, 0.006)),
    "online": Entry(online_gradient, SOFT, lr=(0.003, 0.006)),
}


@dataclass(frozen=True)
class Options:
    """What to compare; see the top of the file.

    Args:
        out: folder of the results.
        budget: seconds of training in a run.
        seeds: runs of each estimator.
        only: names of estimators; all by default.
        marks: scores along a run, after that of the start.
        image_size, steps: of the tasks and of the inner loop.
        validation, unseen: tasks behind a mark's score and behind the final one.
    """

    out: Path = Path("out/estimators")
    budget: float = 60.0
    seeds: int = 5
    only: tuple[str, ...] = ()
    marks: int = 12
    image_size: int = 24
    steps: int = 40
    validation: int = 256
    unseen: int = 512

    def __post_init__(self) -> None:
        if unknown := set(self.only) - ENTRIES.keys():
            raise ValueError(f"only: unknown {sorted(unknown)}; expected some of {list(ENTRIES)}")
        for name in ("budget", "seeds", "marks", "image_size", "steps", "validation", "unseen"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")

    def settings(self) -> dict[str, Any]:
        """What the numbers of a run depend on."""
        settings = asdict(self)
        for name in ("out", "seeds", "only"):
            del settings[name]
        return {**settings, "start": START.title}

    def family(self, seed: int) -> Shape2D:
        """Seed 0 is for judging, others for training."""
        return Shape2D(triangles=2, image_size=self.image_size, seed=seed)

    def method(self) -> Method:
        """The common start."""
        return learnable_shape(START, self.family(0).renderer, Adam(), self.steps)


def main(options: Options) -> None:
    torch.set_num_threads(1)  # torch's idle threads spin, and take the cores away from Taichi's
    tr.init("cpu", deterministic=True)
    console = Console(width=120)
    path = options.out / "estimators.json"
    results: dict[str, Any] = {"kind": KIND, "settings": options.settings(), "runs": {}}
    if path.is_file():
        saved = load_json(path, KIND)
        require_equal(path, saved["settings"], results["settings"])
        results = saved
    for seed in range(1, options.seeds + 1):
        for name in options.only or ENTRIES:
            key = f"{name} / {seed}"
            run = results["runs"].get(key)
            if run is None or run["recipe"] != ENTRIES[name].recipe():
                run = results["runs"][key] = train(ENTRIES[name], seed, options)
                save_json(path, results)
            console.print(
                f"{key}: validation {run['marks'][0]['iterate']:.3f} -> {best_so_far(run)[-1]:.3f} "
                f"in {run['marks'][-1]['iterations']} iterations, unseen {run['unseen']:.3f}"
            )
    if "start" not in results:
        results["start"] = unseen(options.method(), options)
        save_json(path, results)
    draw(results, options.out / "estimators.png")
    (options.out / "estimators.md").write_text(markdown(results))
    console.print(markdown(results))


def train(entry: Entry, seed: int, options: Options) -> dict[str, Any]:
    """One run: scores at the marks, then on unseen tasks."""
    method = options.method()
    best = method.parameter_dict()
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(entry, method, seed, options, folder)
        spent: dict[str, float] = {"seconds": 0.0, "cpu": 0.0, "iterations": 0}
        marks = [mark(method, [best, best], spent, options)]
        used, busy, stopped = 0.0, 0.0, None
        for until in np.linspace(0, options.budget, options.marks + 1)[1:]:
            if stopped is None and used < until:
                begin, cpu = time.monotonic(), time.process_time()
                try:
                    trainer.run(time_budget=until - used, quiet=True)
                except FloatingPointError as error:
                    stopped = str(error)
                used, busy = used + time.monotonic() - begin, busy + time.process_time() - cpu
            tensors, _ = load_checkpoint(trainer.checkpoint_path, "outer-training")
            candidates = [part(tensors, which) for which in ("current/", "average/")]
            spent = {"seconds": used, "cpu": busy, "iterations": trainer.iteration}
            try:
                marks.append(mark(method, candidates, spent, options))
            except FloatingPointError as error:  # what was learned does not solve all tasks
                stopped = f"{error}"
                marks.append({**marks[-1], **spent})
            last = marks[-1]["iterate"], marks[-1]["average"]
            if min(last) < min(min(m["iterate"], m["average"]) for m in marks[:-1]):
                best = candidates[int(last[1] < last[0])]
    method.load(best)
    found = {"recipe": entry.recipe(), "marks": marks, "stopped": stopped}
    return {**found, **unseen(method, options)}


def make_trainer(
    entry: Entry, method: Method, seed: int, options: Options, folder: str
) -> OuterTrainer:
    """A trainer that validates next to nothing, warmed up: its kernels are compiled."""

    def by_name(values: tuple[float, float]) -> dict[str, float]:
        return {key: values["weights" not in key] for key in method.learnable()}

    settings = TrainerSettings(
        iterations=NEVER,
        batch_size=entry.tasks,
        lr=by_name(entry.lr),
        lr_policy="constant",
        clip=entry.clip,
        validate_every=NEVER,
        validation_batches=1,
        validation_batch_size=1,
        checkpoint_every=NEVER,
        seed=seed,
    )
    given = entry.options | ({"sigma": by_name(entry.sigma)} if entry.sigma else {})
    family = options.family(seed)
    warm = family.sample(entry.tasks, "train", NEVER)
    entry.estimator(method, warm, entry.outer, generator=torch.Generator(), **given)
    trainer = OuterTrainer(method, family, entry.outer, entry.estimator, given, settings, folder)
    trainer.run(time_budget=0.0, quiet=True)  # no iteration, but the validation of the start
    return trainer


def mark(
    method: Method,
    candidates: list[dict[str, Tensor]],
    spent: dict[str, float],
    options: Options,
) -> dict[str, float]:
    """Validation scores of the iterate and the average, beside what was spent on them."""
    scores = []
    for index in range(-(-options.validation // 64)):
        size = min(64, options.validation - 64 * index)
        task = options.family(0).sample(size, "tune", VALIDATION_INDEX + index)
        scores.append(score(candidate_errors(method, candidates, task)))
    iterate, average = np.concatenate(scores, axis=1).mean(axis=1)
    return {**spent, "iterate": float(iterate), "average": float(average)}


def unseen(method: Method, options: Options) -> dict[str, float]:
    """Score and failure rate on the test stream."""
    errors = evaluate(method, options.family(0), options.unseen).errors
    failures = (errors > FAILURE_THRESHOLD).mean()
    return {"unseen": float(score(errors).mean()), "failures": float(failures)}


def score(errors: np.ndarray) -> np.ndarray:
    """log(error + 1e-3)."""
    return TRUE.of_error(torch.as_tensor(errors)).numpy()


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def best_so_far(run: dict[str, Any]) -> np.ndarray:
    """The better of iterate and average, minimum up to each mark."""
    return np.minimum.accumulate([min(m["iterate"], m["average"]) for m in run["marks"]])


# What is shown -----------------------------------------------------------------------------------


def by_estimator(results: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Finished runs of each estimator."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for name, entry in ENTRIES.items():
        found = [
            run
            for key, run in results["runs"].items()
            if key.split(" / ")[0] == name and run["recipe"] == entry.recipe()
        ]
        if found:
            runs[name] = found
    return runs


def draw(results: dict[str, Any], path: Path) -> None:
    """Scores against wall-clock: mean and standard deviation over seeds."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    for index, (name, runs) in enumerate(by_estimator(results).items()):
        seconds = np.mean([[m["seconds"] for m in run["marks"]] for run in runs], axis=0)
        average = np.array([[m["average"] for m in run["marks"]] for run in runs])
        for axis, values in zip(axes, (np.array([*map(best_so_far, runs)]), average), strict=True):
            mean, spread = values.mean(axis=0), values.std(axis=0, ddof=len(runs) > 1)
            style = "--" if ENTRIES[name].outer == SOFT else "-"
            axis.plot(seconds, mean, style, label=name, color=f"C{index}")
            axis.fill_between(
                seconds, mean - spread, mean + spread, color=f"C{index}", alpha=0.15, linewidth=0
            )
    axes[0].set(title="best so far", ylabel="validation: mean of log(error + 1e-3)")
    start = next(iter(results["runs"].values()))["marks"][0]["average"]
    axes[1].set(title="running average of iterates", ylim=(axes[0].get_ylim()[0], start + 0.5))
    for axis in axes:
        axis.axhline(start, color="black", linewidth=0.8)
        axis.set_xlabel("seconds of training")
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def markdown(results: dict[str, Any]) -> str:
    """One row an estimator: mean ± standard deviation over seeds."""
    budget = results["settings"]["budget"]
    lines = [
        (
            f"| estimator ({budget:g} s) | seeds | iterations | validation, half time "
            "| validation | unseen | failures % |"
        ),
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, runs in by_estimator(results).items():
        curves = np.array([best_so_far(run) for run in runs])
        stopped = sum(run["stopped"] is not None for run in runs)
        columns = [
            f"{name}{f' ({stopped} diverged)' if stopped else ''}",
            str(len(runs)),
            f"{np.mean([run['marks'][-1]['iterations'] for run in runs]):.0f}",
            spread(curves[:, curves.shape[1] // 2]),
            spread(curves[:, -1]),
            spread(np.array([run["unseen"] for run in runs])),
            spread(100 * np.array([run["failures"] for run in runs]), 1),
        ]
        lines.append("| " + " | ".join(columns) + " |")
    validation = next(iter(results["runs"].values()))["marks"][0]["iterate"]
    start = results["start"]
    lines.append(
        f"| {START.title} (the start) | | | | {validation:.3f} | {start['unseen']:.3f} "
        f"| {100 * start['failures']:.1f} |"
    )
    return "\n".join(lines) + "\n"


def spread(values: np.ndarray, digits: int = 3) -> str:
    return f"{values.mean():.{digits}f} ± {values.std(ddof=len(values) > 1):.{digits}f}"


if __name__ == "__main__":
    main(tyro.cli(Options))
