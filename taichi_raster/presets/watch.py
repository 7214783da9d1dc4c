"""What a descent shows of each of its instances: the input of a policy's feedback."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from taichi_raster.fitting.start import scene_distance

_MEMORY = 0.7  # of the mean motion, from step to step
_LEAST = 1e-3  # of the target: a mismatch below it counts as none


@dataclass(frozen=True)
class Measures:
    """Of each scene, (B,), without gradient.

    Attributes:
        distance: from the drawn outline to the target's, in NDC; see `outline_distance`.
        pixel: the size of one, in NDC.
        mismatch: difference of the two coverages, in sum, over the sum of the target's.
        backs: whether the backs of closed surfaces are drawn.
    """

    distance: Float[Tensor, " B"]
    pixel: Float[Tensor, " B"]
    mismatch: Float[Tensor, " B"]
    backs: Bool[Tensor, " B"]


def measures_of(
    drawn: Float[Tensor, "R H W"],
    target: Float[Tensor, "R H W"],
    views: int = 1,
    backs: bool = False,
) -> Measures:
    """What two masks show of each scene, (R / views,); arguments as `untuned_softening`."""
    drawn, target = drawn.detach(), target.detach()
    distance = scene_distance(drawn, target, views).double()
    off, covered = (
        x.double().reshape(len(distance), -1).sum(dim=1) for x in ((drawn - target).abs(), target)
    )
    pixel = torch.full_like(distance, 2 / min(drawn.shape[1:]))
    drawn_backs = torch.full_like(distance, backs, dtype=torch.bool)
    return Measures(distance, pixel, off / covered.clamp(min=1.0), drawn_backs)


@dataclass(frozen=True)
class Watch:
    """What was seen so far, as constants without gradient.

    Attributes:
        first, now: measures at the start, and when they were last taken.
        losses: (B, 2), the first and the last; empty before there is one.
        corners: (B, N, 3) before the last step; empty before there is one.
        motion: (B, N, 3), its running mean; path: (B,), that of its mean square.
    """

    first: Measures
    now: Measures
    losses: Tensor
    corners: Tensor
    motion: Tensor
    path: Tensor

    @staticmethod
    def begin(first: Measures) -> Watch:
        """Before the first step."""
        none = first.distance.new_zeros(0)
        return Watch(first, first, none, none, none, none)

    def looked(self, now: Measures) -> Watch:
        """After another measurement."""
        return replace(self, now=now)

    def stepped(self, loss: Float[Tensor, " B"], corners: Float[Tensor, "B N 3"]) -> Watch:
        """After a loss was seen at `corners`."""
        loss, corners = loss.detach(), corners.detach()
        losses = torch.stack([self.losses[:, 0] if self.losses.numel() else loss, loss], dim=1)
        if not self.corners.numel():
            zero = torch.zeros_like(corners)
            return replace(self, losses=losses, corners=corners, motion=zero, path=zero[:, 0, 0])
        counted = (corners[..., 2:] > 0) & (self.corners[..., 2:] > 0)
        move = torch.where(counted, corners - self.corners, 0.0)[..., :2]
        square = move.square().sum(dim=(1, 2))
        return replace(
            self,
            losses=losses,
            corners=corners,
            motion=_mean(self.motion[..., :2], move),
            path=_mean(self.path, square),
        )

    def signals(self) -> Float[Tensor, "B 4"]:
        """The `SofteningPolicy.SIGNALS`."""
        distance = torch.log(self.now.distance + self.now.pixel / 2)
        mismatch = torch.log((self.now.mismatch + _LEAST) / (self.first.mismatch + _LEAST))
        loss = agreement = torch.zeros_like(distance)
        if self.losses.numel():
            first, last = self.losses.to(distance).clamp(min=1e-12).unbind(1)
            loss = torch.log(last / first)
        if self.path.numel():
            lengths = self.motion.square().sum(dim=(1, 2)) / self.path.clamp(min=1e-20)
            agreement = torch.where(self.path > 0, lengths.sqrt(), 0.0).to(distance)
        return torch.stack([distance, mismatch, loss, agreement], dim=1)


def _mean(before: Tensor, now: Tensor) -> Tensor:
    return _MEMORY * before + (1 - _MEMORY) * now
