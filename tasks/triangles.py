"""Draw, orient and compare random coloured triangles, for the families of flat shapes."""

from __future__ import annotations

import colorsys
import itertools
import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

RADII = (0.25, 0.55)  # circumradius of a triangle, uniform
MIN_GAP = math.pi / 3  # smallest angle between two vertices, seen from the centre
TRANSLATION = 0.3  # largest displacement of a whole triangle at the start, per coordinate
VERTEX_NOISE = 0.15  # largest displacement of a vertex on top of it, per coordinate

RELABELLINGS = tuple(itertools.permutations(range(3)))
"""The six orders of a triangle's vertices."""


def turned_to_front(triangles: Float[Tensor, "B K 3 2"]) -> Float[Tensor, "B K 3 2"]:
    """The same triangles, all counter-clockwise.

    The sharp renderer treats front and back faces separately where they overlap. Once turned to the
    front, a triangle looks the same under any relabelling of its vertices.
    """
    x, y = triangles.detach().unbind(dim=-1)
    a, b = x - x[..., :1], y - y[..., :1]
    back = a[..., 1] * b[..., 2] < a[..., 2] * b[..., 1]
    return torch.where(back[..., None, None], triangles[:, :, [0, 2, 1]], triangles)


def mean_square(
    image: Float[Tensor, "B H W C"], target: Float[Tensor, "B H W C"]
) -> Float[Tensor, " B"]:
    """Mean squared difference of each picture of a batch, over its pixels and channels."""
    squares = nn.functional.mse_loss(image, target, reduction="none")
    return squares.flatten(1).mean(dim=1)


def triangle_outline(rng: np.random.Generator) -> np.ndarray:
    """Vertices (3, 2) on a circle about the origin, counter-clockwise, angles MIN_GAP apart."""
    radius = rng.uniform(*RADII)
    gaps = MIN_GAP + (2 * math.pi - 3 * MIN_GAP) * rng.dirichlet(np.ones(3))
    angles = rng.uniform(0, 2 * math.pi) + np.cumsum(gaps)
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def separated_colours(rng: np.random.Generator, count: int) -> np.ndarray:
    """`count` saturated colours (count, 3) with hues spread around the circle, in random order."""
    spacing = 1 / count
    hues = (rng.uniform() + spacing * (rng.permutation(count) + rng.uniform(-0.2, 0.2, count))) % 1
    saturations, values = rng.uniform(0.85, 1, count), rng.uniform(0.85, 1, count)
    colours = [colorsys.hsv_to_rgb(*hsv) for hsv in zip(hues, saturations, values, strict=True)]
    return np.array(colours)
