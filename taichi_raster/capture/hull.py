"""The visual hull: the largest shape that all masks allow. See Laurentini, IEEE PAMI 16 (1994)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor
from torch.nn.functional import interpolate, max_pool3d

from taichi_raster import checks
from taichi_raster.capture.capture import Capture
from taichi_raster.capture.empty_hull import why_empty
from taichi_raster.capture.silhouettes import Silhouette, inside_all, silhouettes_of
from taichi_raster.scene.mesh import Mesh

_COARSE = 4
"""The coarse grid has so many times fewer cells along each side."""

_SLOPE = 1.5
"""At most so much does the field change over a distance of 1: it would be 1 without perspective."""

_COVERAGE = 0.8
"""Hulls that span less of the masks, in the median over the photos, are taken for mistakes."""

_LEAST_PART = 0.01
"""Of the largest part's volume: smaller ones are left out."""


def visual_hull(
    capture: Capture, cells: int = 128, slack: float = 0.5, dtype: torch.dtype = torch.float32
) -> Mesh:
    """The largest shape whose outlines lie within the masks of all photos, as a closed mesh.

    It holds the object, and what no photo shows to be empty: hollows that no outline shows are
    filled. Photos from above and below help more than many on one circle.

    A grid over the region that all masks allow has the distance to the nearest outline's cone, and
    marching cubes make the mesh of it. Parts below a hundredth of the largest one are left out.
    Needs scikit-image, which the extra taichi-raster[photos] brings.

    Args:
        capture: with a mask for each photo.
        cells: of the grid along its longest side, at least 8.
        slack: pixels of the photos by which masks are widened first. Neither cameras nor masks are
            exact, and without slack each photo takes something off what is thin.
        dtype: of the mesh, which is in the capture's world; see `Capture.given_world`.

    Raises:
        ImportError: without scikit-image.
        ValueError: if a photo has no mask; if the cameras do not enclose a region, as one photo
            does not; or if the masks have next to nothing in common. The message has the likely
            cause: masks upside down, poses of another convention, or photos that contradict the
            others.
    """
    # The hull does not depend smoothly on cameras and masks: what requires grad is taken as it is.
    with torch.no_grad():
        return _hull(capture, cells, slack, dtype)


def _hull(capture: Capture, cells: int, slack: float, dtype: torch.dtype) -> Mesh:
    checks.instance("capture", capture, Capture)
    cells, slack = checks.whole("cells", cells, 8), checks.number("slack", slack)
    try:
        from skimage.measure import marching_cubes
    except ImportError as error:
        raise ImportError(
            "visual_hull needs scikit-image: pip install 'taichi-raster[photos]'"
        ) from error
    seen = silhouettes_of(capture, cells, slack)
    low, high = _occupied(seen, *_region(seen))
    side = float((high - low).max()) / cells
    field = _field(seen, low, high, side)
    some = torch.tensor(low + np.argwhere(field > 0) * side)
    if len(some) == 0 or float(np.median([each.spanned(some) for each in seen])) < _COVERAGE:
        raise _empty(seen)
    field = _main_parts(field)
    padded = np.pad(field, 1, constant_values=-side)  # so that the mesh is closed
    vertices, faces, _, _ = marching_cubes(padded, 0.0)
    points = torch.tensor(low + (vertices - 1) * side)
    found = torch.tensor(faces.astype(np.int64))
    a, b, c = (points - points.mean(0))[found].unbind(1)
    outwards = float((a * torch.linalg.cross(b, c)).sum()) > 0
    return Mesh(points.to(dtype), found if outwards else found.flip(1))


def _region(seen: Sequence[Silhouette]) -> tuple[ndarray, ndarray]:
    """(low, high) around all that lies within the boxes of all masks.

    What the photos' frames cut off is bounded by other photos, or, if they do not, by the frames.
    """
    sure, planes = (np.concatenate([getattr(s, n) for s in seen]) for n in ("sure", "planes"))
    low, high = _box(seen, planes[sure])
    if not np.isfinite([low, high]).all():
        low, high = _box(seen, planes)
    if not np.isfinite([low, high]).all():
        raise ValueError(
            "capture: its photos do not enclose a region: they look the same way, or it is but "
            "one; photos from more sides are needed"
        )
    return low, high


def _box(seen: Sequence[Silhouette], planes: ndarray) -> tuple[ndarray, ndarray]:
    """The ends of what all planes leave, by six linear programs; infinite where it has none."""
    from scipy.optimize import linprog  # here, as SciPy takes a while to import

    eyes = np.concatenate([each.camera.eye.numpy() for each in seen])
    middle = eyes.mean(0)
    scale = float(np.linalg.norm(eyes - middle, axis=-1).max()) or 1.0
    # In units of the cameras' distances, as solvers have absolute tolerances.
    size = np.linalg.norm(planes[:, :3], axis=1)
    normals = planes[:, :3] / size[:, None]
    offsets = ((planes[:, :3] * middle).sum(1) + planes[:, 3]) / size / scale
    ends = []
    for way in (1.0, -1.0):
        for axis in range(3):
            goal = np.zeros(3)
            goal[axis] = way
            found = linprog(goal, -normals, offsets, bounds=(None, None), method="highs")
            if found.status == 2:
                raise _empty(seen)
            least = found.fun if found.status == 0 else -np.inf
            ends.append(way * least * scale + middle[axis])
    return np.array(ends[:3]), np.array(ends[3:])


def _empty(seen: Sequence[Silhouette]) -> ValueError:
    return ValueError(
        f"capture: the masks of its photos have next to nothing in common: {why_empty(seen)}"
    )


def _occupied(
    seen: Sequence[Silhouette], low: ndarray, high: ndarray, cells: int = 32
) -> tuple[ndarray, ndarray]:
    """The box around the cells of a coarse grid that may hold something, twice refined."""
    for _ in range(2):
        side = float((high - low).max()) / cells
        points, shape = _grid(low, high, side)
        field = inside_all(seen, points).numpy().reshape(shape)
        some = np.argwhere(field > -_SLOPE * side)
        if len(some) == 0:
            raise _empty(seen)
        low, high = low + (some.min(0) - 1) * side, low + (some.max(0) + 1) * side
    return low, high


def _grid(low: ndarray, high: ndarray, side: float) -> tuple[Tensor, tuple[int, ...]]:
    """Points (P, 3), `side` apart, that reach from `low` at least to `high`; and their shape."""
    shape = tuple(int(np.ceil(extent / side)) + 1 for extent in high - low)
    lines = [torch.tensor(a + side * np.arange(n)) for a, n in zip(low, shape, strict=True)]
    return torch.stack(torch.meshgrid(*lines, indexing="ij"), dim=-1).reshape(-1, 3), shape


def _field(seen: Sequence[Silhouette], low: ndarray, high: ndarray, side: float) -> ndarray:
    """How far the points of a grid are inside of all cones; exact near the surface alone.

    A cell of the coarse grid, at a corner of which the surface is farther off than the cell is
    wide, does not hold any of it.
    """
    wide = _COARSE * side
    points, shape = _grid(low, high, wide)
    coarse = inside_all(seen, points).reshape(1, 1, *shape)
    coarse = coarse.clamp(-100 * wide, 100 * wide)
    fine = [_COARSE * (n - 1) + 1 for n in shape]
    field = interpolate(coarse, fine, mode="trilinear", align_corners=True)[0, 0]
    near = max_pool3d(coarse.abs(), 2, 1) < _SLOPE * np.sqrt(3) * wide
    near |= (max_pool3d(coarse, 2, 1) > 0) & (max_pool3d(-coarse, 2, 1) > 0)  # at a photo's border
    near = near[0, 0]
    # All points of such cells, those on their borders too.
    marked = torch.zeros(fine, dtype=torch.bool)
    block = near.repeat_interleave(_COARSE, 0).repeat_interleave(_COARSE, 1)
    block = block.repeat_interleave(_COARSE, 2)
    for i in (0, 1):
        for j in (0, 1):
            for k in (0, 1):
                a, b, c = block.shape
                marked[i : i + a, j : j + b, k : k + c] |= block
    index = marked.nonzero()
    exact = inside_all(seen, torch.tensor(low) + index * side)
    field[marked] = exact.clamp(-100 * wide, 100 * wide)
    return field.numpy()


def _main_parts(field: ndarray) -> ndarray:
    """The field without parts far smaller than the largest."""
    from scipy import ndimage  # here, as SciPy takes a while to import

    labels, _ = ndimage.label(field > 0)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    small = sizes < _LEAST_PART * sizes.max()
    small[0] = False
    return np.where(small[labels], -np.abs(field), field)
