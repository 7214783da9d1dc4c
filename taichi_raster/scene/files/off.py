"""OFF (Geomview): polygons, with colours of vertices (COFF) and of faces."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy import ndarray

from taichi_raster.scene.files.soup import Builder, Notes, Soup, Surface, fractions, polygons, rgba
from taichi_raster.scene.files.text import decimals, table, whole_words
from taichi_raster.scene.files.writing import Written, split_corners
from taichi_raster.scene.mesh import Mesh


def read(path: Path, notes: Notes) -> Soup:
    """The file's triangles, in its order."""
    data = path.read_bytes()
    text = data.decode("utf-8-sig", errors="replace")
    lines = [line.split("#")[0] for line in re.split(r"[\r\n]+", text)]
    lines = [line for line in lines if line.strip()]
    found = re.match(r"\s*(ST)?(C)?(N)?(4)?(n)?OFF", lines[0]) if lines else None
    if found is None:
        raise ValueError("has no OFF header")
    coordinates, coloured, normals, *other = found.groups()
    rest = lines[0][found.end() :]
    if any(other) or "BINARY" in rest:
        raise ValueError("is an OFF of more dimensions, or a binary one: neither can be read")
    lines[0] = rest
    lines = [line for line in lines if line.strip()]
    counts = [int(word) for word in lines[0].split()[:2]] if lines else []
    if len(counts) < 2:
        raise ValueError("does not say how many vertices and faces it has")
    if min(counts) < 0 or sum(counts) > len(data):
        raise ValueError(
            f"announces {counts[0]} vertices and {counts[1]} faces in {len(data)} bytes"
        )
    if len(lines) < 1 + sum(counts):
        raise ValueError(f"has {len(lines) - 1} lines for {sum(counts)} vertices and faces")
    rows = [line.split() for line in lines[1 : 1 + counts[0]]]
    places = table(lines[1 : 1 + counts[0]], 3)
    after = 6 if normals else 3
    colours = uv = None
    if coordinates:
        uv = table([" ".join(row[-2:]) for row in rows], 2)
        rows = [row[:-2] for row in rows]
    # Some programs write colours without the C that announces them.
    if coloured or (rows and min(map(len, rows)) >= after + 3):
        colours = _colours([row[after : after + 4] for row in rows])
    faces = [line.split() for line in lines[1 + counts[0] : 1 + sum(counts)]]
    sizes = np.array([int(face[0]) for face in faces], dtype=np.int64)
    if any(len(face) < 1 + size for face, size in zip(faces, sizes, strict=True)):
        raise ValueError("has a face with fewer vertices than it says")
    corners = np.array(
        [word for face, size in zip(faces, sizes, strict=True) for word in face[1 : 1 + size]],
        dtype=np.int64,
    )
    triangles, polygon = polygons(places, sizes, corners, notes)
    index = corners[triangles]
    painted = [face[1 + size :] for face, size in zip(faces, sizes, strict=True)]
    return _painted(places, index, colours, uv, painted, polygon, notes)


def _painted(
    places: ndarray,
    index: ndarray,
    colours: ndarray | None,
    uv: ndarray | None,
    painted: list[list[str]],
    polygon: ndarray,
    notes: Notes,
) -> Soup:
    corner_colours = None if colours is None else colours[index]
    if any(len(words) in (1, 2) for words in painted):
        notes.add("colours of faces that are numbers of a colour map")
    given = np.array([len(words) >= 3 for words in painted], dtype=bool)
    if given.any() and colours is not None:
        notes.add("colours of faces, where vertices have colours, too")
    elif given.any():
        by_face = np.full((len(painted), 4), np.nan)
        by_face[given] = _colours([words for words in painted if len(words) >= 3])
        corner_colours = by_face[polygon][:, None].repeat(3, axis=1)
    builder = Builder()
    builder.vertices(places)
    builder.triangles(index, Surface(), None if uv is None else uv[index], corner_colours)
    return builder.soup(split=colours is not None or uv is not None)


def _colours(rows: list[list[str]]) -> ndarray:
    """RGBA in [0, 1]; whole numbers count up to 255."""
    if min(map(len, rows), default=3) < 3:
        raise ValueError("has colours of fewer than three numbers")
    values = table([" ".join(row[:4]) for row in rows], 4, fill=float("nan"))
    if whole_words(word for row in rows for word in row[:4]):
        values = values / 255
    else:
        values = fractions(values, whole=False)
    values[:, 3] = np.where(np.isnan(values[:, 3]), 1.0, values[:, 3])
    return np.asarray(rgba(values))


def write(path: Path, mesh: Mesh, notes: Notes) -> Written:
    """Text; with colours, COFF."""
    if mesh.uv is not None:
        notes.add("texture coordinates" if mesh.texture is None else "the texture")
    rows = split_corners(mesh, uv=False)
    columns = [decimals(mesh.vertices.detach().cpu().numpy()[rows.vertex])]
    if mesh.colours is not None and rows.colour is not None:
        values = mesh.colours.detach().cpu().numpy()[rows.colour]
        opaque = np.ones((len(values), 4 - values.shape[1]), dtype=values.dtype)
        columns.append(decimals(np.concatenate([values.clip(0, 1), opaque], axis=1), point=True))
    head = ["OFF" if mesh.colours is None else "COFF"]
    head.append(f"{len(rows.vertex)} {len(rows.faces)} 0")
    places = [" ".join(parts) for parts in zip(*columns, strict=True)]
    faces = [f"3 {a} {b} {c}" for a, b, c in rows.faces.tolist()]
    return {path: "\n".join([*head, *places, *faces, ""]).encode()}
