"""The meshes of `tasks.pose`: random bodies whose silhouette determines their pose, and lights.

A body is closed, without symmetry, and has `FACES` triangles. There are five kinds, in equal
shares: a lumpy superellipsoid, a body with four limbs, two joined balls, a star and a wavy ring.
Each is stretched, tapered, bent, twisted and turned at random; all these maps keep a closed surface
closed and its outside outside.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import taichi_raster as tr

FACES = 160
"""Triangles of every body; all have the same number, so that a batch needs no padding."""

RADIUS = 0.85
"""Distance from the origin to a body's farthest vertex: it fits a picture from 2.5 away."""

AMBIENT = 0.15
LIGHTS = (
    tr.AmbientLight(AMBIENT),
    tr.DirectionalLight((1.0, 0.3, 0.2), (0.8, 0.25, 0.1)),
    tr.DirectionalLight((-0.5, 1.0, 0.3), (0.1, 0.6, 0.25)),
    tr.DirectionalLight((-0.3, -0.4, 1.0), (0.1, 0.2, 0.7)),
)
"""Fixed in the mesh's world, in three colours, so that a colour determines a normal."""

Body = tuple[np.ndarray, np.ndarray]  # vertices (V, 3), faces (F, 3)


def random_body(rng: np.random.Generator, dtype: torch.dtype = torch.float64) -> tr.Mesh:
    """A body around the origin, closed, wound outwards (where parts overlap: each part for itself).

    Exactly `FACES` faces, all within `RADIUS` of the origin.
    """
    vertices, faces = KINDS[int(rng.integers(len(KINDS)))](rng)
    turned = _deformed(vertices / np.abs(vertices).max(), rng) @ _rotation(rng).T
    mesh = tr.Mesh(torch.as_tensor(turned, dtype=dtype), torch.as_tensor(faces))
    return tr.normalise(mesh, radius=RADIUS)


def lit_colours(corners: Float[Tensor, "B F 3 3"]) -> Float[Tensor, "B F 3 3"]:
    """RGB at the corners of matt white faces, flat-shaded under `LIGHTS`; no view changes them."""
    normals = tr.face_normals(corners)[:, :, None].expand_as(corners)
    return tr.illuminate(torch.ones_like(corners), normals, corners, LIGHTS)


def lit_coverage(image: Float[Tensor, "... 3"]) -> Float[Tensor, "..."]:
    """Coverage, in [0, 1], of what has such colours and is drawn over black; at least the true one.

    No colour is darker than `AMBIENT`, so that a pixel which is half covered has half of it.
    """
    return (image.amax(dim=-1) / AMBIENT).clamp(max=1.0)


def is_closed(mesh: tr.Mesh) -> bool:
    """Whether a mesh is closed and wound outwards, so that front faces show its silhouette."""
    import trimesh  # here, as it takes a third of a second

    surface = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)
    return bool(surface.is_watertight and surface.is_winding_consistent and surface.volume > 0)


def _lump(rng: np.random.Generator) -> Body:
    vertices, faces = _plain(
        tr.superquadric(rng.uniform(0.5, 1.3), rng.uniform(0.5, 1.3), rings=9, sectors=10)
    )
    waves, phases = rng.normal(size=(6, 3)) * 2.0, rng.uniform(0, 2 * math.pi, 6)
    height = np.sin(vertices @ waves.T + phases).sum(axis=1) / math.sqrt(3)
    return vertices * np.exp(0.4 * height)[:, None], faces


def _animal(rng: np.random.Generator) -> Body:
    body, faces = _ball(1)
    parts = [(body * rng.uniform(0.4, 1.0, 3), faces)]
    for _ in range(4):
        direction = _rotation(rng)[0]
        limb, limb_faces = _ball(0)
        limb = (limb * [rng.uniform(0.3, 0.7), *rng.uniform(0.12, 0.35, 2)]) @ _along(direction)
        place = 1 / np.linalg.norm(direction / np.ptp(parts[0][0], axis=0) * 2)
        parts.append((limb + direction * (place + rng.uniform(0.0, 0.4)), limb_faces))
    return _joined(parts)


def _pair(rng: np.random.Generator) -> Body:
    ball, faces = _ball(1)
    large, small = ball * rng.uniform(0.4, 0.9, 3), ball * rng.uniform(0.2, 0.5, 3)
    return _joined([(large, faces), (small @ _rotation(rng) + _rotation(rng)[0] * 0.8, faces)])


def _star(rng: np.random.Generator) -> Body:
    star = tr.star(5, inner=rng.uniform(0.3, 0.5), thickness=rng.uniform(0.3, 0.6))
    vertices, faces = _plain(star)
    # The points of the star are of different lengths.
    sizes = np.repeat(rng.uniform(0.5, 1.3, 5), 2)
    vertices[:20, :2] *= np.concatenate([sizes, sizes])[:, None]
    return _plain(tr.subdivide(tr.Mesh(torch.as_tensor(vertices), torch.as_tensor(faces))))


def _ring(rng: np.random.Generator) -> Body:
    waves = int(rng.integers(2, 4))
    return _plain(tr.torus_knot(1, waves, tube=rng.uniform(0.12, 0.22), sides=4, sectors=20))


KINDS: tuple[Callable[[np.random.Generator], Body], ...] = (_lump, _animal, _pair, _star, _ring)


def _deformed(vertices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Stretched along the axes, tapered along y, bent and twisted; y lies in [-1, 1] before."""
    x, y, z = vertices.T
    taper = 1 + rng.uniform(0.25, 0.6) * y
    bend = rng.uniform(0.2, 0.5, 2) * rng.choice([-1, 1], 2)
    angle = rng.uniform(-0.8, 0.8) * y
    x, z = taper * x + bend[0] * y**2, taper * z + bend[1] * y**2
    x, z = np.cos(angle) * x - np.sin(angle) * z, np.sin(angle) * x + np.cos(angle) * z
    return np.stack([x, y, z], axis=1) * np.exp(rng.normal(0, 0.25, 3))


def _rotation(rng: np.random.Generator) -> np.ndarray:
    """A uniformly random rotation matrix."""
    from scipy.spatial.transform import Rotation  # here, as SciPy takes a while to import

    return Rotation.random(random_state=rng).as_matrix()


def _along(direction: np.ndarray) -> np.ndarray:
    """A rotation (3, 3) whose first row is the unit vector `direction`."""
    side = np.cross(direction, np.eye(3)[np.abs(direction).argmin()])
    side /= np.linalg.norm(side)
    return np.stack([direction, side, np.cross(direction, side)])


@functools.lru_cache(maxsize=2)
@torch.inference_mode(False)
def _ball(subdivisions: int) -> Body:
    return _plain(tr.icosphere(subdivisions))


def _joined(parts: list[Body]) -> Body:
    firsts = np.cumsum([0, *(len(vertices) for vertices, _ in parts[:-1])])
    faces = [faces + first for (_, faces), first in zip(parts, firsts, strict=True)]
    return np.concatenate([vertices for vertices, _ in parts]), np.concatenate(faces)


def _plain(mesh: tr.Mesh) -> Body:
    return mesh.vertices.double().numpy(), mesh.faces.numpy()
