"""GenDR's forward pass once more, in NumPy and float64: the oracle of the published conventions.

Written from the behaviour of Petersen et al.'s renderer (CVPR 2022): every face is folded into the
running alpha by the T-conorm's own definition, one after the other, and softmax colours are summed
with a running maximum. Pictures are (4, H, W), row 0 on top.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.special

Array = np.ndarray

DEFAULTS: dict[str, Any] = dict(
    image_size=16,
    background_color=[0.2, 0.5, 0.7],
    dist_func="logistic",
    dist_scale=0.05,
    dist_squared=False,
    dist_shape=None,
    dist_shift=None,
    dist_eps=1e4,
    aggr_alpha_func="probabilistic",
    aggr_alpha_t_conorm_p=None,
    aggr_rgb_func="softmax",
    aggr_rgb_eps=1e-3,
    aggr_rgb_gamma=1e-2,
    near=1.5,
    far=6.0,
    double_side=False,
)


def distribution(name: str, x: Array, shape: float, shift: float) -> Array:
    """F at scaled (squared) signed distances; `shift` in units of scale."""
    with np.errstate(all="ignore"):
        if name.endswith("_rev"):
            return 1 - distribution(name.removesuffix("_rev"), -x + shift, shape, 0.0)
        if name in ("gamma", "levy", "exponential"):
            x = x + shift
            s = np.maximum(x, 0)
            values: dict[str, Callable[[], Array]] = {
                "gamma": lambda: scipy.special.gammainc(shape, s),
                "levy": lambda: np.where(x > 1e-6, scipy.special.erfc(np.sqrt(0.5 / x)), 0),
                "exponential": lambda: -np.expm1(-s),
            }
            return values[name]()
        c = np.clip(x, -1, 1)
        y = (c + 1) / 2
        simple: dict[str, Callable[[], Array]] = {
            "uniform": lambda: y,
            "cubic_hermite": lambda: 3 * y**2 - 2 * y**3,
            "wigner_semicircle": lambda: 0.5 + (c * np.sqrt(1 - c * c) + np.arcsin(c)) / np.pi,
            "gaussian": lambda: scipy.special.ndtr(x),
            "laplace": lambda: np.where(x < 0, 0.5 * np.exp(x), 1 - 0.5 * np.exp(-x)),
            "logistic": lambda: scipy.special.expit(x),
            "gudermannian": lambda: np.arctan(np.tanh(x / 2)) * 2 / np.pi + 0.5,
            "cauchy": lambda: np.arctan(x) / np.pi + 0.5,
            "reciprocal": lambda: x / (1 + np.abs(x)) / 2 + 0.5,
            "gumbel_max": lambda: np.exp(-np.exp(-x)),
            "gumbel_min": lambda: 1 - np.exp(-np.exp(x)),
        }
        return simple[name]()


def conorm(name: str, a: Array, b: Array, p: float) -> Array:
    """The T-conorm of two coverages, by definition; s and t are what they leave."""
    s, t = 1 - a, 1 - b
    with np.errstate(all="ignore"):
        if name == "max":
            return np.asarray(np.maximum(a, b))
        if name == "probabilistic":
            return np.asarray(a + b - a * b)
        if name == "einstein":
            return np.asarray((a + b) / (1 + a * b))
        if name == "hamacher":
            return np.asarray(1 - s * t / np.maximum(p + (1 - p) * (s + t - s * t), 1e-300))
        if name == "frank":
            return 1 - np.log1p((p**s - 1) * (p**t - 1) / (p - 1)) / math.log(p)
        if name == "yager":
            return np.minimum(1, (a**p + b**p) ** (1 / p))
        covered = (s < 1e-8) | (t < 1e-8)
        if name == "aczel_alsina":
            inner = np.exp(-(((-np.log(s)) ** p + (-np.log(t)) ** p) ** (1 / p)))
        elif name == "dombi":
            inner = 1 / (1 + ((a / s) ** p + (b / t) ** p) ** (1 / p))
        elif name == "schweizer_sklar":
            inner = (s**p + t**p - 1) ** (1 / p)
        else:
            raise ValueError(name)
        return np.where(covered, 1.0, 1 - inner)


def distance(triangle: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """(squared distance to the boundary, inside)."""
    best = np.full(x.shape, np.inf)
    sides = []
    for k in range(3):
        (ax, ay), (bx, by) = triangle[k, :2], triangle[(k + 1) % 3, :2]
        ex, ey = bx - ax, by - ay
        t = np.clip(((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey), 0, 1)
        best = np.minimum(best, (x - ax - t * ex) ** 2 + (y - ay - t * ey) ** 2)
        sides.append(ex * (y - ay) - ey * (x - ax))
    turn = np.sign(sum(sides))
    return best, np.all([turn * side > 0 for side in sides], axis=0)


def texel(textures: Array, face: int, w: Array, kind: str) -> Array:
    """(3, H, W) colours of a face at clipped barycentrics w (3, H, W).

    A coordinate of 1 lies one cell too far: in the next row, or the next face's first texel.
    """
    if kind == "vertex":
        return np.asarray(np.einsum("ihw,ic->chw", w, textures[face]))
    r = math.isqrt(textures.shape[1])
    i, j = (w[0] * r).astype(int), (w[1] * r).astype(int)
    lower = (w[0] + w[1]) * r - i - j <= 1 + 1e-9  # whole on an edge, but for rounding
    index = face * r * r + np.where(lower, j * r + i, (r - 1 - j) * r + r - 1 - i)
    flat = textures.reshape(-1, 3)
    return np.asarray(flat[np.minimum(index, len(flat) - 1)].transpose(2, 0, 1))


def render(faces: Array, textures: Array, options: dict[str, Any], kind: str) -> Array:
    """(F, 3, 3) faces and (F, 3 or R*R, 3) textures to (4, H, W)."""
    o = options
    n = o["image_size"]
    centres = (2 * np.arange(n) + 1 - n) / n
    x, y = np.meshgrid(centres, centres[::-1])
    cut = o["dist_eps"] * o["dist_scale"]
    colour = np.array(o["background_color"], dtype=float)[:, None, None] * np.ones((3, n, n))
    alpha = np.zeros((n, n))
    gamma, eps = o["aggr_rgb_gamma"], o["aggr_rgb_eps"]
    log_weights = [np.full((n, n), 2 * eps / gamma)]
    colours = [colour.copy()]
    nearest = np.full((n, n), np.inf)
    for face, triangle in enumerate(faces):
        square, inside = distance(triangle, x, y)
        size = square if o["dist_squared"] else np.sqrt(square)
        scaled = np.where(inside, size, -size) / o["dist_scale"]
        name = {"hard": "heaviside"}.get(o["dist_func"], o["dist_func"])
        if name == "heaviside":
            f = inside.astype(float)
        else:
            f = distribution(name, scaled, o["dist_shape"] or 0.0, o["dist_shift"] or 0.0)
        counts = (f > 1e-6) & (inside | (square < cut))
        func = o["aggr_alpha_func"]
        if func == "hard":
            alpha = np.where(counts & (f > 0.5), 1.0, alpha)
        else:
            joined = conorm(func, alpha, f, o["aggr_alpha_t_conorm_p"] or 0.0)
            alpha = np.where(counts, joined, alpha)
        matrix = np.vstack([triangle[:, :2].T, np.ones(3)])
        w = np.einsum("ij,jhw->ihw", np.linalg.inv(matrix), np.stack([x, y, np.ones_like(x)]))
        clipped = np.clip(w, 0, 1)
        clipped = clipped / clipped.sum(0)
        z = 1 / np.einsum("ihw,i->hw", clipped, 1 / triangle[:, 2])
        (ax, ay), (bx, by), (cx, cy) = triangle[:, :2]
        front = (cy - ay) * (bx - ax) < (by - ay) * (cx - ax)
        seen = counts & (z >= o["near"]) & (z <= o["far"]) & (front or o["double_side"])
        shown = texel(textures, face, clipped, kind)
        if o["aggr_rgb_func"] == "hard":
            nearer = seen & inside & (z < nearest)
            nearest = np.where(nearer, z, nearest)
            colour = np.where(nearer, shown, colour)
        else:
            z_norm = (o["far"] - z) / (o["far"] - o["near"])
            with np.errstate(divide="ignore"):
                log_weights.append(np.where(seen, np.log(f) + z_norm / gamma, -np.inf))
            colours.append(shown)
    if o["aggr_rgb_func"] == "softmax":
        share = scipy.special.softmax(np.stack(log_weights), axis=0)
        colour = np.einsum("khw,kchw->chw", share, np.stack(colours))
    return np.concatenate([colour, alpha[None]])


def scene(seed: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Front and back faces, some partly beyond near or far."""
    g = np.random.default_rng(seed)
    centre = g.uniform(-0.6, 0.6, (6, 1, 2))
    angle = g.uniform(0, 2 * np.pi, (6, 1)) + np.arange(3) * 2 * np.pi / 3
    angle = angle + g.uniform(-0.5, 0.5, (6, 3))
    radius = g.uniform(0.3, 0.9, (6, 1))
    xy = centre + np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    xy[:4] = xy[:4, ::-1]  # clockwise: the published front
    z = g.uniform(1.6, 5.0, (6, 1, 1)) * g.uniform(0.7, 1.3, (6, 3, 1))
    return np.concatenate([xy, z], axis=-1), g.uniform(0, 1, (6, 3 if kind == "vertex" else 9, 3))
