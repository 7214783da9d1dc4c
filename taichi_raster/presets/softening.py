"""A softening: everything that is tuned or learned about a soft renderer and its optimisation.

A rasterizer is softened in three places: at edges, in depth, and where coverages combine. The best
choice for one depends on the others and on the learning rate. So they are learned together, and
stored together in one file.
"""

from __future__ import annotations

import json
from typing import Any

from torch import Tensor, nn

from taichi_raster import checks
from taichi_raster.depth.base import DepthSoftness
from taichi_raster.depth.over import OverDepth
from taichi_raster.render.soft import SoftRasterizer
from taichi_raster.softness.conorm import TConorm
from taichi_raster.softness.edge import EdgeSoftness
from taichi_raster.softness.schedule import (
    Schedule,
    as_progress,
    as_schedule,
    describe,
)
from taichi_raster.softness.tabulated import TabulatedSoftness


class Softening(nn.Module):
    """Holds an edge softness, a depth softness, a T-conorm, and the learning rate to use them with.

    It was learned over T inner steps, of which step t ran at progress t / T. Use it with any number
    of steps: step i of n runs at progress i / n, so that its schedules stretch or shrink.

    Args:
        edge: the edge softness. Of a `TabulatedSoftness`, the original is kept as `edge`, and the
            table's layout as `table`; it renders and is saved by that table.
        depth: the depth softness; by default `OverDepth`. Its depths are in units of the
            renderer's [near, far].
        alpha: the T-conorm; by default the probabilistic one.
        lr: the learning rate that it was learned with: a `Schedule`, a positive number, or None.
        steps: T, at least 1, or None.
        card: how it was learned, anything that JSON can hold: "task", "units", "optimiser" (its
            name and numbers), "command", "seed", "scores", ... (see `pretrained`).
        sharp_from: the progress, in [0, 1), from which its renderers draw sharply; None for never.
            See `SoftRasterizer`.

    Raises:
        TypeError, ValueError: for an invalid argument; the message names it.

    Example:
        >>> softening = tr.load_softening("pose.safetensors")
        >>> renderer = softening.renderer(64, near=1.0, far=5.0)
        >>> adam = torch.optim.Adam([unknowns])
        >>> for i in range(n):
        ...     adam.param_groups[0]["lr"] = softening.learning_rate(i / n)
        ...     loss = (renderer(*scene(unknowns), progress=i / n) - picture).square().mean()
        ...     adam.zero_grad()
        ...     loss.backward()
        ...     adam.step()
    """

    def __init__(
        self,
        edge: EdgeSoftness,
        depth: DepthSoftness | None = None,
        alpha: TConorm | None = None,
        lr: float | Tensor | Schedule | None = None,
        steps: int | None = None,
        card: dict[str, Any] | None = None,
        sharp_from: float | None = None,
    ) -> None:
        super().__init__()
        checks.instance("edge", edge, EdgeSoftness)
        self.table = edge.table if isinstance(edge, TabulatedSoftness) else None
        self.edge = edge.edge if isinstance(edge, TabulatedSoftness) else edge
        self.depth = checks.instance(
            "depth", OverDepth() if depth is None else depth, DepthSoftness
        )
        self.alpha = checks.instance("alpha", TConorm() if alpha is None else alpha, TConorm)
        self.lr = None if lr is None else as_schedule("lr", lr)
        if steps is not None and (not checks.is_whole(steps) or steps < 1):
            raise ValueError(f"steps: expected a whole number >= 1 or None, got {steps!r}")
        self.steps = None if steps is None else int(steps)
        self.sharp_from = None if sharp_from is None else checks.fraction("sharp_from", sharp_from)
        self.card: dict[str, Any] = dict(
            checks.instance("card", {} if card is None else card, dict)
        )

    @property
    def drawn_edge(self) -> EdgeSoftness:
        """The edge softness that renderers use: the table of `edge`, or `edge` if there is none.

        The two differ by a few hundredths where a network is steep. What was learned through a
        coarse table has to be used with that table.
        """
        if self.table is None:
            return self.edge
        t = self.table
        return TabulatedSoftness(self.edge, t.width, t.octaves, t.subdivision)

    def renderer(self, image_size: int | tuple[int, int], **options: Any) -> SoftRasterizer:
        """A renderer with this edge, depth and alpha, which are shared, not copied.

        Args:
            image_size: pixels: one number, or (height, width).
            options: the other arguments of `SoftRasterizer`; with `sharp_from=None` it stays soft.
        """
        parts = {"edge": self.drawn_edge, "depth": self.depth, "alpha": self.alpha}
        return SoftRasterizer(image_size, **parts, **{"sharp_from": self.sharp_from, **options})

    def learning_rate(self, progress: float) -> float:
        """The learning rate at progress in [0, 1].

        Raises:
            ValueError: if there is none, or for a progress outside [0, 1].
        """
        if self.lr is None:
            raise ValueError("lr: this softening has no learning rate")
        return float(self.lr(as_progress(progress, 1)).detach())

    def describe(self) -> str:
        """A few lines of text: its parts, and its card."""
        rows = {**self._parts(), **{f"card: {key}": _plain(v) for key, v in self.card.items()}}
        width = max(map(len, rows))
        return "\n".join(f"{name:<{width}}  {text}" for name, text in rows.items())

    def __repr__(self) -> str:
        return f"Softening({'; '.join(f'{name}: {text}' for name, text in self._parts().items())})"

    def _parts(self) -> dict[str, str]:
        return {
            "edge": self.edge.describe() + ("" if self.table is None else ", by a table"),
            "depth": self.depth.describe(),
            "alpha": self.alpha.name
            + ("" if self.alpha.generator.domain is None else f", p {describe(self.alpha.p)}"),
            "lr": "none" if self.lr is None else describe(self.lr),
            "steps": "any" if self.steps is None else str(self.steps),
            "sharp from": "never" if self.sharp_from is None else f"{self.sharp_from:g}",
        }


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
