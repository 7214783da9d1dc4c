"""Report the results of a study as Markdown tables and figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from meta.evaluation.evaluate import Evaluation, convergence
from meta.evaluation.stats import Comparison, Summary, compare, markdown_table, summarise
from meta.inner.method import Method
from meta.inner.unroll import trajectory, unroll
from meta.study.figures import (
    Curves,
    convergence_figure,
    picture_grid,
    softness_figure,
    solving_gif,
)
from meta.study.plan import ABLATION, ANNEALED, CONSTANT, LEARNED, WIDER, Problem, soft_renderer

CONVERGENCE_COUNT = 24  # instances of convergence curves: every step of each is judged sharply
IMAGE_FLOOR = 1e-6  # of image errors, whose squares are of the order of a pixel in 10,000
STYLES: dict[str, str | tuple[int, tuple[int, int]]] = {
    CONSTANT: ":",
    ANNEALED: "--",
    WIDER: (0, (5, 1)),
    ABLATION: "-.",
    LEARNED: "-",
}


def problem_markdown(problem: Problem, results: Mapping[str, Evaluation]) -> str:
    """A section: parameter errors, the shape's worth, image errors, the family's own metrics.

    Everything is compared with the best annealed fixed softness, on the same instances.
    """
    family = problem.family
    made_by = repr(family)
    if "\n" in made_by:  # a mesh of its own
        made_by = f"{type(family).__name__}(...)"
    lines = [
        f"### {problem.title}\n",
        (
            f"`{made_by}`, {problem.steps} steps. Error: {family.error_name}; a failure is an "
            f"error above {family.failure_threshold:g}.\n"
        ),
        markdown_table(*parameter_table(problem, results)),
    ]
    if {LEARNED, ABLATION} <= results.keys():
        lines.append(shape_worth(problem, results) + "\n")
    lines.append(image_table(results))
    own = own_metrics(results)
    if own:
        lines.append(own)
    return "\n".join(lines)


def shape_worth(problem: Problem, results: Mapping[str, Evaluation]) -> str:
    """What the learned shape is worth: `LEARNED` against `ABLATION`, in one sentence."""
    family = problem.family
    shape = compare(
        LEARNED,
        results[LEARNED].errors,
        ABLATION,
        results[ABLATION].errors,
        family.error_floor,
        family.failure_threshold,
    )
    return (
        f"Learned against {ABLATION}: ratio {shape.ratio.format(digits=3)}, wins % "
        f"{shape.win_rate.format(100, 1)}, failures, more % "
        f"{shape.failure_difference.format(100, 1)}, p {shape.p_value:.2g}."
    )


def parameter_table(
    problem: Problem, results: Mapping[str, Evaluation]
) -> tuple[list[Summary], list[Comparison]]:
    """Parameter errors: a summary of each method, and its comparison with the best annealed."""
    threshold, floor = problem.family.failure_threshold, problem.family.error_floor
    summaries = [summarise(name, result.errors, threshold) for name, result in results.items()]
    reference = results[ANNEALED].errors
    comparisons = [
        compare(name, result.errors, ANNEALED, reference, floor, threshold)
        for name, result in results.items()
        if name != ANNEALED
    ]
    return summaries, comparisons


def score_card(problem: Problem, results: Mapping[str, Evaluation]) -> dict[str, object]:
    """Figures of the learned method on unseen tasks, rounded, for a softening's card."""
    _, comparisons = parameter_table(problem, results)
    learned = next(c for c in comparisons if c.name == LEARNED)
    errors = results[LEARNED].errors
    threshold = problem.family.failure_threshold
    return {
        "instances": len(errors),
        "error": problem.family.error_name,
        "mean": round(float(errors.mean()), 5),
        "median": round(float(np.median(errors)), 5),
        "failures": round(float((errors > threshold).mean()), 4),
        "ratio to the best annealed": [
            round(x, 3) for x in (learned.ratio.value, learned.ratio.low, learned.ratio.high)
        ],
    }


def image_table(results: Mapping[str, Evaluation]) -> str:
    """Errors of sharp renders: mean, median, and the paired ratio to the best annealed."""
    lines = [
        "| softness | mean image error | median image error | ratio | wins % | p |",
        "|" + " --- |" * 6,
    ]
    reference = results[ANNEALED].metrics["image_error"]
    for name, result in results.items():
        errors = result.metrics["image_error"]
        summary = summarise(name, errors)
        row = [name, summary.mean.format(1, 5), summary.median.format(1, 5)]
        if name == ANNEALED:
            row += [""] * 3
        else:
            paired = compare(name, errors, ANNEALED, reference, IMAGE_FLOOR)
            row += [
                paired.ratio.format(1, 3),
                paired.win_rate.format(100, 1),
                f"{paired.p_value:.2g}",
            ]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def own_metrics(results: Mapping[str, Evaluation]) -> str:
    """Means of the metrics that only this family has, finite values only; "" if it has none."""
    names = [
        name
        for name in next(iter(results.values())).metrics
        if name not in ("parameter_error", "image_error", "failure")
    ]
    if not names:
        return ""
    lines = ["| mean of | " + " | ".join(names) + " |", "|" + " --- |" * (len(names) + 1)]
    for name, result in results.items():
        means = [_mean_of_finite(result.metrics[metric]) for metric in names]
        lines.append("| " + " | ".join([name, *means]) + " |")
    return "\n".join(lines) + "\n"


def curves(method: Method, style: str | tuple[int, tuple[int, int]]) -> Curves:
    """The curves of a method for `softness_figure`."""
    edge = soft_renderer(method).edge
    return Curves(edge.value, edge.scale, method.lr, style)


def draw_softnesses(path: Path, methods: Mapping[str, Method]) -> None:
    """Edge functions and schedules of all methods of a study."""
    softness_figure(path, {n: curves(m, STYLES.get(n, "-")) for n, m in methods.items()})


def draw_convergence(path: Path, problem: Problem, methods: Mapping[str, Method]) -> None:
    """Both errors over inner steps, on the first unseen instances."""
    count = min(problem.count, problem.batch_size, CONVERGENCE_COUNT)
    runs = {
        name: convergence(method, problem.family, count, batch_size=problem.batch_size)
        for name, method in methods.items()
    }
    convergence_figure(path, runs, problem.family.error_name)


def draw_pictures(
    path: Path, problem: Problem, methods: Mapping[str, Method], rows: int = 5
) -> None:
    """The first unseen instances, not chosen: start, target, every method's result and error."""
    task = problem.family.sample(min(problem.batch_size, problem.count), "test", 0)
    shown = task.select(list(range(min(rows, task.batch_size))))
    columns = {"start": shown.sharp_image(shown.start()), "target": shown.target}
    for name, method in methods.items():
        picture = shown.sharp_image(unroll(method, shown).params)
        columns[name] = picture
        columns[f"{name}: error"] = (picture - shown.target).abs()
    picture_grid(path, columns, [f"unseen {row}" for row in range(shown.batch_size)])


def draw_solving(
    path: Path, problem: Problem, methods: Mapping[str, Method], among: int = 32
) -> tuple[int, int]:
    """One unseen instance solved step by step, animated, beside its target.

    It is the one, of the first `among` (or of as many as the problem has), whose true error under
    the last method is the smallest against that under the first. Returns its index and the number
    that it was chosen from.
    """
    count = min(problem.count, problem.batch_size, among)
    task = problem.family.sample(count, "test", 0)
    paths = {name: trajectory(method, task) for name, method in methods.items()}
    with torch.no_grad():
        ends = [
            (task.true_error(unknowns[-1]) + problem.family.error_floor).log()
            for unknowns in paths.values()
        ]
        chosen = int((ends[-1] - ends[0]).argmin())
        shown = task.select([chosen])
        films = {
            name: shown.select([0] * len(unknowns)).sharp_image(unknowns[:, chosen])
            for name, unknowns in paths.items()
        }
    solving_gif(path, {"target": shown.target[0], **films})
    return chosen, count


def _mean_of_finite(values: np.ndarray) -> str:
    finite = values[np.isfinite(values)]
    return f"{finite.mean():.4g}" if len(finite) else "none"
