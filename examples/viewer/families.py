"""The problems that the viewer offers, at sizes that take milliseconds a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from tasks import Occlusion, Pose, Shape2D, Shape3D
from viewer.photo import PhotoFit

VIEWS_ASIDE = 3  # a 3D shape's views are shown as a square of 3 x 3


@dataclass(frozen=True)
class Family:
    """A family of tasks and how it is shown.

    Attributes:
        make: make(seed, image size) gives the task family.
        start: settings of a method that solves most of its problems: scale, scale_end, gamma, lr.
        drags: what the mouse moves: corners of triangles, the camera, the result where it stands
            still, or nothing.
        views: views in one picture, along each side.
        titles: of pictures, by their kind, where that does not say it.
    """

    title: str
    make: Callable[[int, int], Any]
    start: dict[str, Any]
    drags: Literal["corners", "camera", "result"] | None = None
    views: int = 1
    titles: Mapping[str, str] = field(default_factory=lambda: {"error": "sharp - target"})


def _shape3d(seed: int, size: int) -> Shape3D:
    views = VIEWS_ASIDE**2
    return Shape3D(
        views=views,
        subdivisions=1,
        image_size=max(8, size // 2),
        samples=128,
        threshold=1e-3,
        seed=seed,
    )


def photos(folder: Path | None) -> Family:
    """The fit of a shape to the photos of a folder; None makes some."""
    return Family(
        "a 3D shape from photos",
        lambda seed, size: PhotoFit(folder, seed, size),
        dict(softness="logistic", scale=0.05, scale_end=0.01, gamma=None, lr=0.04),
        drags="result",
        titles={
            "target": "a photo, held out",
            "sharp": "the fit in every other square",
            "error": "fit - photo",
        },
    )


FAMILIES: dict[str, Family] = {
    "shape2d": Family(
        "triangles from a picture",
        lambda seed, size: Shape2D(triangles=2, image_size=size, seed=seed),
        dict(softness="gaussian", scale=0.1, scale_end=0.02, gamma=0.01, lr=0.05),
        drags="corners",
    ),
    "occlusion": Family(
        "which shape is in front?",
        lambda seed, size: Occlusion(shapes=4, image_size=size, seed=seed),
        dict(softness="gaussian", scale=0.03, scale_end=0.03, gamma=0.1, lr=0.1),
    ),
    "pose": Family(
        "a camera's pose from a silhouette",
        lambda seed, size: Pose(image_size=size, seed=seed),
        dict(softness="logistic", scale=0.05, scale_end=0.01, gamma=0.01, lr=0.05),
        drags="camera",
    ),
    "pose_shaded": Family(
        "a camera's pose from a shaded picture",
        lambda seed, size: Pose(image="shaded", image_size=size, seed=seed),
        dict(softness="logistic", scale=0.05, scale_end=0.01, gamma=None, lr=0.05),
        drags="camera",
    ),
    "shape3d": Family(
        "a 3D shape from silhouettes",
        _shape3d,
        dict(softness="logistic", scale=0.01, scale_end=0.01, gamma=0.01, lr=0.01),
        views=VIEWS_ASIDE,
    ),
    "photos": photos(None),
}
"""By name."""


def rgb(image: Tensor, views: int, fade: bool = False) -> Tensor:
    """The picture (H, W, 3) to show of one instance's (1, H, W, C): RGBA, or silhouettes.

    Several views, side by side in `image`, become a square of views x views. `fade` multiplies
    colours by alpha, without which the softness of a soft picture's edges would not be seen: the
    background weighs little among its colours.
    """
    picture = image.detach()[0].cpu().float()
    if views > 1:
        parts = picture.chunk(views * views, dim=1)
        rows = [torch.cat(parts[i : i + views], dim=1) for i in range(0, len(parts), views)]
        picture = torch.cat(rows, dim=0)
    if picture.shape[-1] == 1:
        return picture.expand(-1, -1, 3)
    return picture[..., :3] * picture[..., 3:] if fade else picture[..., :3]
