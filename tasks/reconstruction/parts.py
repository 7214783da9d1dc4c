"""Building blocks of procedural objects: closed, coloured parts, and their assembly to a mesh."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
import torch
from numpy import ndarray

import taichi_raster as tr

Numbers = Sequence[float] | ndarray
Points = Sequence[Numbers] | Sequence[tuple[float, ...]] | ndarray
Part = tuple[
    ndarray, ndarray
]  # vertices (V, 3) and faces (F, 3) of a closed surface, wound outwards


def loft(rings: ndarray) -> Part:
    """A closed surface through K rings of M points each, (K, M, 3), with flat ends."""
    count, around = rings.shape[:2]
    i, k = np.meshgrid(np.arange(around), np.arange(count - 1))
    a = (k * around + i).ravel()
    b = (k * around + (i + 1) % around).ravel()
    sides = np.concatenate(
        [np.stack([a, b, b + around], -1), np.stack([a, b + around, a + around], -1)]
    )
    rim = np.arange(around)
    first, last, begin = count * around, count * around + 1, (count - 1) * around
    low = np.stack([np.full(around, first), (rim + 1) % around, rim], -1)
    high = np.stack([np.full(around, last), begin + rim, begin + (rim + 1) % around], -1)
    ends = np.stack([rings[0].mean(axis=0), rings[-1].mean(axis=0)])
    vertices = np.concatenate([rings.reshape(-1, 3), ends])
    return outwards((vertices, np.concatenate([sides, low, high])))


def outwards(part: Part) -> Part:
    """The part, with its faces flipped if it is inside out."""
    vertices, faces = part
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return (vertices, faces if (a * np.cross(b, c)).sum() >= 0 else faces[:, ::-1])


def box(low: Numbers, high: Numbers, top: Numbers = (1.0, 1.0), lean: Numbers = (0.0, 0.0)) -> Part:
    """A box from corner to corner; `top` scales its upper side in x and z, `lean` moves it."""
    low, high = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
    middle, half = (low + high) / 2, (high - low) / 2
    square = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]], dtype=float)
    rings = np.empty((2, 4, 3))
    for row, (y, size, shift) in enumerate(((low[1], (1, 1), (0, 0)), (high[1], top, lean))):
        flat = middle[[0, 2]] + square * half[[0, 2]] * size + shift
        rings[row] = np.stack([flat[:, 0], np.full(4, y), flat[:, 1]], -1)
    return loft(rings)


def tube(points: Points, radii: Numbers, around: int = 12) -> Part:
    """A tube of round sections of these radii around a chain of points."""
    places = np.asarray(points, dtype=float)
    ahead = np.gradient(places, axis=0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    helper = np.eye(3)[np.abs(ahead).sum(axis=0).argmin()]
    side = np.cross(ahead, helper)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    other = np.cross(ahead, side)
    angle = np.arange(around) * 2 * np.pi / around
    circle = (
        np.cos(angle)[None, :, None] * side[:, None] + np.sin(angle)[None, :, None] * other[:, None]
    )
    return loft(places[:, None] + np.asarray(radii)[:, None, None] * circle)


def revolved(
    heights: Numbers, radii: Numbers, around: int = 20, middle: Numbers = (0.0, 0.0)
) -> Part:
    """A surface of revolution around a vertical axis through (x, z) = `middle`."""
    x, z = middle
    points = np.stack([np.full(len(heights), x), np.asarray(heights), np.full(len(heights), z)], -1)
    angle = np.arange(around) * 2 * np.pi / around
    circle = np.stack([np.cos(angle), np.zeros(around), np.sin(angle)], -1)
    return loft(points[:, None] + np.asarray(radii)[:, None, None] * circle)


def mirrored(part: Part) -> Part:
    """The part mirrored in the plane x = 0."""
    vertices, faces = part
    return vertices * [-1, 1, 1], faces[:, ::-1]


def smooth(values: Numbers, count: int) -> ndarray:
    """A curve through the values by a cubic (Catmull-Rom), at `count` even places."""
    knots = np.asarray(values, dtype=float)
    padded = np.concatenate([knots[:1], knots, knots[-1:]])
    place = np.linspace(0, len(knots) - 1, count)
    k = np.minimum(place.astype(int), len(knots) - 2)
    t = place - k
    p0, p1, p2, p3 = (padded[k + j] for j in range(4))
    return 0.5 * (
        2 * p1
        + (p2 - p0) * t
        + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
        + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    )


def plain(mesh: tr.Mesh) -> Part:
    """A mesh as a part."""
    return mesh.vertices.double().numpy(), mesh.faces.numpy()


def colour(rng: np.random.Generator) -> ndarray:
    """A colour, (3,), neither very dark nor very bright."""
    return np.array(
        colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0.15, 0.85), rng.uniform(0.45, 0.95))
    )


def assembled(parts: Sequence[tuple[Part, ndarray]]) -> tr.Mesh:
    """One mesh of parts with their colours, around the origin; its bounding box's diagonal is 1."""
    firsts = np.cumsum([0, *(len(vertices) for (vertices, _), _ in parts[:-1])])
    faces = [f + first for ((_, f), _), first in zip(parts, firsts, strict=True)]
    vertices = np.concatenate([vertices for (vertices, _), _ in parts])
    colours = np.concatenate([np.tile(paint, (len(v), 1)) for (v, _), paint in parts])
    mesh = tr.Mesh(
        torch.tensor(vertices), torch.tensor(np.concatenate(faces)), colours=torch.tensor(colours)
    )
    return fitted(mesh)


def fitted(mesh: tr.Mesh) -> tr.Mesh:
    """The mesh centred at the origin, with a bounding box of diagonal 1, as ShapeNet's models."""
    centred = tr.normalise(mesh, half_extent=0.5)
    box_size = centred.vertices.amax(dim=0) - centred.vertices.amin(dim=0)
    return tr.normalise(mesh, half_extent=0.5 / float(box_size.norm()))
