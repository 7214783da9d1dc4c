"""What a kernel knows of a (pixel, face) pair: a face, their meeting, a fragment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from taichi_raster.maths.dual import Number
from taichi_raster.maths.geometry import Foot, Triangle
from taichi_raster.maths.vector import Vector
from taichi_raster.softness.network_kernel import Tape
from taichi_raster.softness.table_kernel import TableTape


@dataclass(frozen=True)
class AtCorners:
    """Each channel's values at a face's three corners; and u's and v's, for an image."""

    channels: list[Vector]
    uv: list[Vector] = field(default_factory=list)


@dataclass(frozen=True)
class Face:
    """A face, before it meets a pixel.

    Attributes:
        b, index: batch item and face; at: the face's number in the whole batch.
        triangle: its geometry.
        attributes: what the sampler needs of its corners, or None where there is no colour.
        slopes: of its depth, along its edges and anywhere, see `geometry.depth_slopes`.
    """

    b: Any
    index: Any
    at: Any
    triangle: Triangle
    attributes: AtCorners | None
    slopes: tuple[Any, Any]


@dataclass(frozen=True)
class Meeting:
    """A pixel and a face.

    Attributes:
        face: the face.
        q: the pixel's number in the whole batch.
        point: the pixel's centre.
        foot: the signed distance and where it was measured.
        near: whether the pair is near enough to count.
    """

    face: Face
    q: Any
    point: Vector
    foot: Foot
    near: Any

    @property
    def b(self) -> Any:
        return self.face.b


@dataclass(frozen=True)
class Edge:
    """The edge softness at a pair.

    Attributes:
        f, f_u: coverage F(u) and its slope; f_k: its slope in the shape, or None.
        log_s, log_s_u, log_s_k: likewise of log(1 - F).
        saturated: whether F is 1 exactly; None where it never is.
        tape: of the network or table, or None.
        x_d: dx/dd, x_scale: dx/dscale, x_shift: dx/dshift, of the scaled distance x.
    """

    f: Number
    f_u: Number
    f_k: Number | None
    log_s: Number
    log_s_u: Number
    log_s_k: Number | None
    saturated: Any
    tape: Tape | TableTape | None
    x_d: Number
    x_scale: Number
    x_shift: float


@dataclass(frozen=True)
class Fragment:
    """A pair with its coverage and its surface point.

    Attributes:
        edge: the edge softness.
        w: barycentric coordinates; share: w / z of the corners; z: depth; mixing: the weights of
            attributes at corners; z_norm: normalised depth.
        counts: whether it takes part in alpha; visible: and, if so, in colour.
    """

    edge: Edge
    w: Vector
    share: Vector
    z: Number
    mixing: Vector
    z_norm: Number
    counts: Any
    visible: Any


for _kind in (Face, Meeting, Edge, Fragment):
    setattr(_kind, "_data_oriented", True)  # noqa: B010 - lets Taichi hand it through
