"""Plots of what cost depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

_AXES = {
    "faces": ("faces", "256 x 256 pixels"),
    "pixels": ("size", "1,280 faces"),
    "batch": ("batch", "1,280 faces, 64 x 64 pixels"),
    "reach": ("reach", "1,280 faces, 256 x 256 pixels"),
}
_LABELS = {"size": "pixels on a side", "batch": "batch items", "reach": "reach [NDC]"}


def draw(results: dict[str, Any], folder: Path) -> None:
    """Write cost.png and softnesses.png."""
    figure, axes = plt.subplots(2, 4, figsize=(14, 6), sharex="col", layout="constrained")
    for (name, (key, title)), column in zip(_AXES.items(), axes.T, strict=True):
        rows = results["sweeps"][name]
        x = [row[key] for row in rows]
        for what in ("forward", "forward + backward", "Hessian-vector"):
            low, median, high = zip(*(row[what] for row in rows), strict=True)
            (line,) = column[0].plot(x, median, "o-", label=what, markersize=4)
            column[0].fill_between(x, low, high, color=line.get_color(), alpha=0.25, linewidth=0)
        column[0].set(xscale="log", yscale="log", title=title)
        column[1].plot(x, [row["ns a pair"] for row in rows], "o-", color="C1", markersize=4)
        column[1].set(xscale="log", ylim=(0, None), xlabel=_LABELS.get(key, key))
        column[1].set_xticks(x, [f"{value:,}" for value in x], rotation=30)
        column[1].minorticks_off()
    axes[0, 0].set_ylabel("milliseconds")
    axes[1, 0].set_ylabel("ns a pair, forward + backward")
    axes[0, 0].legend(frameon=False)
    figure.savefig(folder / "cost.png", dpi=110)
    plt.close(figure)

    times = results["softnesses"]
    base = times["logistic"][1]
    figure, axis = plt.subplots(figsize=(7, 2.6), layout="constrained")
    low, median, high = zip(*([t / base for t in timing] for timing in times.values()), strict=True)
    spread = [
        [m - a for m, a in zip(median, low, strict=True)],
        [b - m for m, b in zip(median, high, strict=True)],
    ]
    axis.barh(list(times), median, xerr=spread, color="C0", capsize=3)
    axis.axvline(1, color="black", linewidth=0.8)
    axis.invert_yaxis()
    axis.set_xlabel("forward + backward, 1,280 faces, 256 x 256, relative to the logistic")
    figure.savefig(folder / "softnesses.png", dpi=110)
    plt.close(figure)
