"""One softening, and how far to step with it, for problems that nobody has tuned anything for.

    start = tr.untuned_softening(sharp(geometry(*unknowns), None)[..., -1], target)
    renderer = start.renderer(64, near=1.0, far=5.0)
    steps = tr.ImageSteps(unknowns, geometry, start.lr)
    for step in tr.Descent(steps, 60):
        image = renderer(geometry(*unknowns), colours, step.progress)
        step.descend(tr.mse(image, target_image))

All of it is in units of the picture. The scale of the softness begins at a share of the distance
that outlines have to travel, and falls towards a fraction of a pixel. Each step moves the scene by
one scale. In the last quarter of the progress the picture is sharp, and its gradient exact. It was
found on six kinds of problems, and is judged by `benchmarks/untuned.py`.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from taichi_raster import checks
from taichi_raster.depth.over import OverDepth
from taichi_raster.fitting.start import scene_distance
from taichi_raster.presets.policy import (
    CONORM,
    FALL,
    GAMMA,
    HELD,
    REACH,
    SHARP_FROM,
    SHARPEST,
    TWICE,
    WIDEST,
)
from taichi_raster.presets.softening import Softening
from taichi_raster.softness.conorm import TConorm
from taichi_raster.softness.edge import Distribution
from taichi_raster.softness.schedule import Geometric, Schedule


def untuned_softening(
    drawn: Float[Tensor, "R H W"],
    target: Float[Tensor, "R H W"],
    views: int = 1,
    backs: bool = False,
) -> Softening:
    """A softening for a problem that is known by its picture alone.

    A Gaussian, `OverDepth` in a soft order, and a T-conorm by which coverages nearly add
    up. Its `lr` is the `eta` of `ImageSteps`. Meant for runs of 40 to 100 steps.

    In the last quarter of the progress its renderers draw sharply, each pixel by its exact mean.
    Take a loss that is least where such pictures agree: `mse`, or `coverage_iou_loss` for
    silhouettes.

    Args:
        drawn, target: (R, H, W) coverage in [0, 1], as sharp as there is, of the start and of what
            it is fitted to; H and W are those of the pictures that are going to be rendered.
        views: rows that show one scene, next to each other.
        backs: True if the renderer draws the backs of closed surfaces, which it does unless it has
            `cull_backfaces=True`. Each outline then belongs to two faces, a front and a back, and
            coverages must add up less: p is 2.2 instead of 1.2.

    Returns:
        A softening whose schedules have one value for each scene, (R / views,).

    Raises:
        TypeError, ValueError: naming the argument; see `outline_distance`.

    Example:
        >>> start = untuned_softening(mask, target)
        >>> steps = ImageSteps([pose], geometry, start.lr)
        >>> renderer = start.renderer(64, near=1.0, far=5.0)
    """
    distance = scene_distance(drawn, target, views).double()
    pixel = 2 / min(drawn.shape[1:])
    first = (REACH * distance).clamp(min=pixel, max=max(pixel, WIDEST))
    scale = Geometric(first, torch.full_like(first, SHARPEST * pixel))
    return Softening(
        Distribution("gaussian", scale),
        OverDepth(Geometric(*GAMMA)),
        TConorm("yager", TWICE if checks.flag("backs", backs) else CONORM),
        _ScaleSteps(scale),
        sharp_from=SHARP_FROM,
    )


class _ScaleSteps(Schedule):
    """A step as long as a softness's scale; over the last 15% of the progress it falls tenfold.

    Args:
        scale: the schedule of the scale, in NDC.
    """

    def __init__(self, scale: Schedule) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, u: Tensor) -> Tensor:
        """The step at progress `u`."""
        share = ((u - HELD) / (1 - HELD)).clamp(0, 1)
        found: Tensor = self.scale(u)
        step: Tensor = found * torch.exp(math.log(FALL) * share).to(found)
        return step
