"""A softening that a policy chooses as the descent goes on, for one problem known by its picture.

    start = tr.GuidedSoftening(policy, sharp(geometry(*unknowns), None)[..., -1], target)
    renderer = start.renderer(64, near=1.0, far=5.0)
    for step in tr.Descent(tr.ImageSteps(unknowns, geometry, start.lr), 60):
        if step.index % 8 == 0:
            start.look(sharp(geometry(*unknowns), None)[..., -1])
        corners = geometry(*unknowns)
        loss = tr.mse(renderer(corners, colours, step.progress), target_image)
        start.see(loss, corners)
        step.descend(loss)

A policy without feedback needs neither `look` nor `see`: its schedules depend on progress alone.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from taichi_raster import checks
from taichi_raster.depth.over import OverDepth
from taichi_raster.presets.policy import SHARP_FROM, SofteningPolicy
from taichi_raster.presets.softening import Softening
from taichi_raster.presets.watch import Watch, measures_of
from taichi_raster.softness.conorm import TConorm
from taichi_raster.softness.edge import Distribution
from taichi_raster.softness.schedule import Schedule

_BLIND = 0.3  # of the progress, by which a run with feedback must have looked at its picture


class GuidedSoftening(Softening):
    """A Gaussian, `OverDepth`, a Yager T-conorm, and steps, as a policy chooses them.

    Pictures of the last quarter of the progress are sharp; see `untuned_softening`.

    Its `lr` is the `eta` of `ImageSteps`. It belongs to one run: what it was shown stays with it.
    With feedback, call `see` in every step, and `look` eight times in a run, evenly spread.

    Args:
        policy: chooses; see `SofteningPolicy`. It is not copied.
        drawn, target: (R, H, W) coverage in [0, 1], as sharp as there is, of the start and of what
            it is fitted to.
        views: rows that show one scene, next to each other; there are B = R / views scenes.
        backs: True if the renderer draws the backs of closed surfaces; see `untuned_softening`.

    Raises:
        TypeError, ValueError: naming the argument; see `outline_distance`. Later, a render or a
            step raises a ValueError if the policy has feedback and was shown nothing.
    """

    def __init__(
        self,
        policy: SofteningPolicy,
        drawn: Float[Tensor, "R H W"],
        target: Float[Tensor, "R H W"],
        views: int = 1,
        backs: bool = False,
    ) -> None:
        checks.instance("policy", policy, SofteningPolicy)
        checks.flag("backs", backs)
        seen = _Seen(Watch.begin(measures_of(drawn, target, views, backs)))
        super().__init__(
            Distribution("gaussian", _Course(policy, "scale", seen)),
            OverDepth(_Course(policy, "gamma", seen)),
            TConorm("yager", _Course(policy, "p", seen)),
            _Course(policy, "eta", seen),
            sharp_from=SHARP_FROM,
        )
        self.policy = policy
        self.views = views
        self._seen = seen
        self._target = target.detach()

    def look(self, drawn: Float[Tensor, "R H W"]) -> None:
        """Measure again how far outlines are apart; a few times in a run is enough.

        Args:
            drawn: (R, H, W) coverage, as sharp as at the start.

        Raises:
            TypeError, ValueError: as at the start.
        """
        self._seen.watch = self._seen.watch.looked(measures_of(drawn, self._target, self.views))

    def see(self, loss: Float[Tensor, " B"], corners: Float[Tensor, "R *n D"]) -> None:
        """Take a step's loss and what it was rendered from, before the step is taken.

        Args:
            loss: (B,).
            corners: (R, ..., 3) or (R, ..., 2) in NDC; those with z <= 0 do not count.

        Raises:
            ValueError: for other shapes.
        """
        scenes = len(self._seen.watch.first.distance)
        if loss.shape != (scenes,):
            raise ValueError(f"loss: must be ({scenes},), one a scene, got {tuple(loss.shape)}")
        if corners.shape[-1] not in (2, 3) or len(corners) % scenes:
            raise ValueError(
                f"corners: must be ({scenes * self.views}, ..., 3), got {tuple(corners.shape)}"
            )
        rows = corners.detach().reshape(scenes, -1, corners.shape[-1])
        if rows.shape[-1] == 2:
            rows = torch.nn.functional.pad(rows, (0, 1), value=1.0)
        self._seen.watch = self._seen.watch.stepped(loss, rows)

    def _parts(self) -> dict[str, str]:
        names = {"edge": "gaussian", "depth": "over", "alpha": "yager", "lr": "eta"}
        feedback = "with" if self.policy.has_feedback else "without"
        return {name: f"{text}, by a policy {feedback} feedback" for name, text in names.items()}


class _Seen:
    """What a run has shown so far; its schedules share it."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch


class _Course(Schedule):
    """One part of what a policy chooses."""

    def __init__(self, policy: SofteningPolicy, part: str, seen: _Seen) -> None:
        super().__init__()
        self.policy = policy
        self.part = part
        self.seen = seen

    def forward(self, u: Tensor) -> Tensor:
        """The value at progress `u`, (B,)."""
        watch = self.seen.watch
        if self.policy.has_feedback:
            latest = float(u.max())
            if latest > 0 and not watch.losses.numel():
                raise ValueError(
                    "see: this softening has feedback, but was shown no loss; call "
                    "see(loss, corners) in every step"
                )
            if latest > _BLIND and watch.now is watch.first:
                raise ValueError(
                    "look: this softening has feedback, but was shown no picture since the start; "
                    "call look(drawn) eight times in a run"
                )
        signals = watch.signals() if self.policy.has_feedback else None
        first = watch.first
        chosen = self.policy.at(u, first.distance, first.pixel, signals, first.backs)
        value: Tensor = getattr(chosen, self.part)
        return value
