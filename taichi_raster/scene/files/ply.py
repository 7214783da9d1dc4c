"""PLY (Turk, 1994), as text and binary: colours of vertices and faces, texture coordinates."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import ndarray

from taichi_raster.scene.files import images
from taichi_raster.scene.files.soup import Notes, Soup, Surface, polygons, rgba
from taichi_raster.scene.files.writing import Beside, Written, split_corners
from taichi_raster.scene.mesh import Mesh

_TYPES = {
    "char": "i1",
    "int8": "i1",
    "uchar": "u1",
    "uint8": "u1",
    "short": "i2",
    "int16": "i2",
    "ushort": "u2",
    "uint16": "u2",
    "int": "i4",
    "int32": "i4",
    "uint": "u4",
    "uint32": "u4",
    "float": "f4",
    "float32": "f4",
    "double": "f8",
    "float64": "f8",
}
_UV = (("s", "t"), ("u", "v"), ("texture_u", "texture_v"), ("texture_s", "texture_t"))
_COLOURS = (
    ("red", "green", "blue", "alpha"),
    ("diffuse_red", "diffuse_green", "diffuse_blue", "diffuse_alpha"),
    ("r", "g", "b", "a"),
)


@dataclass(frozen=True)
class _Property:
    name: str
    kind: str
    length: str | None = None  # the type of a list's length


@dataclass
class _Element:
    """A kind of rows, and what was read of them.

    Attributes:
        numbers: (N,) by property.
        lists: (lengths (N,), all values one after another) by property.
    """

    name: str
    count: int
    properties: list[_Property] = field(default_factory=list)
    numbers: dict[str, ndarray] = field(default_factory=dict)
    lists: dict[str, tuple[ndarray, ndarray]] = field(default_factory=dict)

    def columns(self, names: tuple[str, ...]) -> ndarray | None:
        """Some properties side by side; None without the first."""
        if not set(names[: min(3, len(names))]) <= set(self.numbers):
            return None
        return np.stack([self.numbers[n] for n in names if n in self.numbers], axis=-1)

    def colours(self) -> ndarray | None:
        """(N, 4) in [0, 1], or None."""
        for names in _COLOURS:
            found = self.columns(names)
            if found is None:
                continue
            kinds = {p.name: _TYPES[p.kind] for p in self.properties}
            kind = np.dtype(kinds[names[0]])
            if kind.kind in "ui":
                return rgba(found / np.iinfo(kind).max)
            whole = bool(found[:, :3].size) and found[:, :3].max() > 1
            return rgba(found / 255.0 if whole else found)  # some write floats up to 255
        return None


def read(path: Path, notes: Notes) -> Soup:
    """The file's triangles, in its order."""
    form, elements, textures, body = _header(path.read_bytes())
    if form == "ascii":
        _take_text(body, elements)
    else:
        _take_binary(body, elements, "<" if form == "binary_little_endian" else ">")
    by_name = {element.name: element for element in elements}
    vertices = by_name.get("vertex")
    places = None if vertices is None else vertices.columns(("x", "y", "z"))
    if vertices is None or places is None:
        raise ValueError("has no vertices with x, y and z")
    faces = by_name.get("face")
    if faces is None and "tristrips" in by_name:
        counts, corners = _of_strips(by_name["tristrips"])
        faces = _Element("face", len(counts), lists={"vertex_indices": (counts, corners)})
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
    return _in_surfaces(
        places, corners[triangles], uv, colours, _texture_of(faces, polygon), textures, path,
        split, notes,
    )  # fmt: skip


def _header(data: bytes) -> tuple[str, list[_Element], list[str], bytes]:
    """The form, the elements, the textures that comments name, and the rest."""
    found = re.search(rb"^[ \t]*end_header[ \t]*(\r\n|\n|\r)", data[: 1 << 20], re.MULTILINE)
    if not data.startswith(b"ply") or found is None:
        # A head whose lines end in \r alone has no line starts for re.
        found = re.search(rb"[\r\n]end_header[ \t]*(\r\n|\n|\r)", data[: 1 << 20])
    if not data.startswith(b"ply") or found is None:
        raise ValueError("has no PLY header")
    form = ""
    elements: list[_Element] = []
    textures = []
    for line in re.split(r"[\r\n]+", data[: found.start()].decode("utf-8", errors="replace")):
        words = line.split()
        if words[:1] == ["format"]:
            form = words[1]
        elif words[:1] == ["element"]:
            elements.append(_Element(words[1], int(words[2])))
        elif words[:2] == ["property", "list"]:
            elements[-1].properties.append(_Property(words[4], words[3], words[2]))
        elif words[:1] == ["property"]:
            elements[-1].properties.append(_Property(words[2], words[1]))
        elif words[:2] in (["comment", "TextureFile"], ["obj_info", "TextureFile"]):
            textures.append(line.split("TextureFile", 1)[1].strip())
    if form not in ("ascii", "binary_little_endian", "binary_big_endian"):
        raise ValueError(f"is a PLY of unknown format {form!r}")
    body = data[found.end() :]
    for element in elements:
        if not 0 <= element.count <= len(data):
            raise ValueError(
                f"announces {element.count} {element.name} elements in {len(data)} bytes"
            )
        kinds = [k for p in element.properties for k in (p.kind, p.length) if k is not None]
        if not set(kinds) <= set(_TYPES):
            raise ValueError(f"has a property of unknown type in its element {element.name}")
    return form, elements, textures, body


# Rows ---------------------------------------------------------------------------------------------


def _take_text(body: bytes, elements: list[_Element]) -> None:
    words = np.array(body.split(), dtype=object)
    at = 0
    for element in elements:
        kinds = element.properties
        width = _same_width(words, at, element)
        if width is not None:
            rows = words[at : at + width * element.count].astype(np.float64)
            at += len(rows)
            _by_column(element, rows.reshape(element.count, width))
            continue
        lists: list[tuple[list[int], list[bytes]]] = [([], []) for _ in kinds]
        for _ in range(element.count):
            for i, kind in enumerate(kinds):
                length = 1
                if kind.length is not None:
                    length = int(words[at])
                    at += 1
                if length < 0 or at + length > len(words):
                    raise ValueError("ends before its last element")
                lists[i][0].append(length)
                lists[i][1].extend(words[at : at + length])
                at += length
        _keep(element, [(np.array(n), np.array(v, dtype=np.float64)) for n, v in lists])


def _same_width(words: ndarray, at: int, element: _Element) -> int | None:
    """The words in a row, if all rows are like the first; None if they are not."""
    width, lengths = 0, []
    for kind in element.properties:
        if kind.length is not None and element.count > 0:
            if at + width >= len(words):
                raise ValueError("ends before its last element")
            lengths.append((width, int(words[at + width])))
            width += lengths[-1][1]
        width += 1
    rows = words[at : at + width * element.count]
    if len(rows) < width * element.count or width <= 0:
        if not lengths:
            raise ValueError("ends before its last element")
        return None
    table = rows.reshape(element.count, width)
    same = all((table[:, column].astype(np.float64) == n).all() for column, n in lengths)
    return width if same else None


def _take_binary(body: bytes, elements: list[_Element], order: str) -> None:
    at = 0
    for element in elements:
        row = _row_type(body, at, element, order)
        size = 0 if row is None else row.itemsize * element.count
        if row is not None and at + size <= len(body):
            rows = np.frombuffer(body, row, element.count, at)
            names = [f"n{i}" for i, p in enumerate(element.properties) if p.length is not None]
            if all((rows[name] == rows[name][:1]).all() for name in names):
                found = []
                for i, kind in enumerate(element.properties):
                    values = rows[f"p{i}"].reshape(-1).astype(np.float64)
                    one = np.ones(element.count, dtype=np.int64)
                    lengths = one if kind.length is None else rows[f"n{i}"].astype(np.int64)
                    found.append((lengths, values))
                _keep(element, found)
                at += size
                continue
        at = _take_rows(body, at, element, order)


def _row_type(body: bytes, at: int, element: _Element, order: str) -> np.dtype[Any] | None:
    """The layout of the first row; None if there is none."""
    layout: list[tuple[Any, ...]] = []
    size = 0
    for i, kind in enumerate(element.properties):
        if kind.length is None:
            layout.append((f"p{i}", order + _TYPES[kind.kind]))
        else:
            number = np.dtype(order + _TYPES[kind.length])
            if element.count == 0 or at + size + number.itemsize > len(body):
                return None
            length = int(np.frombuffer(body, number, 1, at + size)[0])
            if not 0 <= length <= len(body):
                return None
            layout += [
                (f"n{i}", number),
                (f"p{i}", order + _TYPES[kind.kind], (length,)),
            ]
        size = np.dtype(layout).itemsize
    return np.dtype(layout)


def _take_rows(body: bytes, at: int, element: _Element, order: str) -> int:
    """Rows of any lengths, one by one; where they end."""
    codes = {kind: np.dtype(code).char for kind, code in _TYPES.items()}
    lists: list[tuple[list[int], list[float]]] = [([], []) for _ in element.properties]
    try:
        for _ in range(element.count):
            for (lengths, values), kind in zip(lists, element.properties, strict=True):
                length = 1
                if kind.length is not None:
                    form = order + codes[kind.length]
                    (length,) = struct.unpack_from(form, body, at)
                    at += struct.calcsize(form)
                if not 0 <= length <= len(body):
                    raise ValueError(f"has a list of {length} values")
                form = f"{order}{int(length)}{codes[kind.kind]}"
                values += struct.unpack_from(form, body, at)
                at += struct.calcsize(form)
                lengths.append(int(length))
    except struct.error as error:
        raise ValueError("ends before its last element") from error
    _keep(element, [(np.array(n), np.array(v, dtype=np.float64)) for n, v in lists])
    return at


def _by_column(element: _Element, rows: ndarray) -> None:
    found, at = [], 0
    for kind in element.properties:
        length = 1
        if kind.length is not None:
            length = int(rows[0, at]) if len(rows) else 0
            at += 1
        found.append((np.full(len(rows), length), rows[:, at : at + length].reshape(-1)))
        at += length
    _keep(element, found)


def _keep(element: _Element, found: list[tuple[ndarray, ndarray]]) -> None:
    for kind, (lengths, values) in zip(element.properties, found, strict=True):
        if kind.length is None:
            element.numbers[kind.name] = values
        else:
            element.lists[kind.name] = (lengths, values)


# Appearance ---------------------------------------------------------------------------------------


def _of_strips(element: _Element) -> tuple[ndarray, ndarray]:
    """Triangles of strips, in each of which -1 begins another."""
    _, values = element.lists.get("vertex_indices") or next(iter(element.lists.values()))
    found = []
    strip: list[int] = []
    for index in values.astype(np.int64).tolist():
        strip = [] if index < 0 else [*strip, index]
        if len(strip) >= 3:
            a, b, c = strip[-3:]
            found.append([a, b, c] if len(strip) % 2 else [b, a, c])
    return np.full(len(found), 3), np.array(found, dtype=np.int64).reshape(-1)


def _coordinates(
    vertices: _Element,
    faces: _Element,
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
    vertices: _Element, faces: _Element, index: ndarray, polygon: ndarray, notes: Notes
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


def _texture_of(faces: _Element, polygon: ndarray) -> ndarray:
    """(F,) the number of each triangle's texture."""
    numbers = faces.numbers.get("texnumber")
    if numbers is None:
        return np.zeros(len(polygon), dtype=np.int64)
    return np.asarray(numbers[polygon].astype(np.int64))


def _in_surfaces(
    places: ndarray,
    index: ndarray,
    uv: ndarray | None,
    colours: ndarray | None,
    texture: ndarray,
    names: list[str],
    path: Path,
    split: bool,
    notes: Notes,
) -> Soup:
    """The triangles with their textures; the order of the file's is kept."""
    surfaces = [Surface()]
    material = np.zeros(len(index), dtype=np.int64)
    for i, name in enumerate(names):
        image = images.read_beside(path.parent, name, notes)
        if image is not None:
            surfaces.append(Surface(image, given=True))
            material[texture == i] = len(surfaces) - 1
    return Soup(places, index, uv, colours, material, surfaces, split)


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
            notes.add("what 8 bits a channel cannot hold of the colours")
        names = "red green blue alpha" if values.shape[1] == 4 else "red green blue"
        add(names, values[rows.colour], "uchar")
    beside = Beside(path)
    head = ["ply", "format binary_little_endian 1.0", f"comment {beside.mark}"]
    if mesh.texture is not None and mesh.uv is not None:
        head.append(f"comment TextureFile {beside.add('.png', images.encoded(mesh.texture))}")
    head.append(f"element vertex {len(rows.vertex)}")
    head += [f"property {kind} {name}" for name, kind, _ in columns]
    head += [f"element face {len(rows.faces)}", "property list uchar int vertex_indices"]
    table = np.empty(len(rows.vertex), [(name, "<" + _TYPES[kind]) for name, kind, _ in columns])
    for name, _, values in columns:
        table[name] = values
    faces = np.empty(len(rows.faces), [("count", "u1"), ("index", "<i4", (3,))])
    faces["count"], faces["index"] = 3, rows.faces
    text = "\n".join([*head, "end_header", ""])
    return beside.written(text.encode() + table.tobytes() + faces.tobytes())
