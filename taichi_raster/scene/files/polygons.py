"""Polygons cut into triangles: convex ones into fans, others by ear clipping (Meisters, 1975)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy import ndarray

FLAT = 1e-12  # of the product of two edges: below it, three corners are in line


class Cut(NamedTuple):
    """Triangles of polygons.

    Attributes:
        triangles: (F, 3) positions in the list of corners.
        polygon: (F,) which polygon each is of, ascending.
        crossing: how many polygons have no ear, as their outlines cross themselves.
    """

    triangles: ndarray
    polygon: ndarray
    crossing: int


def triangulate(places: ndarray, counts: ndarray, corners: ndarray) -> Cut:
    """Cut polygons into triangles, n - 2 for n corners, wound as they are.

    Args:
        places: (V, 3).
        counts: (P,) corners of each polygon; those with fewer than three give no triangle.
        corners: (counts.sum(),) indices into `places`, polygon after polygon.
    """
    counts = np.asarray(counts, dtype=np.int64)
    starts = np.cumsum(counts) - counts
    pieces = np.maximum(counts - 2, 0)
    polygon = np.repeat(np.arange(len(counts)), pieces)
    within = np.arange(len(polygon)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    first = starts[polygon]
    triangles = np.stack([first, first + within + 1, first + within + 2], axis=1)
    crossing = 0
    firsts = np.cumsum(pieces) - pieces
    for i in _not_convex(places, counts, starts, corners):
        outline = corners[starts[i] : starts[i] + counts[i]]
        ears, crosses = _ears(places[outline])
        crossing += crosses
        triangles[firsts[i] : firsts[i] + pieces[i]] = starts[i] + ears
    return Cut(triangles, polygon, crossing)


def _not_convex(places: ndarray, counts: ndarray, starts: ndarray, corners: ndarray) -> ndarray:
    """The polygons of which some corner turns the other way."""
    large = np.flatnonzero(counts >= 4)
    if len(large) == 0:
        return large
    n = counts[large]
    first = np.cumsum(n) - n
    within = np.arange(n.sum()) - np.repeat(first, n)
    base, size = np.repeat(starts[large], n), np.repeat(n, n)
    here = places[corners[base + within]]
    before = places[corners[base + (within - 1) % size]]
    after = places[corners[base + (within + 1) % size]]
    origin = places[corners[base]]
    normal = np.add.reduceat(np.cross(here - origin, after - origin), first)  # Newell's, twice area
    turn = np.cross(here - before, after - here)
    along = (turn * np.repeat(normal, n, axis=0)).sum(1)
    size_of = np.linalg.norm(here - before, axis=1) * np.linalg.norm(after - here, axis=1)
    flat = FLAT * size_of * np.repeat(np.linalg.norm(normal, axis=1), n)
    return large[np.logical_or.reduceat(along < -flat, first)]


def _ears(outline: ndarray) -> tuple[ndarray, bool]:
    """Triangles (n - 2, 3) of one polygon, and whether it crosses itself."""
    flat = _projected(outline)
    ring = list(range(len(flat)))
    found = []
    crosses = False
    at = 0  # where the search goes on, so that a long outline is not searched from its start
    while len(ring) > 3:
        for step in range(len(ring)):
            i = (at + step) % len(ring)
            if _is_ear(flat, ring, i):
                break
        else:
            turns = [_turn(flat, ring, k) for k in range(len(ring))]
            i = int(np.argmax(turns))
            crosses = True
        found.append([ring[i - 1], ring[i], ring[(i + 1) % len(ring)]])
        del ring[i]
        at = i % len(ring)
    found.append(ring)
    return np.array(found), crosses


def _projected(outline: ndarray) -> ndarray:
    """(n, 2), counter-clockwise, in the plane of the outline's normal."""
    centred = outline - outline[0]
    normal = np.cross(centred, np.roll(centred, -1, axis=0)).sum(0)
    length = np.linalg.norm(normal)
    normal = normal / length if length > 0 else np.array([0.0, 0.0, 1.0])
    across = np.cross(np.eye(3)[np.abs(normal).argmin()], normal)
    across /= np.linalg.norm(across)
    up = np.cross(normal, across)
    return np.stack([(centred * across).sum(1), (centred * up).sum(1)], axis=1)


def _cross(a: ndarray, b: ndarray) -> ndarray:
    return np.asarray(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0])


def _turn(flat: ndarray, ring: list[int], i: int) -> float:
    """Twice the area of the triangle at a corner, in proportion to its edges."""
    a, b, c = flat[ring[i - 1]], flat[ring[i]], flat[ring[(i + 1) % len(ring)]]
    size = np.linalg.norm(b - a) * np.linalg.norm(c - b)
    return float(_cross(b - a, c - b) / size) if size > 0 else 0.0


def _is_ear(flat: ndarray, ring: list[int], i: int) -> bool:
    turn = _turn(flat, ring, i)
    before, after = ring[i - 1], ring[(i + 1) % len(ring)]
    a, b, c = flat[before], flat[ring[i]], flat[after]
    if turn < -FLAT:
        return False
    if turn <= FLAT:  # in line: a triangle without area, unless the outline goes back on itself
        return bool(((b - a) * (c - b)).sum() >= 0)
    others = flat[[k for k in ring if k not in (before, ring[i], after)]]
    # A bridge to a hole lists corners twice; those at the places of this ear's are not inside.
    same = np.zeros(len(others), dtype=bool)
    for corner in (a, b, c):
        same |= (others == corner).all(1)
    others = others[~same]
    inside = (
        (_cross(b - a, others - a) >= 0)
        & (_cross(c - b, others - b) >= 0)
        & (_cross(a - c, others - c) >= 0)
    )
    return not inside.any()
