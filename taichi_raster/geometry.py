"""One pixel and one triangle: signed distance, barycentric coordinates, and how they move.

Everything here is per (pixel, face) pair, in NDC. The nearest point of the triangle to the pixel p
is chosen first, without derivatives. Then, with t the foot's parameter on the nearest edge a -> b
and n the unit vector along which the distance d is measured,

    d = n . (p - (1 - t) a - t b)        and        d_dot = -n . ((1 - t) a_dot + t b_dot):

by the envelope theorem neither n's nor t's motion counts, because t is optimal (or clamped) and n is
a unit vector along the residual. Nothing divides by a distance that goes to zero.
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
def direction(p, a, b, t, on_line, side):
    """The unit vector n of d = n . (p - foot); zero where p lies on a vertex."""
    n = ti.Vector([0.0 * t, 0.0 * t])
    if on_line:
        e = b - a
        n = side * turned(e) / e.norm()
    else:
        r = p - (1.0 - t) * a - t * b
        length2 = r.norm_sqr()
        if length2 > 0.0:
            n = -r / ti.sqrt(length2)
    return n


@ti.func
def along(p, a, b, t, on_line):
    """The foot's parameter t with its derivative: free on the line, constant at a vertex."""
    value = t
    if on_line:
        e = b - a
        value = (p - a).dot(e) / e.norm_sqr()
    return value


@ti.func
def place(edge, t):
    """Barycentric coordinates of the point at t on an edge."""
    w0 = ti.select(edge == 0, 1.0 - t, ti.select(edge == 2, t, 0.0 * t))
    w1 = ti.select(edge == 1, 1.0 - t, ti.select(edge == 0, t, 0.0 * t))
    w2 = ti.select(edge == 2, 1.0 - t, ti.select(edge == 1, t, 0.0 * t))
    return ti.Vector([w0, w1, w2])


@ti.func
def barycentric(p, v0, v1, v2):
    """Barycentric coordinates of p; the triangle must have an area."""
    area = cross(v1 - v0, v2 - v0)
    w0 = cross(v1 - p, v2 - p) / area
    w1 = cross(v2 - p, v0 - p) / area
    return ti.Vector([w0, w1, 1.0 - w0 - w1])


@ti.func
def rows(v0, v1, v2):
    """The gradients of the three barycentric coordinates with respect to p."""
    area = cross(v1 - v0, v2 - v0)
    return turned(v2 - v1) / area, turned(v0 - v2) / area, turned(v1 - v0) / area


@ti.func
def still(v):
    """A vector without derivative."""
    return ti.Vector([frozen(v[0]), frozen(v[1])])


@ti.func
def ends(edge, v0, v1, v2):
    """The two vertices of an edge."""
    first, second = v0, v1
    if edge == 1:
        first, second = v1, v2
    elif edge == 2:
        first, second = v2, v0
    return first, second


@ti.func
def nearest_weights(p, v0, v1, v2, a, c, edge, inside, on_line, t):
    """Barycentric coordinates of the triangle's point nearest to p, with their first derivative.

    Inside, moving vertex j by delta moves coordinate i as moving p by -w_j delta does. Outside, the
    point slides along the nearest edge, or rests at a vertex.
    """
    w = ti.Vector([0.0 * t, 0.0 * t, 0.0 * t])
    if inside:
        w = barycentric(p, v0, v1, v2)
    else:
        w = place(edge, along(p, a, c, t, on_line))
    return w


@ti.func
def nearest_weights_dot(
    p, v0, v1, v2, a, c, a_dot, c_dot, v0_dot, v1_dot, v2_dot, edge, inside, on_line, t, n, d
):
    """`nearest_weights` and their directional derivative."""
    w = ti.Vector([0.0 * t, 0.0 * t, 0.0 * t])
    w_dot = ti.Vector([0.0 * t, 0.0 * t, 0.0 * t])
    if inside:
        w = barycentric(p, v0, v1, v2)
        drift = w[0] * v0_dot + w[1] * v1_dot + w[2] * v2_dot
        g0, g1, g2 = rows(v0, v1, v2)
        w_dot = -ti.Vector([g0.dot(drift), g1.dot(drift), g2.dot(drift)])
    else:
        w = place(edge, t)
        if on_line:
            e = c - a
            t_dot = d * n.dot(c_dot - a_dot) - ((1.0 - t) * a_dot + t * c_dot).dot(e)
            w_dot = place_dot(edge, t_dot / e.norm_sqr())
    return w, w_dot


@ti.func
def place_dot(edge, t_dot):
    w0 = ti.select(edge == 0, -t_dot, ti.select(edge == 2, t_dot, 0.0 * t_dot))
    w1 = ti.select(edge == 1, -t_dot, ti.select(edge == 0, t_dot, 0.0 * t_dot))
    w2 = ti.select(edge == 2, -t_dot, ti.select(edge == 1, t_dot, 0.0 * t_dot))
    return ti.Vector([w0, w1, w2])
