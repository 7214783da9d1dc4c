"""Where the arrays of exact areas hold what; see visibility.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import taichi as ti

from taichi_raster.maths.tracing import element, let

FLOATS = ti.types.ndarray(ndim=1)
INTS = ti.types.ndarray(dtype=ti.i32, ndim=1)

SIDE = 16
"""Pixels on the longest side of a tile."""

AREA = SIDE * SIDE

LANES = 8
"""Rows, pixels or fragments that a CPU works on together."""


class Face:
    """Where a face's record holds what.

    Depth enters as w, which is linear in the image and larger for what is nearer: 1 / z, or -z for
    an orthographic camera.
    """

    X = 0  # and Y next to it, for each corner: pixels from the lower left, y up
    SLOPE_X = 6  # of w
    SLOPE_Y = 7
    ORDER = 8  # what is added to w for the order of depth: more for a face that shows its front
    W = 9  # at each corner
    SIGN = 12  # 1 for counter-clockwise corners, -1 for clockwise ones
    CUT = 13  # 1 if the face leaves [near, far]
    W_MIN = 14  # over the corners, with ORDER
    W_MAX = 15
    SIZE = 16


class Pair:
    """Where the adjoint of a (tile, face) pair holds what."""

    X = 0  # and Y next to it, for each corner
    W = 6
    SIZE = 9


class Seen:
    """What is kept of a fragment: a pixel and a face."""

    AREA = 0
    X = 1  # integrals of x and y over the part that is seen, relative to the pixel's centre
    Y = 2
    HIDING = 3  # how many fragments hide some of it
    SIZE = 4


class Bounds:
    """Bits of an integer: the part of a face's bounding box that is within a tile, from its corner.

    From the first column (in the lowest bits) to before `RIGHT`, from `TOP` to before `BOTTOM`.
    """

    RIGHT = 5
    TOP = 10
    BOTTOM = 15
    MASK = 31


class Span:
    """Bits of an integer: which pixels of a row a face touches, and which it covers.

    From the first (in the lowest bits) to before `LAST` it touches them, and from `FULL` to before
    `EMPTY` it covers them. The first of them is the row's first within the face's bounding box.
    """

    LAST = 5
    FULL = 10
    EMPTY = 15
    MASK = 31


class Owned:
    """Bits of an integer: which pixels of a tile's row a face owns.

    A bit for each, then the first and the last of them.
    """

    FIRST = 16
    LAST = 21
    MASK = 31


class Spot:
    """Bits of an integer: a fragment's pixel in its tile, as SIDE * row + column; and one more."""

    ROW = 4
    COLUMN = SIDE - 1
    COVERS = 8  # whether the face covers the pixel


class Size:
    """Where the integers of a call hold what."""

    BATCH = 0
    FACES = 1
    HEIGHT = 2
    WIDTH = 3
    TILE = 4  # pixels on a side
    TILES_X = 5
    TILES = 6  # in one image
    WORKERS = 7
    LONGEST = 8  # the most fragments of a pixel
    PIECES = 9  # a worker's room for pieces
    ROOM = 10  # for fragments
    PAIRS = 11  # room for pairs of a tile and a face
    PARTS = 12  # where each of `PARTS` begins in its array


class Label:
    """What line an edge of a fragment's piece is on.

    `EACH` times the place of a fragment in its pixel's list, plus 0 to 2 for an edge of its face,
    or:
    """

    EACH = 8
    CLIPPED = 3  # where the face leaves [near, far]
    EQUAL = 4  # where its depth is that of the face whose piece this is
    BORDER = -1  # a line that does not move: the pixel's own, or one along which a piece was cut


@dataclass(frozen=True)
class View:
    """What kernels are compiled for.

    Attributes:
        perspective, orthographic, cull, clockwise: as for `SharpRasterizer`.
        channels: of the attributes at corners; -1 for what each corner has a share in, without
            colours.
    """

    perspective: bool
    orthographic: bool
    cull: bool
    clockwise: bool
    channels: int = -1


PARTS = {
    "boxes": ti.i32,
    "begins": ti.i32,
    "listed": ti.i32,
    "places": ti.i32,
    "first_places": ti.i32,
    "bounds": ti.i32,
    "rows": ti.i32,
    "runs": ti.i32,
    "marks": ti.i32,
    "starts": ti.i32,
    "crowded": ti.i32,
    "firsts": ti.i32,
    "ends": ti.i32,
    "lists": ti.i32,
    "slots": ti.i32,
    "spots": ti.i32,
    "tally": ti.i32,
    "faces": float,
    "seen": float,
}
"""What a CPU keeps of a picture, in an array of integers and one of numbers; see `Arrays`."""


class Part:
    """A part of an array, which begins at `start`."""

    def __init__(self, array: Any, start: Any) -> None:
        self.array, self.start = array, start

    def __getitem__(self, index: Any) -> Any:
        return element(self.array, self.start + index)


class Arrays:
    """A kernel's arrays, by name, as its functions take them.

    Attributes:
        faces: `Face` records; boxes: the pixels that their bounding boxes touch.
        begins, listed: each tile's faces, in order. A place there is a pair of a tile and a face.
        places: the pairs of each face, from `first_places` on.
        bounds: of each pair its `Bounds`; rows, runs: of each row of a pair its `Span` or `Owned`,
            and which rows own pixels.
        starts, marks: where each tile's fragments begin, and where those of a pair end.
        crowded: whether some of a tile's fragments are cut by others.
        lists: the fragments of each pixel; spots: the `Spot` of each fragment.
        tally: how many fragments there are, the most in a pixel, whether they are too many.
        covered: for each pixel, the least w of the nearest face that covers it.
        counts, firsts, ends: where each pixel's fragments are listed.
        slots: of each fragment a pair of a tile and a face, or -1 minus that if the face covers
            the pixel.
        limits: near and far; size: see `Size`.
        memory, order: the threads' own memory, see polygons.py.
        seen: `Seen` of each fragment.
        attributes: of the faces' corners.
        values: the picture or the shares of corners, or the adjoints of that.
        pairs, colours: the adjoints of each `Pair` and of its attributes.
    """

    _data_oriented = True  # lets Taichi hand it through

    def __init__(self, **arrays: Any) -> None:
        self.__dict__.update(arrays)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the kernel has no array {name}")

    @staticmethod
    def of_parts(ints: Any, floats: Any, size: Any, **arrays: Any) -> Arrays:
        """Arrays that are `PARTS`, and others."""
        for i, (name, kind) in enumerate(PARTS.items()):
            start = let(element(size, Size.PARTS + i))
            arrays[name] = Part(ints if kind == ti.i32 else floats, start)
        return Arrays(size=size, **arrays)
