"""Meta-learn the softness of a rasterizer, and see it solve problems that it never saw.

    python examples/learn_softness.py              # under 5 minutes on two cores
    python examples/learn_softness.py --long       # about half an hour, and a better softness
    python examples/learn_softness.py --resume     # resume a run that was stopped

Triangles are recovered from one sharp picture by gradient descent through a soft rasterizer. The
program is one `meta.Study`, in four stages:

1. tune fixed softnesses, as a careful expert would;
2. start at the best of them, and learn the softness's shape, its scale over the run and the
   learning rate over the run;
3. learn the same with the shape held logistic, to see what the shape is worth;
4. solve unseen tasks with all of them.

Into `out/learn_softness/` go table.md, tuning.md, learned_softness.safetensors (for
`tr.load_softness`) and four pictures: softness.png (curves and schedules, before and after),
convergence.png, solved.png (start, target, result, error) and solving.gif (one unseen task, fixed
and learned side by side).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table

import meta
import taichi_raster as tr
from meta.console import Clock, plan_table
from meta.outer.checkpoint import load_json, require_equal, save_json
from meta.search.learnable import KNOTS
from meta.search.tuner import tuning_runs
from meta.study.plan import ABLATION, ANNEALED, CONSTANT, LEARNED, soft_renderer
from meta.study.report import (
    draw_convergence,
    draw_pictures,
    draw_softnesses,
    draw_solving,
    parameter_table,
    problem_markdown,
    shape_worth,
)
from tasks import Shape2D

TINY_GRID = meta.Grid(("logistic", "gaussian"), (0.02, 0.16), (0.01,), (0.1,), (True,))


@dataclass(frozen=True)
class Sizes:
    """How large the problems are, and how much is done; see `Options`."""

    image_size: int
    triangles: int
    steps: int
    tuning_batch: int
    iterations: int
    tasks: int
    pairs: int
    validate_every: int
    validation_batches: int
    unseen: int
    max_batch: int


DEMO = Sizes(
    image_size=24,
    triangles=2,
    steps=40,
    tuning_batch=8,
    iterations=24,
    tasks=16,
    pairs=4,
    validate_every=6,
    validation_batches=2,
    unseen=256,
    max_batch=512,
)
LONG = Sizes(
    image_size=32,
    triangles=2,
    steps=60,
    tuning_batch=16,
    iterations=40,
    tasks=32,
    pairs=4,
    validate_every=5,
    validation_batches=8,
    unseen=1024,
    max_batch=512,
)


@dataclass(frozen=True)
class Options:
    """Meta-learn a softness; see the top of the file.

    Args:
        out: folder of all results.
        long: half an hour instead of five minutes.
        resume: resume the run in `out`; its settings must be the same.
        seed: of tasks and search directions.
        arch: backend: cpu, cuda, vulkan or auto.
        grid: fixed softnesses to tune: "full" or, for a trial, "tiny".
        image_size: side of the pictures in pixels.
        triangles: in a picture.
        steps: inner iterations.
        tuning_batch: tasks in a batch of the tuning stream.
        rounds: of tuning, at most 3.
        iterations: outer iterations of a training.
        tasks: tasks in an outer iteration.
        pairs: antithetic pairs for each task in an outer iteration.
        validate_every: outer iterations between validations.
        validation_batches: batches of 32 tasks in a validation.
        unseen: test tasks.
        max_batch: most inner runs side by side (memory).
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
    rounds: int | None = None
    iterations: int | None = None
    tasks: int | None = None
    pairs: int | None = None
    validate_every: int | None = None
    validation_batches: int | None = None
    unseen: int | None = None
    max_batch: int | None = None
    quiet: bool = False

    def sizes(self) -> Sizes:
        """Those given, and else those of the demo (or of `long`)."""
        preset = LONG if self.long else DEMO
        given = {name: getattr(self, name) for name in asdict(preset)}
        return replace(preset, **{k: v for k, v in given.items() if v is not None})


def main(options: Options) -> None:
    torch.set_num_threads(1)  # torch's idle threads spin, and take the cores away from Taichi's
    runtime = tr.init(arch=options.arch, deterministic=True)
    sizes = options.sizes()
    open_state(options, {**asdict(sizes), "arch": runtime.arch, "precision": runtime.precision})
    study = the_study(options, sizes)
    console = Console(quiet=options.quiet)
    console.print(plan(sizes, study))
    run = meta.StudyRun(study, options.out / "state", options.resume, console, quiet=options.quiet)
    clock = Clock()
    best = clock("tuning", run.tune)
    shutil.copy(run.folder / "tuning.md", options.out)
    trained, notes = {}, [f"{name}: {best[name].config.title}" for name in (CONSTANT, ANNEALED)]
    for name in (LEARNED, ABLATION):
        trained[name] = run.start(best, name)
        result = clock(name, partial(run.train, trained[name], name))
        notes.append(f"{name}: {result.summary}")
    methods = run.methods(best, trained, study.problem)
    results = clock("unseen tasks", lambda: run.judge(methods, study.problem))
    text = problem_markdown(study.problem, results) + "".join(f"\n- {note}" for note in notes)
    (options.out / "table.md").write_text(text + "\n")
    console.print(meta.rich_table(*parameter_table(study.problem, results), "Unseen tasks"))
    console.print(f"What the shape is worth: {shape_worth(study.problem, results)}")
    clock("pictures", lambda: show(run, methods, run.start(best, LEARNED), options.out))
    console.print(f"time: {clock}; results in {options.out}")


def the_study(options: Options, sizes: Sizes) -> meta.Study:
    """Shape2D: what is tuned, learned and judged, and how much of it."""
    family = Shape2D(sizes.triangles, image_size=sizes.image_size, seed=options.seed)
    rungs = [(1, None), (4, 36), (16, 6)] if options.long else [(1, None), (2, 36), (8, 6)]
    return meta.Study(
        "Shape2D",
        meta.Problem("Unseen tasks", family, sizes.steps, sizes.unseen),
        meta.Adam(),
        units="NDC",
        grid=meta.Grid() if options.grid == "full" else TINY_GRID,
        rungs=[meta.Rung(*rung) for rung in rungs[: options.rounds]],
        tuning_batch=sizes.tuning_batch,
        finer=False,
        training=meta.Training(
            settings=meta.TrainerSettings(
                sizes.iterations,
                sizes.tasks,
                validate_every=sizes.validate_every,
                validation_batches=sizes.validation_batches,
                seed=options.seed,
            ),
            options={"pairs": sizes.pairs, "directions": "per_task"},
            table=False,
            shape_options={"seed": options.seed},
        ),
        max_batch=sizes.max_batch,
    )


def open_state(options: Options, more: dict[str, object]) -> None:
    """Empty the state folder, or, to resume, insist that it was made with the same settings."""
    path = options.out / "state" / "settings.json"
    settings = {**asdict(options), **more}
    for harmless in ("out", "resume", "quiet"):
        del settings[harmless]
    if options.resume:
        require_equal(path, load_json(path, "learn_softness")["settings"], settings)
    else:
        shutil.rmtree(path.parent, ignore_errors=True)
        save_json(path, {"kind": "learn_softness", "settings": settings})


def plan(sizes: Sizes, study: meta.Study) -> Table:
    """The split of the work, as a table."""
    problem, training = study.problem, study.training.settings
    validations = training.iterations // training.validate_every * 2 + 1
    learning = training.iterations * training.batch_size * sizes.pairs * 2
    learning += validations * training.validation_batches * training.validation_batch_size
    return plan_table(
        f"plan ({problem.steps} inner steps at {sizes.image_size} x {sizes.image_size} pixels, "
        f"{sizes.triangles} triangles)",
        {
            "1 tune fixed softnesses": tuning_runs(study.grid, study.rungs, study.tuning_batch),
            "2 learn shape and schedules": learning,
            "3 ablation: logistic shape": learning,
            "4 unseen tasks, 4 softnesses": 4 * problem.count,
            "5 pictures": 6 * min(problem.count, 32),
        },
    )


def show(
    run: meta.StudyRun, methods: Mapping[str, meta.Method], before: meta.Method, out: Path
) -> None:
    """Write the learned softness, the figures and the animation."""
    problem, learned = run.study.problem, methods[LEARNED]
    lr = learned.lr
    assert isinstance(lr, tr.Knots)
    schedule = {"positions": KNOTS, "values": lr.log_values.exp().tolist()}
    notes = {"lr": schedule, "steps": problem.steps, "family": repr(problem.family)}
    tr.save_softness(out / "learned_softness.safetensors", soft_renderer(learned).edge, notes)
    draw_softnesses(out / "softness.png", {"before learning": before, **methods})
    draw_convergence(out / "convergence.png", problem, methods)
    pair = {name: methods[name] for name in (ANNEALED, LEARNED)}
    draw_pictures(out / "solved.png", problem, pair, rows=6)
    chosen, among = draw_solving(out / "solving.gif", problem, pair)
    run.console.print(
        f"solving.gif shows unseen task {chosen}, where learned beats annealed the most among the "
        f"first {among}; solved.png shows the first ones, not chosen"
    )


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except KeyboardInterrupt:
        print("\nstopped; the same command with --resume resumes it")
        raise SystemExit(130) from None
    except (ValueError, FileNotFoundError, FloatingPointError, RuntimeError) as error:
        raise SystemExit(f"learn_softness: {error}") from error
