"""Learn a softness for one family of tasks, and judge it beside the best hand-tuned ones.

    python examples/study.py pose                # or another family of those below
    python examples/study.py pose --resume       # go on where a stopped run was
    torchrun --nproc-per-node 2 examples/study.py pose --resume    # the same, spread

The four families and what they transfer to:

    shape2d     two triangles from one picture        -> 100 to 150 triangles; three, larger images
    occlusion   where 4 to 6 shapes lie, in depth too -> 10 to 14 shapes; places known
    shape3d     a sphere becomes a random solid       -> other solids by a finer sphere, more views
    pose        a camera from one silhouette          -> farther starts; another mesh, larger images

And three that users of soft renderers ask for:

    apart       the same, where the silhouettes of start and truth do not overlap at all
    shaded      the same from a shaded picture, its colours alone
    solid       shape3d from shaded pictures, their colours alone

Stages (see `meta.study`): tune fixed softnesses; learn one, and the ablation with a logistic shape;
judge all of them on unseen tasks. Into `out/study/FAMILY` go results.md, tuning.md, the figures,
and softening.safetensors, for `tr.load_softening`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from rich.console import Console
from tyro.conf import Positional

import taichi_raster as tr
from meta.console import Clock
from meta.inner.method import Method
from meta.inner.updates import Adam
from meta.outer.distributed import join, world
from meta.outer.settings import TrainerSettings
from meta.search.fixed import Grid
from meta.search.learnable import Learnable
from meta.search.ranking import Tuned
from meta.search.tuner import Rung
from meta.study.plan import ABLATION, LEARNED, Problem, Study, Training, soft_renderer
from meta.study.report import (
    draw_convergence,
    draw_pictures,
    draw_softnesses,
    problem_markdown,
    score_card,
)
from meta.study.study import StudyRun
from taichi_raster.softness.distributions import registry
from tasks import Occlusion, Picture, Pose, Shape2D, Shape3D

Family = Literal["shape2d", "occlusion", "shape3d", "pose", "apart", "shaded", "solid"]
SLOW = ("gamma", "gamma_rev")  # their kernels sum series
LUKASIEWICZ = ("yager", 1.0)  # coverages add up, to at most 1: no seams between neighbouring faces
EVERY = tuple(name for name in registry.known() if name not in ("heaviside", *SLOW))


@dataclass(frozen=True)
class Options:
    """Learn a softness for one family of tasks; see the top of the file.

    Args:
        family: shape2d, occlusion, shape3d, pose, apart, shaded or solid.
        out: folder of all results; a folder of the family's name is made in it.
        resume: go on with what is there.
        minutes: stop each of the two trainings after so many minutes; --resume goes on.
        tiny: next to no work: a trial of the program, not of any softness.
        seed: of tasks and search directions.
        arch: backend: cpu, cuda, vulkan or auto.
        quiet: no progress bars.
    """

    family: Positional[Family]
    out: Path = Path("out/study")
    resume: bool = False
    minutes: float | None = None
    tiny: bool = False
    seed: int = 0
    arch: Literal["cpu", "cuda", "vulkan", "auto"] = "cpu"
    quiet: bool = False


def main(options: Options) -> None:
    torch.set_num_threads(1)  # torch's idle threads spin, and take the cores away from Taichi's
    join()
    tr.init(arch=options.arch, deterministic=True)
    study = STUDIES[options.family](options.seed)
    if options.tiny:
        study = tiny(study)
    folder = options.out / study.name
    console = Console(quiet=options.quiet or not world().is_main)
    run = StudyRun(study, folder, options.resume, console, options.quiet)
    clock = Clock()
    best = clock("tuning", run.tune)
    trained, notes = {}, []
    for name in (LEARNED, ABLATION):
        method = run.start(best, name)
        trained[name] = method
        result = clock(name, partial(run.train, method, name, budget(options)))
        notes.append(f"{name}: {result.summary}")
        if result.confirmed is not None:
            notes[-1] += (
                f"; errors of the best validated on {study.training.confirm} fresh tuning tasks "
                f"are {result.confirmed.ratio.format(digits=3)} of those at the start, "
                f"{'not ' if result.best.source == 'start' else ''}kept"
            )
    if not world().is_main:
        return
    clock("unseen tasks", lambda: judge(run, best, trained, notes))
    console.print(f"time: {clock}; results in {folder}")


def budget(options: Options) -> float | None:
    """Seconds for a training."""
    return None if options.minutes is None else 60 * options.minutes


def judge(
    run: StudyRun, best: Mapping[str, Tuned], trained: Mapping[str, Method], notes: list[str]
) -> None:
    """Stage 3: the tables, the figures and the softening."""
    study, folder = run.study, run.folder
    sections, scores = [], {}
    for name, problem in {study.name: study.problem, **study.transfers}.items():
        methods = run.methods(best, trained, problem)
        results = run.judge(methods, problem)
        sections.append(problem_markdown(problem, results))
        scores[problem.title] = score_card(problem, results)
        draw_convergence(folder / f"{name}_convergence.png", problem, methods)
        draw_pictures(folder / f"{name}_pictures.png", problem, methods)
    titles = [f"{name}: {entry.config.title}" for name, entry in best.items()]
    listed = "".join(f"- {line}\n" for line in [*titles, *notes])
    (folder / "results.md").write_text("\n".join([f"## {study.name}\n", *sections, listed]))
    run.console.print((folder / "results.md").read_text(), highlight=False, markup=False)
    draw_softnesses(folder / "softness.png", run.methods(best, trained, study.problem))
    tr.save_softening(folder / "softening.safetensors", softening(study, trained[LEARNED], scores))


def softening(study: Study, method: Method, scores: dict[str, Any]) -> tr.Softening:
    """What was learned, with its card."""
    renderer, lr, rule = soft_renderer(method), method.lr, study.rule
    assert isinstance(lr, tr.Schedule) and is_dataclass(rule) and not isinstance(rule, type)
    family = study.problem.family
    card = {
        "task": f"{family!r}: {(family.__doc__ or '').strip().splitlines()[0]}",
        "units": study.units,
        "optimiser": {"name": type(rule).__name__, **asdict(rule)},
        "command": f"python examples/study.py {study.name}",
        "seed": study.training.settings.seed,
        "scores": scores,
    }
    return tr.Softening(renderer.edge, renderer.depth, renderer.alpha, lr, method.steps, card)


# The studies --------------------------------------------------------------------------------------


def shape2d(seed: int) -> Study:
    return Study(
        "shape2d",
        Problem("Shape2D, unseen tasks", Shape2D(2, image_size=24, seed=seed), 40, 512),
        Adam(),
        "NDC",
        {
            "picture": Problem(
                "Shape2D, transfer: pictures of 100 to 150 triangles",
                Picture(seed=seed),
                100,
                24,
                8,
                scale=0.25,
            ),
            "three": Problem(
                "Shape2D, transfer: three triangles, 48 x 48 pixels",
                Shape2D(3, image_size=48, seed=seed),
                80,
                128,
                32,
            ),
        },
        Grid(EVERY, (0.01, 0.03, 0.1, 0.3), (0.01, 0.03), (0.04, 0.08, 0.16), gammas=(0.2, 2.0)),
        (Rung(1), Rung(4, 24), Rung(16, 6)),
        tuning_batch=8,
        slow_grid=Grid(SLOW, (0.03, 0.1), (0.01,), (0.08,), (True,), (0.2,)),
        wider_grid=Grid(
            ("gaussian", "logistic", "gudermannian", "uniform"),
            (0.1, 0.2),
            (0.01, 0.02, 0.04),
            (0.1, 0.16),
            gammas=(0.6, 2.0),
            conorms=(None, LUKASIEWICZ),
            over_gammas=(None,),
        ),
        gammas=(0.07, 0.2, 0.6, 2.0),
        training=training(seed, learn(gamma=True), 120, 128, 1, 8),
        max_batch=256,
    )


def occlusion(seed: int) -> Study:
    return Study(
        "occlusion",
        Problem("Occlusion, unseen tasks", Occlusion((4, 6), True, 24, seed), 50, 256),
        Adam(),
        "those of tasks.Occlusion: 3 units are the depth range, 4 are one NDC",
        {
            "many": Problem(
                "Occlusion, transfer: 10 to 14 shapes, 48 x 48 pixels",
                Occlusion((10, 14), True, 48, seed),
                50,
                100,
                25,
            ),
            "depths": Problem(
                "Occlusion, transfer: 6 to 8 shapes, places known",
                Occlusion((6, 8), False, 24, seed),
                50,
                128,
            ),
        },
        Grid(EVERY, (0.01, 0.03, 0.1), (0.01, 0.03), (0.07, 0.15), gammas=(0.1,)),
        (Rung(1), Rung(4, 24), Rung(16, 6)),
        tuning_batch=8,
        slow_grid=Grid(SLOW, (0.03, 0.1), (0.01,), (0.15,), (True,), (0.1,)),
        wider_grid=Grid(
            ("gaussian", "logistic", "uniform"),
            (0.03, 0.06),
            (0.01, 0.02),
            (0.1, 0.2),
            (True,),
            gammas=(0.2, 0.5),
            gamma_ends=(0.03, 0.1),
            conorms=(None, LUKASIEWICZ),
            over_gammas=(0.1, 0.3),
        ),
        gammas=(0.05, 0.1, 0.2),
        training=training(seed, learn(gamma=True, depth=True), 80, 64, 1, 4),
        max_batch=256,
    )


def shape3d(seed: int) -> Study:
    finer = Shape3D(views=12, subdivisions=2, image_size=32, threshold=1e-3, seed=seed + 1)
    return Study(
        "shape3d",
        Problem("Shape3D, unseen solids", Shape3D.coarse(seed), 40, 128, 32),
        Adam(betas=(0.5, 0.95)),
        "world units; the sphere's radius is 0.5 at the start",
        {
            "fine": Problem(
                "Shape3D, transfer: a finer sphere, 12 views of 32 x 32 pixels", finer, 60, 24, 8
            ),
        },
        Grid(EVERY, (0.01, 0.03, 0.1), (0.01, 0.03), (0.02, 0.04)),
        (Rung(1), Rung(4, 12), Rung(12, 4)),
        tuning_batch=2,
        slow_grid=Grid(SLOW, (0.03,), (0.01,), (0.04,), (True,)),
        wider_grid=Grid(
            ("uniform", "gaussian", "logistic", "exponential_rev"),
            (0.03, 0.1),
            (0.01, 0.03),
            (0.02, 0.04),
            conorms=(LUKASIEWICZ,),
        ),
        training=replace(
            training(seed, learn(), 80, 32, 1, 2),
            confirm=128,
            rates={"weights": 0.02, "progress_weights": 0.02, "log_values": 0.06},
            sigmas={"weights": 0.05, "progress_weights": 0.05, "log_values": 0.15},
        ),
        max_batch=64,
    )


def pose(seed: int) -> Study:
    knot = tr.normalise(tr.torus_knot(sides=5, sectors=40))
    return Study(
        "pose",
        Problem("Pose, unseen bodies", Pose(image_size=32, seed=seed), 60, 256, 64),
        Adam(betas=(0.9, 0.99)),
        "those of tasks.Pose: log distance and radians",
        {
            "far": Problem(
                "Pose, transfer: starts 35 to 55 degrees away",
                Pose(image_size=32, seed=seed, start_angle=(35.0, 55.0)),
                60,
                128,
            ),
            "knot": Problem(
                "Pose, transfer: a torus knot, 48 x 48 pixels",
                Pose(knot, image_size=48, seed=seed),
                60,
                100,
                50,
            ),
        },
        Grid(EVERY, (0.03, 0.1), (0.01, 0.03), (0.03, 0.06)),
        (Rung(1), Rung(4, 16), Rung(24, 4)),
        tuning_batch=4,
        slow_grid=Grid(SLOW, (0.03,), (0.01,), (0.06,), (True,)),
        wider_grid=Grid(
            ("uniform", "gaussian", "logistic", "exponential_rev"),
            (0.05, 0.1, 0.2),
            (0.01, 0.03),
            (0.06, 0.1),
            conorms=(LUKASIEWICZ,),
        ),
        training=training(seed, learn(), 150, 64, 1, 4),
        max_batch=128,
    )


def apart(seed: int) -> Study:
    """Where nothing overlaps, only far tails have a gradient: wide scales, which cost more."""
    return Study(
        "apart",
        Problem(
            "Pose, silhouettes apart at the start",
            Pose(overlap="none", image_size=24, seed=seed),
            80,
            128,
            32,
        ),
        Adam(betas=(0.9, 0.99)),
        "those of tasks.Pose: log distance, radians and NDC",
        {},
        Grid(
            ("cauchy", "exponential_rev", "gaussian", "laplace", "logistic", "uniform"),
            (0.1, 0.3, 1.0),
            (0.01, 0.03),
            (0.06, 0.12),
            (True,),
        ),
        (Rung(1), Rung(4, 8), Rung(8, 3)),
        tuning_batch=4,
        wider_grid=Grid(
            ("gaussian", "logistic", "uniform"),
            (0.1, 0.3, 1.0),
            (0.01, 0.03),
            (0.06, 0.12),
            (True,),
            conorms=(LUKASIEWICZ,),
        ),
        training=training(seed, learn(), 80, 32, 1, 4),
        max_batch=64,
    )


def shaded(seed: int) -> Study:
    return Study(
        "shaded",
        Problem(
            "Pose from RGB, unseen bodies",
            Pose(image="shaded", image_size=32, seed=seed),
            60,
            256,
            64,
        ),
        Adam(betas=(0.9, 0.99)),
        "those of tasks.Pose: log distance and radians",
        {},
        Grid(
            ("exponential_rev", "gaussian", "gudermannian", "laplace", "logistic", "uniform"),
            (0.03, 0.1),
            (0.01, 0.03),
            (0.05, 0.1),
            gammas=(0.01, 0.1, 1.0),
        ),
        (Rung(1), Rung(4, 8), Rung(24, 3)),
        tuning_batch=4,
        wider_grid=Grid(
            ("gaussian", "logistic", "uniform"),
            (0.05, 0.1),
            (0.01, 0.03),
            (0.05, 0.1),
            (True,),
            gammas=(),
            conorms=(None, LUKASIEWICZ),
            over_gammas=(None,),
        ),
        gammas=(0.03, 0.1, 0.3, 1.0),
        training=replace(training(seed, learn(gamma=True), 80, 64, 1, 4), confirm=256),
        max_batch=128,
    )


def solid(seed: int) -> Study:
    """Lists of fragments cost more than sums, so that the search by `OverDepth` is a small one."""
    return Study(
        "solid",
        Problem("Shape3D from RGB, unseen solids", Shape3D.coarse(seed, "shaded"), 40, 64, 16),
        Adam(betas=(0.5, 0.95)),
        "world units; the sphere's radius is 0.5 at the start",
        {},
        Grid(
            ("exponential_rev", "gaussian", "logistic", "uniform"),
            (0.01, 0.03, 0.1),
            (0.01,),
            (0.013, 0.04),
            gammas=(0.1, 0.3, 1.0),
        ),
        (Rung(1), Rung(4, 8), Rung(8, 3)),
        tuning_batch=2,
        wider_grid=Grid(
            ("gaussian", "logistic"),
            (0.03, 0.1),
            (0.01,),
            (0.013, 0.04),
            (True,),
            gammas=(),
            over_gammas=(None,),
        ),
        finer=False,
        training=training(seed, learn(gamma=True), 40, 8, 1, 1),
        max_batch=32,
    )


def learn(**more: bool) -> Learnable:
    """Shape and its dependence on progress, scale, learning rate, the T-conorm's p; and more."""
    return Learnable(progress=True, conorm="frank", **more)


def training(
    seed: int, learn: Learnable, iterations: int, tasks: int, pairs: int, validation: int
) -> Training:
    """By antithetic ES: so many outer iterations of so many tasks, and pairs for each."""
    return Training(
        learn,
        TrainerSettings(
            iterations,
            tasks,
            validate_every=10,
            validation_batches=validation,
            seed=seed,
            nonfinite="skip",
        ),
        options={"pairs": pairs, "directions": "per_task"},
        rates={"weights": 0.006, "progress_weights": 0.01, "log_values": 0.04},
        sigmas={"weights": 0.025, "progress_weights": 0.05, "log_values": 0.12},
    )


STUDIES: dict[str, Callable[[int], Study]] = {
    "shape2d": shape2d,
    "occlusion": occlusion,
    "shape3d": shape3d,
    "pose": pose,
    "apart": apart,
    "shaded": shaded,
    "solid": solid,
}


def tiny(study: Study) -> Study:
    """The same with next to no work."""
    training = study.training
    settings = replace(
        training.settings,
        iterations=2,
        batch_size=2,
        validate_every=1,
        validation_batches=1,
        validation_batch_size=2,
    )
    return replace(
        study,
        problem=replace(study.problem, steps=3, count=4, batch_size=2),
        transfers={
            name: replace(problem, steps=2, count=2, batch_size=2)
            for name, problem in study.transfers.items()
        },
        grid=Grid(("logistic",), (0.03,), (0.01,), (0.05,), (True,)),
        rungs=(Rung(1), Rung(1, 2)),
        tuning_batch=2,
        slow_grid=None,
        wider_grid=Grid(("uniform",), (0.06,), (0.03,), (0.05,), (True,), conorms=(LUKASIEWICZ,)),
        finer=False,
        training=replace(training, settings=settings, confirm=min(training.confirm, 4)),
    )


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except KeyboardInterrupt:
        print("\nstopped; the same command with --resume continues from here")
        raise SystemExit(130) from None
    except (ValueError, FileNotFoundError, FloatingPointError, RuntimeError) as error:
        raise SystemExit(f"study: {error}") from error
