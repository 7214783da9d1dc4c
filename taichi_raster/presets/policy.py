"""A softening that measures its problem, with everything about it a parameter that can be learned.

    policy = SofteningPolicy()                       # all zeros: `untuned_softening`, by hand
    start = GuidedSoftening(policy, mask, target)    # for one problem, measured from two masks

All parameters are deviations from the softening that was found by hand for meshes. They are
logarithms, so that 0.1 means ten percent anywhere. What they multiply is in units of the picture:
the distance that outlines have to travel, and the size of a pixel. So they mean the same in every
problem.

With feedback, scale, gamma and eta also depend on what the descent shows, for each item by itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from taichi_raster import checks
from taichi_raster.softness import archive
from taichi_raster.softness.schedule import interpolated

REACH = 0.3  # the first scale of a Gaussian, as a share of the distance
WIDEST = 0.12  # NDC: softer than this, pictures say too little
SHARPEST = 0.15  # pixels: the last scale
HELD = 0.85  # of the progress: up to there, a step is as long as the scale
FALL = 0.1  # the last step, as a share of the last scale
CONORM = 1.2  # p of the Yager T-conorm: between adding coverages up (1) and the probabilistic one
TWICE = 2.2  # the same where backs are drawn, and each outline belongs to two faces
SHARP_FROM = 0.75  # of the progress: from there on, the picture is sharp
GAMMA = (0.3, 0.045)  # of the order in depth, in units of the depth range

_COURSE = 5  # equal parts of the progress, in each of which the scale falls by a share
_STEPS = (0.0, 0.2, 0.4, 0.6, 0.75, HELD, 1.0)  # knots of the step
_ORDER = (0.0, 0.5, 1.0)  # knots of gamma
_ENDS = (0.0, 1.0)  # knots of p
_SIGNALS = 5  # that the feedback sees; progress and a constant are its other inputs
_STEEPNESS = 4.0  # of a unit of the feedback, in its signal
_MOST = 1.5  # the logarithm of the largest factor of feedback
_TYPICAL = 0.05  # NDC: a first scale in the middle of what occurs
_FORMAT = "taichi_raster.policy/1"


@dataclass(frozen=True)
class Setting:
    """What a policy chooses for one step, (B,) each; see `SofteningPolicy.at`."""

    scale: Float[Tensor, " B"]
    gamma: Float[Tensor, " B"]
    p: Float[Tensor, " B"]
    eta: Float[Tensor, " B"]


class SofteningPolicy(nn.Module):
    """Chooses scale, gamma, p and eta at any progress, from what was measured.

    Args:
        feedback: whether they also depend on what the descent shows, by a network of five units.
            Its output is zero at first, whatever it is shown, and each unit has its own signal.

    Attributes:
        start: (5,) of the first scale as a share of the distance, of its least (a pixel) and its
            largest value, of the last scale, and of how the step depends on the first scale.
        course: (5,) of the share of the way, in logarithms, that the scale falls in each fifth.
        steps: (7,) of the step as a multiple of the scale, at knots of the progress.
        order: (3,) of gamma, at its start, middle and end.
        join: (2,) of the T-conorm's p, at the start and the end.
        units, gains: (5, 7) and (3, 5), the network of the feedback.
        card: how it was learned; empty for one that was not.

    What the descent shows are four `SIGNALS` for each item: the logarithms of the distance that is
    left (plus half a pixel), of the mismatch and of the loss, both relative to the first one, and
    how well successive motions agree, from 0 to 1.

    With `torch.func.functional_call` each may have a batch dimension in front, a policy an item.

    Raises:
        TypeError: unless `feedback` is a bool.
    """

    SIGNALS: ClassVar[tuple[str, ...]] = ("distance", "mismatch", "loss", "agreement")

    def __init__(self, feedback: bool = False) -> None:
        super().__init__()
        self.start = _zeros(5)
        self.course = _zeros(_COURSE)
        self.steps = _zeros(len(_STEPS))
        self.order = _zeros(len(_ORDER))
        self.join = _zeros(len(_ENDS))
        self.card: dict[str, Any] = {}
        self.has_feedback = checks.flag("feedback", feedback)
        if self.has_feedback:
            first = torch.eye(_SIGNALS, _SIGNALS + 2, dtype=torch.float64, device="cpu")
            self.units = nn.Parameter(_STEEPNESS * first)
            self.gains = _zeros(3, _SIGNALS)

    def at(
        self,
        u: Float[Tensor, "*B"],
        distance: Float[Tensor, " B"],
        pixel: Float[Tensor, " B"],
        signals: Float[Tensor, "B S"] | None = None,
        backs: Bool[Tensor, " B"] | None = None,
    ) -> Setting:
        """What to do at progress `u`, differentiable in the parameters.

        Args:
            u: 0-d or (B,), in [0, 1].
            distance: (B,) that outlines have to travel at the start, in NDC.
            pixel: (B,) the size of one, in NDC.
            signals: (B, 4), the `SIGNALS`; without them there is no feedback.
            backs: (B,) whether the backs of closed surfaces are drawn; none by default.
        """
        u = u.to(distance)
        first, last = self._ends(distance, pixel)
        way = self.course.softmax(dim=-1).cumsum(dim=-1)
        way = torch.cat([torch.zeros_like(way[..., :1]), way], dim=-1)
        scale = first + (last - first) * _between(way, None, u).to(first)
        ratio = _between(self.steps + _like(_step_ratios(), self.steps), _STEPS, u)
        ratio = ratio.to(first) + self.start[..., 4].to(first) * (first - math.log(_TYPICAL))
        gamma = _between(self.order + _like(_gammas(), self.order), _ORDER, u).to(first)
        p = _between(self.join, _ENDS, u).to(first) + math.log(CONORM)
        if backs is not None:
            p = p + math.log(TWICE / CONORM) * backs.to(first)
        if self.has_feedback and signals is not None:
            half = pixel / 2
            softness = torch.log(scale.exp() + half)
            factors = self._feedback(u, signals.to(first), torch.log(distance + half), softness)
            scale, ratio, gamma = (
                x + f for x, f in zip((scale, ratio, gamma), factors.unbind(-1), strict=True)
            )
        every = (scale, gamma, p, scale + ratio)
        return Setting(*(x.exp().expand_as(distance) for x in every))

    def _ends(self, distance: Tensor, pixel: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithms of the first and of the last scale, (B,)."""
        share, least, widest, last = self.start[..., :4].to(distance).exp().unbind(-1)
        least = least * pixel
        first = torch.minimum(
            torch.maximum(REACH * share * distance, least), torch.maximum(WIDEST * widest, least)
        )
        return first.log(), (SHARPEST * last * pixel).log()

    def _feedback(
        self,
        u: Tensor,
        signals: Float[Tensor, "B 4"],
        first: Float[Tensor, " B"],
        softness: Float[Tensor, " B"],
    ) -> Float[Tensor, "B 3"]:
        """What is added to the logarithms of scale, eta over scale, and gamma.

        `first` is the distance at the start, `softness` the scale, both as the signals' distance.
        """
        distance, mismatch, loss, agreement = signals.unbind(1)
        u = u.to(first).expand_as(first)
        # Relative to what is usual at this progress, so that a usual run is left alone.
        fallen = 3.4 * u / (u + 0.4)
        inputs = [
            (distance - first + 1.1 * u / (u + 0.15)) / 2,
            (distance - softness) / 2 - 0.3,
            (mismatch + fallen) / 2,
            (loss + fallen) / 2,
            2 * (agreement - 0.15 - 0.8 * torch.exp(-3 * u)),
            u - 0.5,
            torch.ones_like(first),
        ]
        hidden = torch.tanh((self.units.to(first) * torch.stack(inputs, 1)[:, None, :]).sum(dim=-1))
        found = (self.gains.to(first) * hidden[:, None, :]).sum(dim=-1)
        return _MOST * torch.tanh(found / _MOST)


def save_policy(path: str | Path, policy: SofteningPolicy) -> None:
    """Write a policy, with its card, to one safetensors file, completely or not at all.

    Args:
        path: the file; its folder must exist.
        policy: what to save.

    Raises:
        TypeError: for another policy or path.
        FileNotFoundError: if the folder does not exist.
        ValueError: for a number that is not finite, or a card that JSON cannot hold.
    """
    checks.instance("policy", policy, SofteningPolicy)
    description = {"format": _FORMAT, "feedback": policy.has_feedback, "card": policy.card}
    archive.write(path, description, dict(policy.named_parameters()))


def load_policy(path: str | Path) -> SofteningPolicy:
    """Read what `save_policy` wrote; its parameters do not require grad.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged or holds something else; the message names the file.
    """
    with archive.reading(path, "policy", _FORMAT) as file:
        policy = SofteningPolicy(file.get("feedback", bool))
        for name, value in policy.named_parameters():
            value.data = file.tensor(name, tuple(value.shape)).detach()
        policy.card = file.get("card", dict)
        file.all_taken()
    return policy.requires_grad_(False)


def _zeros(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(*shape, dtype=torch.float64, device="cpu"))


def _step_ratios() -> list[float]:
    return [0.0] * (len(_STEPS) - 1) + [math.log(FALL)]


def _gammas() -> list[float]:
    first, last = map(math.log, GAMMA)
    return [first, (first + last) / 2, last]


def _like(values: list[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)


def _between(values: Tensor, knots: tuple[float, ...] | None, u: Tensor) -> Tensor:
    """Linear between values (K,) or (B, K) at knots; evenly spaced ones by default."""
    places = torch.linspace(0, 1, values.shape[-1], dtype=values.dtype, device=values.device)
    if knots is not None:
        places = _like(list(knots), values)
    return interpolated(values, places, u)
