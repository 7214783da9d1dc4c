"""Figures of methods and their results: softness curves, schedules, convergence, solved tasks."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from torch import Tensor, nn

from meta.evaluation.evaluate import Convergence

TITLE_HEIGHT = 0.12  # of a panel of a GIF frame


@dataclass(frozen=True)
class Curves:
    """What a softness figure shows of one method.

    Attributes:
        value: F(d, progress) for signed distances d (n,) in NDC, as `Distribution.value`.
        scale, lr: schedules, modules of progress.
        style: matplotlib line style.
    """

    value: Callable[[Tensor, float], Tensor]
    scale: nn.Module
    lr: nn.Module
    style: str | tuple[int, tuple[int, int]] = "-"


def softness_figure(path: Path, curves: Mapping[str, Curves], reach: float = 0.4) -> None:
    """F over signed distance at progress 0, 1/2 and 1; scale and learning rate over progress."""
    figure = Figure(figsize=(20, 4.6), layout="constrained")
    axes = figure.subplots(1, 5)
    distance = torch.linspace(-reach, reach, 801, dtype=torch.float64)
    along = torch.linspace(0, 1, 201, dtype=torch.float64)
    for number, (name, curve) in enumerate(curves.items()):
        look = {"color": f"C{number}", "linestyle": curve.style, "label": name}
        for axis, progress in zip(axes[:3], (0.0, 0.5, 1.0), strict=True):
            axis.plot(distance, curve.value(distance, progress), **look)
            axis.set_title(f"softness at progress {progress:g}")
        for axis, schedule in zip(axes[3:], (curve.scale, curve.lr), strict=True):
            with torch.no_grad():
                axis.semilogy(along, [float(schedule(u)) for u in along], **look)
    for axis in axes[:3]:
        axis.set(xlabel="signed distance to the edge (NDC)", ylabel="F")
        axis.axvline(0, color="0.8", linewidth=0.8, zorder=0)
    axes[3].set(xlabel="progress", ylabel="NDC", title="scale")
    axes[4].set(xlabel="progress", ylabel="units a step", title="inner learning rate")
    _legend_below(figure, axes[0])
    _save(figure, path)


def convergence_figure(
    path: Path, runs: Mapping[str, Convergence], error_name: str = "vertex RMSE (NDC)"
) -> None:
    """Parameter and image error over inner steps: median, and quartiles as a band; log scale."""
    figure = Figure(figsize=(12, 4.9), layout="constrained")
    axes = figure.subplots(1, 2)
    for number, (name, run) in enumerate(runs.items()):
        for axis, errors in zip(axes, (run.parameter_error, run.image_error), strict=True):
            low, median, high = np.quantile(errors, [0.25, 0.5, 0.75], axis=1)
            steps = np.arange(len(median))
            axis.semilogy(steps, median, color=f"C{number}", label=name)
            axis.fill_between(steps, low, high, color=f"C{number}", alpha=0.15, linewidth=0)
    count = next(iter(runs.values())).image_error.shape[1]
    axes[0].set(xlabel="inner iteration", ylabel=error_name, title="parameter error")
    axes[1].set(xlabel="inner iteration", ylabel="error of sharp renders", title="image error")
    _legend_below(figure, axes[0])
    figure.suptitle(f"median and quartiles over {count} unseen tasks", fontsize=10)
    _save(figure, path)


def picture_grid(
    path: Path, columns: Mapping[str, Tensor], row_titles: Sequence[str] | None = None
) -> None:
    """One row a task, one named column a picture: tensors (rows, H, W, 3 or 4), values 0 to 1.

    Long strips of square views are broken into rows of three or four.
    """
    columns = {name: _broken(pictures) for name, pictures in columns.items()}
    rows, height, width = next(iter(columns.values())).shape[:3]
    size = (1.7 * len(columns), (1.7 * height / width + 0.05) * rows + 0.7)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, len(columns), squeeze=False)
    for column, (name, pictures) in enumerate(columns.items()):
        for row in range(rows):
            axis = axes[row, column]
            axis.imshow(_pixels(pictures[row]), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            if row == 0:
                axis.set_title(textwrap.fill(name, 20), fontsize=8)
            if column == 0 and row_titles is not None:
                axis.set_ylabel(row_titles[row], fontsize=8)
    _save(figure, path)


def solving_gif(
    path: Path, columns: Mapping[str, Tensor], side: int = 192, milliseconds: int = 80
) -> None:
    """Pictures side by side, animated: (frames, H, W, 3 or 4), or (H, W, 3 or 4) for a still."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = max(len(pictures) for pictures in columns.values() if pictures.ndim == 4)
    images = [_frame(columns, number, frames, side) for number in range(frames)]
    durations = [milliseconds] * (frames - 1) + [1500]
    images[0].save(
        path, save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=True
    )


def _frame(columns: Mapping[str, Tensor], number: int, frames: int, side: int) -> Image.Image:
    gap, title = side // 24, int(TITLE_HEIGHT * side)
    canvas = Image.new("RGB", ((side + gap) * len(columns) + gap, side + title + 2 * gap), "white")
    draw = ImageDraw.Draw(canvas)
    for column, (name, pictures) in enumerate(columns.items()):
        moving = pictures.ndim == 4
        picture = pictures[min(number, len(pictures) - 1)] if moving else pictures
        left = gap + column * (side + gap)
        image = Image.fromarray((_pixels(picture) * 255).round().astype(np.uint8))
        canvas.paste(image.resize((side, side), Image.Resampling.NEAREST), (left, title + gap))
        text = f"{name}  {number}/{frames - 1}" if moving else name
        draw.text((left, gap // 2), text, fill="black")
    return canvas


def _broken(pictures: Tensor) -> Tensor:
    """A strip (..., S, V S, C) of at least six views as views in rows of four, or of three."""
    _, side, width, _ = pictures.shape
    views = width // side
    columns = next((n for n in (4, 3) if views % n == 0), 0)
    if width % side or views < 6 or not columns:
        return pictures
    return torch.cat(pictures.split(columns * side, dim=2), dim=1)


def _pixels(picture: Tensor) -> np.ndarray:
    shown = picture[..., :3].detach().cpu().clamp(0, 1).double()
    return shown.expand(*shown.shape[:-1], 3).numpy()  # one channel is shown in grey


def _legend_below(figure: Figure, axis: Axes) -> None:
    """One legend for all of a figure's axes, where it hides nothing."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
