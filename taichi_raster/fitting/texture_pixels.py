"""What photos show of a mesh's texture: for each pixel a mixture of texels, and a colour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from taichi_raster.render.hard import visible_faces
from taichi_raster.render.packing import View
from taichi_raster.scene.camera import Camera
from taichi_raster.scene.faces import gather_faces
from taichi_raster.scene.mesh import Mesh

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Array = NDArray[np.float64]
Whole = NDArray[np.signedinteger[Any]]


@dataclass(frozen=True, eq=False)
class Pixels:
    """All photos' n pixels: mixtures of texels and their transpose, colours, weights, the photo."""

    mixing: csr_array
    spread: csr_array
    colour: Array
    weight: Array
    photo: NDArray[np.int64]

    @staticmethod
    def of(views: list[PhotoPixels]) -> Pixels:
        """Those of several photos, one after the other."""
        from scipy.sparse import vstack  # here, as SciPy takes a while to import

        mixing = vstack([view.mixing for view in views], format="csr")
        photo = np.repeat(np.arange(len(views)), [len(view.weight) for view in views])
        colour = np.concatenate([view.colour for view in views])
        weight = np.concatenate([view.weight for view in views])
        return Pixels(mixing, mixing.T.tocsr(), colour, weight, photo)


@dataclass(frozen=True, eq=False)
class PhotoPixels:
    """What a photo shows: mixtures (n, texels), colours (n, 3) and weights (n,) of n pixels."""

    mixing: csr_array
    colour: Array
    weight: Array


def photo_pixels(
    mesh: Mesh,
    photo: Tensor,
    camera: Camera,
    mask: Tensor | None,
    size: int,
    margin: int,
    near: float | None,
) -> PhotoPixels:
    """Look through one camera."""
    from scipy.sparse import csr_array

    assert mesh.uv is not None
    height, width = photo.shape[:2]
    vertices = mesh.vertices.detach()[None]
    z = camera.to_camera(vertices)[..., 2]
    if near is None:
        near = max(1e-3 * float(z.median()), 1e-9) if bool((z > 0).any()) else 1e-3
    far = max(2 * float(z.max()), 2 * near)
    index = mesh.faces if mesh.uv_faces is None else mesh.uv_faces
    uv = gather_faces(mesh.uv.detach()[None], index)
    normal = _normals(vertices[0], mesh.faces, camera.eye[0].to(vertices))[None]
    shown = camera.project_faces(vertices, mesh.faces, torch.cat([uv, normal], dim=-1), near)
    assert shown.attributes is not None
    empty = PhotoPixels(csr_array((0, size * size)), np.zeros((0, 3)), np.zeros(0))
    if not bool((shown.vertices[..., 2] > 0).all(-1).any()):
        return empty
    view = View(height, width, near, far, False, "ccw", False)
    face = visible_faces(shown.vertices, view)
    hit = face[0].cpu().numpy() >= 0
    row, column = np.nonzero(hit)
    found = face[0].cpu()[row, column]
    corners = shown.vertices[0].cpu().double().numpy()[found]  # (n, 3, 3)
    weights = barycentrics(corners, row, column, height, width) / corners[..., 2]
    depth = np.zeros(hit.shape)
    depth[row, column] = 1 / weights.sum(axis=1)
    usable = _inside(hit, depth, margin)
    if mask is not None:
        usable &= _shrunk(np.asarray(mask.detach().cpu() > 0.5), margin)
    used = usable[row, column]
    if not used.any():
        return empty
    row, column, weights = row[used], column[used], weights[used]
    weights /= weights.sum(axis=1, keepdims=True)  # perspective-correct
    attributes = shown.attributes[0].cpu().double().numpy()[found[used]]
    values = (weights[..., None] * attributes).sum(axis=1)
    # What is seen is seen from outside, however a file may have wound its faces.
    cosine = np.abs(values[:, 2])
    facing = cosine > 0.1
    mixing = _bilinear(values[facing, :2], size)
    colour = np.asarray(photo.detach().cpu().double())[row, column][facing]
    return PhotoPixels(mixing, colour, cosine[facing])


def barycentrics(corners: Array, row: Whole, column: Whole, height: int, width: int) -> Array:
    """(n, 3): the coordinates of pixels' centres in triangles (n, 3, 3) in NDC."""
    short = min(height, width)
    x, y = (2 * column + 1 - width) / short, (height - 2 * row - 1) / short
    (a, b), (c, d) = (corners[:, i, :2].T - corners[:, 0, :2].T for i in (1, 2))
    u, v = x - corners[:, 0, 0], y - corners[:, 0, 1]
    area = a * d - b * c
    second, third = (u * d - v * c) / area, (a * v - b * u) / area
    return np.asarray(np.clip(np.stack([1 - second - third, second, third], axis=1), 0, 1))


def _normals(vertices: Tensor, faces: Tensor, eye: Tensor) -> Tensor:
    """(F, 3, 1): the cosine between each face's normal and the way to the eye, at each corner."""
    corners = vertices[faces]
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal = torch.nn.functional.normalize(normal, dim=-1)
    way = torch.nn.functional.normalize(eye - corners, dim=-1)
    return (normal[:, None] * way).sum(-1, keepdim=True)


def _inside(hit: NDArray[np.bool_], depth: Array, margin: int) -> NDArray[np.bool_]:
    """Pixels of the object that are not near its outline, nor near where depth jumps."""
    jump = np.zeros_like(hit)
    finite = np.where(hit, depth, 0)
    for axis in (0, 1):
        a, b = (np.take(finite, range(*cut), axis) for cut in _neighbours(hit.shape[axis]))
        far = np.abs(a - b) > 0.02 * np.maximum(a, b)
        index = [slice(None), slice(None)]
        for begin in (0, 1):
            index[axis] = slice(begin, begin + hit.shape[axis] - 1)
            jump[tuple(index)] |= far
    return _shrunk(hit & ~jump, margin)


def _neighbours(count: int) -> tuple[tuple[int, int], tuple[int, int]]:
    return (0, count - 1), (1, count)


def _shrunk(mask: NDArray[np.bool_], margin: int) -> NDArray[np.bool_]:
    from scipy.ndimage import binary_erosion  # here, as SciPy takes a while to import

    return binary_erosion(mask, iterations=margin, border_value=1) if margin > 0 else mask


def _bilinear(uv: Array, size: int) -> csr_array:
    """(n, size^2): the mixture of texels at each point, as `UVTexture` with clamp takes it."""
    from scipy.sparse import csr_array

    x = np.clip(uv[:, 0] * size - 0.5, 0, size - 1)
    y = np.clip((1 - uv[:, 1]) * size - 0.5, 0, size - 1)
    left = np.minimum(x.astype(np.int64), size - 2)
    top = np.minimum(y.astype(np.int64), size - 2)
    u, v = x - left, y - top
    at = top * size + left
    columns = np.stack([at, at + 1, at + size, at + size + 1], axis=1)
    values = np.stack([(1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v], axis=1)
    begins = np.arange(0, 4 * len(uv) + 1, 4)
    made = values.astype(np.float32).ravel(), columns.ravel().astype(np.int32), begins
    return csr_array(made, shape=(len(uv), size * size))


def texture_size(
    mesh: Mesh, photos: Sequence[Tensor], cameras: Sequence[Camera], filled: float = 0.6
) -> int:
    """Texels on a side that make a texel as large as a pixel where a face is shown best.

    `filled` is the share of the atlas that charts fill. A multiple of 4 from 64 to 4096.
    """
    best = torch.zeros(len(mesh.faces), dtype=torch.float64)
    for photo, camera in zip(photos, cameras, strict=True):
        corners = gather_faces(camera.project(mesh.vertices[None].detach()), mesh.faces)[0]
        corners = corners.cpu().double()
        one, two = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        area = 0.5 * (one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0])
        area = area * (min(photo.shape[:2]) / 2) ** 2
        front = (corners[..., 2] > 0).all(dim=1) & (corners[..., :2].abs() < 4).all(2).all(1)
        best = torch.maximum(best, torch.where(front, area, 0.0))
    side = math.sqrt(float(best.sum()) / filled)
    return int(min(max(4 * math.ceil(side / 4), 64), 4096))
