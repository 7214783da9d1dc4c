"""The part of a picture that is about an object: cut out, made smaller, with its own camera."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from taichi_raster.fitting.pose_problem import Problem
from taichi_raster.scene.camera import Camera
from taichi_raster.scene.pose import Pose
from taichi_raster.scene.resampling import area_average

MARGIN = 0.3
"""About the object, of its extent."""

LEAST = 24
"""Pixels on the shorter side of a window."""


@dataclass(frozen=True, eq=False)
class WindowCamera(Camera):
    """A camera that sees a part of another one's picture: NDC are those of the part.

    Attributes:
        whole: the other camera.
        scale, shift: NDC of the part are scale * NDC of the whole + shift.
    """

    whole: Camera
    scale: float
    shift: tuple[float, float]

    def to_image(self, points: Float[Tensor, "B *n 3"]) -> Float[Tensor, "B *n 3"]:
        """See `Camera`."""
        seen = self.whole.to_image(points)
        place = self.scale * seen[..., :2] + seen.new_tensor(self.shift)
        return torch.cat([place, seen[..., 2:]], dim=-1)

    def from_image(self, points: Float[Tensor, "B *n 3"]) -> Float[Tensor, "B *n 3"]:
        """See `Camera`."""
        place = (points[..., :2] - points.new_tensor(self.shift)) / self.scale
        return self.whole.from_image(torch.cat([place, points[..., 2:]], dim=-1))


@dataclass(frozen=True, eq=False)
class Window:
    """A part of a frame (h, w, 3), and the problem of a pose as seen there."""

    problem: Problem
    picture: Float[Tensor, "h w 3"]


def window_about(
    problem: Problem, frame: Float[Tensor, "H W 3"], pose: Pose, detail: int
) -> Window | None:
    """The part of the frame where the object is by a pose, made smaller by a whole number.

    Its shorter side has about `detail` pixels, or fewer where the frame has fewer.

    Returns:
        None if too little of the object is in the frame, or it is too small there.
    """
    height, width = frame.shape[:2]
    short = min(height, width)
    seen = problem.points(pose, problem.mesh)[0].detach().double()
    if not bool((seen[:, 2] > 1e-3).all()) or not bool(torch.isfinite(seen).all()):
        return None
    column, row = (width + short * seen[:, 0]) / 2, (height - short * seen[:, 1]) / 2
    sides = [(float(v.min()), float(v.max())) for v in (row, column)]
    margin = MARGIN * max(high - low for low, high in sides)
    cut = [
        (max(low - margin, 0.0), min(high + margin, float(size)))
        for (low, high), size in zip(sides, (height, width), strict=True)
    ]
    extent = min(high - low for low, high in cut)
    if extent < LEAST:
        return None
    step = max(1, round(extent / detail))
    begin = [math.floor(low) for low, _ in cut]
    count = [
        min(math.ceil((high - first) / step), (size - first) // step)
        for (_, high), first, size in zip(cut, begin, (height, width), strict=True)
    ]
    if min(count) < LEAST:
        return None
    high, wide = (step * n for n in count)
    part = frame[begin[0] : begin[0] + high, begin[1] : begin[1] + wide]
    scale = short / min(high, wide)
    shift = (
        (width - 2 * begin[1] - wide) / min(high, wide),
        (high + 2 * begin[0] - height) / min(high, wide),
    )
    camera = WindowCamera(problem.camera.view, problem.camera, scale, shift)
    picture = area_average(part[None], (count[0], count[1]))[0]
    return Window(replace(problem, camera=camera), picture)
