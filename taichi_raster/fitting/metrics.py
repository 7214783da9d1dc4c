"""How close a fitted shape is to the true one: distances between surfaces, volumes, voxels.

Surfaces are batches of triangle meshes: vertices (B, V, 3) in world units, and faces (F, 3) for all
of them, or (B, F, 3) padded with -1 as `taichi_raster.collate` makes them.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from taichi_raster import checks
from taichi_raster.runtime.precision import product
from taichi_raster.scene.faces import as_indices, gather_faces
from taichi_raster.scene.normals import unit

_PAIRS_AT_ONCE = 300_000  # of points and faces: what fits the cache, which is fastest


def chamfer_distance(
    points_a: Float[Tensor, "B N 3"], points_b: Float[Tensor, "B M 3"]
) -> Float[Tensor, " B"]:
    """Half the sum of the mean distance from a to its nearest of b and of that from b to a.

    In world units, not squared. Differentiable, with a finite slope where points coincide. Of two
    samples of one surface it is not 0 but about their spacing; `surface_distance` has no such
    floor.

    Raises:
        ValueError: for other shapes, or no points.
    """
    _check_points("points_a", points_a)
    _check_points("points_b", points_b)
    if len(points_a) != len(points_b):
        raise ValueError(
            f"points_b: has batch {len(points_b)} where points_a has {len(points_a)}; "
            "give one set of points for each"
        )
    one_way = []
    for points, others in ((points_a, points_b), (points_b, points_a)):
        nearest = [
            _distances(points[part].detach(), others[part].detach()).argmin(dim=2)
            for part in _parts(len(points), points.shape[1] * others.shape[1])
        ]
        index = torch.cat(nearest)[..., None].expand(-1, -1, 3)
        one_way.append(_length(points - others.gather(1, index)).mean(dim=1))
    return (one_way[0] + one_way[1]) / 2


def surface_distance(
    points: Float[Tensor, "B N 3"],
    vertices: Float[Tensor, "B V 3"],
    faces: Int[Tensor, "*B F 3"],
) -> Float[Tensor, "B N"]:
    """The distance of each point to the nearest point of a surface, exactly.

    Differentiable in points and vertices, with a finite slope at 0. The nearest face is found
    without a gradient, as it does not change to first order.

    Raises:
        ValueError: for other shapes, or a surface of padding alone.
    """
    _check_points("points", points)
    faces = as_indices("faces", faces)
    corners = gather_faces(vertices, faces)
    if len(corners) != len(points):
        raise ValueError(
            f"vertices: has batch {len(corners)} where points has {len(points)}; give one surface "
            "for each set of points"
        )
    padding = None if faces.ndim == 2 else (faces < 0).any(dim=2).to(points.device)
    if padding is not None and bool(padding.all(dim=1).any()):
        raise ValueError("faces: a batch item holds padding alone: it has no surface")
    with torch.no_grad():
        # Dot products of all with all lose half of the digits, and those of a shared offset.
        origin = points.double().mean(dim=1, keepdim=True)
        near, around = points.double() - origin, corners.double() - origin[:, None]
        if padding is not None:
            around = around.masked_fill(padding[:, :, None, None], 0.0)
        around, near = _in_one_unit(around.flatten(1, 2), near)
        around = around.unflatten(1, (-1, 3))
        found = [
            _nearest_face(near[part], around[part], None if padding is None else padding[part])
            for part in _parts(len(points), points.shape[1] * corners.shape[1])
        ]
    index = torch.cat(found)[..., None].expand(-1, -1, 9)
    triangles: Tensor = corners.flatten(2).gather(1, index).unflatten(2, (3, 3))
    with torch.no_grad():
        weights = _nearest_weights(points, triangles)
    # Differences first: they are exact where points and triangles are close.
    return _length((weights[..., None] * (points[:, :, None] - triangles)).sum(dim=2))


def sample_surface(
    vertices: Float[Tensor, "B V 3"],
    faces: Int[Tensor, "*B F 3"],
    count: int,
    generator: torch.Generator,
) -> Float[Tensor, "B N 3"]:
    """`count` points on each surface, uniform by area, one in each of `count` equal strata of it.

    All meshes of a batch use the same random numbers, so that what one gets does not depend on the
    others. Differentiable in `vertices` (for the faces chosen).

    Raises:
        ValueError: for other shapes, a count below 1, or a surface without area.
    """
    count = checks.whole("count", count, 1)
    checks.instance("generator", generator, torch.Generator)
    corners = gather_faces(vertices, faces)
    with torch.no_grad():
        a, b, c = corners.double().unbind(dim=2)
        reached = torch.linalg.cross(b - a, c - a).norm(dim=-1).cumsum(dim=1)
        if not bool((reached[:, -1] > 0).all()):
            raise ValueError("vertices: a surface has no area to sample")
        numbers = torch.rand((3, count), generator=generator, dtype=torch.float64, device="cpu").to(
            reached
        )
        along = (torch.arange(count).to(reached) + numbers[0]) / count * reached[:, -1:]
        chosen = torch.searchsorted(reached, along, right=True).clamp(max=reached.shape[1] - 1)
        weights = barycentric_weights(numbers[1], numbers[2]).to(vertices)
    index = chosen[..., None].expand(-1, -1, 9)
    triangles: Tensor = corners.flatten(2).gather(1, index).unflatten(2, (3, 3))
    return (weights[..., None] * triangles).sum(dim=2)


def barycentric_weights(u: Float[Tensor, " N"], v: Float[Tensor, " N"]) -> Float[Tensor, "N 3"]:
    """Barycentric coordinates that are uniform over a triangle, from numbers uniform in [0, 1]."""
    root = u.sqrt()
    return torch.stack([1 - root, root * (1 - v), root * v], dim=-1)


def volume(vertices: Float[Tensor, "B V 3"], faces: Int[Tensor, "*B F 3"]) -> Float[Tensor, " B"]:
    """The volume that a closed surface encloses; negative if it is wound inwards.

    The sum over faces of det(a, b, c) / 6 (the divergence theorem), with the origin moved to the
    middle of the bounding box. Of an open surface it means nothing.

    Raises:
        ValueError: for other shapes.
    """
    faces = as_indices("faces", faces)
    corners = gather_faces(vertices, faces)
    a, b, c = (corners - _middle(corners, faces)[:, None, None]).unbind(dim=2)
    # The same determinants; those of padding are exactly 0.
    determinants: Tensor = (a * torch.linalg.cross(b - a, c - a)).sum(dim=(1, 2))
    return determinants / 6


def voxelise(
    vertices: Float[Tensor, "B V 3"],
    faces: Int[Tensor, "*B F 3"],
    resolution: int = 32,
    bounds: tuple[float, float] = (-1.0, 1.0),
) -> Bool[Tensor, "B R R R"]:
    """Which voxels' centres lie inside closed surfaces: where the winding number is not 0.

    The winding number of a point is the signed count of faces above it, in z. Whether the line
    through a voxel meets a face is decided edge by edge, alike for both faces of an edge, so that
    no line slips through between two faces; surfaces may cut and overlap themselves.

    Args:
        vertices, faces: closed surfaces.
        resolution: R, voxels along each side of the cube.
        bounds: (low, high) of the cube, in world units, the same for x, y and z.

    Returns:
        (B, R, R, R) indexed by x, y, z.

    Raises:
        ValueError: for other shapes, an empty cube, or an open surface: one with an edge that its
            faces do not pass equally often in both directions.
    """
    resolution = checks.whole("resolution", resolution, 1)
    if len(bounds) != 2:
        raise ValueError(f"bounds: must be (low, high) with low < high, got {bounds}")
    low, high = (checks.number("bounds", value) for value in bounds)
    if not low < high:
        raise ValueError(f"bounds: must be (low, high) with low < high, got {bounds}")
    faces = as_indices("faces", faces)
    corners = gather_faces(checks.floats("vertices", vertices).detach(), faces).double()
    _check_closed(faces, vertices.shape[1])
    side = (high - low) / resolution
    centres = low + side * (torch.arange(resolution, dtype=torch.float64) + 0.5).to(corners)
    grid = torch.cartesian_prod(centres, centres)  # (R^2, 2) x and y of each line of voxels
    return torch.cat(
        [
            _winding(grid, corners[part], low, side, resolution) != 0
            for part in _parts(len(corners), len(grid) * corners.shape[1])
        ]
    )


def voxel_iou(a: Bool[Tensor, " B *rest"], b: Bool[Tensor, " B *rest"]) -> Float[Tensor, " B"]:
    """Intersection over union of two sets of voxels; 1 for two empty ones.

    Raises:
        ValueError: unless both have the same shape, of rank 2 or more.
        TypeError: unless both hold booleans.
    """
    for name, voxels in (("a", a), ("b", b)):
        if checks.tensor(name, voxels).dtype != torch.bool:
            raise TypeError(f"{name}: must hold booleans, got {voxels.dtype}")
    if a.shape != b.shape or a.ndim < 2:
        raise ValueError(f"b: must have the shape of a, {tuple(a.shape)}, got {tuple(b.shape)}")
    both, either = ((a & b).flatten(1).sum(dim=1), (a | b).flatten(1).sum(dim=1))
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


def _winding(
    grid: Tensor, corners: Tensor, low: float, side: float, resolution: int
) -> Int[Tensor, "B R R R"]:
    """Winding numbers of the voxels' centres on vertical lines through `grid`, (R^2, 2)."""
    x, y = grid[:, None].unbind(dim=-1)  # (R^2, 1), against (B, 1, F) below
    xs, ys, _ = corners[:, None].unbind(dim=-1)
    turns = torch.zeros((), dtype=torch.int8, device=corners.device)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        # The edge from its lower end up, so that both of its faces compute the same crossing.
        up = ys[..., i] <= ys[..., j]
        x0, y0 = (torch.where(up, c[..., i], c[..., j]) for c in (xs, ys))
        x1, y1 = (torch.where(up, c[..., j], c[..., i]) for c in (xs, ys))
        slope = (x1 - x0) / torch.where(y1 > y0, y1 - y0, 1.0)
        passes = (y0 <= y) & (y < y1) & (x0 + (y - y0) * slope > x)
        turns = turns + torch.where(up, passes, -passes.to(torch.int8))
    item, line, face = torch.nonzero(turns, as_tuple=True)
    a, b, c = corners[item, face].unbind(dim=1)
    normal = torch.linalg.cross(b - a, c - a)
    steep = normal[:, 2].abs() <= 1e-12 * normal.norm(dim=1)  # rounding alone put it on the line
    rise = normal[:, 0] * (grid[line, 0] - a[:, 0]) + normal[:, 1] * (grid[line, 1] - a[:, 1])
    z = a[:, 2] - rise / torch.where(steep, 1.0, normal[:, 2])
    z = torch.where(steep, a[:, 2], z)
    below = torch.ceil((z - low) / side - 0.5).clamp(0, resolution).long()  # centres below the face
    count = torch.zeros(
        len(corners), len(grid), resolution + 1, dtype=torch.int32, device=corners.device
    )
    count.index_put_((item, line, below), turns[item, line, face].int(), accumulate=True)
    above = count.flip(2).cumsum(dim=2).flip(2)[..., 1:]
    return above.reshape(len(above), resolution, resolution, resolution)


def _nearest_face(points: Tensor, corners: Tensor, padding: Tensor | None) -> Int[Tensor, "B N"]:
    """The index of the face nearest to each point, from dot products of all with all."""
    a, b, c = corners.unbind(dim=2)
    ab, ac = b - a, c - a
    normal = torch.nn.functional.normalize(torch.linalg.cross(ab, ac), dim=-1)

    def dot(vectors: Tensor) -> Tensor:
        """(p - a) . vectors, (B, N, F)."""
        return product(points, vectors.mT) - (a * vectors).sum(dim=-1)[:, None]

    along, across, height = dot(ab), dot(ac), dot(normal)
    squares = ((ab * ab).sum(-1), (ab * ac).sum(-1), (ac * ac).sum(-1))
    bb, bc, cc = (s[:, None] for s in squares)
    from_a = _distances(points, a).square()
    third = across - along + bb - bc  # (p - b) . (c - b)
    length = bb + cc - 2 * bc
    best = _to_segment(from_a, along, bb)
    best = torch.minimum(best, _to_segment(from_a, across, cc))
    best = torch.minimum(best, _to_segment(from_a - 2 * along + bb, third, length))
    v, w = cc * along - bc * across, bb * across - bc * along
    within = (v >= 0) & (w >= 0) & (v + w <= bb * cc - bc * bc)
    best = torch.where(within, torch.minimum(best, height.square()), best)
    if padding is not None:
        best = best.masked_fill(padding[:, None], torch.inf)
    return best.argmin(dim=2)


def _to_segment(from_start: Tensor, along: Tensor, length: Tensor) -> Tensor:
    """Squared distance to a segment: from |p - a|^2, (p - a) . ab and |ab|^2."""
    t = (along / length.clamp(min=1e-30)).clamp(0, 1)
    return from_start - t * (2 * along - t * length)


def _nearest_weights(
    points: Float[Tensor, "*n 3"], triangles: Float[Tensor, "*n 3 3"]
) -> Float[Tensor, "*n 3"]:
    """Barycentric coordinates of the point of each triangle that is nearest to each point."""
    edge = triangles.roll(-1, dims=-2) - triangles
    edge, offset = _in_one_unit(edge, points[..., None, :] - triangles)
    t = ((offset * edge).sum(-1) / edge.square().sum(-1).clamp(min=1e-30)).clamp(0, 1)
    squared = (offset - t[..., None] * edge).square().sum(-1)
    which = squared.argmin(dim=-1, keepdim=True)
    on_edge = torch.zeros_like(t).scatter(-1, which, 1 - t.gather(-1, which))
    on_edge = on_edge.scatter(-1, (which + 1) % 3, t.gather(-1, which))
    normal = torch.linalg.cross(edge[..., 0, :], edge[..., 1, :])
    area = normal.square().sum(-1, keepdim=True)
    # Twice the signed area opposite to each corner, over that of the whole.
    parts = (torch.linalg.cross(edge, offset) * normal[..., None, :]).sum(-1).roll(-1, dims=-1)
    inside = (parts >= 0).all(-1, keepdim=True) & (area > 0)
    return torch.where(inside, parts / torch.where(area > 0, area, 1.0), on_edge)


def _distances(a: Float[Tensor, "B N 3"], b: Float[Tensor, "B M 3"]) -> Float[Tensor, "B N M"]:
    """All distances, from differences: by |a|^2 - 2 a . b + |b|^2, digits would be lost."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _middle(
    corners: Float[Tensor, "B F 3 3"], faces: Int[Tensor, "*B F 3"]
) -> Float[Tensor, "B 3"]:
    """The middle of each surface's bounding box, without gradient; 0 where there is no face."""
    there = (faces >= 0).all(dim=-1).expand(corners.shape[:2]).to(corners.device)[..., None, None]
    still = corners.detach()
    low = torch.where(there, still, torch.inf).amin(dim=(1, 2))
    high = torch.where(there, still, -torch.inf).amax(dim=(1, 2))
    return torch.where(there.any(dim=1)[:, 0], low + (high - low) / 2, 0.0)


def _length(vectors: Tensor) -> Tensor:
    """(...); where it is 0, the slope is, too."""
    return (unit(vectors) * vectors).sum(dim=-1)


def _in_one_unit(lengths: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors (..., N, 3) and (..., M, 3) over the largest number of the first."""
    size = lengths.abs().amax(dim=(-2, -1), keepdim=True)
    size = torch.where(size > 0, size, torch.ones_like(size))
    return lengths / size, others / size


def _parts(batch: int, pairs: int) -> Iterator[slice]:
    """Slices of a batch, each of a bounded number of pairs."""
    size = max(1, _PAIRS_AT_ONCE // pairs)
    return (slice(start, start + size) for start in range(0, batch, size))


def _check_points(name: str, points: Tensor) -> None:
    checks.floats(name, points)
    if points.ndim != 3 or points.shape[2] != 3 or points.shape[1] == 0:
        raise ValueError(f"{name}: must be (B, N, 3) with N >= 1, got {tuple(points.shape)}")


def _check_closed(faces: Tensor, vertex_count: int) -> None:
    """Raise unless every edge is passed equally often in both directions."""
    batch = faces[None] if faces.ndim == 2 else faces
    start, end = batch, batch.roll(-1, dims=2)
    low, high = torch.minimum(start, end), torch.maximum(start, end)
    item = torch.arange(len(batch), device=faces.device)[:, None, None]
    key = (item * vertex_count + low.clamp(min=0)) * vertex_count + high.clamp(min=0)
    sign = torch.sign(end - start)  # 0 for padding
    _, which = key.flatten().unique(return_inverse=True)
    total = torch.zeros(int(which.max()) + 1, dtype=torch.int64, device=faces.device)
    open_edges = int((total.index_add(0, which, sign.flatten()) != 0).sum())
    if open_edges:
        raise ValueError(
            f"faces: the surface is open, or wound inconsistently, at {open_edges} edges; only a "
            "closed one has an inside"
        )
