"""Places that several photos show alike: features by SIFT, matched where the cameras allow it.

A feature in one photo and one in another can be the same place only if their rays nearly meet, and
meet on the object. How nearly depends on how well the cameras are known. Among those that can be,
descriptors decide, by Lowe's ratio, in both directions. Matches are then joined to tracks; a track
that has two features of one photo is wrong somewhere, and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from taichi_raster.capture.capture import Photo
from taichi_raster.fitting.point_motions import FLIP
from taichi_raster.runtime.precision import product
from taichi_raster.scene.camera import Camera
from taichi_raster.scene.pose import Pose
from taichi_raster.scene.resampling import area_average

EXTENT = 500
"""Pixels along the object's longer side, at most: features are looked for in smaller photos."""

ENLARGED = 2
"""Times, before features are looked for (Lowe 2004, section 3.3): there are four times as many."""

CONTRAST = 0.02
"""Of a feature, at least, where the photo's brightness has a standard deviation of 1."""

MOST = 4000
"""Features of a photo; the largest ones are kept."""

ALIKE = 0.6
"""Distance of two descriptors of length 1, at most."""

RATIO = 0.8
"""Of the nearest descriptor's distance to the next one's, at most (Lowe 2004, section 7.1)."""

ROUNDING = 0.01
"""Distances of descriptors below it are alike."""

APART = 36.0
"""Degrees between two views whose features are compared: farther apart, SIFT hardly matches."""

NEIGHBOURS = 8
"""Views that each is compared with, at most; of more, some from the nearest to the farthest."""

REACH = 1.1
"""How far from the object's centre a place may be, in its sizes."""


@dataclass(frozen=True, eq=False)
class Features:
    """Of one photo, K.

    Attributes:
        at: (K, 2) in NDC.
        rays: (K, 3) unit vectors from the eye, in OpenCV's axes.
        descriptors: (K, 128), of length 1.
        pixels: of the smaller photo, for each unit of NDC.
        per_radian: of them for each radian about the eye, in the middle of the features.
    """

    at: Float[Tensor, "K 2"]
    rays: Float[Tensor, "K 3"]
    descriptors: Float[Tensor, "K 128"]
    pixels: float
    per_radian: float

    @staticmethod
    def of(photo: Photo) -> Features:
        """Within the photo's mask."""
        height, width = photo.image_size
        mask = photo.mask() > 0.5
        rows, columns = mask.nonzero().unbind(-1)
        margin = 8
        top, left = max(0, int(rows.min()) - margin), max(0, int(columns.min()) - margin)
        bottom, right = int(rows.max()) + margin + 1, int(columns.max()) + margin + 1
        whole = photo.image().float().mean(-1)
        grey = whole[top:bottom, left:right]
        within = mask[top:bottom, left:right]
        tall, wide = grey.shape
        shrink = min(1.0, EXTENT / max(tall, wide))
        small = max(16, round(tall * shrink)), max(16, round(wide * shrink))
        if shrink < 1:
            grey = area_average(grey[None, ..., None], small)[0, ..., 0]
        spread = float(whole[mask].std(correction=0))
        places, descriptors = _sift(grey / max(spread, 1e-3))
        # Places count from the corner of the first pixel on.
        places = (places + 0.5) * torch.tensor([tall / grey.shape[0], wide / grey.shape[1]])
        nearest = places.long().clamp(min=0)
        row, column = nearest[:, 0].clamp(max=tall - 1), nearest[:, 1].clamp(max=wide - 1)
        kept = within[row, column]
        y, x = (places[kept].double() + torch.tensor([top, left])).unbind(-1)
        short = min(height, width)
        at = torch.stack([(2 * x - width) / short, (height - 2 * y) / short], dim=-1)
        rays = _rays(photo.camera, at)
        seen = rays.isfinite().all(-1)
        at, rays, descriptors = at[seen], rays[seen], descriptors[kept][seen]
        pixels = short / 2 * grey.shape[0] / tall
        return Features(at, rays, descriptors, pixels, _per_radian(photo.camera, at) * pixels)


@dataclass(frozen=True, eq=False)
class Tracks:
    """T places, and where photos show them: n times in all, ordered by track.

    Attributes:
        photo, feature, track: (n,) indices.
        count: of the tracks.
    """

    photo: Int[Tensor, " n"]
    feature: Int[Tensor, " n"]
    track: Int[Tensor, " n"]
    count: int

    @staticmethod
    def of(features: Sequence[Features], poses: Sequence[Pose], band: float) -> Tracks:
        """Places that three photos or more show.

        Args:
            features: of each photo.
            poses: of the object, in units of its size and about its centre.
            band: pixels by which a feature may be off the ray of another, as cameras are uncertain.
        """
        first = np.cumsum([0, *(len(each.at) for each in features)])
        ends: list[np.ndarray] = [np.zeros((2, 0), dtype=np.int64)]
        for i, j in _neighbours(poses):
            one, two = matched(features[i], features[j], poses[i], poses[j], band)
            ends.append(np.stack([one.numpy() + first[i], two.numpy() + first[j]]))
        return Tracks._joined(np.concatenate(ends, axis=1), first)

    @staticmethod
    def _joined(ends: np.ndarray, first: np.ndarray) -> Tracks:
        """Of matches, (2, m) features counted over all photos, of which photo i has first[i] on."""
        import scipy.sparse as sp
        from scipy.sparse.csgraph import connected_components

        total = int(first[-1])
        graph: Any = sp.coo_array((np.ones(ends.shape[1]), tuple(ends)), shape=(total, total))
        label = connected_components(graph, directed=False)[1]
        photo = np.repeat(np.arange(len(first) - 1), np.diff(first))
        pairs = label.astype(np.int64) * len(first) + photo
        times = np.bincount(label, minlength=1)
        own = np.unique(pairs) // len(first)
        photos = np.bincount(own, minlength=len(times))
        kept = np.flatnonzero(((times >= 3) & (photos == times))[label])
        kept = kept[np.argsort(label[kept], kind="stable")]
        names, track = np.unique(label[kept], return_inverse=True)
        feature = kept - first[photo[kept]]
        return Tracks(
            torch.from_numpy(photo[kept]),
            torch.from_numpy(feature),
            torch.from_numpy(track),
            len(names),
        )

    def per_photo(self, photos: int) -> Int[Tensor, " N"]:
        """How many tracks each of so many photos shows."""
        return torch.bincount(self.photo, minlength=photos)

    def places(self, features: Sequence[Features], poses: Sequence[Pose]) -> Float[Tensor, "T 3"]:
        """Nearest to all rays of each track, by least squares."""
        matrix = torch.zeros(self.count, 3, 3, dtype=torch.float64)
        right = torch.zeros(self.count, 3, dtype=torch.float64)
        for i, pose in enumerate(poses):
            own = self.photo == i
            way = product(features[i].rays[self.feature[own]], pose.rotation[0].double())
            across = torch.eye(3, dtype=torch.float64) - way[:, :, None] * way[:, None]
            matrix.index_add_(0, self.track[own], across)
            right.index_add_(0, self.track[own], product(across, _eye(pose)[:, None])[..., 0])
        # Of rays that are nearly parallel: near the object's centre.
        matrix += 1e-6 * torch.eye(3, dtype=torch.float64)
        found: Tensor = torch.linalg.solve(matrix, right)
        return found


def _neighbours(poses: Sequence[Pose]) -> list[tuple[int, int]]:
    """Pairs of photos from directions that are not far apart."""
    ways = normalize(torch.stack([_eye(pose) for pose in poses]), dim=1)
    angles = torch.rad2deg(torch.acos(product(ways, ways.mT).clamp(-1, 1)))
    pairs = set()
    for i, row in enumerate(angles):
        order = row.argsort()
        near = order[(row[order] > 0.5) & (row[order] < APART)].tolist()
        chosen = np.linspace(0, len(near) - 1, min(NEIGHBOURS, len(near))).round().astype(int)
        pairs |= {(max(i, near[k]), min(i, near[k])) for k in chosen}
    return sorted(pairs)


def matched(
    one: Features, two: Features, pose_one: Pose, pose_two: Pose, band: float
) -> tuple[Tensor, Tensor]:
    """Features (m,) of one photo and (m,) of another that show the same places."""
    none = torch.zeros(0, dtype=torch.long)
    if min(len(one.at), len(two.at)) == 0:
        return none, none
    distance = torch.cdist(one.descriptors, two.descriptors)
    distance.masked_fill_(~_can_meet(one, two, pose_one, pose_two, band), torch.inf)
    there, back = _clearly_nearest(distance), _clearly_nearest(distance.mT)
    index = torch.arange(len(there))
    mutual = (there >= 0) & (back[there.clamp(min=0)] == index)
    return index[mutual], there[mutual]


def _clearly_nearest(distance: Float[Tensor, "K L"]) -> Int[Tensor, " K"]:
    """The nearest of L for each of K, or -1 if it is far or another is as near."""
    least, nearest = distance.clamp(min=ROUNDING).min(1)
    others = distance.scatter(1, nearest[:, None], torch.inf).amin(1)
    return torch.where((least < ALIKE) & (least < RATIO * others), nearest, -1)


def _can_meet(one: Features, two: Features, pose_one: Pose, pose_two: Pose, band: float) -> Tensor:
    """(K, L): whether rays pass each other within `band` pixels of both photos, on the object."""
    eyes = _eye(pose_one).float(), _eye(pose_two).float()
    ways = tuple(
        product(each.rays, pose.rotation[0].double()).float()
        for each, pose in ((one, pose_one), (two, pose_two))
    )
    between = eyes[1] - eyes[0]
    across = [normalize(torch.linalg.cross(between.expand_as(way), way), dim=1) for way in ways]
    off_two = product(across[0], ways[1].mT).abs() * two.per_radian
    off_one = product(ways[0], across[1].mT).abs() * one.per_radian
    cosine = product(ways[0], ways[1].mT)
    along = [product(way, between[:, None])[:, 0] for way in ways]
    apart = (1 - cosine.square()).clamp(min=1e-9)
    far_one = (along[0][:, None] - cosine * along[1]) / apart  # from the eye, of the nearest place
    far_two = (cosine * along[0][:, None] - along[1]) / apart
    middle = [-product(way, eye[:, None])[:, 0] for way, eye in zip(ways, eyes, strict=True)]
    on_object = (far_one - middle[0][:, None]).abs() < REACH
    on_object &= (far_two - middle[1]).abs() < REACH
    return (torch.maximum(off_one, off_two) < band) & on_object


def _eye(pose: Pose) -> Float[Tensor, " 3"]:
    """Where the camera is, in the object's frame."""
    turned: Tensor = -product(pose.rotation[0].mT, pose.translation[0][:, None])[:, 0]
    return turned.double()


def _rays(camera: Camera, at: Float[Tensor, "K 2"]) -> Float[Tensor, "K 3"]:
    place = camera.from_image(torch.cat([at, torch.ones_like(at[:, :1])], dim=1)[None])[0]
    return normalize(place * place.new_tensor(FLIP), dim=1)


def _per_radian(camera: Camera, at: Float[Tensor, "K 2"]) -> float:
    """Units of NDC for each radian about the eye, at the median place."""
    if len(at) == 0:
        return 1.0
    middle = at.median(0).values
    little = 1e-3
    around = middle + little * torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    ways = _rays(camera, around.double())
    angles = (ways[::2] - ways[1::2]).norm(dim=1)
    return float((2 * little / angles).mean())


def _sift(grey: Float[Tensor, "H W"]) -> tuple[Tensor, Tensor]:
    """(K, 2) rows and columns, of pixels whose middles are whole numbers, and (K, 128)."""
    try:
        from skimage.feature import SIFT
    except ImportError as error:
        raise ImportError(
            "refining cameras takes scikit-image: pip install 'taichi-raster[photos]'"
        ) from error
    # Not by SIFT's own `upsampling`, whose places are a quarter of a pixel off.
    large = interpolate(grey[None, None], scale_factor=ENLARGED, mode="bilinear")[0, 0]
    sift: Any = SIFT(upsampling=1, sigma_in=0.5 * ENLARGED, c_dog=CONTRAST)
    try:
        sift.detect_and_extract(large.numpy().astype(np.float32))
    except RuntimeError:  # no feature at all
        return torch.zeros(0, 2), torch.zeros(0, 128)
    largest = np.argsort(-sift.sigmas, kind="stable")[:MOST]
    places = torch.from_numpy(sift.positions[largest]).double()
    descriptors = torch.from_numpy(sift.descriptors[largest].astype(np.float32))
    return (places + 0.5) / ENLARGED - 0.5, normalize(descriptors, dim=1)
