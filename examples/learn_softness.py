"""Meta-learn the softness of a rasterizer, and see it solve problems that it never saw.

    python examples/learn_softness.py              # under 5 minutes on two cores
    python examples/learn_softness.py --long       # about half an hour, and a better softness
    python examples/learn_softness.py --resume     # go on where a stopped run was

Triangles are to be recovered from one sharp picture by gradient descent through a soft rasterizer.
Stages: (1) tune fixed softnesses as a careful expert would; (2) start at the best of them and learn
the softness's shape, its scale over the run and the learning rate over the run; (3) the same with
the shape held logistic, to see what the shape is worth; (4) solve unseen tasks with all of them.

Into `out/learn_softness/` go: table.md, tuning.md, learned_softness.safetensors (for
`tr.load_softness`), softness.png (curves and schedules, before and after), convergence.png,
solved.png (start, target, result, error) and solving.gif (one unseen task, learned and fixed side
by side).
"""

from __future__ import annotations

import copy
import shutil
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal

import torch
import tyro
from rich.console import Console
from torch import Tensor, nn

import taichi_raster as tr
from meta.console import Clock, plan_table
from meta.estimators import es_gradient
from meta.evaluation.evaluate import Evaluation, convergence, evaluate
from meta.evaluation.stats import compare, markdown_table, rich_table, summarise
from meta.inner.method import Method
from meta.inner.unroll import trajectory
from meta.inner.updates import Adam
from meta.outer.checkpoint import load_json, require_equal, save_json
from meta.outer.loss import OuterLoss
from meta.outer.settings import TrainerSettings
from meta.outer.trainer import OuterTrainer
from meta.search.fixed import Grid, fixed_method
from meta.search.learnable import KNOTS, learnable_schedules, learnable_shape
from meta.search.ranking import TuningResult, ranking_markdown
from meta.search.tuner import BaselineTuner, Rung, tuning_runs
from meta.study.figures import (
    Curves,
    convergence_figure,
    picture_grid,
    softness_figure,
    solving_gif,
)
from tasks import Shape2D, Shape2DBatch

CONSTANT, ANNEALED = "best constant", "best annealed"
LEARNED, ABLATION = "learned", "learned schedule, logistic shape"
RULE = Adam()


@dataclass(frozen=True)
class Sizes:
    """How much work is done; every number may be set on the command line.

    Args:
        image_size: side of the pictures in pixels.
        triangles: in a picture.
        steps: inner iterations.
        tuning_batch: tasks in a batch of the tuning stream.
        rungs: rounds of tuning: (batches, softnesses kept of the constant and of the annealed).
        iterations: outer iterations of a training.
        tasks: tasks in an outer iteration.
        pairs: antithetic pairs for each task in an outer iteration.
        validate_every: outer iterations between validations.
        validation_batches: batches of 32 tasks in a validation.
        unseen: test tasks.
        pictured: test tasks behind the figures.
        max_batch: most inner runs side by side (memory).
    """

    image_size: int
    triangles: int
    steps: int
    tuning_batch: int
    rungs: tuple[tuple[int, int | None], ...]
    iterations: int
    tasks: int
    pairs: int
    validate_every: int
    validation_batches: int
    unseen: int
    pictured: int
    max_batch: int = 512


DEMO = Sizes(
    image_size=24, triangles=2, steps=40, tuning_batch=8, rungs=((1, None), (2, 36), (8, 6)),
    iterations=24, tasks=16, pairs=4, validate_every=6, validation_batches=2, unseen=256,
    pictured=32,
)  # fmt: skip
LONG = Sizes(
    image_size=32, triangles=2, steps=60, tuning_batch=16, rungs=((1, None), (4, 36), (16, 6)),
    iterations=40, tasks=32, pairs=4, validate_every=5, validation_batches=8, unseen=1024,
    pictured=64,
)  # fmt: skip
TINY_GRID = Grid(("logistic", "gaussian"), (0.02, 0.16), (0.01,), (0.1,), (True,))


@dataclass(frozen=True)
class Options:
    """Meta-learn a softness; see the top of the file.

    Args:
        out: folder of all results.
        long: half an hour instead of five minutes.
        resume: go on with what is in `out`; its settings must be the same.
        seed: of tasks and search directions.
        arch: backend: cpu, cuda, vulkan or auto.
        grid: fixed softnesses to tune: "full" or, for a trial, "tiny".
        image_size, triangles, steps, tuning_batch, iterations, tasks, pairs, validate_every,
            validation_batches, unseen, max_batch: sizes in place of those of the demo or of `long`.
        rounds: of tuning, at most.
        quiet: no progress bars.
    """

    out: Path = Path("out/learn_softness")
    long: bool = False
    resume: bool = False
    seed: int = 0
    arch: Literal["cpu", "cuda", "vulkan", "auto"] = "cpu"
    grid: Literal["full", "tiny"] = "full"
    image_size: int | None = None
    triangles: int | None = None
    steps: int | None = None
    tuning_batch: int | None = None
    iterations: int | None = None
    tasks: int | None = None
    pairs: int | None = None
    validate_every: int | None = None
    validation_batches: int | None = None
    unseen: int | None = None
    max_batch: int | None = None
    rounds: int | None = None
    quiet: bool = False

    def sizes(self) -> Sizes:
        """The preset, with what was set on the command line."""
        preset = LONG if self.long else DEMO
        own = {field.name: getattr(self, field.name, None) for field in fields(Sizes)}
        sizes = replace(preset, **{k: v for k, v in own.items() if v is not None})
        return replace(sizes, rungs=sizes.rungs[: self.rounds])


@dataclass(frozen=True)
class Setup:
    """What all stages share."""

    options: Options
    sizes: Sizes
    family: Shape2D
    console: Console

    @property
    def state(self) -> Path:
        """Folder of what a resumed run needs."""
        return self.options.out / "state"

    @property
    def grid(self) -> Grid:
        return Grid() if self.options.grid == "full" else TINY_GRID

    @property
    def rungs(self) -> list[Rung]:
        return [Rung(batches, keep) for batches, keep in self.sizes.rungs]


def main(options: Options) -> None:
    torch.set_num_threads(1)  # torch's idle threads spin, and take the cores away from Taichi's
    runtime = tr.init(arch=options.arch, deterministic=True)
    sizes = options.sizes()
    family = Shape2D(sizes.triangles, image_size=sizes.image_size, seed=options.seed)
    setup = Setup(options, sizes, family, Console(quiet=options.quiet))
    open_state(setup, {"arch": runtime.arch, "precision": runtime.precision})
    print_plan(setup)
    clock = Clock()
    tuned = clock("tuning", lambda: tune(setup))
    constant, annealed = tuned.best_constant.config, tuned.best_annealed.config
    logistic = tuned.best(lambda c: c.annealed and c.distribution == "logistic").config
    parts = (family.renderer, RULE, sizes.steps)
    learned = learnable_shape(annealed, *parts, seed=options.seed)
    before = copy.deepcopy(learned)
    ablation = learnable_schedules(logistic, *parts)
    notes = [
        f"{CONSTANT}: {constant.title}",
        f"{ANNEALED}: {annealed.title}",
        clock("learning", lambda: train(setup, "learned", learned)),
        clock("ablation", lambda: train(setup, "ablation", ablation)),
    ]
    methods = {
        CONSTANT: fixed_method(constant, *parts),
        ANNEALED: fixed_method(annealed, *parts),
        ABLATION: ablation,
        LEARNED: learned,
    }
    clock("unseen tasks", lambda: judge(setup, methods, notes))
    clock("pictures", lambda: show(setup, methods, before))
    setup.console.print(f"time: {clock}; results in {options.out}")


# Stages -------------------------------------------------------------------------------------------


def open_state(setup: Setup, runtime: dict[str, str]) -> None:
    """Empty the state folder, or, to resume, insist that it was made with the same settings."""
    path = setup.state / "settings.json"
    settings = {**asdict(setup.sizes), **runtime, "seed": setup.options.seed,
                "grid": asdict(setup.grid), "family": repr(setup.family)}  # fmt: skip
    if setup.options.resume:
        require_equal(path, load_json(path, "learn_softness")["settings"], settings)
    else:
        shutil.rmtree(setup.state, ignore_errors=True)
        save_json(path, {"kind": "learn_softness", "settings": settings})


def tune(setup: Setup) -> TuningResult:
    """Stage 1: the best fixed softnesses, on the tuning stream."""
    tuner = BaselineTuner(
        setup.family,
        setup.family.renderer,
        RULE,
        setup.sizes.steps,
        grid=setup.grid,
        rungs=setup.rungs,
        batch_size=setup.sizes.tuning_batch,
        max_batch=setup.sizes.max_batch,
        cache=setup.state / "tuning.json",
        resume=setup.options.resume,
    )
    result = tuner.run(setup.console, setup.options.quiet)
    for name, entry in ((CONSTANT, result.best_constant), (ANNEALED, result.best_annealed)):
        setup.console.print(
            f"{name}: {entry.config.title} (mean log error {entry.score:.3f}, failures "
            f"{entry.failure_rate:.0%}, mean {entry.mean:.4f}, median {entry.median:.4f} over "
            f"{entry.tasks} tuning tasks)"
        )
    (setup.options.out / "tuning.md").write_text(ranking_markdown(result))
    return result


def train(setup: Setup, name: str, method: Method) -> str:
    """Stages 2 and 3: learn all that is learnable about a method, by antithetic ES; a summary."""
    sizes, folder = setup.sizes, setup.state / name
    names = list(method.learnable())
    settings = TrainerSettings(
        iterations=sizes.iterations,
        batch_size=sizes.tasks,
        lr={key: 0.03 if "weights" in key else 0.06 for key in names},
        validate_every=sizes.validate_every,
        validation_batches=sizes.validation_batches,
        seed=setup.options.seed,
        max_batch=sizes.max_batch,
    )
    options = {
        "pairs": sizes.pairs,
        "sigma": {key: 0.08 if "weights" in key else 0.15 for key in names},
        "directions": "per_task",
        "max_batch": sizes.max_batch,
    }
    resume = setup.options.resume and (folder / "checkpoint.safetensors").is_file()
    trainer = OuterTrainer(
        method, setup.family, OuterLoss("true"), es_gradient, options, settings, folder, resume
    )
    result = trainer.run(
        console=setup.console, quiet=setup.options.quiet, description=f"training ({name})"
    )
    best = result.best
    return (
        f"{name}: validation {result.start_score:.3f} before, {best.score:.3f} after training (the "
        f"{best.source} at outer iteration {best.iteration} of {result.iteration})"
    )


def judge(setup: Setup, methods: dict[str, Method], notes: list[str]) -> None:
    """Stage 4: solve the same unseen tasks with every method; print and write the table."""
    results = {}
    for number, (name, method) in enumerate(methods.items()):
        path = setup.state / f"evaluation_{number}.json"
        if path.is_file():
            results[name] = Evaluation.from_json(load_json(path, "evaluation"))
            continue
        with setup.console.status(f"{setup.sizes.unseen} unseen tasks: {name}"):
            results[name] = evaluate(method, setup.family, setup.sizes.unseen)
        save_json(path, {"kind": "evaluation", **results[name].to_json()})
    summaries = [summarise(name, result.errors) for name, result in results.items()]
    comparisons = [
        compare(name, result.errors, ANNEALED, results[ANNEALED].errors)
        for name, result in results.items()
        if name != ANNEALED
    ]
    shape = compare(LEARNED, results[LEARNED].errors, ABLATION, results[ABLATION].errors)
    worth = (
        f"What the shape is worth, learned against {ABLATION}: ratio "
        f"{shape.ratio.format(digits=3)}, wins % {shape.win_rate.format(100, 1)}, "
        f"failures, more % {shape.failure_difference.format(100, 1)}."
    )
    lines = [worth, *notes]
    text = markdown_table(summaries, comparisons) + "".join(f"\n- {line}" for line in lines)
    (setup.options.out / "table.md").write_text(text + "\n")
    setup.console.print(rich_table(summaries, comparisons, "Unseen tasks"))
    for line in lines:
        setup.console.print(line)


def show(setup: Setup, methods: dict[str, Method], before: Method) -> None:
    """Stage 5: write the learned softness, the figures and the animation."""
    out, sizes = setup.options.out, setup.sizes
    annealed, learned = methods[ANNEALED], methods[LEARNED]
    schedule = {"positions": KNOTS, "values": learned.lr.log_values.exp().tolist()}
    notes = {"lr": schedule, "steps": sizes.steps, "family": repr(setup.family)}
    tr.save_softness(out / "learned_softness.safetensors", learned.renderer.edge, notes)
    shown = {
        CONSTANT: curves(methods[CONSTANT], ":"),
        ANNEALED: curves(annealed, "--"),
        "before learning": curves(before, "-."),
        LEARNED: curves(learned, "-"),
        ABLATION: curves(methods[ABLATION], "--"),
    }
    softness_figure(out / "softness.png", shown)
    count = min(sizes.pictured, sizes.unseen)
    with setup.console.status("convergence"):
        runs = {name: convergence(method, setup.family, count) for name, method in methods.items()}
    convergence_figure(out / "convergence.png", runs)
    task = setup.family.sample(count, "test", 0)
    paths = {"annealed": trajectory(annealed, task), "learned": trajectory(learned, task)}
    grid = {"start": task.sharp_image(task.start()), "target": task.target}
    for name, path in paths.items():
        grid[f"{name}: result"] = task.sharp_image(path[-1])
        grid[f"{name}: error"] = (grid[f"{name}: result"] - task.target).abs()
    rows = min(6, count)
    picture_grid(
        out / "solved.png",
        {name: pictures[:rows] for name, pictures in grid.items()},
        [f"unseen task {row}" for row in range(rows)],
    )
    chosen = most_different(task, paths["learned"][-1], paths["annealed"][-1])
    films = {name: film(task, chosen, path) for name, path in paths.items()}
    solving_gif(out / "solving.gif", {"target": task.target[chosen], **films})
    setup.console.print(
        f"solving.gif shows unseen task {chosen}, where learned beats annealed the most among the "
        f"first {count}; solved.png shows the first {rows}, not chosen"
    )


# Helpers ------------------------------------------------------------------------------------------


def curves(method: Method, style: str) -> Curves:
    edge: nn.Module = method.renderer.edge
    return Curves(edge.value, edge.scale, method.lr, style)


def most_different(task: Shape2DBatch, ours: Tensor, theirs: Tensor) -> int:
    """The instance whose parameter error is better under `ours` by the largest factor."""
    log_ratio = (task.true_error(ours) + 1e-3).log() - (task.true_error(theirs) + 1e-3).log()
    return int(log_ratio.argmin())


def film(task: Shape2DBatch, chosen: int, path: Tensor) -> Tensor:
    """Sharp pictures of one unseen task along its run, (T + 1, H, W, 4)."""
    with torch.no_grad():
        return task.select([chosen]).repeat(len(path)).sharp_image(path[:, chosen])


def print_plan(setup: Setup) -> None:
    """The split of the work, before it begins."""
    sizes = setup.sizes
    tuning = tuning_runs(setup.grid, setup.rungs, sizes.tuning_batch)
    validations = sizes.iterations // sizes.validate_every * 2 + 1
    training = sizes.iterations * sizes.tasks * sizes.pairs * 2
    training += validations * sizes.validation_batches * 32
    rows = {
        "1 tune fixed softnesses": tuning,
        "2 learn shape and schedules": training,
        "3 ablation: logistic shape": training,
        "4 unseen tasks, 4 softnesses": 4 * sizes.unseen,
        "5 pictures": 6 * min(sizes.pictured, sizes.unseen),
    }
    title = (
        f"plan ({sizes.steps} inner steps at {sizes.image_size} x {sizes.image_size} pixels, "
        f"{sizes.triangles} triangles)"
    )
    setup.console.print(plan_table(title, rows))


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except KeyboardInterrupt:
        print("\nstopped; the same command with --resume goes on from here")
        raise SystemExit(130) from None
    except (ValueError, FileNotFoundError, FloatingPointError, RuntimeError) as error:
        raise SystemExit(f"learn_softness: {error}") from error
