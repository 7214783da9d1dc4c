"""Masks as fields of distance, to ask of any point how far inside of all outlines it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor
from torch.nn.functional import grid_sample

from taichi_raster.capture.capture import Capture, Photo
from taichi_raster.runtime.precision import product
from taichi_raster.scene.camera import PinholeCamera

_OPPOSITE = {"left": "right", "right": "left", "bottom": "top", "top": "bottom"}

_PIXELS = 2.0
"""Of a mask for each cell of a grid over the object: more would not show."""

_AT_ONCE = 1 << 18
"""Points."""


@dataclass(frozen=True, eq=False)
class Silhouette:
    """One photo's mask.

    Attributes:
        name: of the photo.
        camera: of a batch of 1, in double precision.
        distance: (h, w) to the outline in NDC, positive inside.
        cut_off: whether the mask goes on beyond the photo's border.
        low, high: (3,) in camera space: the box of the rays to the mask, z = 1.
        planes: (5, 4), (a, b, c, d): what the mask's box may hold has a x + b y + c z + d >= 0.
        sure: (5,) which of them hold although the photo's frame cuts the mask off.
    """

    name: str
    camera: PinholeCamera
    distance: Tensor
    cut_off: bool
    low: ndarray
    high: ndarray
    planes: ndarray
    sure: ndarray

    def inside(self, points: Tensor) -> Tensor:
        """How far points (P, 3) are inside of the cone, in world units; negative outside.

        Behind the camera, all is outside; beyond the photo's border, too, unless the mask is cut
        off there: then the photo says nothing.
        """
        x, y, z = self.camera.project(points[None])[0].unbind(-1)
        height, width = self.distance.shape
        short = min(height, width)
        grid = torch.stack([x * (short / width), -y * (short / height)], dim=-1)
        field = self.distance[None, None].to(points)
        found = grid_sample(field, grid[None, None], padding_mode="border", align_corners=False)
        found = found[0, 0, 0]
        if self.cut_off:
            found = torch.where((grid.abs() > 1).any(-1), torch.inf, found)
        focal = torch.as_tensor(self.camera.focal).to(points).reshape(-1, 2).mean()
        return torch.where(z > 0, found * z / focal, -torch.inf)

    def spanned(self, points: Tensor) -> float:
        """How much of the mask's box the box of points (P, 3) spans, along its diagonal."""
        camera = self.camera.to_camera(points[None])[0]
        plane = camera[:, :2] / camera[:, 2:]
        spans = (plane.amax(0) - plane.amin(0)).norm()
        return float(spans / np.linalg.norm(self.high - self.low))


def silhouettes_of(capture: Capture, cells: int, slack: float) -> list[Silhouette]:
    """Those of all photos, in as many pixels as a grid of `cells` along the object asks for.

    They are widened by `slack` pixels of the photos.

    Raises:
        ValueError: naming the photo, if it has no mask or one that cannot be right.
    """
    return [_silhouette(photo, cells, slack) for photo in capture]


def inside_all(seen: Sequence[Silhouette], points: Tensor) -> Tensor:
    """How far points (P, 3) are inside of all cones, (P,); what no photo shows is outside."""
    parts = []
    for chunk in points.split(_AT_ONCE):
        least = seen[0].inside(chunk)
        for each in seen[1:]:
            least = torch.minimum(least, each.inside(chunk))
        parts.append(least.masked_fill(least == torch.inf, -torch.inf))
    return torch.cat(parts)


def _silhouette(photo: Photo, cells: int, slack: float) -> Silhouette:
    from scipy import ndimage  # here, as SciPy takes a while to import

    mask = photo.mask()
    rows, columns = (mask > 0.5).nonzero().unbind(-1)
    extent = int(max(rows.max() - rows.min(), columns.max() - columns.min())) + 1
    share = min(1.0, _PIXELS * cells / extent)
    if share < 1:
        height, width = photo.image_size
        mask = photo.mask((max(1, round(height * share)), max(1, round(width * share))))
    inside = mask.numpy() > 0.5
    height, width = inside.shape
    short = min(height, width)
    pixels = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
    # The outline runs between the pixels, half of one from the centres on both sides; or through a
    # pixel that is covered in part.
    pixels = pixels - 0.5 * np.sign(pixels)
    share_covered = mask.numpy()
    partly = (np.abs(pixels) < 1) & (share_covered > 0) & (share_covered < 1)
    pixels = np.where(partly, share_covered - 0.5, pixels)
    wider = slack * 2 / min(photo.image_size)
    distance = pixels * (2 / short) + wider
    i, j = np.nonzero(inside & ~ndimage.binary_erosion(inside))
    x, y = (2 * j + 1 - width) / short, (height - 1 - 2 * i) / short
    image = np.stack([x, y, np.ones_like(x)], axis=-1)
    rays = photo.camera.from_image(torch.tensor(image)[None])[0].numpy()
    rays = rays[np.isfinite(rays).all(-1)]
    if len(rays) == 0:
        raise ValueError(f"{photo.name}: its mask lies where its lens shows nothing")
    low, high = rays.min(0), rays.max(0)
    pixel = (2 / short + wider) / float(torch.as_tensor(photo.camera.focal).min())
    sides = {
        "left": (inside[:, 0], [1, 0, pixel - low[0], 0]),
        "right": (inside[:, -1], [-1, 0, high[0] + pixel, 0]),
        "bottom": (inside[-1], [0, 1, pixel - low[1], 0]),
        "top": (inside[0], [0, -1, high[1] + pixel, 0]),
    }
    cut_off = {name for name, (border, _) in sides.items() if border.any()}
    planes = [plane for _, plane in sides.values()] + [[0, 0, 1, 0]]
    # What is beyond one side of the frame may reach as far as it likes to the two beside it.
    sure = [not cut_off - {_OPPOSITE[name]} for name in sides] + [True]
    world = product(torch.tensor(planes, dtype=torch.float64), photo.camera.view[0].double())
    field = torch.tensor(distance)
    return Silhouette(
        photo.name, photo.camera, field, bool(cut_off), low, high, world.numpy(), np.array(sure)
    )
