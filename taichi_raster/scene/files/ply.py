"""PLY (Turk, 1994): colours of vertices and faces, texture coordinates, images beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy import ndarray

from taichi_raster.scene.files import images
from taichi_raster.scene.files.ply_rows import TYPES, Element, elements_of
from taichi_raster.scene.files.soup import Notes, Soup, Surface, polygons
from taichi_raster.scene.files.writing import Beside, Written, split_corners
from taichi_raster.scene.mesh import Mesh

_UV = (("s", "t"), ("u", "v"), ("texture_u", "texture_v"), ("texture_s", "texture_t"))


def read(path: Path, notes: Notes) -> Soup:
    """The file's triangles, in its order."""
    elements, textures = elements_of(path.read_bytes())
    by_name = {element.name: element for element in elements}
    vertices = by_name.get("vertex")
    places = None if vertices is None else vertices.columns(("x", "y", "z"))
    if vertices is None or places is None:
        raise ValueError("has no vertices with x, y and z")
    faces = by_name.get("face")
    if faces is None and "tristrips" in by_name:
        counts, corners = _of_strips(by_name["tristrips"])
        faces = Element("face", len(counts), lists={"vertex_indices": (counts, corners)})
    if faces is None:
        return Soup(np.empty((0, 3)), np.empty((0, 3), dtype=np.int64))
    listed = faces.lists.get("vertex_indices") or faces.lists.get("vertex_index")
    if listed is None:
        raise ValueError("has faces without a list of vertex indices")
    counts, corners = listed[0], listed[1].astype(np.int64)
    triangles, polygon = polygons(places, counts, corners, notes)
    uv = _coordinates(vertices, faces, counts, corners, triangles, notes)
    colours = _corner_colours(vertices, faces, corners[triangles], polygon, notes)
    split = uv is not None or vertices.colours() is not None or "nx" in vertices.numbers
    material, surfaces = _surfaces(faces, polygon, textures, path.parent, notes)
    return Soup(places, corners[triangles], uv, colours, material, surfaces, split)


# Appearance ---------------------------------------------------------------------------------------


def _of_strips(element: Element) -> tuple[ndarray, ndarray]:
    """Triangles of strips, in each of which -1 begins another."""
    _, values = element.lists.get("vertex_indices") or next(iter(element.lists.values()))
    found: list[tuple[int, int, int]] = []
    a = b = -1
    odd = False
    for c in values.astype(np.int64).tolist():
        if c < 0:
            a = b = -1
            continue
        if a >= 0:
            found.append((b, a, c) if odd else (a, b, c))
        odd = a >= 0 and not odd
        a, b = b, c
    return np.full(len(found), 3), np.array(found, dtype=np.int64).reshape(-1)


def _coordinates(
    vertices: Element,
    faces: Element,
    counts: ndarray,
    corners: ndarray,
    triangles: ndarray,
    notes: Notes,
) -> ndarray | None:
    """(F, 3, 2) from lists of faces (MeshLab's) or from vertices."""
    if "texcoord" in faces.lists:
        lengths, values = faces.lists["texcoord"]
        starts = np.cumsum(lengths) - lengths
        has = lengths == 2 * counts
        if (lengths[~has] > 0).any():
            notes.add("texture coordinates of faces that have not two for each corner")
        face = np.repeat(np.arange(len(counts)), counts)
        within = np.arange(len(corners)) - np.repeat(np.cumsum(counts) - counts, counts)
        at = starts[face] + 2 * within
        at = np.where(has[face], at, 0)
        if len(values):
            both = np.stack([values[at], values[np.minimum(at + 1, len(values) - 1)]], axis=-1)
            both[~has[face]] = np.nan
            return np.asarray(both[triangles])
    for names in _UV:
        found = vertices.columns(names)
        if found is not None:
            return np.asarray(found[corners[triangles]])
    return None


def _corner_colours(
    vertices: Element, faces: Element, index: ndarray, polygon: ndarray, notes: Notes
) -> ndarray | None:
    of_vertices, of_faces = vertices.colours(), faces.colours()
    if of_faces is None:
        return None if of_vertices is None else np.asarray(of_vertices[index])
    painted = np.asarray(of_faces[polygon][:, None].repeat(3, axis=1))
    if of_vertices is None:
        return painted
    # Some programs write both, one of them white: the other is what they show.
    if np.ptp(of_faces.reshape(-1)) == 0:
        return np.asarray(of_vertices[index])
    if np.ptp(of_vertices.reshape(-1)) > 0:
        notes.add("colours of faces, where vertices have colours, too")
        return np.asarray(of_vertices[index])
    return painted


def _surfaces(
    faces: Element, polygon: ndarray, names: list[str], folder: Path, notes: Notes
) -> tuple[ndarray, list[Surface]]:
    """The material of each triangle, (F,), and all materials; without an image, a plain one."""
    numbers = faces.numbers.get("texnumber")
    image_of = np.zeros(len(polygon)) if numbers is None else numbers[polygon]
    surfaces = [Surface()]
    material = np.zeros(len(polygon), dtype=np.int64)
    for i, name in enumerate(names):
        image = images.read_beside(folder, name, notes)
        if image is not None:
            surfaces.append(Surface(image, given=True))
            material[image_of == i] = len(surfaces) - 1
    return material, surfaces


# Writing ------------------------------------------------------------------------------------------


def write(path: Path, mesh: Mesh, notes: Notes) -> Written:
    """Binary, in the mesh's own precision, with an image beside it if the mesh has a texture."""
    rows = split_corners(mesh)
    double = mesh.vertices.dtype == torch.float64
    columns: list[tuple[str, str, ndarray]] = []

    def add(names: str, values: ndarray, kind: str) -> None:
        columns.extend((n, kind, values[:, i]) for i, n in enumerate(names.split()))

    real = "double" if double else "float"
    add("x y z", mesh.vertices.detach().cpu().numpy()[rows.vertex], real)
    if mesh.uv is not None and rows.uv is not None:
        add("s t", mesh.uv.detach().cpu().numpy()[rows.uv], real)
    if mesh.colours is not None and rows.colour is not None:
        values = images.as_bytes(mesh.colours)
        if not images.is_whole(mesh.colours):
            notes.add("the digits of the colours beyond 8 bits a channel")
        names = "red green blue alpha" if values.shape[1] == 4 else "red green blue"
        add(names, values[rows.colour], "uchar")
    beside = Beside(path)
    head = ["ply", "format binary_little_endian 1.0", f"comment {beside.mark}"]
    if mesh.texture is not None and mesh.uv is not None:
        head.append(f"comment TextureFile {beside.add('.png', images.encoded(mesh.texture))}")
    head.append(f"element vertex {len(rows.vertex)}")
    head += [f"property {kind} {name}" for name, kind, _ in columns]
    head += [f"element face {len(rows.faces)}", "property list uchar int vertex_indices"]
    table = np.empty(len(rows.vertex), [(name, "<" + TYPES[kind]) for name, kind, _ in columns])
    for name, _, values in columns:
        table[name] = values
    faces = np.empty(len(rows.faces), [("count", "u1"), ("index", "<i4", (3,))])
    faces["count"], faces["index"] = 3, rows.faces
    text = "\n".join([*head, "end_header", ""])
    return beside.written(text.encode() + table.tobytes() + faces.tobytes())
