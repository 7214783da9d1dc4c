"""Ten families of procedural objects, each with many random parameters, for `make_dataset`.

All are unions of closed parts, stand upright along y, and face +z. Lengths in here are arbitrary:
`assembled` centres an object and scales its bounding box to a diagonal of 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

import taichi_raster as tr
from tasks.reconstruction.parts import (
    Part,
    assembled,
    box,
    colour,
    loft,
    mirrored,
    plain,
    revolved,
    smooth,
    tube,
)

Rng = np.random.Generator
Point = tuple[float, float, float]


def random_object(family: str, rng: Rng) -> tr.Mesh:
    """An object of a family of `FAMILIES`, float64, with colours; ValueError for another name."""
    if family not in FAMILIES:
        raise ValueError(f"family: unknown {family!r}; known: {', '.join(FAMILIES)}")
    return FAMILIES[family](rng)


def _chair(rng: Rng) -> tr.Mesh:
    wide, deep, high = rng.uniform(0.4, 0.65), rng.uniform(0.4, 0.6), rng.uniform(0.3, 0.55)
    thick, back, lean = rng.uniform(0.05, 0.12), rng.uniform(0.35, 0.75), rng.uniform(0, 0.15)
    wood, cloth = colour(rng), colour(rng)
    x, z, top = wide / 2, deep / 2, high + thick
    parts = [(box((-x, high, -z), (x, top, z)), cloth)]
    parts += [(leg, wood) for leg in _legs(rng, x, z, high)]
    thin = rng.uniform(0.04, 0.1)
    kind = rng.integers(3)
    if kind == 0:  # one board
        board = box((-x, top, -z), (x, top + back, -z + thin), (rng.uniform(0.6, 1), 1), (0, -lean))
        parts.append((board, cloth))
    else:  # posts, and bars across or upright
        for side in (-1, 1):
            post = box((side * x - thin / 2, top, -z), (side * x + thin / 2, top + back, -z + thin))
            parts.append((post, wood))
        rail = box((-x, top + back - 0.08, -z), (x, top + back, -z + thin))
        parts.append((rail, wood))
        for place in np.linspace(0, 1, int(rng.integers(3, 6)))[1:-1]:
            if kind == 1:
                y = top + place * back
                bar = box((-x, y - 0.035, -z), (x, y + 0.035, -z + thin))
            else:
                middle = -x + place * wide
                bar = box((middle - 0.025, top, -z), (middle + 0.025, top + back, -z + thin))
            parts.append((bar, wood))
    if rng.random() < 0.4:  # arms
        rise, rest = rng.uniform(0.15, 0.25), rng.uniform(0.04, 0.07)
        for side in (-1, 1):
            a, b = sorted((side * x, side * (x - rest)))
            parts.append((box((a, top + rise, -z), (b, top + rise + rest, z * 0.9)), wood))
            parts.append((box((a, top, z * 0.6), (b, top + rise, z * 0.9)), wood))
    return assembled(parts)


def _table(rng: Rng) -> tr.Mesh:
    wide, deep, high = rng.uniform(0.6, 1.3), rng.uniform(0.5, 0.9), rng.uniform(0.35, 0.75)
    thick, wood, plate = rng.uniform(0.04, 0.1), colour(rng), colour(rng)
    x, z, top = wide / 2, deep / 2, high + thick
    round_top = rng.random() < 0.35
    if round_top:
        x = z = min(x, z)
        parts = [(revolved([high, top], [x, x], 24), plate)]
    else:
        parts = [(box((-x, high, -z), (x, top, z)), plate)]
    kind = 1 if round_top and rng.random() < 0.6 else rng.integers(3)
    if kind == 2 and not round_top:  # two panels, perhaps a board between them
        panel = rng.uniform(0.05, 0.1)
        for side in (-1, 1):
            a, b = sorted((side * x, side * (x - panel)))
            parts.append((box((a, 0, -z), (b, high, z)), wood))
        if rng.random() < 0.6:
            y = rng.uniform(0.1, 0.6) * high
            parts.append((box((-x, y, -z), (x, y + 0.05, z)), wood))
    else:
        inset = 0.68 if round_top else 1.0
        legs = (
            _pedestal(rng, min(x, z), high) if kind == 1 else _four(rng, x * inset, z * inset, high)
        )
        parts += [(leg, wood) for leg in legs]
        if kind != 1 and not round_top and rng.random() < 0.35:
            y = rng.uniform(0.2, 0.5) * high
            parts.append((box((-x * 0.95, y, -z * 0.95), (x * 0.95, y + 0.04, z * 0.95)), plate))
    return assembled(parts)


def _legs(rng: Rng, x: float, z: float, high: float) -> list[Part]:
    if rng.random() < 0.25:
        return _pedestal(rng, min(x, z), high)
    return _four(rng, x, z, high)


def _four(rng: Rng, x: float, z: float, high: float) -> list[Part]:
    """Legs at four corners, round or square, straight or splayed."""
    thick, splay = rng.uniform(0.035, 0.08), rng.uniform(-0.02, 0.12)
    narrow, turned = rng.uniform(0.5, 1), rng.random() < 0.4
    legs = []
    for sx in (-1, 1):
        for sz in (-1, 1):
            top = np.array([sx * (x - thick / 2), high, sz * (z - thick / 2)])
            foot = top + [sx * splay, -high, sz * splay]
            if turned:
                legs.append(tube([foot, top], [narrow * thick / 2, thick / 2], 10))
            else:
                square = np.array([[-1, 0, -1], [-1, 0, 1], [1, 0, 1], [1, 0, -1]]) * thick / 2
                legs.append(loft(np.stack([foot + narrow * square, top + square])))
    return legs


def _pedestal(rng: Rng, reach: float, high: float) -> list[Part]:
    """One post on a round foot or on spokes."""
    thick, foot = rng.uniform(0.03, 0.07), reach * rng.uniform(0.6, 1.0)
    parts = [tube([(0, 0.04, 0), (0, high, 0)], [thick, thick * rng.uniform(0.7, 1.3)])]
    if rng.random() < 0.5:
        return [*parts, revolved([0, 0.03, 0.07], [foot, foot, thick], 24)]
    count, turn = int(rng.integers(3, 6)), rng.uniform(0, 6.3)
    for angle in turn + np.arange(count) * 2 * np.pi / count:
        tip = (foot * np.sin(angle), 0.025, foot * np.cos(angle))
        parts.append(tube([(0, 0.07, 0), tip], [0.04, 0.025], 8))
    return parts


def _sofa(rng: Rng) -> tr.Mesh:
    wide, deep, seat = rng.uniform(0.8, 1.7), rng.uniform(0.5, 0.75), rng.uniform(0.22, 0.36)
    back, thick = rng.uniform(0.2, 0.45), rng.uniform(0.12, 0.22)
    arm, arm_high = rng.uniform(0.08, 0.2), rng.uniform(0.08, 0.28)
    cloth, cushion, foot = colour(rng), colour(rng), rng.uniform(0.03, 0.1)
    x, z = wide / 2, deep / 2
    parts = [
        (box((-x, foot, -z), (x, seat, z)), cloth),
        (box((-x, seat, -z), (x, seat + back, -z + thick), (1, 0.7), (0, -0.04)), cloth),
    ]
    for side in (-1, 1):
        a, b = sorted((side * x, side * (x + arm)))
        parts.append((box((a, foot, -z), (b, seat + arm_high, z)), cloth))
        parts += [
            (box((a, 0, q * z - 0.05), (b, foot, q * z + 0.05)), cushion) for q in (-0.8, 0.8)
        ]
    count = int(rng.integers(1, 4))
    edges = np.linspace(-x, x, count + 1)
    for left, right in itertools.pairwise(edges):
        soft = box((left + 0.01, seat, -z + thick), (right - 0.01, seat + 0.09, z), (0.94, 0.94))
        parts.append((soft, cushion))
    if rng.random() < 0.35:  # the long end of a corner sofa
        side, long = rng.choice([-1, 1]), rng.uniform(0.3, 0.6)
        a, b = sorted((side * (x + arm), side * (x - 0.45)))
        parts.append((box((a, foot, z), (b, seat, z + long)), cloth))
    return assembled(parts)


def _plane(rng: Rng) -> tr.Mesh:
    length, girth = 2.0, rng.uniform(0.09, 0.2)
    paint, wing_paint = colour(rng), colour(rng)
    places = np.linspace(-1, 1, 14)
    profile = smooth([0.25, 0.75, 1, 1, 0.95, 0.75, 0.12], 14) * girth
    rise = smooth([0.3, 0.15, 0, 0, 0, 0, -0.1], 14) * girth
    body = np.stack([np.zeros(14), rise, places * length / 2], -1)
    parts = [(tube(body, profile, 14), paint)]
    span, sweep, dihedral = rng.uniform(0.55, 1.2), rng.uniform(0, 0.6), rng.uniform(-0.03, 0.15)
    root, tip = rng.uniform(0.3, 0.6), rng.uniform(0.1, 0.28)
    at, height = rng.uniform(-0.15, 0.35), rng.choice([-0.5, 0.0, 0.7]) * girth
    wing = _blade((0, height, at), (span, height + dihedral, at - sweep), root, tip, 0.07)
    parts += [(wing, wing_paint), (mirrored(wing), wing_paint)]
    fin_high, tail = rng.uniform(0.25, 0.45), -0.82
    fin = _blade((0, 0, tail), (0, fin_high, tail - rng.uniform(0.05, 0.25)), 0.3, 0.16, 0.06)
    on_top = rng.random() < 0.3
    y = fin_high * 0.95 if on_top else girth * 0.2
    flat = _blade((0, y, tail), (rng.uniform(0.25, 0.45), y, tail - 0.12), 0.24, 0.12, 0.05)
    parts += [(fin, paint), (flat, wing_paint), (mirrored(flat), wing_paint)]
    size = rng.uniform(0.05, 0.09)
    for place in np.linspace(0, 1, int(rng.integers(0, 3)) + 1)[1:] * 0.7:
        middle = np.array([place * span, height + place * dihedral - size, at - place * sweep])
        engine = tube([middle + [0, 0, -0.16], middle + [0, 0, 0.2]], [size * 0.7, size], 12)
        parts += [(engine, paint), (mirrored(engine), paint)]
    return assembled(parts)


def _blade(root: Point, tip: Point, root_chord: float, tip_chord: float, thick: float) -> Part:
    """A wing: two pointed sections, flat along z, `thick` at the root in the third direction."""
    a, b = np.asarray(root, dtype=float), np.asarray(tip, dtype=float)
    across = np.array([1.0, 0, 0]) if abs(b[0] - a[0]) < 1e-9 else np.array([0, 1.0, 0])
    section = np.array([[-0.5, 0], [-0.1, 0.5], [0.35, 0.4], [0.5, 0], [0.35, -0.4], [-0.1, -0.5]])

    def ring(middle: np.ndarray, chord: float, width: float) -> np.ndarray:
        return middle + section[:, :1] * [0, 0, chord] + section[:, 1:] * across * width

    return loft(np.stack([ring(a, root_chord, thick), ring(b, tip_chord, thick * 0.6)]))


def _car(rng: Rng) -> tr.Mesh:
    long, wide = rng.uniform(1.6, 2.2), rng.uniform(0.7, 0.95)
    low, waist = rng.uniform(0.12, 0.22), rng.uniform(0.42, 0.6)
    roof = waist + rng.uniform(0.22, 0.5)
    paint, glass, tyre = colour(rng), colour(rng) * 0.6, np.full(3, 0.18)
    z, x = long / 2, wide / 2
    nose, tail = rng.uniform(0.6, 1.0), rng.uniform(0.7, 1.0)
    stations = np.array([-1.0, -0.92, -0.4, 0.35, 0.9, 1.0]) * z
    tops = low + (waist - low) * np.array([0.75 * tail, tail, 1, 1, nose, 0.7 * nose])
    widths = x * np.array([0.85, 0.95, 1, 1, 0.95, 0.8])
    rings = np.stack(
        [
            [
                (-w, low, s),
                (-w, (low + t) / 2, s),
                (-w * 0.9, t, s),
                (w * 0.9, t, s),
                (w, (low + t) / 2, s),
                (w, low, s),
            ]
            for s, t, w in zip(stations, tops, widths, strict=True)
        ]
    )
    parts = [(loft(rings), paint)]
    kind = rng.integers(3)  # saloon, van, pick-up
    front = rng.uniform(0.25, 0.45) * z
    back = -z * (rng.uniform(0.5, 0.75), rng.uniform(0.88, 0.97), rng.uniform(-0.05, 0.15))[kind]
    narrow, slope = rng.uniform(0.72, 0.92), (rng.uniform(0.5, 0.7), 0.85, 0.7)[kind]
    lean = (0, -(0.04 if kind == 1 else 0.1) * (front - back))
    cabin = box((-x * 0.93, waist - 0.03, back), (x * 0.93, roof, front), (narrow, slope), lean)
    parts.append((cabin, glass))
    if kind == 2:  # sides of the bed
        for side in (-1, 1):
            a, b = sorted((side * x * 0.95, side * x * 0.82))
            parts.append((box((a, waist - 0.05, -z * 0.95), (b, waist + 0.1, back)), paint))
    radius, width = rng.uniform(0.15, 0.22), rng.uniform(0.1, 0.18)
    for sx in (-1, 1):
        for at in (-rng.uniform(0.55, 0.65), rng.uniform(0.55, 0.68)):
            ends = [(sx * (x - width), radius, at * z), (sx * (x + 0.02), radius, at * z)]
            parts.append((tube(ends, [radius, radius], 16), tyre))
    return assembled(parts)


def _bottle(rng: Rng) -> tr.Mesh:
    """A vase, bottle, bowl or jug: any smooth profile, perhaps with a cap and a handle."""
    high, glass = rng.uniform(0.5, 1.5), colour(rng)
    kind = rng.integers(3)
    if kind == 0:  # bottle
        body, neck = rng.uniform(0.25, 0.4), rng.uniform(0.07, 0.14)
        knots = [body * 0.9, body, body, body * rng.uniform(0.7, 1), neck, neck, neck * 1.1]
    else:
        knots = list(rng.uniform(0.12, 0.5, int(rng.integers(4, 7))))
    radii = np.maximum(smooth(knots, 24), 0.05)
    heights = np.linspace(0, high, 24)
    parts = [(revolved(heights, radii, int(rng.choice([6, 8, 24]))), glass)]
    if kind == 0 and rng.random() < 0.7:
        cap = knots[-1] * rng.uniform(1.1, 1.5)
        parts.append((revolved([high, high + 0.12], [cap, cap * 0.9]), colour(rng)))
    if rng.random() < 0.4:  # handles
        low, top = np.sort(rng.uniform(0.25, 0.9, 2))
        low = min(low, top - 0.25)
        turn = np.linspace(-np.pi / 2, np.pi / 2, 9)
        reach, middle = rng.uniform(0.15, 0.3), (low + top) / 2
        start = np.interp(middle, np.linspace(0, 1, 24), radii) * 0.8
        rise = high * (middle + (top - low) / 2 * np.sin(turn))
        arc = np.stack([start + reach * np.cos(turn), rise, 0 * turn], -1)
        handle = tube(arc, [0.045] * 9, 8)
        parts.append((handle, glass))
        if rng.random() < 0.4:
            parts.append((mirrored(handle), glass))
    return assembled(parts)


def _lamp(rng: Rng) -> tr.Mesh:
    metal, cloth = colour(rng), colour(rng)
    foot, thick = rng.uniform(0.14, 0.32), rng.uniform(0.022, 0.05)
    top, bottom, tall = rng.uniform(0.08, 0.3), rng.uniform(0.18, 0.42), rng.uniform(0.2, 0.45)
    if rng.random() < 0.6:  # upright, standing or hanging
        post = rng.uniform(0.15, 1.3)
        parts = [(tube([(0, 0, 0), (0, post + tall * 0.5, 0)], [thick, thick]), metal)]
        parts.append((revolved([0, 0.03, 0.08], [foot, foot, thick], 24), metal))
        if rng.random() < 0.4:  # a turned body
            belly = np.maximum(smooth(rng.uniform(0.04, 0.2, 5), 12), thick)
            parts.append((revolved(np.linspace(0.04, post * 0.9, 12), belly), metal))
        if rng.random() < 0.3:
            ball = tr.icosphere(2, bottom * 0.8)
            vertices, faces = plain(ball)
            parts.append(((vertices + [0, post + bottom * 0.6, 0], faces), cloth))
        else:
            shade = revolved([post, post + tall], [bottom, top], int(rng.choice([4, 6, 24])))
            parts.append((shade, cloth))
        return assembled(parts)
    # a desk lamp: an arm of two pieces, and a head that looks down
    first, second = rng.uniform(0.35, 0.6), rng.uniform(0.3, 0.55)
    bend, over = rng.uniform(-0.3, 0.3), rng.uniform(0.6, 1.3)
    elbow = np.array([0, first * np.cos(bend), first * np.sin(bend) - 0.1])
    end = elbow + second * np.array([0, np.cos(over), np.sin(over)])
    head, size = end + [0, -0.05, 0.04], rng.uniform(0.1, 0.18)
    parts = [
        (revolved([0, 0.05], [foot, foot * 0.9], 24), metal),
        (tube([(0, 0.03, -0.1), elbow], [thick, thick]), metal),
        (tube([elbow, end], [thick, thick]), metal),
        (tube([head + [0, 0.07, -0.06], head + [0, -0.12, 0.1]], [size * 0.4, size], 16), cloth),
    ]
    return assembled(parts)


def _ring(rng: Rng) -> tr.Mesh:
    """A torus or a torus knot, upright or lying, stretched."""
    if rng.random() < 0.5:
        sides, tube_size = int(rng.choice([4, 6, 16])), rng.uniform(0.12, 0.3)
        mesh = tr.torus(0.6, tube_size, sides, 36)
    else:
        p, q = ((1, 2), (1, 3), (2, 3), (3, 2), (2, 5))[rng.integers(5)]
        mesh = tr.torus_knot(p, q, tube=rng.uniform(0.1, 0.17), sides=8, sectors=72)
    vertices, faces = plain(mesh)
    vertices = vertices * np.exp(rng.uniform(-0.35, 0.35, 3))
    if rng.random() < 0.5:
        vertices = vertices[:, [0, 2, 1]] * [1, 1, -1]
    angle = rng.uniform(0, np.pi)
    x, y, z = vertices.T
    turned = np.stack(
        [np.cos(angle) * x + np.sin(angle) * z, y, np.cos(angle) * z - np.sin(angle) * x], -1
    )
    return assembled([((turned, faces), colour(rng))])


def _solid(rng: Rng) -> tr.Mesh:
    """One to three superellipsoids, stars or lumps, stretched, on top of one another."""
    parts, height = [], 0.0
    for _ in range(int(rng.choice([1, 1, 2, 3]))):
        kind = rng.integers(3)
        if kind == 0:
            e1, e2 = rng.uniform(0.2, 2.0, 2)
            mesh = tr.superquadric(e1, e2, rings=12, sectors=24)
        elif kind == 1:
            mesh = tr.star(
                int(rng.integers(3, 8)), 1.0, rng.uniform(0.35, 0.8), rng.uniform(0.4, 1.2)
            )
        else:
            mesh = tr.blob(int(rng.integers(2**31)), rng.uniform(0.15, 0.35), subdivisions=2)
        vertices, faces = plain(mesh)
        vertices = vertices * np.exp(rng.uniform(-0.5, 0.5, 3))
        angle = rng.uniform(0, np.pi)
        x, y, z = vertices.T
        vertices = np.stack(
            [np.cos(angle) * x + np.sin(angle) * z, y, np.cos(angle) * z - np.sin(angle) * x], -1
        )
        vertices[:, 1] += height - vertices[:, 1].min()
        height = vertices[:, 1].max() * 0.92
        parts.append(((vertices, faces), colour(rng)))
    return assembled(parts)


def _boat(rng: Rng) -> tr.Mesh:
    wide, deep = rng.uniform(0.18, 0.35), rng.uniform(0.15, 0.32)
    paint, deck, cloth = colour(rng), colour(rng), colour(rng)
    stations = np.linspace(-1, 1, 12)
    breadth = smooth([rng.uniform(0.5, 0.9), 1, 1, 0.8, 0.04], 12) * wide
    sheer = smooth([0.12, 0.02, 0, 0.06, rng.uniform(0.1, 0.3)], 12)
    keel = -deep * smooth([0.7, 1, 1, 0.85, 0.1], 12)
    rings = np.stack(
        [
            [(-b, s, z), (-b * 0.8, k * 0.6, z), (0, k, z), (b * 0.8, k * 0.6, z), (b, s, z)]
            for b, s, k, z in zip(breadth, sheer, keel, stations, strict=True)
        ]
    )
    parts = [(loft(rings), paint)]
    if rng.random() < 0.5:  # a sailing boat
        mast, at = rng.uniform(0.9, 1.6), rng.uniform(0.0, 0.3)
        parts.append((tube([(0, -0.05, at), (0, mast, at)], [0.03, 0.025], 8), deck))
        for foot, share in ((at - rng.uniform(0.5, 0.8), 0.95), (at + rng.uniform(0.3, 0.6), 0.7)):
            sail = _sail(at, foot, 0.12, mast * share)
            parts.append((sail, cloth))
    else:
        y = 0.0
        size = np.array([wide * rng.uniform(0.5, 0.85), rng.uniform(0.25, 0.6)])
        at = rng.uniform(-0.3, 0.1)
        for _ in range(int(rng.integers(1, 4))):
            tall = rng.uniform(0.1, 0.25)
            low, high = (-size[0], y - 0.03, at - size[1]), (size[0], y + tall, at + size[1])
            parts.append((box(low, high, (0.9, 0.85)), deck))
            y, size = y + tall, size * rng.uniform(0.5, 0.85)
        if rng.random() < 0.6:
            funnel = rng.uniform(0.05, 0.09)
            parts.append((revolved([y - 0.05, y + 0.25], [funnel] * 2, middle=(0, at)), cloth))
    return assembled(parts)


def _sail(mast: float, foot: float, low: float, high: float) -> Part:
    """A triangle in the plane x = 0, 0.03 thick."""
    flat = np.array([[low, mast], [low, foot], [high, mast]])
    rings = np.stack([np.insert(flat, 0, x, axis=1) for x in (-0.015, 0.015)])
    return loft(rings)


FAMILIES: dict[str, Callable[[Rng], tr.Mesh]] = {
    "boat": _boat,
    "bottle": _bottle,
    "car": _car,
    "chair": _chair,
    "lamp": _lamp,
    "plane": _plane,
    "ring": _ring,
    "sofa": _sofa,
    "solid": _solid,
    "table": _table,
}
"""How an object of each family is drawn."""
