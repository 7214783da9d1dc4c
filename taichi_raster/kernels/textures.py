"""The attributes of a fragment: values at corners, flat texels on each face, or an image.

Each sampler gives a fragment's channels, textured ones first, and their vector-Jacobian product.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import taichi as ti

from taichi_raster.kernels.adjoints import Adjoints
from taichi_raster.kernels.fragment import AtCorners, Meeting
from taichi_raster.kernels.memory import Memory
from taichi_raster.maths.arithmetic import clamp, frozen, maximum
from taichi_raster.maths.dual import Number, log, raw, select
from taichi_raster.maths.tracing import element, let
from taichi_raster.maths.vector import Vector, total
from taichi_raster.runtime.layout import Dim, Part
from taichi_raster.runtime.variant import Variant

_ROUNDING = 1e-4  # of a texel


class Corners:
    """Attributes at corners, mixed by barycentric weights."""

    def __init__(self, channels: int) -> None:
        self.channels = channels

    def at_corners(self, memory: Memory, at: Any) -> AtCorners:
        """What face number `at` of the whole batch has at its corners."""
        size = self.channels
        first = let(at * (3 * size))
        values = [memory.load(Part.CORNERS, first + i) for i in range(3 * size)]
        return AtCorners([Vector(*values[c::size]) for c in range(size)])

    def values(self, m: Meeting) -> list[Vector]:
        assert m.face.attributes is not None
        return m.face.attributes.channels

    def sample(self, memory: Memory, m: Meeting, mixing: Vector) -> list[Any]:
        return [mixing.dot(values) for values in self.values(m)]

    def vjp(
        self, memory: Memory, m: Meeting, mixing: Vector, bars: list[Any], adjoints: Adjoints
    ) -> Vector:
        """The adjoint of `mixing`; the rest goes into `adjoints`."""
        mixing_bar = Vector(0.0, 0.0, 0.0)
        for c, (values, bar) in enumerate(zip(self.values(m), bars, strict=True)):
            mixing_bar = mixing_bar + values * bar
            for i in range(3):
                adjoints.corner(i, c, mixing[i] * bar)
        return mixing_bar


class Surface:
    """R x R flat texels on each face (Liu et al., ICCV 2019), then attributes at corners."""

    def __init__(self, channels: int, corners: Corners) -> None:
        self.channels, self.corners = channels, corners

    def at_corners(self, memory: Memory, at: Any) -> AtCorners:
        return self.corners.at_corners(memory, at)

    def first(self, memory: Memory, m: Meeting, mixing: Vector) -> Any:
        """Where the fragment's texel begins: the two triangles of each cell of a square."""
        size = memory.dim(Dim.TEXTURE_HEIGHT)
        u, v = (let(raw(mixing[i]) * size) for i in range(2))
        # Published: a coordinate of 1 is a cell too far, which is the next row, or face.
        last = size if memory.variant.clipped else size - 1
        i, j = (let(clamp(ti.floor(s, ti.i32), 0, last)) for s in (u, v))
        # On the edge between the last two corners u + v is a whole number but for rounding.
        lower = let(u + v - i - j <= 1.0 + _ROUNDING)
        column = ti.select(lower, i, size - 1 - i)
        row = ti.select(lower, j, size - 1 - j)
        start = m.b * memory.dim(Dim.TEXTURE_STRIDE) + m.face.index * (size * size * self.channels)
        texel = let(start + (row * size + column) * self.channels)
        if not memory.variant.clipped:
            return texel
        item = memory.dim(Dim.FACES) * size * size * self.channels
        return let(ti.min(texel, m.b * memory.dim(Dim.TEXTURE_STRIDE) + item - self.channels))

    def sample(self, memory: Memory, m: Meeting, mixing: Vector) -> list[Any]:
        first = self.first(memory, m, mixing)
        texels = [memory.load(Part.TEXELS, first + c) for c in range(self.channels)]
        return texels + self.corners.sample(memory, m, mixing)

    def vjp(
        self, memory: Memory, m: Meeting, mixing: Vector, bars: list[Any], adjoints: Adjoints
    ) -> Vector:
        first = self.first(memory, m, mixing)
        for c in range(self.channels):
            adjoints.texel(first + c, bars[c])
        return self.corners.vjp(memory, m, mixing, bars[self.channels :], adjoints)


@dataclass(frozen=True)
class Level:
    """An image, or one of its mipmaps.

    Attributes:
        height, width: in texels.
        start: where the batch item's begins.
        share: what it is weighted with; None for 1.
    """

    height: Any
    width: Any
    start: Any
    share: Any = None


class Image:
    """An image over texture coordinates, bilinearly or trilinearly; then attributes at corners."""

    def __init__(self, variant: Variant, corners: Corners) -> None:
        self.channels, self.corners = variant.texels, corners
        self.repeat, self.mipmapped = variant.texture == "repeat", variant.mipmapped
        self.perspective = variant.perspective and not variant.orthographic

    def at_corners(self, memory: Memory, at: Any) -> AtCorners:
        values = [memory.load(Part.UV, at * 6 + i) for i in range(6)]
        channels = self.corners.at_corners(memory, at).channels
        return AtCorners(channels, [Vector(*values[j::2]) for j in range(2)])

    def coordinates(self, m: Meeting) -> list[Vector]:
        """u and v at the three corners."""
        assert m.face.attributes is not None
        return m.face.attributes.uv

    def levels(self, memory: Memory, m: Meeting, mixing: Vector) -> list[Level]:
        """The image; or the two of its mipmaps that are blended."""
        height, width = memory.dim(Dim.TEXTURE_HEIGHT), memory.dim(Dim.TEXTURE_WIDTH)
        start = let(m.b * memory.dim(Dim.TEXTURE_STRIDE))
        if not self.mipmapped:
            return [Level(height, width, start)]
        last = memory.dim(Dim.LAST_LEVEL)
        level = clamp(self.level_of_detail(memory, m, mixing), 0.0, ti.cast(last, ti.f32))
        if memory.autodiff:
            level = let(frozen(level))
        lower = let(ti.cast(level, ti.i32))
        share = let(level - lower)
        return [
            Level(
                let(ti.max(height >> i, 1)),
                let(ti.max(width >> i, 1)),
                let(start + element(memory.dims, let(Dim.LEVELS + i)) * self.channels),
                part,
            )
            for i, part in ((lower, 1.0 - share), (let(ti.min(lower + 1, last)), share))
        ]

    def level_of_detail(self, memory: Memory, m: Meeting, mixing: Vector) -> Any:
        """log2 of how many texels a pixel spans; see `scene.texels.levels_of_detail`."""
        triangle, weights = m.face.triangle, mixing.each(raw)
        z = weights.dot(triangle.z.each(raw))
        shares = [let(z * raw(i)) if self.perspective else 1.0 for i in triangle.inverse_z]
        pixel = 2.0 / ti.cast(ti.min(memory.dim(Dim.WIDTH), memory.dim(Dim.HEIGHT)), ti.f32)
        across: Any = 0.0
        down: Any = 0.0
        for coordinate, which in zip(
            self.coordinates(m), (Dim.TEXTURE_WIDTH, Dim.TEXTURE_HEIGHT), strict=True
        ):
            values = coordinate.each(raw)
            size = raw(triangle.inverse_area) * (pixel * ti.cast(memory.dim(which), ti.f32))
            middle = let(weights.dot(values))
            away = [let((value - middle) * i) for value, i in zip(values, shares, strict=True)]
            edges = [triangle.edges[(i + 1) % 3].each(raw) for i in range(3)]
            x = let(total(e[1] * a for e, a in zip(edges, away, strict=True)) * size)
            y = let(total(e[0] * a for e, a in zip(edges, away, strict=True)) * size)
            across, down = across + x * x, down + y * y
        return let(log(maximum(maximum(across, down), 1e-30)) * (0.5 / math.log(2.0)))

    def place(self, m: Meeting, mixing: Vector, level: Level) -> list[tuple[Any, Any, Any]]:
        """(lower texel, upper texel, fraction between) along u, then along v."""
        u, v = (mixing.dot(corner) for corner in self.coordinates(m))
        return [self._between(u, level.width), self._between(1.0 - v, level.height)]

    def _between(self, coordinate: Number, size: Any) -> tuple[Any, Any, Any]:
        length = ti.cast(size, ti.f32)
        if self.repeat:
            coordinate = coordinate - let(ti.floor(raw(coordinate)))
        at = coordinate * length - 0.5
        # Far outside a clamped image the fraction does not matter, but the cast must not overflow.
        low = let(ti.floor(clamp(raw(at), -1.0, length)))
        inside = clamp(raw(at), -1.0, length) == raw(at)
        fraction = (at - low) if self.repeat else _where(inside, at - low)
        index = let(ti.cast(low, ti.i32))
        if self.repeat:
            return let((index + size) % size), let((index + 1) % size), fraction
        first = let(clamp(index, 0, size - 1))
        return first, let(clamp(index + 1, 0, size - 1)), fraction

    def texels(self, level: Level, place: list[tuple[Any, Any, Any]]) -> list[tuple[Any, Any]]:
        """(where a texel begins, its weight), four of them, row by row."""
        (left, right, s), (top, bottom, t) = place

        def at(row: Any, column: Any) -> Any:
            return let(level.start + (row * level.width + column) * self.channels)

        return [
            (at(top, left), (1.0 - s) * (1.0 - t)),
            (at(top, right), s * (1.0 - t)),
            (at(bottom, left), (1.0 - s) * t),
            (at(bottom, right), s * t),
        ]

    def sample(self, memory: Memory, m: Meeting, mixing: Vector) -> list[Any]:
        textured: list[Any] = [0.0] * self.channels
        for level in self.levels(memory, m, mixing):
            texels = self.texels(level, self.place(m, mixing, level))
            for c in range(self.channels):
                found = total(memory.load(Part.TEXELS, at + c) * weight for at, weight in texels)
                if level.share is not None:
                    found = found * level.share
                textured[c] = textured[c] + found
        return textured + self.corners.sample(memory, m, mixing)

    def vjp(
        self, memory: Memory, m: Meeting, mixing: Vector, bars: list[Any], adjoints: Adjoints
    ) -> Vector:
        u_bar: Any = 0.0
        v_bar: Any = 0.0
        for level in self.levels(memory, m, mixing):
            place = self.place(m, mixing, level)
            s, t = place[0][2], place[1][2]
            texels = self.texels(level, place)
            s_bar: Any = 0.0
            t_bar: Any = 0.0
            for c in range(self.channels):
                bar = bars[c] if level.share is None else bars[c] * level.share
                for at, weight in texels:
                    adjoints.texel(at + c, bar * weight)
                a, b, d, e = (memory.load(Part.TEXELS, at + c) for at, _ in texels)
                s_bar = s_bar + bar * ((b - a) * (1.0 - t) + (e - d) * t)
                t_bar = t_bar + bar * ((d - a) * (1.0 - s) + (e - b) * s)
            u_bar = u_bar + s_bar * ti.cast(level.width, ti.f32)
            v_bar = v_bar + t_bar * -ti.cast(level.height, ti.f32)
        mixing_bar = self.corners.vjp(memory, m, mixing, bars[self.channels :], adjoints)
        for j, (corner, bar) in enumerate(zip(self.coordinates(m), (u_bar, v_bar), strict=True)):
            mixing_bar = mixing_bar + corner * bar
            for i in range(3):
                adjoints.uv(i, j, mixing[i] * bar)
        return mixing_bar


def _where(condition: Any, fraction: Number) -> Number:
    """`fraction`, or a constant 0 where the texture is clamped anyway."""
    return select(condition, fraction, 0.0)


def sampler(variant: Variant) -> Corners | Surface | Image:
    """The sampler of a variant."""
    corners = Corners(variant.corners)
    if variant.texture == "none":
        return corners
    if variant.texture == "surface":
        return Surface(variant.texels, corners)
    return Image(variant, corners)
