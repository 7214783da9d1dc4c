"""Photos of a ball before a blue wall, with cameras around it, made by code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy import ndarray
from PIL import Image
from scipy.spatial.transform import Rotation

SIZE = (48, 64)
MATRIX = np.array([[70.0, 0.0, 33.0], [0.0, 72.0, 23.5], [0.0, 0.0, 1.0]])
"""Of a first pixel whose centre is at 0.5."""

RADIUS = 0.5


@dataclass(frozen=True)
class View:
    """World to camera in OpenCV's axes."""

    name: str
    rotation: ndarray
    translation: ndarray

    @property
    def matrix(self) -> ndarray:
        found = np.eye(4)
        found[:3, :3], found[:3, 3] = self.rotation, self.translation
        return found

    @property
    def wxyz(self) -> tuple[float, float, float, float]:
        x, y, z, w = Rotation.from_matrix(self.rotation).as_quat().tolist()
        return w, x, y, z


def views(count: int = 4) -> list[View]:
    """Around the ball, at a distance of 2.5, from above and below."""
    found = []
    for i in range(count):
        turn = Rotation.from_euler("yx", [360.0 * i / count, 20.0 * (-1) ** i], degrees=True)
        down = np.diag([1.0, -1.0, -1.0])  # the world's y is up
        found.append(View(f"{i:04d}.png", down @ turn.inv().as_matrix(), np.array([0, 0, 2.5])))
    return found


def pixels(view: View, matrix: ndarray = MATRIX, first_centre: float = 0.5) -> ndarray:
    """(H, W, 4) in 8 bits: an orange ball before blue, and its mask as alpha."""
    v, u = np.mgrid[: SIZE[0], : SIZE[1]] + first_centre
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(matrix).T
    # The ball's centre is at the translation; a ray hits it if its distance is below the radius.
    across = np.linalg.norm(np.cross(rays, view.translation), axis=-1)
    inside = across / np.linalg.norm(rays, axis=-1) < RADIUS
    shade = 0.7 + 0.3 * u / SIZE[1]
    colour = np.where(inside[..., None], [230, 120, 40], [40, 60, 200]) * shade[..., None]
    return np.concatenate([colour, 255 * inside[..., None]], -1).astype(np.uint8)


def write_photos(folder: Path, alpha: bool = False, suffix: str = ".png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for view in views():
        path = (folder / view.name).with_suffix(suffix)
        Image.fromarray(pixels(view)[..., : 4 if alpha else 3]).save(path)


def write_masks(folder: Path, name: str = "{stem}.png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for view in views():
        path = folder / name.format(stem=view.name.removesuffix(".png"), name=view.name)
        Image.fromarray(pixels(view)[..., 3]).save(path)
