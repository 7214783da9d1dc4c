"""Random closed solids of eight kinds, none with a hole: the hidden shapes of `Shape3D`."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

import taichi_raster as tr

STRETCH = 0.35  # the logarithm of the stretch along each axis is uniform in [-STRETCH, STRETCH]


def random_solid(rng: np.random.Generator, radius: float = 0.6) -> tr.Mesh:
    """One solid: a kind of `KINDS`, its numbers, a stretch along its axes and a rotation at random.

    Args:
        rng: all that the solid depends on.
        radius: distance from the middle of the bounding box, which is the origin, to the farthest
            vertex.

    Returns:
        A closed mesh wound outwards, float64, of 12 to 528 faces.
    """
    kind = list(KINDS)[int(rng.integers(len(KINDS)))]
    mesh = KINDS[kind](rng)
    stretch = np.exp(rng.uniform(-STRETCH, STRETCH, 3))
    places = mesh.vertices.double().numpy() * stretch @ _rotation(rng).T
    return tr.normalise(tr.Mesh(torch.tensor(places), mesh.faces), radius=radius)


def _superquadric(rng: np.random.Generator) -> tr.Mesh:
    e1, e2 = rng.uniform(0.3, 1.8, 2)
    return tr.superquadric(e1, e2, rings=12, sectors=24)


def _star(rng: np.random.Generator) -> tr.Mesh:
    points, inner, thickness = int(rng.integers(3, 6)), rng.uniform(0.4, 0.7), rng.uniform(0.5, 1.0)
    return tr.star(points, inner=inner, thickness=thickness)


def _blob(rng: np.random.Generator) -> tr.Mesh:
    seed, roughness = int(rng.integers(2**31)), rng.uniform(0.15, 0.3)
    return tr.blob(seed, roughness, subdivisions=2)


def _capsule(rng: np.random.Generator) -> tr.Mesh:
    return tr.capsule(rng.uniform(0.25, 0.5), sections=12)


def _cone(rng: np.random.Generator) -> tr.Mesh:
    return tr.cone(rng.uniform(0.35, 0.7), sections=int(rng.integers(3, 25)))


def _cylinder(rng: np.random.Generator) -> tr.Mesh:
    return tr.cylinder(rng.uniform(0.3, 0.7), sections=int(rng.integers(3, 25)))


def _box(rng: np.random.Generator) -> tr.Mesh:
    return tr.box(*np.exp(rng.uniform(-0.5, 0.5, 3)))


def _ellipsoids(rng: np.random.Generator) -> tr.Mesh:
    """Two to four long or flat ellipsoids that cross in their common middle, as one surface."""
    directions, faces = _directions()
    count = int(rng.integers(2, 5))
    axes = np.exp(rng.uniform(-1.2, 0.0, (count, 3)))
    axes /= axes.max(axis=1, keepdims=True)
    reach = [1 / np.linalg.norm(directions @ _rotation(rng) / lengths, axis=1) for lengths in axes]
    places = directions * np.max(reach, axis=0)[:, None]
    return tr.Mesh(torch.tensor(places), faces)


KINDS: dict[str, Callable[[np.random.Generator], tr.Mesh]] = {
    "superquadric": _superquadric,
    "star": _star,
    "blob": _blob,
    "capsule": _capsule,
    "cone": _cone,
    "cylinder": _cylinder,
    "box": _box,
    "ellipsoids": _ellipsoids,
}
"""How each kind is drawn, before the stretch and the rotation."""


@lru_cache(maxsize=1)
@torch.inference_mode(False)
def _directions() -> tuple[ndarray, torch.Tensor]:
    sphere = tr.icosphere(2, dtype=torch.float64)
    return sphere.vertices.numpy(), sphere.faces


def _rotation(rng: np.random.Generator) -> Float[ndarray, "3 3"]:
    """A rotation, uniform over all of them: that of a random unit quaternion."""
    w, x, y, z = rng.normal(size=4)
    n = math.sqrt(w * w + x * x + y * y + z * z)
    w, x, y, z = w / n, x / n, y / n, z / n
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
