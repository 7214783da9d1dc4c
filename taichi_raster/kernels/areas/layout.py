"""Where the arrays of exact areas hold what; see visibility.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import taichi as ti

FLOATS = ti.types.ndarray(ndim=1)
INTS = ti.types.ndarray(dtype=ti.i32, ndim=1)


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
    SIGN = 12  # 1 for counter-clockwise corners, -1 for clockwise ones, 0 for a dropped face
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
    COUNT = 10


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


class Arrays:
    """A kernel's arrays, by name, as its functions take them.

    Attributes:
        faces: `Face` records; boxes: the pixels that their bounding boxes touch.
        begins, listed: each tile's faces, in order.
        covered: for each pixel, the least w of the nearest face that covers it.
        counts, firsts, ends, slots: each pixel's fragments: a pair of a tile and a face, or -1
            minus that if the face covers the pixel.
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
