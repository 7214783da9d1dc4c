"""One pixel and one triangle: signed distance, barycentric coordinates, and how they move.

Everything here is per (pixel, face) pair, in NDC, and runs while a kernel is compiled (see
numbers.py). The nearest point of the triangle to the pixel p is chosen first, without derivatives.
Then, with t the foot's parameter on the nearest edge a -> c and n the unit vector along which the
distance d is measured,

    d = n . (p - (1 - t) a - t c)        and        d_dot = -n . ((1 - t) a_dot + t c_dot):

by the envelope theorem neither n's nor t's motion counts, because t is optimal (or clamped) and n
is a unit vector along the residual. Nothing divides by a distance that goes to zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import taichi as ti

from taichi_raster.arithmetic import frozen
from taichi_raster.numbers import Number, Vector, choose, let, raw, select, sqrt, total

POINT = 1e-10  # an edge shorter than this, in NDC, counts as a point


def cross(u: Vector, v: Vector) -> Any:
    return u[0] * v[1] - u[1] * v[0]


def turned(v: Vector) -> Vector:
    """v, turned a quarter counter-clockwise."""
    return Vector(-v[1], v[0])


@dataclass(frozen=True)
class Choice:
    """What is decided without derivatives: where the pixel lies relative to the triangle.

    Attributes:
        edge: the nearest edge's index; edge i runs from vertex i to i + 1.
        inside: whether the pixel is inside.
        on_line: whether the foot is in the edge's interior.
        side: the sign that makes side * cross(c - a, p - a) / |c - a| positive inside.
        t: the foot's parameter.
    """

    edge: Any
    inside: Any
    on_line: Any
    side: Any
    t: Any


def decide(p: Vector, corners: list[Vector], flatness: float, differentiated: bool) -> Choice:
    """Choose the nearest edge and the foot on it.

    `flatness` is the ratio of area to squared longest edge below which a triangle counts as a
    segment, which contains no pixel; `differentiated`: whether Taichi's autodiff is to follow.
    """
    p = p.each(raw)
    bare = [corner.each(raw) for corner in corners]
    if differentiated:
        bare = [corner.each(frozen).lets() for corner in bare]
    feet = [_foot(p, bare[i], bare[(i + 1) % 3]) for i in range(3)]
    (t0, d0, c0), (t1, d1, c1), (t2, d2, c2) = feet
    second, third = let(ti.select(d0 <= d2, 0, 2)), let(ti.select(d1 <= d2, 1, 2))
    edge = let(ti.select(d0 <= d1, second, third))

    def nearest(first: Any, middle: Any, last: Any) -> Any:
        return let(ti.select(edge == 0, first, ti.select(edge == 1, middle, last)))

    t = nearest(t0, t1, t2)
    area = let(cross(bare[1] - bare[0], bare[2] - bare[0]))
    squares = [e.dot(e) for e in (bare[1] - bare[0], bare[2] - bare[1], bare[0] - bare[2])]
    solid = ti.abs(area) > flatness * ti.max(*squares)
    turn = let(ti.select(area >= 0.0, 1.0, -1.0))
    inside = let(solid & (turn * c0 >= 0.0) & (turn * c1 >= 0.0) & (turn * c2 >= 0.0))
    outward = ti.select(nearest(c0, c1, c2) > 0.0, -1.0, 1.0)  # outside, d is negative either way
    on_line = let(inside | ((t > 0.0) & (t < 1.0)))
    return Choice(edge, inside, on_line, let(ti.select(inside, turn, outward)), t)


def _foot(p: Vector, a: Vector, c: Vector) -> tuple[Any, Any, Any]:
    """(t, squared distance) of the point of a -> c nearest to p, and cross(c - a, p - a)."""
    e, r = (c - a).lets(), (p - a).lets()
    length2 = let(e.dot(e))
    is_point = length2 < POINT**2
    t = ti.math.clamp(r.dot(e) / ti.select(is_point, 1.0, length2), 0.0, 1.0)
    t = let(ti.select(is_point, 0.0, t))
    q = (r - e * t).lets()
    return t, let(q.dot(q)), let(cross(e, r))


def guarded(value: Any, good: Any) -> Any:
    """`value` where it is `good` to divide by, else 1."""
    return select(good, value, 1.0)


def ends(edge: Any, corners: list[Vector]) -> tuple[Vector, Vector]:
    """The two vertices of an edge."""
    v0, v1, v2 = corners
    first = choose(edge == 0, v0, choose(edge == 1, v1, v2))
    return first, choose(edge == 0, v1, choose(edge == 1, v2, v0))


@dataclass(frozen=True)
class Foot:
    """The signed distance of a pair, and what it was measured with.

    Attributes:
        choice: see `Choice`.
        a, c: the nearest edge's ends.
        t: the foot's parameter, with its tangent.
        n: the unit vector along which d is measured; zero where the pixel lies on a vertex.
        d: signed distance.
    """

    choice: Choice
    a: Vector
    c: Vector
    t: Number
    n: Vector
    d: Number


def measure(p: Vector, corners: list[Vector], choice: Choice) -> Foot:
    a, c = ends(choice.edge, corners)
    e = c - a
    length2 = guarded(e.dot(e), choice.on_line)
    # Free on the line, constant at a vertex.
    t = select(choice.on_line, (p - a).dot(e) / length2, choice.t)
    r = p - a * (1.0 - t) - c * t
    along_line = turned(e) * (1.0 / sqrt(length2) * choice.side)
    square = r.dot(r)
    from_vertex = -r * (1.0 / sqrt(guarded(square, raw(square) > 0.0)))
    n = choose(choice.on_line, along_line, from_vertex)
    # Without n's and t's tangents, by the envelope theorem.
    n_still, t_still = n.each(_still), _still(t)
    d = n_still.dot(p - a * (1.0 - t_still) - c * t_still)
    return Foot(choice, a, c, t, n, d)


def _still(x: Any) -> Any:
    return x.fixed if isinstance(x, Number) else x


def place(edge: Any, t: Any) -> Vector:
    """Barycentric coordinates of the point at t on an edge."""
    w0 = select(edge == 0, 1.0 - t, select(edge == 2, t, 0.0))
    w1 = select(edge == 1, 1.0 - t, select(edge == 0, t, 0.0))
    w2 = select(edge == 2, 1.0 - t, select(edge == 1, t, 0.0))
    return Vector(w0, w1, w2)


def slope_of_place(edge: Any) -> Vector:
    """The derivative of `place` with respect to t."""
    return Vector(
        ti.select(edge == 0, -1.0, ti.select(edge == 2, 1.0, 0.0)),
        ti.select(edge == 1, -1.0, ti.select(edge == 0, 1.0, 0.0)),
        ti.select(edge == 2, -1.0, ti.select(edge == 1, 1.0, 0.0)),
    ).lets()


def barycentric(p: Vector, corners: list[Vector], area: Any) -> Vector:
    """Barycentric coordinates of p."""
    v0, v1, v2 = corners
    w0 = cross(v1 - p, v2 - p) / area
    w1 = cross(v2 - p, v0 - p) / area
    return Vector(w0, w1, 1.0 - w0 - w1)


def nearest_weights(p: Vector, corners: list[Vector], foot: Foot) -> Vector:
    """Barycentric coordinates of the triangle's point nearest to p: p itself inside; outside, the
    foot, which slides along the nearest edge or rests at a vertex."""
    inside = foot.choice.inside
    v0, v1, v2 = corners
    within = barycentric(p, corners, guarded(cross(v1 - v0, v2 - v0), inside))
    return choose(inside, within, place(foot.choice.edge, foot.t))


def pull_nearest(corners: list[Vector], foot: Foot, w: Vector, w_bar: Vector) -> list[Vector]:
    """The adjoint of the vertices, given that of `nearest_weights`.

    Inside, moving vertex j by delta moves the coordinates as moving p by -w_j delta does. Outside,
    t_bar meets t_dot = (d n . (c_dot - a_dot) - ((1 - t) a_dot + t c_dot) . e) / |e|^2.
    """
    v0, v1, v2 = corners
    choice, t, n, d = foot.choice, foot.t, foot.n, foot.d
    area = guarded(cross(v1 - v0, v2 - v0), choice.inside)
    turns = turned(v2 - v1) * w_bar[0] + turned(v0 - v2) * w_bar[1] + turned(v1 - v0) * w_bar[2]
    drift = turns * (-1.0 / area)
    e = foot.c - foot.a
    sliding = choice.on_line & (choice.inside == 0)
    t_bar = w_bar.dot(slope_of_place(choice.edge)) / guarded(e.dot(e), choice.on_line)
    t_bar = select(sliding, t_bar, 0.0)
    at_ends = (e * (1.0 - t) + n * d) * -t_bar, (e * t - n * d) * -t_bar
    from_ends = spread(choice.edge, *at_ends)
    zero = Vector(0.0, 0.0)
    return [choose(choice.inside, drift * w[i], zero) + from_ends[i] for i in range(3)]


def spread(edge: Any, a: Vector, c: Vector) -> list[Vector]:
    """What belongs to an edge's two ends, as rows for the three vertices."""
    zero = Vector(0.0, 0.0)
    return [choose(edge == i, a, choose(edge == (i + 2) % 3, c, zero)) for i in range(3)]


def clipped_weights(p: Vector, corners: list[Vector]) -> Vector:
    """Barycentric coordinates of p, clipped to [0, 1] and renormalised (Liu et al., ICCV 2019)."""
    return _renormalised(_unclipped(p, corners))


def pull_clipped(p: Vector, corners: list[Vector], w_bar: Vector) -> list[Vector]:
    """The adjoint of the vertices, given that of `clipped_weights`."""
    v0, v1, v2 = corners
    within = _unclipped(p, corners)
    clipped = within.each(_clip)
    size = total(clipped)
    w = clipped * (1.0 / size)
    mean = w.dot(w_bar)
    raw_bar = Vector(
        *(
            select((raw(b) > 0.0) & (raw(b) < 1.0), (bar - mean) / size, 0.0)
            for b, bar in zip(within, w_bar, strict=True)
        )
    )
    area = _safe_area(corners)
    turns = turned(v2 - v1) * raw_bar[0] + turned(v0 - v2) * raw_bar[1]
    turns = turns + turned(v1 - v0) * raw_bar[2]
    drift = turns * (-1.0 / area)
    return [drift * within[i] for i in range(3)]


def _unclipped(p: Vector, corners: list[Vector]) -> Vector:
    return barycentric(p, corners, _safe_area(corners))


def _safe_area(corners: list[Vector]) -> Any:
    """Twice the signed area, kept from zero as in the published renderers."""
    v0, v1, v2 = corners
    area = cross(v1 - v0, v2 - v0)
    tiny = ti.select(raw(area) > 0.0, POINT, -POINT)
    return select(ti.abs(raw(area)) > POINT, area, tiny)


def _clip(b: Any) -> Any:
    return select(raw(b) < 0.0, 0.0, select(raw(b) > 1.0, 1.0, b))


def _renormalised(within: Vector) -> Vector:
    clipped = within.each(_clip)
    return clipped * (1.0 / total(clipped))
