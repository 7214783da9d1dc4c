"""Random stacks of overlapping convex shapes, checked on a grid of points.

Shapes are stacked from front to back. A shape behind all others does not change what is seen of
them. So each shape is redrawn until it fits behind the accepted ones, which never change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

Outline: TypeAlias = np.ndarray

KINDS = ("triangle", "quad", "hexagon", "bar", "disc")
CORNERS = {"triangle": 3, "quad": 4, "hexagon": 6, "disc": 8}
RADII = (0.3, 0.55)  # of the ellipses that carry the corners
BAR_LENGTHS, BAR_WIDTHS = (0.45, 0.7), (0.09, 0.14)  # half the sides of a thin bar
CENTRE = 0.4  # centres of full-size shapes are uniform in [-CENTRE, CENTRE]^2
ROOMY = 5  # up to so many shapes have full size; if there are more, all are smaller

GRID = 40  # visibility is measured at GRID x GRID points of [-1, 1]^2
LEAST_SHOWN = 0.03  # area (NDC^2, at full size) on which one of a pair hides the other
LEAST_SEEN = 0.3  # share of its own area on which a shape is seen
TRIES = 10000


@dataclass(frozen=True)
class Stack:
    """K shapes, the nearest first.

    Attributes:
        outlines: convex, counter-clockwise, (N_k, 2) relative to the shape's centre.
        centres: (K, 2) in NDC.
        shown: (K, K) true at (i, k) where i is seen in front of k on at least `LEAST_SHOWN`.
    """

    outlines: list[Outline]
    centres: np.ndarray
    shown: np.ndarray


def overlapping_shapes(rng: np.random.Generator, count: int) -> Stack:
    """A stack of `count` shapes, each seen on 30% of its area and overlapping another visibly."""
    size = min(1.0, math.sqrt(ROOMY / count))
    least_shown = LEAST_SHOWN * size**2 * GRID**2 / 4
    seen_by = np.full(GRID * GRID, -1)  # the shape that each point sees
    kinds = _mixed(rng, count)
    outlines, centres, shown = [], np.zeros((count, 2)), np.zeros((count, count), dtype=bool)
    for k in range(count):
        for _ in range(TRIES):
            outline = size * random_outline(rng, kinds[k])
            centre = rng.uniform(-1, 1, 2) * (1 - size * (1 - CENTRE))
            covered = contains(outline + centre, _POINTS)
            hidden_by = np.bincount(seen_by[covered] + 1, minlength=count + 1)
            if hidden_by[0] < LEAST_SEEN * area(outline) * GRID**2 / 4:
                continue
            if k == 0 or hidden_by[1:].max() >= least_shown:
                break
        else:
            raise RuntimeError(f"no room for shape {k + 1} of {count}: ask for fewer")
        outlines.append(outline)
        centres[k] = centre
        shown[:, k] = hidden_by[1:] >= least_shown
        seen_by[covered & (seen_by < 0)] = k
    return Stack(outlines, centres, shown)


def random_outline(rng: np.random.Generator, kind: str) -> Outline:
    """A convex outline (N, 2) of one of `KINDS` about the origin, counter-clockwise, full size."""
    turn = rng.uniform(0, 2 * math.pi)
    if kind == "bar":
        x, y = rng.uniform(*BAR_LENGTHS), rng.uniform(*BAR_WIDTHS)
        outline = np.array([[-x, -y], [x, -y], [x, y], [-x, y]])
    else:
        corners = CORNERS[kind]
        # Half of each corner's even share of the circle is random, except that discs are round.
        share = 2 * math.pi / corners
        gaps = np.full(corners, share)
        if kind != "disc":
            gaps = share / 2 + math.pi * rng.dirichlet(np.ones(corners))
        angles = np.cumsum(gaps)
        outline = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
        outline = rng.uniform(*RADII) * outline * [1, 1 if kind == "disc" else rng.uniform(0.6, 1)]
    cos, sin = math.cos(turn), math.sin(turn)
    return outline @ np.array([[cos, sin], [-sin, cos]])


def contains(outline: Outline, points: np.ndarray) -> np.ndarray:
    """Which points (P, 2) lie in a convex counter-clockwise outline (N, 2)."""
    x, y = (np.roll(outline, -1, axis=0) - outline).T
    inward = np.stack([-y, x], axis=-1)
    least = (inward * outline).sum(axis=1)
    return (inward @ points.T >= least[:, None]).all(axis=0)


def area(outline: Outline) -> float:
    """Area of an outline (N, 2), by the shoelace formula."""
    x, y = outline.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def padded_fans(scenes: Sequence[Sequence[Outline]]) -> tuple[np.ndarray, np.ndarray]:
    """Every outline as a fan of triangles from its first corner.

    Returns:
        corners (B, F, 3, 2), and the index in its scene of each triangle's outline, (B, F): -1, at
        corners of 0, for scenes with fewer triangles than the most.
    """
    counts = [sum(len(outline) - 2 for outline in scene) for scene in scenes]
    corners = np.zeros((len(scenes), max(counts), 3, 2))
    owner = np.full((len(scenes), max(counts)), -1)
    for scene, (b, count) in zip(scenes, enumerate(counts), strict=True):
        fans = [
            np.stack([np.broadcast_to(o[0], o[2:].shape), o[1:-1], o[2:]], axis=1) for o in scene
        ]
        corners[b, :count] = np.concatenate(fans)
        owner[b, :count] = np.repeat(np.arange(len(scene)), [len(fan) for fan in fans])
    return corners, owner


def _mixed(rng: np.random.Generator, count: int) -> list[str]:
    """`count` kinds in random order, each as often as the others, give or take one."""
    rounds = [rng.permutation(KINDS) for _ in range(-(-count // len(KINDS)))]
    return [str(kind) for kind in np.concatenate(rounds)[:count]]


_CENTRES = (2 * np.arange(GRID) + 1) / GRID - 1
_POINTS = np.stack(np.meshgrid(_CENTRES, _CENTRES), axis=-1).reshape(-1, 2)
