"""The visual hull: the largest body whose outlines are those of the masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, map_coordinates
from scipy.optimize import linprog
from scipy.spatial import ConvexHull
from torch import Tensor

from taichi_raster import checks
from taichi_raster.capture.capture import Capture
from taichi_raster.scene.camera import Camera
from taichi_raster.scene.mesh import Mesh

Array = NDArray[np.float64]

CHUNK = 1 << 19
"""Points that are projected at a time."""

SLACK = 2.0
"""Pixels by which the masks may miss one another, where the bounding box is looked for."""


def visual_hull(
    capture: Capture,
    cells: int = 128,
    image_size: int | tuple[int, int] | None = None,
    misses: int = 0,
) -> Mesh:
    """Carve the largest body that all masks allow (Laurentini 1994), as a closed mesh.

    Its bounding box is that of what all masks' cones have in common, exactly, by linear programs.
    In a grid of points there, the signed distance to each mask's outline, in world units, is looked
    up, and the least of all is what marching cubes cuts at zero.

    Args:
        capture: with masks. What a photo does not show, outside of its frame, it does not carve;
            what fewer than two show is no part of the hull.
        cells: along the box's longest side, 8 to 512.
        image_size: of the masks; by default their own, at most 640 on the longer side.
        misses: how many masks may disagree about a point before it is carved; for masks of which
            a few are wrong.

    Returns:
        The mesh in the capture's world, float64, without parts of less than a hundredth.

    Raises:
        ImportError: if scikit-image is not installed (``pip install taichi-raster[photos]``).
        TypeError, ValueError: naming the argument; also if the masks have nothing in common, with
            the likely cause, or leave a direction open.
    """
    checks.instance("capture", capture, Capture)
    if not 8 <= checks.count("cells", cells) <= 512:
        raise ValueError(f"cells: expected 8 to 512, got {cells}")
    if type(misses) is not int or not 0 <= misses < len(capture):
        raise ValueError(f"misses: expected 0 to {len(capture) - 1}, got {misses!r}")
    measure = _skimage()
    cameras = [photo.camera for photo in capture]
    masks = [photo.mask(_size(photo.image_size, image_size)).numpy() for photo in capture]
    low, high = _bounds(cameras, masks)
    if misses > 0:  # the box is of what all masks agree about: look farther out, coarsely
        low, high = _tightened(cameras, masks, 2 * low - high, 2 * high - low, misses)
    start, step, field = _carved(cameras, masks, low, high, cells, misses)
    if not (field > 0).any():
        raise ValueError(
            "capture: the masks carve everything away; a few of them may be wrong (try misses), "
            "or thinner than a cell (try more cells)"
        )
    vertices, faces, _, _ = measure.marching_cubes(field, 0.0, gradient_direction="ascent")
    return _large_parts(vertices * step + start, faces.astype(np.int64))


def _size(own: tuple[int, int], asked: int | tuple[int, int] | None) -> tuple[int, int]:
    if asked is not None:
        return checks.image_size(asked)
    shrink = min(1.0, 640 / max(own))
    return round(own[0] * shrink), round(own[1] * shrink)


def _bounds(cameras: Sequence[Camera], masks: Sequence[Array]) -> tuple[Array, Array]:
    """The bounding box of what the cones of all masks' convex hulls have in common."""
    planes = np.concatenate([_planes(c, m) for c, m in zip(cameras, masks, strict=True)])
    ends = []
    for axis in range(3):
        for sign in (1.0, -1.0):
            aim = np.zeros(3)
            aim[axis] = sign
            found = linprog(aim, planes[:, :3], -planes[:, 3], bounds=(None, None))
            if found.status == 2:
                raise ValueError(
                    "capture: the masks' cones have no point in common, so that the hull is empty: "
                    "the cameras may be in another convention (axes, or world to camera instead of "
                    "camera to world), the masks upside down, or in another order than the photos"
                )
            if found.status != 0:
                raise ValueError(
                    "capture: the masks do not bound the object; photos from more sides are needed"
                )
            ends.append(sign * found.fun)
    low, high = np.array(ends[::2]), np.array(ends[1::2])
    if not (high > low).all():
        raise ValueError("capture: the masks have no more than a point in common")
    return low, high


def _planes(camera: Camera, mask: Array) -> Array:
    """(K, 4) planes a x + b y + c z + d <= 0 that a mask's cone lies within."""
    row, column = np.nonzero(mask > 0.5)
    if len(row) == 0:
        raise ValueError("capture: a mask is empty")
    height, width = mask.shape
    ends = np.concatenate(
        [np.stack([column + dx, row + dy], 1) for dx in (-1, 1) for dy in (-1, 1)]
    )
    hull = ends[ConvexHull(ends).vertices].astype(float)
    hull += SLACK * np.sign(hull - hull.mean(axis=0))
    short = min(height, width)
    seen = np.stack(
        [(2 * hull[:, 0] + 1 - width) / short, (height - 2 * hull[:, 1] - 1) / short], 1
    )
    points = torch.from_numpy(np.concatenate([seen, np.ones((len(seen), 1))], 1)).to(camera.view)
    rays = camera.from_image(points[None])[0].numpy()
    rays = rays[np.isfinite(rays).all(axis=1)]
    lines = ConvexHull(rays[:, :2] / rays[:, 2:]).equations  # a x / z + b y / z + c <= 0
    view = camera.view[0].numpy()
    along = lines @ view[:3]  # of the world, as x, y, z of the camera are linear in it
    depth = -view[2]  # z >= 0
    return np.concatenate([along, depth[None]])


def _tightened(
    cameras: Sequence[Camera], masks: Sequence[Array], low: Array, high: Array, misses: int
) -> tuple[Array, Array]:
    """The part of a box that has something in it."""
    start, step, field = _carved(cameras, masks, low, high, 48, misses)
    found = np.stack(np.nonzero(field > -step))
    if found.size == 0:
        return low, high
    return start + step * (found.min(axis=1) - 1), start + step * (found.max(axis=1) + 1)


def _carved(
    cameras: Sequence[Camera],
    masks: Sequence[Array],
    low: Array,
    high: Array,
    cells: int,
    misses: int,
) -> tuple[Array, float, NDArray[np.float32]]:
    """(place of the first point, distance between points, `_field`) of a grid in a box."""
    step = float((high - low).max()) / cells
    counts = np.ceil((high - low) / step).astype(int) + 5
    start = 0.5 * (low + high) - 0.5 * step * (counts - 1)
    return start, step, _field(cameras, masks, start, step, counts, misses)


def _field(
    cameras: Sequence[Camera],
    masks: Sequence[Array],
    start: Array,
    step: float,
    counts: NDArray[np.int64],
    misses: int,
) -> NDArray[np.float32]:
    """The least signed distance, or, for some misses, the next larger one; positive inside."""
    axes = [start[i] + step * np.arange(counts[i]) for i in range(3)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    far = 3 * step
    least = np.full((misses + 1, len(points)), far, dtype=np.float32)
    shown = np.zeros(len(points), dtype=np.int32)
    alive = np.arange(len(points))
    for camera, mask in zip(cameras, masks, strict=True):
        distance = _signed_distance(mask)
        for part in np.array_split(alive, max(1, len(alive) // CHUNK)):
            new, in_frame = _seen_distance(camera, distance, points[part], far)
            shown[part] += in_frame
            ranked = np.sort(np.concatenate([least[:, part], new[None]]), axis=0)
            least[:, part] = ranked[: misses + 1]
        alive = alive[least[misses, alive] > -far]  # the others cannot come back
    least[misses, shown < min(misses + 2, len(cameras))] = -far
    field: NDArray[np.float32] = least[misses].reshape(tuple(counts))
    for axis in range(3):  # closed at the ends of the grid
        edge: list[Any] = [slice(None)] * 3
        for end in (0, -1):
            edge[axis] = end
            field[tuple(edge)] = np.minimum(field[tuple(edge)], -0.5 * step)
    return field


def _signed_distance(mask: Array) -> Array:
    """To the outline, in pixels, positive inside."""
    inside = mask > 0.5
    within = distance_transform_edt(np.pad(inside, 1, mode="edge"))[1:-1, 1:-1]
    signed = np.where(inside, within - 0.5, 0.5 - distance_transform_edt(~inside))
    # Along the outline, the share of the pixel that is covered says more.
    fine = np.abs(signed) < 1
    return np.where(fine & (mask > 0) & (mask < 1), mask - 0.5, signed)


def _seen_distance(
    camera: Camera, distance: Array, points: Array, far: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """(signed distance to the outline in world units, up to +- `far`; whether in the frame)."""
    height, width = distance.shape
    short = min(height, width)
    seen = camera.project(torch.from_numpy(points)[None].to(camera.view))[0].numpy()
    u, v = (seen[:, 0] * short + width - 1) / 2, (height - 1 - seen[:, 1] * short) / 2
    near = 1e-3 * abs(float(np.median(seen[:, 2])))
    pixels = map_coordinates(distance, [v, u], order=1, mode="nearest", output=np.float64)
    # A pixel's size at the point, from two neighbouring points of the same depth.
    size = _pixel_size(camera, short) * seen[:, 2]
    found = np.clip(pixels * size, -far, far)
    outside = (u < -0.5) | (u > width - 0.5) | (v < -0.5) | (v > height - 0.5)
    found[outside] = far
    found[seen[:, 2] <= near] = -far
    return np.asarray(found, dtype=np.float32), ~outside


def _pixel_size(camera: Camera, short: int) -> float:
    """The width of a pixel at depth 1, near the picture's centre."""
    probe = torch.tensor([[[0.0, 0.0, 1.0], [1e-3, 0.0, 1.0], [0.0, 1e-3, 1.0]]])
    ray = camera.from_image(probe.to(camera.view))[0].numpy()
    across = [np.linalg.norm(ray[i] / ray[i, 2] - ray[0] / ray[0, 2]) for i in (1, 2)]
    return float(math.sqrt(across[0] * across[1])) / 1e-3 * 2 / short


def _large_parts(vertices: Array, faces: NDArray[np.int64]) -> Mesh:
    """A mesh without parts of less than a hundredth of the faces, its fronts outside."""
    import trimesh

    body: Any = trimesh.Trimesh(vertices, faces, process=False)
    parts = body.split(only_watertight=False)
    least = 0.01 * len(faces)
    kept = [part for part in parts if len(part.faces) >= least] or [body]
    body = trimesh.util.concatenate(kept) if len(kept) > 1 else kept[0]
    corners = torch.from_numpy(np.array(body.vertices, dtype=np.float64))
    index = torch.from_numpy(np.array(body.faces, dtype=np.int64))
    if float(body.volume) < 0:
        index = index.flip(1)
    return Mesh(corners, index)


def _skimage() -> Any:
    try:
        from skimage import measure
    except ImportError as error:
        raise ImportError(
            "the visual hull needs scikit-image: pip install 'taichi-raster[photos]'"
        ) from error
    return measure


def simplified(mesh: Mesh, face_count: int) -> Mesh:
    """A mesh with at most so many faces, by fast-simplification (Garland and Heckbert 1997).

    Raises:
        ImportError: if fast-simplification is not installed.
    """
    checks.instance("mesh", mesh, Mesh)
    checks.count("face_count", face_count)
    if len(mesh.faces) <= face_count:
        return mesh
    try:
        import fast_simplification
    except ImportError as error:
        raise ImportError(
            "simplifying a mesh needs fast-simplification: pip install 'taichi-raster[photos]'"
        ) from error
    corners = mesh.vertices.detach().cpu().double()
    low, size = corners.amin(0), float((corners.amax(0) - corners.amin(0)).max())
    local = ((corners - low) / size).numpy().astype(np.float32)
    vertices, index = fast_simplification.simplify(
        local, mesh.faces.cpu().numpy().astype(np.int32), target_count=face_count
    )
    found = torch.from_numpy(np.array(vertices, dtype=np.float64)) * size + low
    return Mesh(found.to(mesh.vertices), _tensor(index).to(mesh.faces.device))


def _tensor(index: Any) -> Tensor:
    return torch.from_numpy(np.array(index, dtype=np.int64))
