"""One pixel and one triangle: signed distance, barycentric coordinates, and how they move.

Everything here is per (pixel, face) pair, in NDC. The nearest point of the triangle to the pixel p
is chosen first, without derivatives. Then, with t the foot's parameter on the nearest edge a -> b
and n the unit vector along which the distance d is measured,

    d = n . (p - (1 - t) a - t b)        and        d_dot = -n . ((1 - t) a_dot + t b_dot):

by the envelope theorem neither n's nor t's motion counts, because t is optimal (or clamped) and n
is a unit vector along the residual. Nothing divides by a distance that goes to zero.
"""

import taichi as ti

from taichi_raster.arithmetic import frozen

POINT = 1e-10  # an edge shorter than this, in NDC, counts as a point


@ti.func
def cross(u, v):
    return u[0] * v[1] - u[1] * v[0]


@ti.func
def turned(v):
    """v, turned a quarter counter-clockwise."""
    return ti.Vector([-v[1], v[0]])


@ti.func
def edge_foot(p, a, b):
    """(t, squared distance): the point of the segment a -> b nearest to p, at a + t (b - a)."""
    e, r = b - a, p - a
    length2 = e.dot(e)
    is_point = length2 < ti.static(POINT**2)
    t = ti.math.clamp(r.dot(e) / ti.select(is_point, 1.0, length2), 0.0, 1.0)
    t = ti.select(is_point, 0.0, t)
    q = r - t * e
    return t, q.dot(q)


@ti.func
def choose(p, v0, v1, v2, flatness):
    """What is decided without derivatives: where the pixel lies relative to the triangle.

    `flatness` is the ratio of area to squared longest edge below which a triangle counts as a
    segment, which contains no pixel.

    Returns:
        (edge, inside, on_line, side, t): the nearest edge's index (edge i runs from vertex i to
        i + 1), whether p is inside, whether the foot is in the edge's interior, the sign that
        makes d = side * cross(b - a, p - a) / |b - a| positive inside, and the foot's parameter.
    """
    t0, d0 = edge_foot(p, v0, v1)
    t1, d1 = edge_foot(p, v1, v2)
    t2, d2 = edge_foot(p, v2, v0)
    edge = ti.select(d0 <= d1, ti.select(d0 <= d2, 0, 2), ti.select(d1 <= d2, 1, 2))
    t = ti.select(edge == 0, t0, ti.select(edge == 1, t1, t2))

    area = cross(v1 - v0, v2 - v0)
    longest2 = ti.max((v1 - v0).norm_sqr(), (v2 - v1).norm_sqr(), (v0 - v2).norm_sqr())
    solid = ti.abs(area) > flatness * longest2
    turn = ti.select(area >= 0.0, 1.0, -1.0)
    c0, c1, c2 = cross(v1 - v0, p - v0), cross(v2 - v1, p - v1), cross(v0 - v2, p - v2)
    inside = solid and turn * c0 >= 0.0 and turn * c1 >= 0.0 and turn * c2 >= 0.0
    on_line = inside or (t > 0.0 and t < 1.0)

    nearest_cross = ti.select(edge == 0, c0, ti.select(edge == 1, c1, c2))
    outward = ti.select(nearest_cross > 0.0, -1.0, 1.0)  # outside, d is negative on either side
    side = ti.select(inside, turn, outward)
    return edge, inside, on_line, side, t


@ti.func
def guarded(value, good):
    """`value` where it is `good` to divide by, else 1."""
    return ti.select(good, value, 1.0)


@ti.func
def pick(condition, u, v):
    """u where `condition`, else v; vectors of the image plane.

    Expressions, not branches that assign: autodiff would keep those on a stack.
    """
    return ti.Vector([ti.select(condition, u[0], v[0]), ti.select(condition, u[1], v[1])])


@ti.func
def ends(edge, v0, v1, v2):
    """The two vertices of an edge."""
    first = pick(edge == 0, v0, pick(edge == 1, v1, v2))
    return first, pick(edge == 0, v1, pick(edge == 1, v2, v0))


@ti.func
def direction(p, a, b, t, on_line, side):
    """The unit vector n of d = n . (p - foot); zero where p lies on a vertex."""
    e, r = b - a, p - (1.0 - t) * a - t * b
    along_line = side * turned(e) / ti.sqrt(guarded(e.norm_sqr(), on_line))
    apart = r.norm_sqr() > 0.0
    from_vertex = -r / ti.sqrt(guarded(r.norm_sqr(), apart))
    return pick(on_line, along_line, from_vertex)


@ti.func
def along(p, a, b, t, on_line):
    """The foot's parameter t with its derivative: free on the line, constant at a vertex."""
    e = b - a
    return ti.select(on_line, (p - a).dot(e) / guarded(e.norm_sqr(), on_line), t)


@ti.func
def place(edge, t):
    """Barycentric coordinates of the point at t on an edge."""
    w0 = ti.select(edge == 0, 1.0 - t, ti.select(edge == 2, t, 0.0 * t))
    w1 = ti.select(edge == 1, 1.0 - t, ti.select(edge == 0, t, 0.0 * t))
    w2 = ti.select(edge == 2, 1.0 - t, ti.select(edge == 1, t, 0.0 * t))
    return ti.Vector([w0, w1, w2])


@ti.func
def slope_of_place(edge, zero):
    """The derivative of `place` with respect to t."""
    return place(edge, 1.0 + zero) - place(edge, zero)


@ti.func
def barycentric(p, v0, v1, v2, area):
    """Barycentric coordinates of p."""
    w0 = cross(v1 - p, v2 - p) / area
    w1 = cross(v2 - p, v0 - p) / area
    return ti.Vector([w0, w1, 1.0 - w0 - w1])


@ti.func
def still(v):
    """A vector without derivative."""
    return ti.Vector([frozen(v[0]), frozen(v[1])])


@ti.func
def nearest_weights(p, v0, v1, v2, a, c, edge, inside, on_line, t):
    """Barycentric coordinates of the triangle's point nearest to p: p itself inside; outside, the
    foot, which slides along the nearest edge or rests at a vertex."""
    area = guarded(cross(v1 - v0, v2 - v0), inside)
    within = barycentric(p, v0, v1, v2, area)
    edge_weights = place(edge, along(p, a, c, t, on_line))
    return ti.Vector([ti.select(inside, within[i], edge_weights[i]) for i in ti.static(range(3))])


@ti.func
def nearest_weights_dot(
    p, v0, v1, v2, a, c, v0_dot, v1_dot, v2_dot, a_dot, c_dot, edge, inside, on_line, t, n, d
):  # fmt: skip
    """`nearest_weights` and their directional derivative.

    Inside, moving vertex j by delta moves the coordinates as moving p by -w_j delta does.
    """
    area = guarded(cross(v1 - v0, v2 - v0), inside)
    within = barycentric(p, v0, v1, v2, area)
    drift = within[0] * v0_dot + within[1] * v1_dot + within[2] * v2_dot
    dot0 = -turned(v2 - v1).dot(drift) / area
    dot1 = -turned(v0 - v2).dot(drift) / area
    within_dot = ti.Vector([dot0, dot1, -dot0 - dot1])
    edge_weights = place(edge, t)
    e = c - a
    slide = d * n.dot(c_dot - a_dot) - ((1.0 - t) * a_dot + t * c_dot).dot(e)
    t_dot = ti.select(on_line, slide / guarded(e.norm_sqr(), on_line), 0.0)
    edge_dot = t_dot * slope_of_place(edge, 0.0 * t)
    w = ti.Vector([ti.select(inside, within[i], edge_weights[i]) for i in ti.static(range(3))])
    w_dot = ti.Vector([ti.select(inside, within_dot[i], edge_dot[i]) for i in ti.static(range(3))])
    return w, w_dot


@ti.func
def pull_weights(v0, v1, v2, w, w_bar, edge, inside, on_line, t, n, d, d_bar):
    """The adjoint of the vertices (3 x 2), given those of the coordinates w and of the distance d.

    The transpose of `nearest_weights_dot` and of d_dot.
    """
    a, c = ends(edge, v0, v1, v2)
    e = c - a
    a_bar, c_bar = -(1.0 - t) * d_bar * n, -t * d_bar * n
    drift_bar = 0.0 * n
    if inside:
        area = cross(v1 - v0, v2 - v0)
        turns = w_bar[0] * turned(v2 - v1) + w_bar[1] * turned(v0 - v2) + w_bar[2] * turned(v1 - v0)
        drift_bar = -turns / area
    elif on_line:
        t_bar = w_bar.dot(slope_of_place(edge, 0.0 * t)) / e.norm_sqr()
        a_bar -= t_bar * ((1.0 - t) * e + d * n)
        c_bar -= t_bar * (t * e - d * n)
    from_a, from_c = place(edge, 0.0 * t), place(edge, 1.0 + 0.0 * t)
    rows = ti.Matrix([[0.0 * t, 0.0 * t] for _ in ti.static(range(3))])
    for i in ti.static(range(3)):
        for j in ti.static(range(2)):
            rows[i, j] = from_a[i] * a_bar[j] + from_c[i] * c_bar[j] + w[i] * drift_bar[j]
    return rows
