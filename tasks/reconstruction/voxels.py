"""Voxelise meshes as the published data set does, by one of two rules for what is inside.

Stored voxels are (32, 32, 32), indexed by y, x and z of our world. The publication compares a mesh
to them after v -> 31 v + 16, which gives its coordinates in units of voxels. The voxels thus span
-16/31 to 16/31 along each axis.

* ``"inside"``: a voxel counts when its centre is inside (winding number not 0). For closed surfaces
  alone; parts thinner than a voxel may vanish.
* ``"published"``: a voxel counts when the surface passes through it, or when it cannot be reached
  from the border of the cube without passing through the surface, as in the evaluation of NMR and
  SoftRas. Works for open surfaces too; solids come out thicker by up to a voxel.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from torch import Tensor

import taichi_raster as tr
from taichi_raster.fitting import metrics

SIZE = 32
BOUNDS = (-16 / 31, 16 / 31)
Rule = Literal["inside", "published"]
RULES = ("inside", "published")


def voxelise(
    vertices: Float[Tensor, "B V 3"], faces: Int[Tensor, "F 3"], rule: Rule = "inside"
) -> Bool[Tensor, "B 32 32 32"]:
    """The voxels of meshes that share their faces, indexed by y, x, z.

    Raises:
        ValueError: for an unknown rule, or, by "inside", an open surface.
    """
    if rule == "inside":
        return metrics.voxelise(vertices, faces, SIZE, BOUNDS).transpose(1, 2)
    if rule != "published":
        raise ValueError(f"voxels: unknown rule {rule!r}; known: {', '.join(RULES)}")
    corners = tr.gather_faces(vertices.detach(), faces).double()
    return torch.stack([_touched_or_enclosed(one) for one in corners]).transpose(1, 2)


def _touched_or_enclosed(corners: Float[Tensor, "F 3 3"]) -> Bool[Tensor, "32 32 32"]:
    """By x, y, z: what the surface passes through, with its cavities filled."""
    places = (corners * (SIZE - 1) + SIZE / 2).numpy()  # in units of voxels
    touched = np.zeros((SIZE, SIZE, SIZE), dtype=bool)
    cells = np.floor(places.reshape(-1, 3)).astype(int)
    cells = cells[((cells >= 0) & (cells < SIZE)).all(axis=1)]
    touched[tuple(cells.T)] = True
    for axis in range(3):
        others = [k for k in range(3) if k != axis]
        line, depth = _crossings(places[..., others], places[..., axis])
        # A line of voxels' corners marks the four lines of voxels around it.
        for step in np.ndindex(2, 2):
            index = np.empty((len(depth), 3), dtype=int)
            index[:, others] = line - step
            index[:, axis] = np.floor(depth)
            index = index[((index >= 0) & (index < SIZE)).all(axis=1)]
            touched[tuple(index.T)] = True
    return torch.from_numpy(ndimage.binary_fill_holes(touched))


def _crossings(flat: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where lines at integer points meet triangles (F, 3, 2) of depths (F, 3): lines and depths."""
    lines, depths = [], []
    low = np.maximum(np.ceil(flat.min(axis=1)).astype(int), 0)
    high = np.minimum(np.floor(flat.max(axis=1)).astype(int), SIZE - 1)
    spans = np.maximum(high - low + 1, 0)
    # Faces whose bounding boxes hold equally many lines are looked at together.
    for shape in np.unique(spans, axis=0):
        if shape.prod() == 0:
            continue
        which = np.flatnonzero((spans == shape).all(axis=1))
        offsets = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 2)
        points = low[which][:, None] + offsets  # (N, P, 2)
        a, b, c = (flat[which, k][:, None] for k in range(3))
        area = _cross(b - a, c - a)
        divisor = np.where(area != 0, area, 1.0)
        v, w = _cross(points - a, c - a) / divisor, _cross(b - a, points - a) / divisor
        hit = (area != 0) & (v >= 0) & (w >= 0) & (v + w <= 1)
        za, zb, zc = (depth[which, k][:, None] for k in range(3))
        z = za + v * (zb - za) + w * (zc - za)
        lines.append(points[hit])
        depths.append(z[hit])
    if not lines:
        return np.zeros((0, 2), dtype=int), np.zeros(0)
    return np.concatenate(lines), np.concatenate(depths)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
