"""What a mesh file holds, before it becomes a `Mesh`: triangles whose corners have their values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy import ndarray

from taichi_raster.scene.files.polygons import triangulate

WHITE = (1.0, 1.0, 1.0, 1.0)


class Notes:
    """What could not be kept, each once, in the words of the one warning that names it."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}

    def add(self, what: str, *names: object) -> None:
        """Note what is lost, and of what."""
        known = self._found.setdefault(what, [])
        known += [name for name in map(str, names) if name not in known]

    def __bool__(self) -> bool:
        return bool(self._found)

    def __str__(self) -> str:
        return "; ".join(
            f"{what} ({', '.join(names[:_MOST])}{', ...' if len(names) > _MOST else ''})"
            if names
            else what
            for what, names in self._found.items()
        )


_MOST = 8  # names of one kind in a warning


@dataclass(frozen=True, eq=False)
class Surface:
    """What a material shows.

    Attributes:
        image: (H, W, 3 or 4) uint8, uint16 or floats in [0, 1], row 0 on top; or None.
        factor: RGBA that multiplies the image, or is the colour where there is none.
        wrap: of the image beyond [0, 1], along u and v: "repeat", "mirror" or "clamp".
        given: whether the file says so; without, white stands for "no colour".
    """

    image: ndarray | None = None
    factor: tuple[float, ...] = WHITE
    wrap: tuple[str, str] = ("repeat", "repeat")
    given: bool = False


@dataclass(frozen=True, eq=False)
class Soup:
    """Triangles with values at their corners.

    Attributes:
        places: (V, 3) float64, in the file's order.
        faces: (F, 3) indices into `places`.
        uv: (F, 3, 2) with v up; NaN at faces without texture coordinates; None if no face has any.
        colours: (F, 3, 4) RGBA in [0, 1]; NaN at faces without; None if no face has any.
        material: (F,) indices into `surfaces`.
        split: whether the format lists a vertex once for each texture coordinate, colour or normal,
            so that how it numbers vertices means nothing.
    """

    places: ndarray
    faces: ndarray
    uv: ndarray | None = None
    colours: ndarray | None = None
    material: ndarray | None = None
    surfaces: Sequence[Surface] = (Surface(),)
    split: bool = False


@dataclass
class Builder:
    """Pieces of a file that become one soup.

    Pieces may share vertices: `vertices` adds some and gives the number of the first.
    """

    surfaces: list[Surface] = field(default_factory=list)
    _places: list[ndarray] = field(default_factory=list)
    _pieces: list[Soup] = field(default_factory=list)
    _count: int = 0

    def vertices(self, places: ndarray) -> int:
        """Add vertices (V, 3); the number of the first of them."""
        first = self._count
        self._places.append(np.asarray(places, dtype=np.float64).reshape(-1, 3))
        self._count += len(self._places[-1])
        return first

    def surface(self, surface: Surface) -> int:
        """The number of a material."""
        if surface not in self.surfaces:
            self.surfaces.append(surface)
        return self.surfaces.index(surface)

    def triangles(
        self,
        faces: ndarray,
        surface: Surface,
        uv: ndarray | None = None,
        colours: ndarray | None = None,
    ) -> None:
        """Add triangles (F, 3) of vertices added before, with values at their corners."""
        material = np.full(len(faces), self.surface(surface))
        self._pieces.append(Soup(np.empty((0, 3)), faces, uv, rgba(colours), material))

    def soup(self, split: bool) -> Soup:
        """All of it."""
        if not self._pieces:
            return Soup(np.empty((0, 3)), np.empty((0, 3), dtype=np.int64))
        found = Soup(
            np.concatenate(self._places),
            np.concatenate([piece.faces for piece in self._pieces]),
            material=np.concatenate([piece.material for piece in self._pieces]),
            surfaces=tuple(self.surfaces),
            split=split,
        )
        corners: dict[str, Any] = {}
        for name, width in (("uv", 2), ("colours", 4)):
            values = [getattr(piece, name) for piece in self._pieces]
            if any(value is not None for value in values):
                corners[name] = np.concatenate(
                    [
                        np.full((*piece.faces.shape, width), np.nan) if value is None else value
                        for piece, value in zip(self._pieces, values, strict=True)
                    ]
                )
        return replace(found, **corners)


def rgba(colours: ndarray | None) -> ndarray | None:
    """Colours (..., 1 to 4) as RGBA; an integer type means fractions of its largest value."""
    if colours is None:
        return None
    if colours.dtype.kind in "ui":
        colours = colours / np.iinfo(colours.dtype).max
    if colours.shape[-1] < 3:  # grey, perhaps with alpha
        colours = np.concatenate([colours[..., :1].repeat(3, axis=-1), colours[..., 1:]], axis=-1)
    if colours.shape[-1] == 3:
        opaque = np.ones((*colours.shape[:-1], 1))
        colours = np.concatenate([colours, opaque], axis=-1)
    return np.asarray(colours, dtype=np.float64)


def fractions(colours: ndarray, whole: bool) -> ndarray:
    """Colours that a file writes as numbers of no known range, with 1 for full.

    Some programs write them up to 255. They do so if a number is far beyond 1; or beyond 1 at all,
    where all are whole. Others have shades that are a little brighter than white: these stay.

    Args:
        colours: any shape; NaN where there is none.
        whole: whether all are written as whole numbers.
    """
    known = colours[np.isfinite(colours)]
    most = known.max(initial=0.0)
    return colours / 255 if most > (1 if whole else _BRIGHT) else colours


_BRIGHT = 16.0  # times white: no shade; as one of 255, nearly black


def polygons(
    places: ndarray,
    counts: ndarray,
    corners: ndarray,
    notes: Notes,
) -> tuple[ndarray, ndarray]:
    """Polygons cut into triangles, with their numbers checked.

    Args:
        places: (V, 3).
        counts: (P,) corners of each polygon.
        corners: (counts.sum(),) vertices, polygon after polygon.

    Returns:
        (F, 3) positions in `corners`, and the (F,) polygons that they are of.

    Raises:
        ValueError: if a polygon names a vertex that there is not.
    """
    if len(corners) and not 0 <= corners.min() <= corners.max() < len(places):
        raise ValueError("has faces whose vertices are not in the file")
    few = int((counts < 3).sum())
    if few:
        notes.add(f"{few} faces with fewer than three corners")
    if len(corners) and not np.isfinite(places[corners]).all():
        raise ValueError("has vertices that are NaN or infinite")
    found = triangulate(places, counts, corners)
    if found.crossing:
        notes.add(
            f"the outlines of {found.crossing} polygons, which cross themselves: each was cut "
            "into triangles that need not fill it"
        )
    return found.triangles, found.polygon
