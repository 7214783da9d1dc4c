"""``taichi-raster learn``: a softness for tasks of one's own."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from rich.console import Console
from tyro.conf import Positional

from taichi_raster.commands import outputs
from taichi_raster.commands.options import COUNT, SEED, Within
from taichi_raster.runtime.device import init
from taichi_raster.sibling_packages import sibling

RESULTS = ("task_copy.py", "softening.safetensors", "results.md", "tuning.md", "softness.png")
"""Files in OUT."""


@dataclass(frozen=True)
class Learn:
    """Learn a softness for a family of tasks in a Python file, and judge it on unseen ones.

    Fixed softnesses are tuned first, so that the comparison is fair. OUT gets softening.safetensors
    for `tr.load_softening`, results.md, tuning.md, softness.png, and a copy of TASK.
    """

    task: Positional[Path]
    """The file; docs/writing_a_task.md and help(meta.StudyFamily) say what is in it."""
    out: Path
    """Folder of the results."""
    family: str | None = None
    """The class or object in the file, if it has several families."""
    steps: Annotated[int, COUNT] = 40
    """Of a descent."""
    iterations: Annotated[int, COUNT] = 80
    """Of learning."""
    tasks: Annotated[int, COUNT] = 16
    """In an iteration."""
    unseen: Annotated[int, COUNT] = 256
    """Tasks to judge by."""
    minutes: Annotated[float | None, Within(1e-3, 1e6)] = None
    """Stop the learning after so many; --resume goes on."""
    tiny: bool = False
    """Next to no work: a trial of the file, not of any softness."""
    seed: Annotated[int, SEED] = 0
    """Of search directions."""
    resume: bool = False
    """Go on with what is in OUT."""

    def run(self) -> None:
        """Do it."""
        outputs.check_folder(self.out, RESULTS, {"TASK": self.task})
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
