"""Triangle meshes: reading and writing files, scaling to size, and a sphere to start from."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import trimesh
from jaxtyping import Float, Int
from torch import Tensor

from taichi_raster.faces import check_faces


@dataclass(frozen=True, eq=False)
class Mesh:
    """A triangle mesh.

    Attributes:
        vertices: (V, 3) finite positions in world units, float32 or float64.
        faces: (F, 3) int64 indices into `vertices`, F >= 1, counter-clockwise from outside.

    Raises:
        ValueError: for other shapes, vertices that are not finite, or indices out of range.
        TypeError: if `vertices` does not hold floats, or `faces` does not hold integers.
    """

    vertices: Float[Tensor, "V 3"]
    faces: Int[Tensor, "F 3"]

    def __post_init__(self) -> None:
        if not self.vertices.is_floating_point():
            raise TypeError(f"vertices: must hold floats, got {self.vertices.dtype}")
        if self.vertices.ndim != 2 or self.vertices.shape[1] != 3:
            raise ValueError(f"vertices: must be (V, 3), got {tuple(self.vertices.shape)}")
        if not bool(self.vertices.isfinite().all()):
            raise ValueError("vertices: must be finite, got NaN or infinite positions")
        check_faces(self.faces, len(self.vertices))


def load_mesh(path: str | os.PathLike[str], dtype: torch.dtype = torch.float32) -> Mesh:
    """Read any triangle or polygon mesh that trimesh reads (OBJ, OFF, PLY, STL, glTF, ...).

    Polygons are cut into triangles, the meshes of a scene become one, and vertices at the same
    place become one (also where they differ in texture coordinates or normals). Vertices that no
    face uses are left out.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read as a mesh, holds no triangle, or has vertices that
            are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such mesh file")
    try:
        loaded = trimesh.load(path, force="mesh", process=False)
        if not isinstance(loaded, trimesh.Trimesh):
            raise TypeError(f"it holds a {type(loaded).__name__}")
        vertices = np.asarray(loaded.vertices, dtype=np.float64)
        faces = np.asarray(loaded.faces, dtype=np.int64)
    except ImportError as error:
        raise ValueError(
            f"{path}: cannot be read as a mesh: it is corrupt, or its format or encoding needs "
            f"the Python package {error.name}"
        ) from error
    except Exception as error:  # trimesh's readers raise anything that parsing may raise
        raise ValueError(f"{path}: cannot be read as a mesh: {error}") from error
    if vertices.ndim != 2 or faces.ndim != 2 or len(faces) == 0:
        raise ValueError(f"{path}: holds no triangle; is it a mesh file?")
    if not 0 <= faces.min() <= faces.max() < len(vertices):
        raise ValueError(f"{path}: has faces whose vertices are not in the file")
    if not np.isfinite(vertices[faces]).all():
        raise ValueError(f"{path}: has vertices that are NaN or infinite")

    merged = trimesh.Trimesh(vertices, faces, process=False)
    merged.merge_vertices(merge_tex=True, merge_norm=True)
    merged.remove_unreferenced_vertices()
    return _from_trimesh(merged, dtype)


def save_mesh(path: str | os.PathLike[str], mesh: Mesh) -> None:
    """Write `mesh` in the format of the path's suffix; the file appears whole or not at all.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if trimesh does not write that format as one file.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: there is no such folder")
    kind = path.suffix.lower().lstrip(".")
    out = trimesh.Trimesh(
        mesh.vertices.detach().cpu().double().numpy(), mesh.faces.cpu().numpy(), process=False
    )
    try:
        data = out.export(file_type=kind)
    except ValueError as error:
        raise ValueError(f"{path}: meshes cannot be written as {kind!r}; try .obj") from error
    if isinstance(data, str):
        data = data.encode()
    if not isinstance(data, bytes):
        raise ValueError(f"{path}: {kind!r} is not a single file; try .obj or .glb")

    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def normalise(mesh: Mesh, radius: float | None = None, half_extent: float | None = None) -> Mesh:
    """The mesh with its bounding box centred at the origin, scaled to a size (radius 1 by default).

    Args:
        radius: distance from the origin to the farthest vertex; or
        half_extent: half the longest side of the bounding box.

    Raises:
        ValueError: if both are given, one is not positive, or all vertices are in one place.
    """
    if radius is not None and half_extent is not None:
        raise ValueError("radius, half_extent: give one of them, not both")
    name, size = ("half_extent", half_extent) if half_extent is not None else ("radius", radius)
    size = 1.0 if size is None else size
    if not 0 < size < float("inf"):
        raise ValueError(f"{name}: must be positive and finite, got {size}")
    low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
    centred = mesh.vertices - (low + high) / 2
    present = centred.abs().amax() if name == "half_extent" else centred.norm(dim=1).amax()
    if not bool(present > 0):
        raise ValueError("mesh: all its vertices are in one place, so it has no size to scale")
    return replace(mesh, vertices=centred * (size / present))


def icosphere(
    subdivisions: int = 3, radius: float = 1.0, dtype: torch.dtype = torch.float32
) -> Mesh:
    """A sphere of 20 * 4**subdivisions nearly equal triangles, around the origin.

    It has 10 * 4**subdivisions + 2 vertices: 162, 642, 2562, 10242 for 2, 3, 4, 5 subdivisions.

    Raises:
        ValueError: if `subdivisions` is not in 0..7, or `radius` is not positive.
    """
    if not 0 <= subdivisions <= 7:
        raise ValueError(f"subdivisions: must be 0 to 7, got {subdivisions}")
    if not 0 < radius < float("inf"):
        raise ValueError(f"radius: must be positive and finite, got {radius}")
    return _from_trimesh(trimesh.creation.icosphere(subdivisions, radius), dtype)


def subdivide(mesh: Mesh) -> Mesh:
    """The same surface in four times as many triangles: each is cut at the midpoints of its edges.

    The old vertices come first, so `vertices[:V]` is unchanged; winding is kept.
    """
    edges = mesh.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2).sort(dim=1).values
    unique, index = edges.unique(dim=0, return_inverse=True)
    midpoints = mesh.vertices[unique].mean(dim=1)
    a, b, c = mesh.faces.unbind(1)
    ab, bc, ca = (index.reshape(-1, 3) + len(mesh.vertices)).unbind(1)
    quarters = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    faces = torch.stack([torch.stack(corner, dim=1) for corner in quarters], dim=1)
    return Mesh(torch.cat([mesh.vertices, midpoints]), faces.reshape(-1, 3))


def _from_trimesh(source: trimesh.Trimesh, dtype: torch.dtype) -> Mesh:
    return Mesh(
        torch.tensor(np.asarray(source.vertices), dtype=dtype),
        torch.tensor(np.asarray(source.faces), dtype=torch.int64),
    )


def _umask() -> int:
    """The process's permission mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
