"""Learn a softness for the tasks of a user's own file: ``taichi-raster learn TASK.py``."""

from __future__ import annotations

import importlib.util
import math
import sys
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from rich.console import Console

import taichi_raster as tr
from meta.console import Clock
from meta.evaluation.stats import markdown_table
from meta.inner.method import Method
from meta.inner.updates import Adam
from meta.outer.settings import TrainerSettings
from meta.search.fixed import Grid
from meta.search.learnable import Learnable
from meta.search.tuner import Rung
from meta.study.plan import LEARNED, Problem, Study, Training, soft_renderer
from meta.study.report import draw_softnesses, parameter_table, score_card
from meta.study.study import StudyRun

_PAGE = "docs/writing_a_task.md and help(meta.StudyFamily) say what a task needs"
_FAMILY = ("sample", "renderer", "failure_threshold", "error_floor", "error_name")
_BATCH = ("batch_size", "start", "loss", "true_error", "image_error", "metrics", "repeat", "select")


@dataclass(frozen=True)
class Effort:
    """How much work a study is.

    Attributes:
        steps: of a descent.
        iterations: of learning.
        tasks: in an iteration.
        unseen: tasks to judge by.
        tiny: next to no work in tuning: a trial of the file, not of any softness.
        minutes: stop the learning after so many.
    """

    steps: int = 40
    iterations: int = 80
    tasks: int = 16
    unseen: int = 256
    tiny: bool = False
    minutes: float | None = None


def learn(
    path: Path,
    name: str | None,
    out: Path,
    effort: Effort,
    seed: int,
    resume: bool,
    console: Console,
) -> None:
    """Tune fixed softnesses, learn one that starts at the best, and judge both on unseen tasks.

    Into `out` go softening.safetensors, which `tr.load_softening` reads, results.md, tuning.md and
    softness.png; and what a stopped run is resumed from.

    Raises:
        FileNotFoundError, ValueError: naming the file, and what is wrong with it; or if the file
            has changed since what is to be resumed.
    """
    family = family_of(path, name)
    check(path, family)
    _keep_task(path, out, resume)
    study = _study(path.stem, family, effort, seed)
    run, clock = StudyRun(study, out, resume, console), Clock()
    best = clock("tuning", run.tune)
    method = run.start(best, LEARNED)
    seconds = None if effort.minutes is None else 60 * effort.minutes
    result = clock("learning", partial(run.train, method, LEARNED, seconds))
    methods = run.methods(best, {LEARNED: method}, study.problem)
    judged = clock("unseen tasks", lambda: run.judge(methods, study.problem))
    listed = [f"{key}: {entry.config.title}" for key, entry in best.items()]
    listed.append(f"{LEARNED}: {result.summary}")
    text = markdown_table(*parameter_table(study.problem, judged))
    text = f"Error: {family.error_name}.\n\n{text}" + "".join(f"\n- {line}" for line in listed)
    (out / "results.md").write_text(f"## {study.problem.title}\n\n{text}\n")
    console.print((out / "results.md").read_text(), highlight=False, markup=False)
    draw_softnesses(out / "softness.png", methods)
    scores = score_card(study.problem, judged)
    tr.save_softening(out / "softening.safetensors", _softening(path, study, method, scores))
    console.print(f"time: {clock}; {out}/softening.safetensors is for tr.load_softening")


def _keep_task(path: Path, out: Path, resume: bool) -> None:
    """A copy of the task in `out`, by which a run that is resumed knows that it is the same."""
    kept = out / "task_copy.py"
    if resume and kept.is_file() and kept.read_bytes() != path.read_bytes():
        raise ValueError(
            f"--resume: {path} has changed since {kept} was copied from it; without --resume, all "
            "is found anew"
        )
    out.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(path.read_bytes())


def family_of(path: Path, name: str | None = None) -> Any:
    """The family of tasks that a file defines: a class without arguments, or an instance.

    Raises:
        FileNotFoundError, ValueError: naming the file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    module = _loaded(path)
    if name is not None and not hasattr(module, name):
        raise ValueError(f"{path}: has no {name}; --family must be a name in it")
    own = {
        key: value
        for key, value in vars(module).items()
        if not key.startswith("_")
        and callable(getattr(value, "sample", None))
        and (value if isinstance(value, type) else type(value)).__module__ == module.__name__
    }
    if name is None and len(own) != 1:
        found = f"several: {', '.join(own)}; choose one by --family" if own else "none"
        raise ValueError(
            f"{path}: must have one class with a method sample, a family of tasks; it has {found}"
            + ("" if own else f". {_PAGE}")
        )
    name = next(iter(own)) if name is None else name
    family = getattr(module, name)
    if not isinstance(family, type):
        return family
    try:
        return family()
    except TypeError as error:
        raise ValueError(
            f"{path}: {name}: cannot be made without arguments ({error}); give them defaults, or "
            "make one in the file and name it by --family"
        ) from error


def check(path: Path, family: Any) -> None:
    """That tasks can be drawn and solved, before the long part.

    Raises:
        ValueError: naming the file, the class and the method.
    """
    kind = type(family).__name__
    missing = [part for part in _FAMILY if not hasattr(family, part)]
    if missing:
        raise ValueError(f"{path}: {kind}: has no {', '.join(missing)}. {_PAGE}")
    part = f"{kind}.sample"
    try:
        batch = family.sample(2, "tune", 0)
        kind = type(batch).__name__
        missing = [part for part in _BATCH if not hasattr(batch, part)]
        if missing:
            raise ValueError(f"has no {', '.join(missing)}. {_PAGE}")
        part = f"{type(family).__name__}.renderer"
        renderer = family.renderer(tr.Distribution("logistic", 0.05))
        part = f"{kind}.start"
        params = batch.start().detach().clone().requires_grad_()
        values = {
            "loss": lambda: batch.loss(params, renderer, 0.0),
            "true_error": lambda: batch.true_error(params),
        }
        for method, value in values.items():
            part = f"{kind}.{method}"
            found = value()
            if tuple(found.shape) != (2,):
                raise ValueError(f"must give one number an instance, (2,), got {(*found.shape,)}")
            if not bool(torch.isfinite(found).all()):
                raise ValueError("is not finite at the start")
            (slope,) = torch.autograd.grad(found.sum(), params, allow_unused=True)
            if slope is None or not bool(torch.isfinite(slope).all()):
                raise ValueError("has no finite derivative by the unknowns at the start")
    except Exception as error:
        raise ValueError(f"{path}: {part}: {_line(error)}") from error


def _loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"_task_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path}: is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{path}: cannot be imported: {_line(error)}") from error
    finally:
        sys.path.pop(0)
    return module


def _line(error: BaseException) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    known = isinstance(error, ValueError)
    return text if known and text else f"{type(error).__name__}: {text}"


def _study(name: str, family: Any, effort: Effort, seed: int) -> Study:
    tiny = effort.tiny
    settings = TrainerSettings(
        effort.iterations,
        effort.tasks,
        validate_every=max(1, math.ceil(effort.iterations / 8)),
        validation_batches=1 if tiny else 4,
        validation_batch_size=4 if tiny else 32,
        seed=seed,
        nonfinite="skip",
    )
    training = Training(
        Learnable(progress=True, conorm="frank"),
        settings,
        options={"pairs": 1 if tiny else 4, "directions": "per_task"},
        rates={"weights": 0.006, "progress_weights": 0.01, "log_values": 0.04},
        sigmas={"weights": 0.025, "progress_weights": 0.05, "log_values": 0.12},
    )
    return Study(
        name,
        Problem(f"{name}, unseen tasks", family, effort.steps, effort.unseen, 4 if tiny else 64),
        Adam(),
        grid=Grid(("logistic",), (0.05,), (0.01,), (0.05,), (True,)) if tiny else Grid(),
        rungs=(Rung(1),) if tiny else (Rung(1), Rung(4, 24), Rung(16, 6)),
        tuning_batch=2 if tiny else 8,
        finer=not tiny,
        training=training,
        max_batch=256,
    )


def _softening(path: Path, study: Study, method: Method, scores: dict[str, object]) -> tr.Softening:
    renderer, lr = soft_renderer(method), method.lr
    assert isinstance(lr, tr.Schedule) and isinstance(study.rule, Adam)
    family = study.problem.family
    lines = (type(family).__doc__ or "").strip().splitlines()
    card = {
        "task": f"{type(family).__name__} of {path.name}" + (f": {lines[0]}" if lines else ""),
        "optimiser": {"name": "Adam", **asdict(study.rule)},
        "command": f"taichi-raster learn {path.name}",
        "seed": study.training.settings.seed,
        "scores": {study.problem.title: scores},
    }
    return tr.Softening(renderer.edge, renderer.depth, renderer.alpha, lr, method.steps, card)
