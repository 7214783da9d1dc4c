"""Meshes made by code: closed surfaces wound outwards, around the origin, and a plane.

Sizes are in world units, y is up. Each raises ValueError for a size that is not positive or a
count that is too small, naming the argument.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from taichi_raster import checks
from taichi_raster.scene.mesh import Mesh

if TYPE_CHECKING:
    import trimesh  # imported by the functions that need it, as it takes a third of a second

_FLOAT = torch.float32


def icosphere(
    subdivisions: int = 3, radius: float = 1.0, dtype: torch.dtype = torch.float32
) -> Mesh:
    """A sphere of 20 * 4**subdivisions nearly equal triangles, around the origin.

    It has 10 * 4**subdivisions + 2 vertices: 162, 642, 2562, 10242 for 2, 3, 4, 5 subdivisions.

    Raises:
        ValueError: if `subdivisions` is not in 0..7, or `radius` is not positive.
    """
    import trimesh

    subdivisions = checks.whole("subdivisions", subdivisions, 0, 7)
    _check_sizes(radius=radius)
    return _from_trimesh(trimesh.creation.icosphere(subdivisions, radius), dtype)


def uv_sphere(
    rings: int = 16, sectors: int = 32, radius: float = 1.0, dtype: torch.dtype = _FLOAT
) -> Mesh:
    """A sphere of latitude and longitude, with texture coordinates: v runs from pole to pole."""
    _check_counts(rings=(rings, 2), sectors=(sectors, 3))
    _check_sizes(radius=radius)

    def place(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        elevation, azimuth = (v - 0.5) * math.pi, u * 2 * math.pi
        ring = np.cos(elevation)
        return radius * np.stack(
            [ring * np.sin(azimuth), np.sin(elevation), ring * np.cos(azimuth)], axis=-1
        )

    return _surface(place, sectors, rings, dtype, wrap_v=False)


def box(
    width: float = 1.0, height: float = 1.0, depth: float = 1.0, dtype: torch.dtype = _FLOAT
) -> Mesh:
    """A box along x, y and z, of 12 triangles; a cube by default."""
    import trimesh

    _check_sizes(width=width, height=height, depth=depth)
    return _from_trimesh(trimesh.creation.box((width, height, depth)), dtype)


def cylinder(
    radius: float = 0.5, height: float = 1.0, sections: int = 32, dtype: torch.dtype = _FLOAT
) -> Mesh:
    """A cylinder along y, with its two ends."""
    import trimesh

    _check_sizes(radius=radius, height=height)
    _check_counts(sections=(sections, 3))
    return _upright(trimesh.creation.cylinder(radius, height, sections=sections), dtype)


def cone(
    radius: float = 0.5, height: float = 1.0, sections: int = 32, dtype: torch.dtype = _FLOAT
) -> Mesh:
    """A cone along y, with its base; its middle height is at the origin."""
    import trimesh

    _check_sizes(radius=radius, height=height)
    _check_counts(sections=(sections, 3))
    mesh = trimesh.creation.cone(radius, height, sections=sections)
    mesh.apply_translation((0, 0, -height / 2))
    return _upright(mesh, dtype)


def capsule(
    radius: float = 0.3, height: float = 1.0, sections: int = 16, dtype: torch.dtype = _FLOAT
) -> Mesh:
    """A cylinder along y whose ends are half spheres; `height` is the cylinder's alone."""
    import trimesh

    _check_sizes(radius=radius, height=height)
    _check_counts(sections=(sections, 4))
    mesh = trimesh.creation.capsule(height, radius, count=(sections, sections))
    mesh.apply_translation((0, 0, -mesh.bounds.mean(axis=0)[2]))
    return _upright(mesh, dtype)


def torus(
    major: float = 0.7,
    minor: float = 0.3,
    sides: int = 16,
    sectors: int = 32,
    dtype: torch.dtype = _FLOAT,
) -> Mesh:
    """A ring around y, with texture coordinates: u around the hole, v around the tube."""
    _check_sizes(major=major, minor=minor)
    _check_counts(sides=(sides, 3), sectors=(sectors, 3))
    if minor >= major:
        raise ValueError(f"minor: must be below major, {major}, got {minor}")

    def place(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        a, t = u * 2 * math.pi, v * 2 * math.pi
        ring = major + minor * np.cos(t)
        return np.stack([ring * np.sin(a), minor * np.sin(t), ring * np.cos(a)], axis=-1)

    return _surface(place, sectors, sides, dtype, wrap_v=True)


def torus_knot(
    p: int = 2,
    q: int = 3,
    radius: float = 0.6,
    tube: float = 0.15,
    sides: int = 8,
    sectors: int = 128,
    dtype: torch.dtype = _FLOAT,
) -> Mesh:
    """A tube along the (p, q) torus knot, a trefoil by default, with texture coordinates."""
    _check_sizes(radius=radius, tube=tube)
    _check_counts(p=(p, 1), q=(q, 1), sides=(sides, 3), sectors=(sectors, 3))
    if math.gcd(p, q) != 1:
        raise ValueError(f"p, q: must have no common divisor, got {p} and {q}")

    def centre(t: np.ndarray) -> np.ndarray:
        ring = radius * (1 + 0.4 * np.cos(q * t))
        return np.stack(
            [ring * np.sin(p * t), 0.4 * radius * np.sin(q * t), ring * np.cos(p * t)], axis=-1
        )

    def place(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        t, s = u * 2 * math.pi, v * 2 * math.pi
        ahead = centre(t + 1e-4) - centre(t - 1e-4)
        ahead /= np.linalg.norm(ahead, axis=-1, keepdims=True)
        # Away from the circle in the torus' middle, so that the frame closes.
        outward = centre(t) - radius * np.stack([np.sin(p * t), 0 * t, np.cos(p * t)], axis=-1)
        outward -= (outward * ahead).sum(-1, keepdims=True) * ahead
        outward /= np.linalg.norm(outward, axis=-1, keepdims=True)
        side = np.cross(ahead, outward)
        around: np.ndarray = np.cos(s)[..., None] * outward - np.sin(s)[..., None] * side
        return centre(t) + tube * around

    return _surface(place, sectors, sides, dtype, wrap_v=True)


def superquadric(
    e1: float = 0.4,
    e2: float = 0.4,
    rings: int = 24,
    sectors: int = 48,
    radius: float = 1.0,
    dtype: torch.dtype = _FLOAT,
) -> Mesh:
    """Barr's superellipsoid (IEEE CG&A 1981).

    Exponents of 1 give a sphere, near 0 a box, 2 an octahedron; e1 acts along y, e2 around it.
    """
    _check_sizes(e1=e1, e2=e2, radius=radius)
    _check_counts(rings=(rings, 2), sectors=(sectors, 3))

    def power(x: np.ndarray, e: float) -> np.ndarray:
        return np.asarray(np.sign(x) * np.abs(x) ** e)

    def place(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        elevation, azimuth = (v - 0.5) * math.pi, u * 2 * math.pi
        ring = power(np.maximum(np.cos(elevation), 0), e1)
        return radius * np.stack(
            [
                ring * power(np.sin(azimuth), e2),
                power(np.sin(elevation), e1),
                ring * power(np.cos(azimuth), e2),
            ],
            axis=-1,
        )

    return _surface(place, sectors, rings, dtype, wrap_v=False)


def blob(
    seed: int = 0,
    roughness: float = 0.3,
    subdivisions: int = 4,
    radius: float = 1.0,
    dtype: torch.dtype = _FLOAT,
) -> Mesh:
    """A smooth random body: a sphere whose radius is exp(roughness * sum of random waves).

    Args:
        seed: which one; equal seeds give equal bodies.
        roughness: about the standard deviation of the logarithm of the radius.
    """
    _check_sizes(roughness=roughness, radius=radius)
    sphere = icosphere(subdivisions, 1.0, torch.float64)
    generator = np.random.default_rng(seed)
    waves = generator.normal(size=(12, 3)) * 2.0
    phases = generator.uniform(0, 2 * math.pi, size=12)
    points = sphere.vertices.numpy()
    height = np.sin(points @ waves.T + phases).sum(axis=1) / math.sqrt(6)
    scaled = points * np.exp(roughness * height)[:, None] * radius
    return Mesh(torch.tensor(scaled, dtype=dtype), sphere.faces)


def star(
    points: int = 5,
    outer: float = 1.0,
    inner: float = 0.4,
    thickness: float = 0.4,
    dtype: torch.dtype = _FLOAT,
) -> Mesh:
    """A star of so many points in the xy plane, extruded along z."""
    _check_counts(points=(points, 2))
    _check_sizes(outer=outer, inner=inner, thickness=thickness)
    n = 2 * points
    angle = np.arange(n) * math.pi / points + math.pi / 2
    size = np.where(np.arange(n) % 2 == 0, outer, inner)
    rim = np.stack([size * np.cos(angle), size * np.sin(angle)], axis=-1)
    half = np.full((n, 1), thickness / 2)
    vertices = np.concatenate(
        [
            np.hstack([rim, half]),
            np.hstack([rim, -half]),
            [[0, 0, thickness / 2]],
            [[0, 0, -thickness / 2]],
        ]
    )
    i = np.arange(n)
    j = (i + 1) % n
    front = np.stack([np.full(n, 2 * n), i, j], axis=-1)
    back = np.stack([np.full(n, 2 * n + 1), j + n, i + n], axis=-1)
    sides = np.concatenate([np.stack([i, i + n, j], -1), np.stack([j, i + n, j + n], -1)])
    faces = np.concatenate([front, back, sides])
    return Mesh(torch.tensor(vertices, dtype=dtype), torch.tensor(faces))


def plane(
    columns: int = 8,
    rows: int = 8,
    width: float = 2.0,
    height: float = 2.0,
    dtype: torch.dtype = _FLOAT,
) -> Mesh:
    """A flat grid in the xy plane that faces +z, with texture coordinates over its whole."""
    _check_counts(columns=(columns, 1), rows=(rows, 1))
    _check_sizes(width=width, height=height)
    u, v = np.meshgrid(np.linspace(0, 1, columns + 1), np.linspace(0, 1, rows + 1))
    uv = np.stack([u.ravel(), v.ravel()], axis=-1)
    places = np.concatenate([(uv - 0.5) * (width, height), np.zeros((len(uv), 1))], axis=1)
    corner = (np.arange(rows)[:, None] * (columns + 1) + np.arange(columns)).ravel()
    right, up = corner + 1, corner + columns + 1
    faces = np.concatenate(
        [np.stack([corner, right, up + 1], -1), np.stack([corner, up + 1, up], -1)]
    )
    return Mesh(
        torch.tensor(places, dtype=dtype), torch.tensor(faces), torch.tensor(uv, dtype=dtype)
    )


def _surface(place, columns: int, rows: int, dtype: torch.dtype, wrap_v: bool) -> Mesh:  # type: ignore[no-untyped-def]
    """A closed surface over (u, v) in [0, 1]^2: u wraps; v wraps, or ends in two poles."""
    u, v = np.meshgrid(np.arange(columns + 1) / columns, np.arange(rows + 1) / rows)
    uv = np.stack([u, v], axis=-1).reshape(-1, 2)
    i, j = np.meshgrid(np.arange(columns), np.arange(rows))
    corner = (j * (columns + 1) + i).ravel()
    right, up = corner + 1, corner + columns + 1
    lower, upper = np.stack([corner, right, up + 1], -1), np.stack([corner, up + 1, up], -1)
    if not wrap_v:  # at the poles one of the two triangles has no area
        lower, upper = lower[columns:], upper[: len(upper) - columns]
    uv_faces = np.concatenate([lower, upper])
    # The same place, wherever u and v come round, and at the poles.
    row, column = np.divmod(np.arange(len(uv)), columns + 1)
    column %= columns
    if wrap_v:
        row %= rows
    else:
        column[(row == 0) | (row == rows)] = 0
    key, index = np.unique(row * columns + column, return_inverse=True)
    places = place((key % columns) / columns, (key // columns) / rows)
    return Mesh(
        torch.tensor(places, dtype=dtype),
        torch.tensor(index.reshape(-1)[uv_faces]),
        torch.tensor(uv, dtype=dtype),
        torch.tensor(uv_faces),
    )


def _upright(mesh: trimesh.Trimesh, dtype: torch.dtype) -> Mesh:
    """Turned from z up to y up."""
    found = _from_trimesh(mesh, dtype)
    x, y, z = found.vertices.unbind(1)
    return Mesh(torch.stack([x, z, -y], dim=1), found.faces)


def _from_trimesh(source: trimesh.Trimesh, dtype: torch.dtype) -> Mesh:
    return Mesh(_tensor(source.vertices, dtype), _tensor(source.faces, torch.int64))


def _tensor(values: np.ndarray, dtype: torch.dtype) -> Tensor:
    return torch.tensor(np.asarray(values), dtype=dtype)


def _check_sizes(**sizes: float) -> None:
    for name, size in sizes.items():
        checks.positive(name, size)


def _check_counts(**counts: tuple[int, int]) -> None:
    for name, (count, least) in counts.items():
        checks.whole(name, count, least)
