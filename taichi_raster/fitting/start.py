"""How far the edges of a picture have to travel, measured in the picture itself.

A softness has to reach about as far as edges have to go, and no farther: beyond that, it costs
pairs and leaves a bias. So the first scale and the first step can follow from the two masks.

    start = tr.picture_start(sharp(geometry(*unknowns), None)[..., -1], target, steps=60)
    renderer = tr.SoftRasterizer(64, tr.Distribution("gaussian", start.scale))
    stepper = tr.ImageSteps(optimiser, geometry, start.eta)

Outlines are all that is measured: where colours have to move within one, or an order in depth to
change, it says nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from taichi_raster import checks
from taichi_raster.fitting import inputs
from taichi_raster.softness.schedule import Geometric, Schedule

_COVERED = 0.5
_QUANTILE = 0.95

# Found on `tasks.Shape2D` and `tasks.Pose`, starts of several kinds, 60 steps of Adam.
_REACH = 0.35  # the first scale of a Gaussian, as a share of the distance
_PATH = 4.0  # how far the steps of a run go together, in distances
_WIDEST = 0.15  # NDC: softer than this, pictures say too little
_LARGEST = 0.04  # NDC: beyond it, steps overshoot
_HELD = 0.85  # of the progress, before steps become smaller
_FALL = 0.1  # the last step, as a share of the first


@dataclass(frozen=True, eq=False)
class PictureStart:
    """How soft to begin, and how far to step; see `picture_start`.

    Attributes:
        distance: (B,) what edges have to travel, in NDC.
        scale: schedule (B,) of a Gaussian's scale: from 0.35 of the distance, between a pixel and
            0.15 NDC, to a quarter of a pixel.
        eta: schedule (B,) for `ImageSteps`: together, the steps go 4 times the distance. Between a
            tenth of a pixel and 0.04 NDC; it falls tenfold over the last 15% of the progress.
    """

    distance: Float[Tensor, " B"]
    scale: Schedule
    eta: Schedule


def picture_start(
    drawn: Float[Tensor, "B H W"], target: Float[Tensor, "B H W"], steps: int, views: int = 1
) -> PictureStart:
    """A first scale and a first step, each in proportion to how far edges have to travel.

    Where outlines nearly overlap it begins sharp, with small steps, and where they are apart, wide.

    Args:
        drawn, target: (B, H, W) coverage in [0, 1], as sharp as there is, of the start and of what
            it is fitted to.
        steps: of the run.
        views: rows that show one scene, next to each other; its distance is their mean.

    Returns:
        For each scene, (B / views,).

    Raises:
        TypeError, ValueError: naming the argument; see `outline_distance`.
    """
    steps = checks.whole("steps", steps, 1)
    distance = scene_distance(drawn, target, views)
    pixel = 2 / min(drawn.shape[1:])
    scale = (_REACH * distance).clamp(min=pixel, max=max(pixel, _WIDEST))
    eta = (_PATH / steps * distance).clamp(min=pixel / 10, max=max(pixel / 10, _LARGEST))
    return PictureStart(
        distance, Geometric(scale, torch.full_like(scale, pixel / 4)), _HeldThenFalling(eta)
    )


class _HeldThenFalling(Schedule):
    """Constant, then falling at a constant ratio."""

    first: Tensor

    def __init__(self, first: Float[Tensor, " B"]) -> None:
        super().__init__()
        self.register_buffer("first", first, persistent=False)

    def forward(self, u: Tensor) -> Tensor:
        share = ((u - _HELD) / (1 - _HELD)).clamp(0, 1)
        return self.first * _FALL ** share.to(self.first)

    def extra_repr(self) -> str:
        """What `repr` shows."""
        return f"first={self.first.tolist()}"


def scene_distance(
    drawn: Float[Tensor, "R H W"], target: Float[Tensor, "R H W"], views: int
) -> Float[Tensor, " B"]:
    """`outline_distance`, averaged over the `views` of each scene, which are next to each other."""
    distance = outline_distance(drawn, target)
    return distance.reshape(checks.scenes(len(distance), views), -1).mean(dim=1)


def outline_distance(
    drawn: Float[Tensor, "B H W"], target: Float[Tensor, "B H W"]
) -> Float[Tensor, " B"]:
    """The distance in NDC from the outline of one mask to that of the other, by its 95% quantile.

    The larger of both directions, from drawn to target and from target to drawn: the Hausdorff
    distance without its worst twentieth. Outlines are the pixels covered by half or more that have
    a neighbour, of four, which is not. So it is right to about a pixel, 2 / min(H, W). No gradient.

    Args:
        drawn, target: (B, H, W) coverage in [0, 1], as sharp as there is.

    Returns:
        (B,), in the dtype and on the device of `drawn`. 0 if neither mask has an outline, being
        empty or full; the picture's diagonal if one of them has none.

    Raises:
        TypeError, ValueError: unless both are of floats in [0, 1] but for noise, and of the same
            (B, H, W).
    """
    for name, mask in (("drawn", drawn), ("target", target)):
        if checks.floats(name, mask).ndim != 3 or mask.numel() == 0:
            raise ValueError(f"{name}: must be (B, H, W), got {tuple(mask.shape)}")
        checks.finite("an infinite or NaN value", name, mask)
        inputs.picture(name, mask)
    if drawn.shape != target.shape:
        raise ValueError(
            f"target: must have the shape of drawn, {tuple(drawn.shape)}, got {tuple(target.shape)}"
        )
    height, width = drawn.shape[1:]
    pixel = 2 / min(height, width)
    found = [_pixels_apart(a, b) for a, b in zip(_covered(drawn), _covered(target), strict=True)]
    return torch.tensor([pixel * apart for apart in found], dtype=torch.float64).to(drawn)


def _covered(mask: Tensor) -> Tensor:
    return mask.detach().cpu() >= _COVERED


def _outline(covered: Tensor) -> Tensor:
    """(H, W): covered pixels with a neighbour that is not; the picture's border is no edge."""
    padded = torch.nn.functional.pad(covered[None, None].float(), (1, 1, 1, 1), mode="replicate")[
        0, 0
    ]
    least = torch.stack(
        [padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]
    ).amin(dim=0)
    return covered & (least < 1)


def _pixels_apart(a: Tensor, b: Tensor) -> float:
    from scipy.ndimage import distance_transform_edt  # here, as SciPy takes a while to import

    lines = [_outline(mask) for mask in (a, b)]
    if not any(bool(line.any()) for line in lines):
        return 0.0
    if not all(bool(line.any()) for line in lines):
        return math.hypot(*a.shape)
    far = []
    for one, other in (lines, lines[::-1]):
        away = torch.from_numpy(distance_transform_edt(~other.numpy()))
        far.append(float(away[one].quantile(_QUANTILE)))
    return max(far)
