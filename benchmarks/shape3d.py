"""What limits Shape3D, and what was tried to learn a softness that does better.

    python benchmarks/shape3d.py limits
    python benchmarks/shape3d.py learn --minutes 20

`limits` solves unseen tasks by the study's best annealed softness: with fewer and more steps, other
weights of the regularisers, more views, finer images. Then it moves the same vertices down the
Chamfer distance itself, which no image shows: so good could a fit be.

`learn` takes the study's start and changes what it is learned by, a lever at a time, and judges
the best validated iterate on the same unseen tasks. It resumes where it was stopped. Tables go into
`--out`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from torch import Tensor
from tyro.conf import Positional

import taichi_raster as tr
from meta.estimators import ESTIMATORS
from meta.evaluation.evaluate import Evaluation, evaluate
from meta.evaluation.stats import compare
from meta.inner.updates import Adam
from meta.outer.loss import OuterKind, OuterLoss
from meta.outer.settings import TrainerSettings
from meta.outer.trainer import OuterTrainer
from meta.search.fixed import FixedSoftness, fixed_method
from meta.search.learnable import Learnable, learnable_method
from tasks import Shape3D

START = FixedSoftness("gaussian", 0.15, 0.01, 0.0133333, True)
"""The best annealed softness of `examples/study.py shape3d`."""
STEPS = 40
RULE = Adam(betas=(0.5, 0.95))
BATCH = 32
NAME = "best annealed"


@dataclass(frozen=True)
class Options:
    """See the top of the file.

    Args:
        what: limits or learn.
        count: unseen tasks.
        minutes: of learning, for each lever.
        only: some of the levers.
        out: folder of the tables and trainings.
    """

    what: Positional[Literal["limits", "learn"]]
    count: int = 128
    minutes: float = 20.0
    only: tuple[str, ...] = ()
    out: Path = Path("out/shape3d")

    def __post_init__(self) -> None:
        if unknown := set(self.only) - LEVERS.keys():
            raise ValueError(f"only: unknown {sorted(unknown)}; expected some of {list(LEVERS)}")


@dataclass(frozen=True)
class Lever:
    """How a softness is learned.

    Attributes:
        estimator, options: of the outer gradient; tasks: of a meta-batch.
        rates, sigmas: of weights, and of schedules; sigmas for evolution strategies.
        steps: inner ones; lr: where the inner learning rate starts.
        shape: options of the network.
        outer: kind of the outer loss.
    """

    estimator: str = "es"
    options: Mapping[str, Any] = field(
        default_factory=lambda: {"pairs": 1, "directions": "per_task", "max_batch": 64}
    )
    tasks: int = 32
    rates: tuple[float, float] = (0.02, 0.06)
    sigmas: tuple[float, float] | None = (0.05, 0.15)
    steps: int = STEPS
    lr: float = START.lr
    shape: Mapping[str, Any] = field(default_factory=dict)
    outer: OuterKind = "true"

    @property
    def start(self) -> FixedSoftness:
        return replace(START, lr=self.lr)


LEVERS = {
    "larger meta-batch and perturbations": Lever(),
    "truncated gradient": Lever("truncated", {"window": 10}, 16, (0.006, 0.02), None),
    "half the steps": Lever(steps=20, lr=1.7 * START.lr),
    "wider network": Lever(shape={"widths": (12, 12)}),
    "outer loss of pictures": Lever(outer="sharp"),
}


def main(options: Options) -> None:
    torch.set_num_threads(1)
    tr.init("cpu", deterministic=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (limits if options.what == "limits" else learn)(options)


# Limits -------------------------------------------------------------------------------------------


def limits(options: Options) -> None:
    family = Shape3D.coarse()
    cases = {f"{steps} steps": (family, steps) for steps in (10, 20, 40, 80, 160)}
    cases |= {
        "without the regularisers": (replace(family, laplacian=0.0, flattening=0.0), STEPS),
        "a third of them": (replace(family, laplacian=0.01, flattening=0.0001), STEPS),
        "three times as much": (replace(family, laplacian=0.1, flattening=0.001), STEPS),
        "16 views": (replace(family, views=16), STEPS),
        "24 views": (replace(family, views=24), STEPS),
        "48 x 48 pixels": (replace(family, image_size=48), STEPS),
    }
    results = {}
    for name, (changed, steps) in cases.items():
        method = fixed_method(START, changed.renderer, RULE, steps)
        results[name] = evaluate(method, changed, options.count, batch_size=BATCH)
        print(name, f"{results[name].errors.mean():.4f}", flush=True)
    results["down the Chamfer distance itself"] = by_true_error(family, options.count)
    show(results, f"{STEPS} steps", options.out / "limits.md")


def by_true_error(family: Shape3D, count: int, steps: int = 300) -> Evaluation:
    """Fits by the error itself."""
    errors, starts = [], []
    metrics: dict[str, list[np.ndarray]] = {}
    for index in range(-(-count // BATCH)):
        task = family.sample(min(BATCH, count - index * BATCH), "test", index)
        offsets = task.start().requires_grad_()
        starts.append(task.true_error(offsets.detach()).numpy())
        optimiser = torch.optim.Adam([offsets], lr=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for _ in range(steps):
            optimiser.zero_grad()
            error: Tensor = task.true_error(offsets).sum()
            error.backward()
            optimiser.step()
            schedule.step()
        errors.append(task.true_error(offsets.detach()).numpy())
        for name, values in task.metrics(offsets.detach()).items():
            metrics.setdefault(name, []).append(values.numpy())
    joined = {name: np.concatenate(values) for name, values in metrics.items()}
    return Evaluation(np.concatenate(errors), np.concatenate(starts), joined)


# Learning -----------------------------------------------------------------------------------------


def learn(options: Options) -> None:
    family, lines = Shape3D.coarse(), []
    for name in options.only or LEVERS:
        lever = LEVERS[name]
        method = learnable_method(
            lever.start,
            family.renderer,
            RULE,
            lever.steps,
            Learnable(progress=True, conorm="frank"),
            table=True,
            **lever.shape,
        )
        names = list(method.learnable())
        given = dict(lever.options)
        if lever.sigmas is not None:
            given["sigma"] = by_name(lever.sigmas, names)
        settings = TrainerSettings(
            10_000,
            lever.tasks,
            lr=by_name(lever.rates, names),
            lr_policy="constant",
            validate_every=5,
            validation_batches=1,
            validation_batch_size=64,
            max_batch=64,
            nonfinite="skip",
        )
        outer = OuterLoss(lever.outer, floor=Shape3D.error_floor)
        validation = OuterLoss("true", floor=Shape3D.error_floor)
        trainer = OuterTrainer(
            method,
            family,
            outer,
            ESTIMATORS[lever.estimator],
            given,
            settings,
            options.out / name.replace(" ", "_"),
            "auto",
            validation=validation,
        )
        found = trainer.run(60 * options.minutes, quiet=True)
        fixed = fixed_method(lever.start, family.renderer, RULE, lever.steps)
        results = {
            title: evaluate(m, family, options.count, batch_size=BATCH)
            for title, m in ((NAME, fixed), (name, method))
        }
        text = (
            f"{name}: validation {found.start_score:.3f} before, {found.best.score:.3f} after (the "
            f"{found.best.source} at outer iteration {found.best.iteration} of {found.iteration})"
        )
        print(text, flush=True)
        lines.append(f"- {text}\n")
        table = show(results, NAME, options.out / f"{name.replace(' ', '_')}.md")
        lines.append(table)
    (options.out / "learn.md").write_text("\n".join(lines))


def by_name(values: tuple[float, float], names: list[str]) -> dict[str, float]:
    """Of weights, and of schedules."""
    return {name: values["weights" not in name] for name in names}


def show(results: Mapping[str, Evaluation], reference: str, path: Path) -> str:
    """A table of all of them, against one."""
    rows = []
    for name, found in results.items():
        compared = compare(
            name,
            found.errors,
            reference,
            results[reference].errors,
            Shape3D.error_floor,
            Shape3D.failure_threshold,
        )
        means = [found.metrics[key].mean() for key in ("image_error", "voxel_iou")]
        rows.append(
            [
                name,
                f"{found.errors.mean():.4f}",
                f"{np.median(found.errors):.4f}",
                "" if name == reference else compared.ratio.format(digits=3),
                *(f"{value:.4f}" for value in means),
            ]
        )
    header = ["", "mean error", "median error", "error ratio", "image error", "voxel IoU"]
    lines = [header, ["---"] * len(header), *rows]
    table = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    path.write_text(table)
    print(table, flush=True)
    return table


if __name__ == "__main__":
    main(tyro.cli(Options))
