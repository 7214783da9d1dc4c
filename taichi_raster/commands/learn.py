"""``taichi-raster learn``: a softness for tasks of one's own."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from tyro.conf import Positional

from taichi_raster.runtime.device import init
from taichi_raster.sibling_packages import sibling


@dataclass(frozen=True)
class Learn:
    """Learn a softness for a family of tasks in a Python file, and judge it on unseen ones.

    Fixed softnesses are tuned first, so that the comparison is fair. OUT gets softening.safetensors
    for `tr.load_softening`, results.md, tuning.md and softness.png.
    """

    task: Positional[Path]
    """The file; docs/writing_a_task.md and help(meta.StudyFamily) say what is in it."""
    out: Path
    """Folder of the results."""
    family: str | None = None
    """The class or object in the file, if it has several families."""
    steps: int = 40
    """Of a descent."""
    iterations: int = 80
    """Of learning."""
    tasks: int = 16
    """In an iteration."""
    unseen: int = 256
    """Tasks to judge by."""
    minutes: float | None = None
    """Stop the learning after so many; --resume goes on."""
    tiny: bool = False
    """Next to no work: a trial of the file, not of any softness."""
    seed: int = 0
    """Of search directions."""
    resume: bool = False
    """Go on with what is in OUT."""

    def run(self) -> None:
        """Do it."""
        for name in ("steps", "iterations", "tasks", "unseen"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name}: must be at least 1")
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError("--minutes: must be positive")
        sibling("meta")  # `meta` stands above this package, which must not import it by itself
        learning = importlib.import_module("taichi_raster.meta.commands.learn")
        torch.set_num_threads(1)
        effort = learning.Effort(
            self.steps, self.iterations, self.tasks, self.unseen, self.tiny, self.minutes
        )
        try:
            init("cpu")
        except RuntimeError as error:
            raise ValueError(str(error)) from error
        learning.learn(self.task, self.family, self.out, effort, self.seed, self.resume, Console())
