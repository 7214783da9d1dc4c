"""The systems of one Gauss-Newton step: of outlines, and of centres where no outline helps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from taichi_raster.runtime.precision import product

_NEAR = 1.5  # pixels: nearer than that, coverage is more exact than distances of pixels
_APART = 0.3  # intersection over union, below which outlines say less than centres do
_FARTHEST = 2.0  # a step moves the outline by so many times what it has to go, at most
_SLIDING = 1e-2  # what moving along itself costs an outline, of what moving across does
_STIFF = 1e-2  # what a motion costs where centres count, if it moves nothing but those
_TINY = 1e-30


@dataclass(frozen=True, eq=False)
class System:
    """Normal equations of each item, and what limits their solution.

    Attributes:
        matrix, slope: (B, K, K), (B, K).
        length: (B, N) weights of the points in their mean motion.
        wanted: (B,) root mean square of how far they have to go.
    """

    matrix: Float[Tensor, "B K K"]
    slope: Float[Tensor, "B K"]
    length: Float[Tensor, "B N"]
    wanted: Float[Tensor, " B"]

    def or_where(self, items: Bool[Tensor, " B"], other: System) -> System:
        """The other's for these items."""
        return System(
            torch.where(items[:, None, None], other.matrix, self.matrix),
            torch.where(items[:, None], other.slope, self.slope),
            torch.where(items[:, None], other.length, self.length),
            torch.where(items, other.wanted, self.wanted),
        )

    def step(
        self, motions: Float[Tensor, "B K N 2"], damping: float
    ) -> tuple[Float[Tensor, "B K"], Float[Tensor, " B"]]:
        """The step, and the root mean square of how far it moves the points."""
        step = -_solved(self.matrix, self.slope, damping).to(motions)
        moved = (motions * step[:, :, None, None]).sum(1).square().sum(2)
        motion = _mean(moved, self.length).sqrt()
        limit = (_FARTHEST * self.wanted / motion.clamp(min=_TINY)).clamp(max=1)
        return limit[:, None] * step, limit * motion


def system_of(
    picture: Float[Tensor, "R H W"],
    points: Float[Tensor, "R V 3"],
    goal: Float[Tensor, "R H W"],
    distance: Float[Tensor, "R H W"],
    motions: Float[Tensor, "B K N 2"],
) -> System:
    """By outlines, or by centres for those items that hardly overlap with their target.

    Args:
        picture: drawn of the points, and differentiable in them.
        goal, distance: the target, and its signed distance.
        motions: of the points, by each unknown; N is the number of points in all views.
    """
    drawn = picture.detach()
    system = _of_outlines(picture, points, goal, distance, motions)
    both = (drawn * goal).sum((1, 2))
    apart = both <= _APART * ((drawn + goal).sum((1, 2)) - both)
    apart = apart.reshape(len(motions), -1).all(dim=1)
    if bool(apart.any()):
        system = system.or_where(apart, _of_centres(drawn, points.detach(), goal, motions))
    return system


def _of_outlines(
    picture: Tensor, points: Tensor, goal: Tensor, distance: Tensor, motions: Tensor
) -> System:
    """Each point moves across the outline by the target's distance there."""
    batch, pixel = len(motions), 2 / min(goal.shape[1:])
    nearby = pixel * (picture.detach() - goal)
    weights = torch.where(distance.abs() < _NEAR * pixel, nearby, -distance)
    pull, normal = (
        torch.autograd.grad(picture, points, w, retain_graph=True)[0][..., :2].reshape(batch, -1, 2)
        for w in (weights, torch.ones_like(weights))
    )
    length = normal.norm(dim=2)
    whole = torch.where(length > 0, length, 1.0)
    across = (motions * normal[:, None]).sum(3) / whole.sqrt()[:, None]
    along = motions.flatten(2) * length.sqrt().repeat_interleave(2, dim=1)[:, None]
    matrix = product(across, across.mT) + _SLIDING * product(along, along.mT)
    slope = (motions * pull[:, None]).sum((2, 3))
    return System(matrix, slope, length, _mean((pull.norm(dim=2) / whole).square(), length).sqrt())


def _of_centres(drawn: Tensor, points: Tensor, goal: Tensor, motions: Tensor) -> System:
    """Centre and size move to those of the target; other motions are avoided."""
    batch, views = len(motions), len(points) // len(motions)
    there = (points[..., 2] > 0).to(points) * goal.flatten(1).any(dim=1)[:, None]
    area, centre = _centre(drawn)
    many = there.sum(1).clamp(min=1)[:, None]
    middle = (there[..., None] * points[..., :2]).sum(1) / many
    centre = torch.where(area[:, None] > 0, centre, middle)
    wanted, target = _centre(goal)
    size = torch.where((area > 0) & (wanted > 0), wanted / area.clamp(min=_TINY), 1.0).sqrt()
    arms = there[..., None] * (points[..., :2] - middle[:, None])
    spread = arms.square().sum((1, 2)).clamp(min=_TINY)
    # What three numbers of each row do, (B, K, 3 rows): x and y of the middle, and the size.
    shares = torch.stack(
        [
            there[..., None] * points.new_tensor([1.0, 0.0]) / many[..., None],
            there[..., None] * points.new_tensor([0.0, 1.0]) / many[..., None],
            arms / (spread * many[:, 0]).sqrt()[:, None, None],
        ],
        dim=1,
    ).unflatten(0, (batch, views))
    rows = motions.unflatten(2, (views, -1)).transpose(1, 2).flatten(3)  # (B, views, K, 2 V)
    moments = product(rows, shares.flatten(3).mT).transpose(1, 2).flatten(2)
    reach = (spread / many[:, 0]).sqrt()
    goals = torch.cat([target - centre, ((size - 1) * reach)[:, None]], dim=1)
    goals = torch.where(there.any(dim=1)[:, None], goals, 0.0).reshape(batch, 1, -1)
    length = there.reshape(batch, -1)
    own = (motions.square().sum(3) * length[:, None]).sum(2) / length.sum(1).clamp(min=1)[:, None]
    # An unknown that hardly moves the three, as a turn, would move the rest so much the more.
    waste = own / moments.square().sum(2).clamp(min=_TINY)
    stiff = _STIFF * own * waste.clamp(max=1e6).square()
    matrix = product(moments, moments.mT) + torch.diag_embed(stiff)
    slope = -(moments * goals).sum(2)
    return System(matrix, slope, length, goals.square().sum((1, 2)).sqrt())


def _centre(mask: Float[Tensor, "R H W"]) -> tuple[Tensor, Tensor]:
    """Area in pixels, (R,), and centre in NDC, (R, 2)."""
    height, width = mask.shape[1:]
    short = min(height, width)
    x = (2 * torch.arange(width).to(mask) + 1 - width) / short
    y = (height - 1 - 2 * torch.arange(height).to(mask)) / short
    area = mask.sum((1, 2))
    moments = torch.stack([(mask.sum(1) * x).sum(1), (mask.sum(2) * y).sum(1)], dim=1)
    return area, moments / area.clamp(min=_TINY)[:, None]


def _mean(values: Float[Tensor, "B N"], weights: Float[Tensor, "B N"]) -> Float[Tensor, " B"]:
    """0 where there is no weight."""
    whole = weights.sum(1)
    return (values * weights).sum(1) / torch.where(whole > 0, whole, 1.0)


def _solved(matrix: Tensor, slope: Tensor, damping: float) -> Float[Tensor, "B K"]:
    """Levenberg and Marquardt's; an unknown that moves nothing stays."""
    matrix, slope = matrix.double(), slope.double()
    diagonal = matrix.diagonal(dim1=1, dim2=2)
    scale = torch.where(diagonal > 0, diagonal, 1.0).rsqrt()  # in units of the unknowns
    alike = scale[:, :, None] * matrix * scale[:, None]
    damped = alike + torch.diag_embed(damping + (diagonal <= 0).double())
    found: Tensor = scale * torch.linalg.solve(damped, scale * slope)
    return found
