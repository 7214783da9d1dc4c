"""Draw training curves of several runs: voxel IoU of unseen objects, over steps and over time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy import ndarray


def read_curve(log: Path) -> tuple[ndarray, ndarray, ndarray]:
    """Steps, seconds of training and voxel IoU at each validation in a log.jsonl.

    Raises:
        FileNotFoundError: if there is no such log.
        ValueError: naming the file, if it holds something else.
    """
    rows = []
    try:
        for line in Path(log).read_text().splitlines():
            entry = json.loads(line)
            if "validation" in entry:
                score = entry["validation"]["voxel_iou"]
                rows.append((entry["iteration"], entry["seconds"], score))
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{log}: is not the log of a training ({error})") from error
    steps, seconds, scores = np.array(rows, dtype=float).reshape(-1, 3).T
    return steps, seconds, scores


def draw_curves(path: Path, groups: Mapping[str, Sequence[Path]]) -> bool:
    """Draw each group of runs (such as seeds) as its mean and range.

    Returns:
        Whether there was anything to draw: validated steps in every run.
    """
    curves = {name: [read_curve(log) for log in logs] for name, logs in groups.items()}
    if not all(len(steps) for runs in curves.values() for steps, _, _ in runs):
        return False
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    by_steps, by_time = figure.subplots(1, 2, sharey=True)
    for number, (name, runs) in enumerate(curves.items()):
        for axis, column in ((by_steps, 0), (by_time, 1)):
            ends = [run[column][-1] for run in runs]
            starts = [run[column][0] for run in runs]
            grid = np.linspace(max(starts), min(ends), 200)
            values = 100 * np.stack([np.interp(grid, run[column], run[2]) for run in runs])
            scale = 60 if column else 1
            axis.plot(grid / scale, values.mean(axis=0), color=f"C{number}", label=name)
            low, high = values.min(axis=0), values.max(axis=0)
            axis.fill_between(grid / scale, low, high, color=f"C{number}", alpha=0.15, lw=0)
    by_steps.set_xlabel("step")
    by_time.set_xlabel("minutes of training")
    by_steps.set_ylabel("voxel IoU, unseen objects, %")
    by_steps.legend(fontsize=8, frameon=False)
    for axis in (by_steps, by_time):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return True
