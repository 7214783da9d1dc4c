"""One pixel and one triangle: signed distance, barycentric coordinates, and how they move.

Everything here is per (pixel, face) pair, in NDC, and runs while a kernel is compiled (see
dual.py). The nearest point of the triangle to the pixel p is chosen first, without derivatives.
Let t be the foot's parameter on the nearest edge a -> c, and n the unit vector along which the
distance d is measured. Then

    d = n . (p - (1 - t) a - t c)        and        d_dot = -n . ((1 - t) a_dot + t c_dot).

By the envelope theorem neither n's nor t's motion counts, because t is optimal (or clamped) and n
is a unit vector along the residual. Nothing divides by a distance that goes to zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import taichi as ti

from taichi_raster.maths.arithmetic import clamp, frozen, maximum, minimum
from taichi_raster.maths.dual import Number, raw, select, sqrt
from taichi_raster.maths.tracing import let
from taichi_raster.maths.variables import Local
from taichi_raster.maths.vector import Vector, choose, total

POINT = 1e-10  # an edge shorter than this, in NDC, counts as a point


def cross(u: Vector, v: Vector) -> Any:
    return u[0] * v[1] - u[1] * v[0]


def turned(v: Vector) -> Vector:
    """v, turned a quarter counter-clockwise."""
    return Vector(-v[1], v[0])


@dataclass(frozen=True)
class Triangle:
    """What is the same for all pixels that a face meets.

    Attributes:
        corners: in the image; z: their depths; inverse_z: 1 over these.
        edges: edge i runs from vertex i to i + 1; inverses: 1 over their lengths, 0 for a point.
        area: twice the signed area, positive where the corners turn counter-clockwise;
            inverse_area: 1 over it, 0 where the triangle is not solid.
        solid: whether it is more than a segment, which contains no pixel.
        starts: an end of each edge, the same one in both of the edge's faces; or None.
    """

    _data_oriented = True

    corners: list[Vector]
    z: Vector
    inverse_z: Vector
    edges: list[Vector]
    inverses: list[Number]
    area: Number
    inverse_area: Number
    solid: Any
    starts: list[Vector] | None = None


def triangle(
    corners: list[Vector], z: Vector, flatness: float, watertight: bool = False
) -> Triangle:
    """`flatness` is the ratio of area to squared longest edge below which it is not solid.

    `watertight`: whether neighbours must agree on which side of their edge each pixel is.
    """
    edges = [corners[(i + 1) % 3] - corners[i] for i in range(3)]
    squares = [e.dot(e) for e in edges]
    area = cross(edges[0], corners[2] - corners[0])
    longest = ti.max(*(raw(square) for square in squares))
    solid = let(ti.abs(raw(area)) > flatness * longest)
    inverses = [over(sqrt(guarded(s, raw(s) >= POINT**2)), raw(s) >= POINT**2) for s in squares]
    inverse_z = z.each(lambda depth: 1.0 / depth)
    inverse_area = over(guarded(area, solid), solid)
    starts = [first(corners[i], corners[(i + 1) % 3]) for i in range(3)] if watertight else None
    return Triangle(corners, z, inverse_z, edges, inverses, area, inverse_area, solid, starts)


def first(a: Vector, c: Vector) -> Vector:
    """The left one of two points; the lower one, if they have the same x."""
    (ax, ay), (cx, cy) = a.each(raw), c.each(raw)
    return choose((ax < cx) | ((ax == cx) & (ay <= cy)), a.each(raw), c.each(raw)).lets()


def depth_slopes(face: Triangle, orthographic: bool) -> tuple[Any, Any]:
    """Bounds on how much what is linear in the image, 1 / z or z if `orthographic`, changes with a
    step of length 1: along the edges, and anywhere in the face."""
    values = (face.z if orthographic else face.inverse_z).each(raw)
    rises = [let(ti.abs(values[(i + 1) % 3] - values[i])) for i in range(3)]
    along = ti.max(*(rise * raw(i) for rise, i in zip(rises, face.inverses, strict=True)))
    longest = ti.sqrt(ti.max(*(raw(e.dot(e)) for e in face.edges)))
    across = 2.0 * ti.max(*rises) * longest * ti.abs(raw(face.inverse_area))
    return let(along), let(across)


def extent(face: Triangle, axis: int, at: Any, reach: Any) -> tuple[Any, Any]:
    """Where the line x = at (axis 0) or y = at (axis 1) runs within `reach` of a face: from, to,
    along the other axis; (1e30, -1e30) where it does not.

    The region is bounded by arcs around the corners and by the edges, moved outwards.
    """
    low, high = Local(1e30), Local(-1e30)
    other = 1 - axis

    def include(valid: Any, position: Any) -> None:
        low.set(minimum(ti.select(valid, position, 1e30), low.value))
        high.set(maximum(ti.select(valid, position, -1e30), high.value))

    for corner in face.corners:
        away = let(at - raw(corner[axis]))
        square = let(reach * reach - away * away)
        half = let(ti.sqrt(maximum(square, 0.0)))
        for sign in (-1.0, 1.0):
            include(square >= 0.0, raw(corner[other]) + half * sign)
    for corner, edge, inverse in zip(face.corners, face.edges, face.inverses, strict=True):
        a, e = corner.each(raw), edge.each(raw)
        outwards = turned(e) * (raw(inverse) * reach)
        steep = let(ti.abs(e[axis]) > 0.0)
        slope = let(1.0 / ti.select(steep, e[axis], 1.0))
        for sign in (-1.0, 1.0):
            start = a + outwards * sign
            t = let((at - start[axis]) * slope)
            include(steep & (t >= 0.0) & (t <= 1.0), start[other] + e[other] * t)
    return low.value, high.value


def guarded(value: Any, good: Any) -> Any:
    """`value` where it is `good` to divide by, else 1."""
    return select(good, value, 1.0)


def over(value: Any, good: Any) -> Any:
    """1 / value where that is `good`, else 0."""
    return select(good, 1.0 / value, 0.0)


@dataclass(frozen=True)
class Choice:
    """What is decided without derivatives: where the pixel lies relative to the triangle.

    Attributes:
        edge: the nearest edge's index.
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


def decide(p: Vector, face: Triangle, differentiated: bool) -> Choice:
    """Choose the nearest edge and the foot on it.

    `differentiated`: whether Taichi's autodiff is to follow.
    """

    def bare(x: Any) -> Any:
        return frozen(raw(x)) if differentiated else raw(x)

    p = p.each(raw)
    feet = [
        _foot(p, corner.each(bare), edge.each(bare), bare(inverse))
        for corner, edge, inverse in zip(face.corners, face.edges, face.inverses, strict=True)
    ]
    (t0, d0, c0), (t1, d1, c1), (t2, d2, c2) = feet
    if face.starts is not None:  # the same in both faces of an edge, but for the sign
        c0, c1, c2 = (
            let(cross(edge.each(bare), p - start.each(bare)))
            for edge, start in zip(face.edges, face.starts, strict=True)
        )
    second, third = let(ti.select(d0 <= d2, 0, 2)), let(ti.select(d1 <= d2, 1, 2))
    edge = let(ti.select(d0 <= d1, second, third))
    t = by_edge(edge, t0, t1, t2)
    turn = let(ti.select(bare(face.area) >= 0.0, 1.0, -1.0))
    sides = (turn * c0 >= 0.0) & (turn * c1 >= 0.0) & (turn * c2 >= 0.0)
    inside = let(face.solid & sides)
    # Outside, d is negative either way.
    outward = ti.select(by_edge(edge, c0, c1, c2) > 0.0, -1.0, 1.0)
    on_line = let(inside | ((t > 0.0) & (t < 1.0)))
    return Choice(edge, inside, on_line, let(ti.select(inside, turn, outward)), t)


def by_edge(edge: Any, first: Any, second: Any, third: Any) -> Any:
    """What belongs to the nearest edge."""
    found = select(edge == 0, first, select(edge == 1, second, third))
    return found if isinstance(found, Number) else let(found)


def _foot(p: Vector, a: Vector, e: Vector, inverse: Any) -> tuple[Any, Any, Any]:
    """(t, squared distance) of the point of a -> a + e nearest to p, and cross(e, p - a)."""
    r = (p - a).lets()
    t = let(clamp(r.dot(e) * (inverse * inverse), 0.0, 1.0))
    q = (r - e * t).lets()
    return t, let(q.dot(q)), let(cross(e, r))


def ends(edge: Any, corners: list[Vector]) -> tuple[Vector, Vector]:
    """The two vertices of an edge."""
    v0, v1, v2 = corners
    first = choose(edge == 0, v0, choose(edge == 1, v1, v2))
    return first, choose(edge == 0, v1, choose(edge == 1, v2, v0))


@dataclass(frozen=True)
class Foot:
    """The signed distance of a pair, and what it was measured with.

    Attributes:
        choice: what was decided without derivatives.
        e: the nearest edge, from end to end; inverse: 1 / |e|.
        t: the foot's parameter, with its tangent.
        n: the unit vector along which d is measured; zero where the pixel lies on a vertex.
        d: signed distance.
    """

    choice: Choice
    e: Vector
    inverse: Number
    t: Number
    n: Vector
    d: Number


def measure(p: Vector, face: Triangle, choice: Choice, differentiated: bool) -> Foot:
    a, c = ends(choice.edge, face.corners)
    e, inverse = c - a, by_edge(choice.edge, *face.inverses)
    t = Number(choice.t)
    if differentiated or inverse.d is not None:
        # Free on the line, constant at a vertex.
        t = select(choice.on_line, (p - a).dot(e) * (inverse * inverse), choice.t)
    r = p - a * (1.0 - t) - c * t
    along_line = turned(e) * (inverse * choice.side)
    square = r.dot(r)
    away = sqrt(guarded(square, raw(square) > 0.0))
    n = choose(choice.on_line, along_line, r * (-1.0 / away))
    # Without n's and t's tangents, by the envelope theorem.
    if differentiated:
        n_still, t_still = n.each(_still), _still(t)
        d = n_still.dot(p - a * (1.0 - t_still) - c * t_still)
    else:
        size = select(raw(square) > 0.0, raw(away), 0.0)
        d = Number(
            select(choice.on_line, along_line.each(raw).dot(r.each(raw)), -size),
            _tangent(n, a, c, raw(t)),
        )
    return Foot(choice, e, inverse, t, n, d)


def _tangent(n: Vector, a: Vector, c: Vector, t: Any) -> Any:
    """The distance's, -n . ((1 - t) a_dot + t c_dot); None where nothing moves."""
    if a[0].d is None:
        return None
    a_dot, c_dot = (Vector(*(i.d for i in v)) for v in (a, c))
    return -n.each(raw).dot(a_dot * (1.0 - t) + c_dot * t)


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


def barycentric(p: Vector, face: Triangle, inverse_area: Any) -> Vector:
    """Barycentric coordinates of p."""
    w0 = cross(face.edges[1], p - face.corners[1]) * inverse_area
    w1 = cross(face.edges[2], p - face.corners[2]) * inverse_area
    return Vector(w0, w1, 1.0 - w0 - w1)


def nearest_weights(p: Vector, face: Triangle, foot: Foot) -> Vector:
    """Barycentric coordinates of the triangle's point nearest to p: p itself inside; outside, the
    foot, which slides along the nearest edge or rests at a vertex."""
    within = barycentric(p, face, face.inverse_area)
    return choose(foot.choice.inside, within, place(foot.choice.edge, foot.t))


def nearest_weights_vjp(face: Triangle, foot: Foot, w: Vector, w_bar: Vector) -> list[Vector]:
    """The adjoint of the vertices, given that of `nearest_weights`.

    Inside, moving vertex j by delta moves the coordinates as moving p by -w_j delta does. Outside,
    t_bar meets t_dot = (d n . (c_dot - a_dot) - ((1 - t) a_dot + t c_dot) . e) / |e|^2.
    """
    choice, t, n, d = foot.choice, foot.t, foot.n, foot.d
    drift = _drift(face, face.inverse_area, w_bar)
    sliding = choice.on_line & (choice.inside == 0)
    t_bar = w_bar.dot(slope_of_place(choice.edge)) * (foot.inverse * foot.inverse)
    t_bar = select(sliding, t_bar, 0.0)
    at_ends = (foot.e * (1.0 - t) + n * d) * -t_bar, (foot.e * t - n * d) * -t_bar
    from_ends = spread(choice.edge, *at_ends)
    zero = Vector(0.0, 0.0)
    return [choose(choice.inside, drift * w[i], zero) + from_ends[i] for i in range(3)]


def _drift(face: Triangle, inverse_area: Any, w_bar: Vector) -> Vector:
    """The adjoint of a pixel that stands still while the triangle moves, given that of its
    barycentric coordinates; negative."""
    turns = [turned(face.edges[(i + 1) % 3]) * (w_bar[i] * -inverse_area) for i in range(3)]
    return turns[0] + turns[1] + turns[2]


def spread(edge: Any, a: Vector, c: Vector) -> list[Vector]:
    """What belongs to an edge's two ends, as rows for the three vertices."""
    zero = Vector(0.0, 0.0)
    return [choose(edge == i, a, choose(edge == (i + 2) % 3, c, zero)) for i in range(3)]


def clipped_weights(p: Vector, face: Triangle) -> Vector:
    """Barycentric coordinates of p, clipped to [0, 1] and renormalised (Liu et al., ICCV 2019)."""
    return _renormalised(barycentric(p, face, _safe_inverse(face)))


def clipped_weights_vjp(p: Vector, face: Triangle, w_bar: Vector) -> list[Vector]:
    """The adjoint of the vertices, given that of `clipped_weights`."""
    within = barycentric(p, face, _safe_inverse(face))
    clipped = within.each(_clip)
    inverse_size = 1.0 / total(clipped)
    w = clipped * inverse_size
    mean = w.dot(w_bar)
    raw_bar = Vector(
        *(
            select((raw(b) > 0.0) & (raw(b) < 1.0), (bar - mean) * inverse_size, 0.0)
            for b, bar in zip(within, w_bar, strict=True)
        )
    )
    drift = _drift(face, _safe_inverse(face), raw_bar)
    return [drift * within[i] for i in range(3)]


def _safe_inverse(face: Triangle) -> Any:
    """1 over twice the signed area, kept from zero as in the published renderers."""
    tiny = ti.select(raw(face.area) > 0.0, POINT, -POINT)
    return 1.0 / select(ti.abs(raw(face.area)) > POINT, face.area, tiny)


def _clip(b: Any) -> Any:
    return select(raw(b) < 0.0, 0.0, select(raw(b) > 1.0, 1.0, b))


def _renormalised(within: Vector) -> Vector:
    clipped = within.each(_clip)
    return clipped * (1.0 / total(clipped))
