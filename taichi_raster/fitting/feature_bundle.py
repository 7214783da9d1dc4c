"""The poses of all cameras together, by features: bundle adjustment.

Unknown are the poses and, for each track of features, its place in space. The squared distances, in
pixels, between where photos show a feature and where its place is seen are least, by Gauss-Newton
steps; Cauchy's weights leave wrong matches without say. Places are eliminated from each step
(Schur's complement; Triggs et al., Bundle Adjustment, 2000), so that it costs little.

Each camera is held near the pose that was given, as far as that is uncertain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from taichi_raster.fitting.bundle import LARGEST, Given
from taichi_raster.fitting.features import Features, Tracks
from taichi_raster.fitting.point_motions import DIFFERENCE, pose_motions, projected
from taichi_raster.runtime.precision import product
from taichi_raster.scene.camera import Camera
from taichi_raster.scene.pose import Pose

NOISE = 0.3
"""Pixels that features are off, at least."""

WRONG = 2.0
"""Standard deviations at which the weight of a feature is halved."""

LOOSE = 0.3
"""How far a place may move in one step, about, where rays do not say, in the object's sizes."""


@dataclass(frozen=True, eq=False)
class FeatureBundle:
    """Tracks of features and where they are.

    Attributes:
        cameras: of the photos; their own views do not count.
        features: of each photo.
        tracks: which of them show one place.
        places: (T, 3), of the object in units of its size, about its centre.
        given: where the cameras are, if photos do not say.
    """

    cameras: Sequence[Camera]
    features: Sequence[Features]
    tracks: Tracks
    places: Float[Tensor, "T 3"]
    given: Given

    @staticmethod
    def of(
        cameras: Sequence[Camera],
        features: Sequence[Features],
        poses: Sequence[Pose],
        band: float,
        given: Given,
    ) -> FeatureBundle:
        """Tracks by cameras that let features be so many pixels off, and their places."""
        tracks = Tracks.of(features, poses, band)
        return FeatureBundle(cameras, features, tracks, tracks.places(features, poses), given)

    def errors(self, poses: Sequence[Pose]) -> Float[Tensor, "n 2"]:
        """How far features are off where their places are seen, in pixels."""
        return self._over_photos(
            poses, lambda i, places, seen: self._seen(i, poses[i], places)[0] - seen
        )

    def spread(self, poses: Sequence[Pose]) -> float:
        """The standard deviation of the distances in pixels, by their median."""
        distance = self.errors(poses).norm(dim=1)
        return max(1.4826 * float(distance.median()), NOISE) if len(distance) else NOISE

    def stepped(self, poses: Sequence[Pose]) -> tuple[FeatureBundle, list[Pose]]:
        """One Gauss-Newton step of all poses and places."""
        count, tracks = len(poses), self.tracks
        error = self.errors(poses)
        by_pose = self._over_photos(poses, lambda i, places, _: self._by_pose(i, poses[i], places))
        by_place = self._over_photos(
            poses, lambda i, places, _: self._by_place(i, poses[i], places)
        )
        spread = self.spread(poses)
        weight = 1 / (1 + error.square().sum(1) / (WRONG * spread) ** 2) / spread**2
        weighted = weight[:, None, None] * by_pose
        matrix = torch.zeros(count, count, 6, 6, dtype=torch.float64)
        slope = torch.zeros(count, 6, dtype=torch.float64)
        own = torch.zeros(count, 6, 6, dtype=torch.float64)
        own.index_add_(0, tracks.photo, product(weighted.mT, by_pose))
        slope.index_add_(0, tracks.photo, product(weighted.mT, error[..., None])[..., 0])
        for i, pose in enumerate(poses):
            matrix[i, i] = own[i] + self.given.precision.diag()
            slope[i] += self.given.precision * self.given.poses[i].unknowns_to(pose)[0]
        stiff = LOOSE**-2 * torch.eye(3, dtype=torch.float64).repeat(tracks.count, 1, 1)
        pull = torch.zeros(tracks.count, 3, dtype=torch.float64)
        placed = weight[:, None, None] * by_place
        stiff.index_add_(0, tracks.track, product(placed.mT, by_place))
        pull.index_add_(0, tracks.track, product(placed.mT, error[..., None])[..., 0])
        loose = torch.linalg.inv(stiff)
        both = product(weighted.mT, by_place)  # (n, 6, 3)
        eased = product(both, loose[tracks.track])
        slope.index_add_(0, tracks.photo, -product(eased, pull[tracks.track][..., None])[..., 0])
        a, b = _pairs_within(tracks.track)
        at = tracks.photo[a] * count + tracks.photo[b]
        matrix.view(-1, 6, 6).index_add_(0, at, -product(eased[a], both[b].mT))
        whole = matrix.permute(0, 2, 1, 3).reshape(6 * count, 6 * count)
        rows = -torch.linalg.solve(whole, slope.flatten()).reshape(count, 6)
        rows = rows.clamp(-LARGEST, LARGEST)
        moved = product(both.mT, rows[tracks.photo][..., None])[..., 0]
        pull = pull.index_add(0, tracks.track, moved)
        shift = -product(loose, pull[..., None])[..., 0]
        new = [pose.moved(row[None]) for pose, row in zip(poses, rows, strict=True)]
        return replace(self, places=self.places + shift.clamp(-LOOSE, LOOSE)), new

    def _over_photos(
        self, poses: Sequence[Pose], of: Callable[[int, Tensor, Tensor], Tensor]
    ) -> Tensor:
        """What `of` (photo, places, where they were found in pixels) gives, ordered by track."""
        orders, found = [], []
        for i in range(len(poses)):
            own = (self.tracks.photo == i).nonzero()[:, 0]
            each = self.features[i]
            seen = each.at[self.tracks.feature[own]] * each.pixels
            orders.append(own)
            found.append(of(i, self.places[self.tracks.track[own]], seen))
        order = torch.cat(orders).argsort()
        return torch.cat(found)[order]

    def _seen(self, i: int, pose: Pose, places: Float[Tensor, "*B m 3"]) -> Tensor:
        """In pixels, (B, m, 2)."""
        seen = projected(self.cameras[i], pose, places)
        return seen[..., :2] * self.features[i].pixels

    def _by_pose(self, i: int, pose: Pose, places: Tensor) -> Float[Tensor, "m 2 6"]:
        motions = pose_motions(self.cameras[i], pose, places)
        return motions.permute(1, 2, 0) * self.features[i].pixels

    def _by_place(self, i: int, pose: Pose, places: Tensor) -> Float[Tensor, "m 2 3"]:
        steps = DIFFERENCE * torch.eye(3, dtype=torch.float64)
        ends = self._seen(i, pose, places + torch.cat([steps, -steps])[:, None])
        return ((ends[:3] - ends[3:]) / (2 * DIFFERENCE)).permute(1, 2, 0)


def _pairs_within(track: Tensor) -> tuple[Tensor, Tensor]:
    """All ordered pairs of observations of one track; they are ordered by track."""
    length = torch.bincount(track)
    first = length.cumsum(0) - length
    times = length[track]
    a = torch.arange(len(track)).repeat_interleave(times)
    within = torch.arange(len(a)) - (times.cumsum(0) - times).repeat_interleave(times)
    return a, first[track[a]] + within
