"""Draws what `tr.universal_policy()` does, into docs/figures/policy*.png.

    python docs/policy_figures.py        # about a minute
    python docs/policy_figures.py --only stuck

starts: scale, step and temperature over a run, of a start that is near and of one that is far.
stuck: a run that is stuck without feedback, and all runs of its batch. families: what the feedback
changes on four families. All are compared with the start by hand, `tr.SofteningPolicy()`, which has
no feedback.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from torch import Tensor

import taichi_raster as tr
from meta.inner.picture_measures import measured
from meta.inner.policy_method import softening_method
from meta.inner.unroll import unroll
from taichi_raster.presets.policy import SHARP_FROM, Setting
from tasks import Body, Occlusion, Pose, Shape2D

DPI = 110
SMALL, TEXT = 8, 9  # font sizes
HAND, LEARNED = "0.45", "C1"  # colours
NAMES = {HAND: "by hand, no feedback", LEARNED: "universal policy"}
TASKS = 64


@dataclass(frozen=True)
class Options:
    """Draw the figures; see the top of the file.

    Args:
        out: folder to draw into.
        only: one figure alone.
        tasks: of the batch that the shown ones are taken from: number 0 of the stream "test".
        arch: backend: cpu, cuda, vulkan or auto.
    """

    out: Path = Path("docs/figures")
    only: Literal["starts", "stuck", "families"] | None = None
    tasks: int = TASKS
    arch: Literal["cpu", "cuda", "vulkan", "auto"] = "cpu"


def main(options: Options) -> None:
    torch.set_num_threads(1)
    tr.init(arch=options.arch, deterministic=True)
    figures: dict[str, Callable[[int], Figure]] = {
        "starts": starts,
        "stuck": stuck,
        "families": families,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    for name, draw in figures.items():
        if options.only in (None, name):
            path = options.out / f"policy_{name}.png"
            draw(options.tasks).savefig(path, dpi=DPI)
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


@dataclass(frozen=True)
class Course:
    """What was chosen at each of T steps of B instances, (T, B), and what came of it.

    Scale and step are in pixels, gamma is a share of the depth range; scale and gamma are NaN where
    pictures are sharp. `images` are the errors of
    the sharp pictures before each step, which can be compared whatever the scale; `errors` are the
    true ones at the end.
    """

    scale: Tensor
    step: Tensor
    gamma: Tensor
    images: Tensor
    ends: Tensor
    errors: Tensor


class Recorded(tr.SofteningPolicy):
    """A policy that keeps what it chooses: once a step without feedback, twice with it."""

    def __init__(self, like: tr.SofteningPolicy) -> None:
        super().__init__(like.has_feedback)
        self.load_state_dict(like.state_dict())
        self.chosen: list[Setting] = []

    def at(self, *arguments: Any, **named: Any) -> Setting:
        setting = super().at(*arguments, **named)
        self.chosen.append(setting)
        return setting


def course(task: Any, like: tr.SofteningPolicy, steps: int) -> Course:
    """Solve a batch, and tell what the policy did.

    A step is drawn by what is chosen before its picture, and made by what is chosen after it.
    """
    chooses = Recorded(like)
    images = []

    def record(_: int, params: Tensor) -> None:
        with torch.no_grad():
            images.append(task.image_error(params))

    run = unroll(softening_method(chooses, task.family, steps), task, record=record)
    times = len(chooses.chosen) // steps
    drawn, made = chooses.chosen[::times], chooses.chosen[times - 1 :: times]
    pixels = task.family.image_size / 2
    with torch.no_grad():
        errors = task.true_error(run.params)
    return Course(
        while_soft([s.scale for s in drawn]) * pixels,
        torch.stack([s.eta for s in made]).detach() * pixels,
        while_soft([s.gamma for s in drawn]),
        torch.stack(images[:-1]),
        run.params.detach(),
        errors,
    )


def while_soft(chosen: list[Tensor]) -> Tensor:
    """What was chosen in each step, (T, B); NaN where pictures are sharp."""
    found = torch.stack(chosen).detach()
    found[math.ceil(SHARP_FROM * len(found)) :] = math.nan
    return found


def both(task: Any, steps: int) -> dict[str, Course]:
    """The start by hand, and the learned policy, by colour."""
    policies = {HAND: tr.SofteningPolicy(), LEARNED: tr.universal_policy()}
    return {colour: course(task, like, steps) for colour, like in policies.items()}


# A near start and a far one -----------------------------------------------------------------------


def starts(tasks: int) -> Figure:
    """Of two triangles, the batch's nearest start and its farthest: a row each."""
    steps = 40
    task = Shape2D(2, image_size=24).sample(tasks, "test", 0)
    distance = measured(task, task.start()).distance
    courses = both(task, steps)
    figure = Figure(figsize=(11, 5), layout="constrained")
    axes = figure.subplots(2, 4, width_ratios=[1, 1.4, 1.4, 1.4])
    rows = {"near": int(distance.argmin()), "far": int(distance.argmax())}
    for row, (name, index) in enumerate(rows.items()):
        shown = task.select([index])
        poster(axes[row, 0], shown, shown.start())
        axes[row, 0].set_title(f"{name}: {distance[index]:.2f} NDC to go", fontsize=TEXT)
        for axis, part in zip(axes[row, 1:], ("scale", "step", "gamma"), strict=True):
            for colour, found in courses.items():
                values = getattr(found, part)[:, index]
                label = f"{NAMES[colour]}: error {found.errors[index]:.3f}"
                lined(axis, values, colour, label)
        axes[row, 1].legend(fontsize=SMALL - 1, loc="lower left")
    axes[1, 0].set_xlabel("the target, and the start\nas outlines", fontsize=SMALL)
    titles = ("scale of the edges, pixels", "step, pixels", "temperature gamma, depth ranges")
    for column, title in enumerate(titles, start=1):
        axes[0, column].set_title(title, fontsize=TEXT)
        share_limits(axes[:, column])
        axes[1, column].set_xlabel("step of the descent", fontsize=SMALL)
    return figure


def poster(axis: Axes, task: Any, params: Tensor) -> None:
    """The target, and the triangles of `params` as outlines."""
    axis.imshow(task.target[0, ..., :3], extent=(-1, 1, -1, 1), vmin=0, vmax=1)
    for corners, colour in zip(params[0], task.colours[0], strict=True):
        x, y = torch.cat([corners, corners[:1]]).T.numpy()
        axis.plot(x, y, color="white", lw=2.5)
        axis.plot(x, y, color=colour.tolist(), lw=1.2)
    bare(axis)


# A run that is stuck ------------------------------------------------------------------------------


def stuck(tasks: int) -> Figure:
    """Of jointed figures, the run that the feedback helps most, and below it all runs."""
    steps = 60
    task = Body().sample(tasks, "test", 0)
    courses = both(task, steps)
    hand, learned = courses[HAND], courses[LEARNED]
    helped = torch.log(hand.errors + 1e-3) - torch.log(learned.errors + 1e-3)
    helped = helped.where(hand.errors > task.family.failure_threshold, -torch.inf)
    index = int(helped.argmax())
    figure = Figure(figsize=(11, 5), layout="constrained")
    axes = figure.subplots(2, 4, width_ratios=[1, 1, 1.4, 1.4])
    shown = task.select([index])
    for axis, params, title in (
        (axes[0, 0], shown.hidden, "target, its outline blue"),
        (axes[0, 1], shown.start(), "start"),
        (axes[1, 0], hand.ends[[index]], f"by hand: error {hand.errors[index]:.3f}"),
        (axes[1, 1], learned.ends[[index]], f"universal: error {learned.errors[index]:.3f}"),
    ):
        overlay(axis, shown, params)
        axis.set_title(title, fontsize=TEXT)
    for colour, found in courses.items():
        lined(axes[0, 2], found.images[:, index], colour, NAMES[colour])
        lined(axes[0, 3], found.scale[:, index], colour, "scale")
        lined(axes[0, 3], found.step[:, index], colour, "step", style=":")
    axes[0, 2].set_title("1 - IoU of the sharp picture, this run", fontsize=TEXT)
    axes[0, 2].legend(fontsize=SMALL - 1)
    axes[0, 3].set_title("scale and step in pixels, this run", fontsize=TEXT)
    axes[0, 3].legend(fontsize=SMALL - 1, ncols=2)
    failed = hand.errors > task.family.failure_threshold
    for axis, part in ((axes[1, 2], "scale"), (axes[1, 3], "step")):
        factors = getattr(learned, part) / getattr(hand, part)
        for chosen, colour, name in ((failed, "C3", "stuck"), (~failed, "C0", "solved")):
            band(axis, factors[:, chosen], colour, f"{int(chosen.sum())} {name} by hand")
        axis.axhline(1, color="0.7", lw=0.8)
        axis.set_title(f"{part}: universal / by hand, all {tasks} runs", fontsize=TEXT)
        axis.set_xlabel("step of the descent", fontsize=SMALL)
        axis.legend(fontsize=SMALL - 1)
    return figure


def overlay(axis: Axes, task: Any, params: Tensor) -> None:
    """The figure at `params` in grey, and the target's outline."""
    larger = tr.SharpRasterizer(160, near=1.0, far=5.0)
    with torch.no_grad():
        drawn, target = (task.soft_image(x, larger, 0.0) for x in (params, task.hidden))
    axis.imshow(drawn[0, ..., 0], cmap="gray_r", vmin=0, vmax=2, extent=(-1, 1, -1, 1))
    axis.contour(target[0, ..., 0].flip(0), [0.5], colors="C0", extent=(-1, 1, -1, 1))
    bare(axis)


# Families -----------------------------------------------------------------------------------------


def families(tasks: int) -> Figure:
    """Factors by which feedback changes what was chosen by hand: medians over a batch of each."""
    batches: dict[str, tuple[Any, int]] = {
        "Shape2D": (Shape2D(2, image_size=24), 40),
        "Occlusion": (Occlusion((4, 6), True, 24), 50),
        "Pose": (Pose(), 60),
        "Body (not learned on)": (Body(), 60),
    }
    figure = Figure(figsize=(11, 3), layout="constrained")
    axes = figure.subplots(1, 3)
    for number, (name, (family, steps)) in enumerate(batches.items()):
        courses = both(family.sample(tasks, "test", 0), steps)
        for axis, part in zip(axes, ("scale", "step", "gamma"), strict=True):
            factors = getattr(courses[LEARNED], part) / getattr(courses[HAND], part)
            band(axis, factors, f"C{number}", name, along=True)
    for axis, part in zip(axes, ("scale", "step", "temperature gamma"), strict=True):
        axis.axhline(1, color="0.7", lw=0.8, zorder=0)
        axis.set_title(f"{part}: universal / by hand", fontsize=TEXT)
        axis.set_xlabel("share of the run", fontsize=SMALL)
    axes[0].legend(fontsize=SMALL - 1)
    return figure


# Pieces -------------------------------------------------------------------------------------------


def lined(axis: Axes, values: Tensor, colour: str, label: str, style: str = "-") -> None:
    """A value over the steps, on a logarithmic axis."""
    axis.semilogy(values.numpy(), color=colour, label=label, ls=style)
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.tick_params(which="both", labelsize=SMALL - 1)


def band(axis: Axes, values: Tensor, colour: str, label: str, along: bool = False) -> None:
    """Median over runs (T, n), and the middle half of them; over steps, or over progress."""
    low, middle, high = np.quantile(values.numpy(), [0.25, 0.5, 0.75], axis=1)
    steps = np.arange(len(values)) / (len(values) if along else 1)
    axis.fill_between(steps, low, high, color=colour, alpha=0.2, lw=0)
    axis.plot(steps, middle, color=colour, label=label)
    axis.tick_params(labelsize=SMALL - 1)


def share_limits(axes: Any) -> None:
    """The same range for all, so that rows can be compared."""
    limits = np.array([axis.get_ylim() for axis in axes])
    for axis in axes:
        axis.set_ylim(limits[:, 0].min(), limits[:, 1].max())


def bare(axis: Axes) -> None:
    """No ticks, the picture's own range."""
    axis.set(xlim=(-1, 1), ylim=(-1, 1), xticks=[], yticks=[])


if __name__ == "__main__":
    main(tyro.cli(Options))
