"""Small line plots on a Pillow image: axes are drawn once and kept, curves are smooth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

BACKGROUND, PANEL, GRID = (24, 26, 31), (33, 36, 43), (60, 65, 76)
TEXT, DIM = (226, 229, 234), (152, 158, 170)
METHODS: tuple[Colour, Colour] = ((255, 159, 64), (92, 184, 255))
WARNING = (255, 112, 112)

LEFT, RIGHT, TOP, BOTTOM = 46, 16, 26, 22  # of the axes within the plot, in pixels


@lru_cache(maxsize=8)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own, so that pictures look the same everywhere."""
    return ImageFont.load_default(size)


@dataclass(frozen=True)
class Axes:
    """A plot without its curves.

    Attributes:
        size: (width, height) in pixels.
        x, y: (low, high); of y, where `log`, its decimal logarithms.
        line: y at which a dashed line is drawn.
    """

    title: str
    size: tuple[int, int]
    x: tuple[float, float]
    y: tuple[float, float]
    log: bool = False
    line: float | None = None

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the area that curves are drawn in."""
        return LEFT, TOP, self.size[0] - RIGHT, self.size[1] - BOTTOM

    def places(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(N, 2) pixels, relative to the box, of points; held within it."""
        left, top, right, bottom = self.box
        if self.log:
            y = np.log10(np.maximum(y, 1e-12))
        u = (x - self.x[0]) / (self.x[1] - self.x[0]) * (right - left)
        v = (self.y[1] - y) / (self.y[1] - self.y[0]) * (bottom - top)
        return np.stack([u, np.clip(v, 0, bottom - top)], axis=1)


@dataclass(frozen=True)
class Curve:
    """A line through points, `width` pixels wide; its last point is marked if `dot`."""

    x: np.ndarray
    y: np.ndarray
    colour: Colour
    width: float = 2.0
    dot: bool = True


def decades(values: Sequence[float]) -> tuple[float, float]:
    """Limits of a logarithmic axis: whole decades around positive values, at least one."""
    found = [math.log10(v) for v in values if v > 0 and math.isfinite(v)]
    if not found:
        return -3.0, 0.0
    low, high = math.floor(min(found)), math.ceil(max(found))
    return float(max(low, high - 6)), float(max(high, low + 1))


def plot(axes: Axes, curves: Sequence[Curve]) -> Image.Image:
    """The plot as an image of `axes.size`."""
    image = _empty(axes).copy()
    left, top, right, bottom = axes.box
    size = (right - left, bottom - top)
    for curve in curves:
        finite = np.isfinite(curve.y)
        points = axes.places(curve.x[finite], curve.y[finite])
        if len(points) == 0:
            continue
        mask = Image.new("L", (2 * size[0], 2 * size[1]))  # halved below, which smooths it
        draw = ImageDraw.Draw(mask)
        if len(points) > 1:
            draw.line(
                (2 * points).ravel().tolist(), fill=255, width=round(2 * curve.width), joint="curve"
            )
        if curve.dot:
            (x, y), r = (2 * points[-1]).tolist(), 3 + 2 * curve.width
            draw.ellipse((x - r, y - r, x + r, y + r), fill=255)
        image.paste(curve.colour, (left, top), mask.reduce(2))
    return image


@lru_cache(maxsize=32)
def _empty(axes: Axes) -> Image.Image:
    image = Image.new("RGB", axes.size, PANEL)
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = axes.box
    draw.text((10, 5), axes.title, TEXT, font(13))
    for value, label in _ticks(axes.y, axes.log, bottom - top):
        y = bottom - (value - axes.y[0]) / (axes.y[1] - axes.y[0]) * (bottom - top)
        draw.line((left, y, right, y), GRID)
        draw.text((left - 6, y), label, DIM, font(11), anchor="rm")
    for value, label in _ticks(axes.x, False, right - left):
        x = left + (value - axes.x[0]) / (axes.x[1] - axes.x[0]) * (right - left)
        draw.line((x, top, x, bottom), GRID)
        draw.text((x, bottom + 4), label, DIM, font(11), anchor="mt")
    if axes.line is not None:
        value = math.log10(axes.line) if axes.log else axes.line
        if axes.y[0] <= value <= axes.y[1]:
            y = bottom - (value - axes.y[0]) / (axes.y[1] - axes.y[0]) * (bottom - top)
            for x in range(left, right, 8):
                draw.line((x, y, min(x + 4, right), y), DIM)
    return image


def _ticks(limits: tuple[float, float], log: bool, pixels: int) -> list[tuple[float, str]]:
    low, high = limits
    if log:
        whole = [(float(k), f"{10.0**k:g}") for k in range(math.ceil(low), math.floor(high) + 1)]
        if len(whole) > 2 or pixels < 100:
            return whole
        between = [(math.log10(f) + k, f"{f * 10.0**k:g}") for k, _ in whole[:-1] for f in (2, 5)]
        return whole + between
    step = _round_step((high - low) / max(2, min(8, pixels // 45)))
    first = math.ceil(low / step - 1e-9)
    return [(k * step, f"{k * step:g}") for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _round_step(rough: float) -> float:
    """The next of 1, 2, 2.5, 5, 10, ... above."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * f for f in (1, 2, 2.5, 5, 10) if power * f >= rough * (1 - 1e-9))
