"""What the tests start under torchrun: trainings and a tuning on toy tasks, their results as JSON.

torchrun --nproc-per-node 2 tests/support/spread_program.py together OUT.json
torchrun --nproc-per-node 2 --max-restarts 2 tests/support/spread_program.py mishaps FOLDER
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

import meta.outer.distributed as distributed
from meta.estimators import ESTIMATORS
from meta.inner.method import Method
from meta.inner.updates import Adam
from meta.outer.loss import OuterLoss
from meta.outer.settings import TrainerSettings
from meta.outer.trainer import OuterTrainer
from meta.search.fixed import Grid
from meta.search.tuner import BaselineTuner, Rung
from toy_tasks import Rate, ToyBatch, ToyFamily, ToyRenderer

ES = {"pairs": 3, "sigma": 0.1}
SETTINGS = TrainerSettings(
    iterations=5,
    batch_size=7,
    lr=0.05,
    validate_every=2,
    validation_batches=2,
    validation_batch_size=5,
    seed=3,
)
TRAININGS: dict[str, tuple[str, dict[str, Any]]] = {
    "es shared": ("es", {**ES, "directions": "shared"}),
    "es per_task": ("es", {**ES, "directions": "per_task"}),
    "exact": ("exact", {}),
    "skipping": ("es", {**ES, "directions": "per_task"}),
    "skipping exact": ("exact", {}),
}
"""Estimator and options of each; the skipping ones meet broken instances."""


@dataclass(frozen=True)
class PickedBatch(ToyBatch):
    """A toy batch from which instances can be picked."""

    def select(self, instances: list[int]) -> PickedBatch:
        return type(self)(self.hidden[instances], self.initial[instances])

    def repeat(self, copies: int) -> PickedBatch:
        return type(self)(self.hidden.repeat(copies, 1), self.initial.repeat(copies, 1))


@dataclass(frozen=True)
class Toys(ToyFamily):
    """Toy tasks; in the train batches of `broken`, each named instance has no target."""

    broken: tuple[tuple[int, int], ...] = ()  # (batch, instance)
    error_floor = 1e-2
    failure_threshold = 0.5

    def sample(self, batch_size: int, stream: str, index: int) -> ToyBatch:
        batch = super().sample(batch_size, stream, index)
        hidden = batch.hidden.clone()
        for number, instance in self.broken:
            if stream == "train" and number == index:
                hidden[instance] = float("nan")
        return PickedBatch(hidden, batch.initial)


class EdgeRenderer(nn.Module):
    """The toy softness, with the scale of an edge softness and a depth's temperature."""

    def __init__(self, edge: Any, depth: Any = None) -> None:
        super().__init__()
        self.edge, self.depth = edge, depth

    def forward(self, distance: Tensor, progress: float | Tensor) -> Tensor:
        scale: Tensor = self.edge.scale(progress)
        if self.depth is not None:
            scale = scale * self.depth.gamma(progress)
        scale = scale[:, None] if scale.ndim else scale
        return (scale * torch.log1p(distance.square() / scale)).sum(dim=1)


def trainer(
    name: str = "es per_task",
    folder: Path | None = None,
    family: ToyFamily | None = None,
    settings: TrainerSettings = SETTINGS,
    **options: Any,
) -> OuterTrainer:
    estimator, estimator_options = TRAININGS[name]
    if name.startswith("skipping"):
        family = Toys(broken=((1, 2), (3, 6), (3, 0)))
        settings = replace(settings, nonfinite="skip")
    return OuterTrainer(
        Method(ToyRenderer(), Adam(), Rate(0.05), 6),
        family or Toys(),
        OuterLoss("true"),
        ESTIMATORS[estimator],
        estimator_options,
        settings,
        folder,
        **options,
    )


def train(name: str) -> dict[str, Any]:
    """Numbers of a training: parameters, scores, log."""
    running = trainer(name)
    result = running.run(quiet=True)
    return {
        "parameters": {k: v.tolist() for k, v in running._state.current.items()},
        "best": {k: v.tolist() for k, v in result.best.parameters.items()},
        "score": result.best.score,
        "history": [{k: v for k, v in e.items() if k != "seconds"} for e in result.history],
    }


def tune(cache: Path | None = None) -> list[list[Any]]:
    grid = Grid(("logistic", "gamma"), (0.04, 0.4), (0.1,), (0.05, 0.3), (False, True), (0.5, 2.0))
    tuner = BaselineTuner(
        Toys(), EdgeRenderer, Adam(), 6, grid, (Rung(1), Rung(2, 3)), 3, 6, cache, True
    )
    return [[e.config.key, e.tasks, e.score, e.mean] for e in tuner.run(quiet=True).ranking]


def refusal(action: Callable[[], object]) -> str:
    """What an action is refused with."""
    try:
        action()
    except Exception as error:  # noqa: BLE001 - that is what is asked
        return f"{type(error).__name__}: {error}"
    return "accepted"


def remains() -> list[str]:
    """What there still is of a group: itself, and its threads (known on Linux only)."""
    names = [p.read_text().strip() for p in Path("/proc/self/task").glob("*/comm")]
    return ["group"] * dist.is_initialized() + [name for name in names if "gloo" in name]


def together(out: Path) -> None:
    """All that has to come out the same on any number of processes."""
    left = out.with_suffix(f".left.{os.environ['RANK']}")
    atexit.register(lambda: left.write_text(json.dumps(remains())))  # called after join's
    world = distributed.join()
    results: dict[str, Any] = {name: train(name) for name in TRAININGS}
    results["tuning"] = tune(out.with_suffix(".cache"))
    results["too few"] = refusal(lambda: trainer(settings=replace(SETTINGS, batch_size=2)))
    results["few to validate"] = refusal(
        lambda: trainer(settings=replace(SETTINGS, validation_batch_size=2))
    )
    broken = Toys(broken=((1, 5),))
    results["stopped"] = refusal(lambda: trainer(family=broken).run(quiet=True))
    results["size"] = world.size
    results["threads"] = os.environ.get("TI_CPU_MAX_NUM_THREADS")
    world.gather(None)
    results["joined"] = remains()
    if world.rank == world.size - 1:
        time.sleep(4)
    results["hung"] = refusal(lambda: replace(world, timeout=1).gather(None))
    out.with_suffix(f".{world.rank}.json").write_text(json.dumps(results))


class Mishap(Toys):
    """At the first attempt rank 1 dies in iteration 2."""

    def __repr__(self) -> str:
        return "Toys"

    def sample(self, batch_size: int, stream: str, index: int) -> ToyBatch:
        attempt, rank = (int(os.environ[k]) for k in ("TORCHELASTIC_RESTART_COUNT", "RANK"))
        if stream == "train" and (attempt, rank, index) == (0, 1, 2):
            os._exit(17)
        return super().sample(batch_size, stream, index)


def mishaps(folder: Path) -> None:
    world = distributed.join()
    running = trainer(folder=folder, family=Mishap(), resume="auto")
    attempt = os.environ["TORCHELASTIC_RESTART_COUNT"]
    (folder / f"began.{world.rank}.{attempt}").write_text(str(running.iteration))
    try:
        result = running.run(quiet=True)
    except BaseException as error:
        (folder / f"ended.{world.rank}.{attempt}").write_text(f"{type(error).__name__}: {error}")
        raise
    if world.is_main:
        best = {k: v.tolist() for k, v in result.best.parameters.items()}
        (folder / "best.json").write_text(json.dumps(best))


if __name__ == "__main__":
    {"together": together, "mishaps": mishaps}[sys.argv[1]](Path(sys.argv[2]))
