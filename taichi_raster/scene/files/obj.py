"""Wavefront's OBJ: polygons, texture coordinates and colours of vertices, materials beside it."""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy import ndarray

from taichi_raster.scene.files import images
from taichi_raster.scene.files.mtl import Material, read_materials
from taichi_raster.scene.files.soup import Builder, Notes, Soup, fractions, polygons
from taichi_raster.scene.files.text import decimals, table, whole_words
from taichi_raster.scene.files.writing import Beside, Written, split_corners
from taichi_raster.scene.mesh import Mesh

_LEFT_OUT = {
    "l": "lines",
    "p": "points",
    "curv": "free-form curves",
    "curv2": "free-form curves",
    "surf": "free-form surfaces",
}


def read(path: Path, notes: Notes) -> Soup:
    """The file's triangles, in its order."""
    lines = _Lines()
    lines.take(_decoded(path.read_bytes()))
    for key in sorted(lines.others & set(_LEFT_OUT)):
        notes.add(_LEFT_OUT[key])
    places, vertex_colours = _vertices(lines.vertices)
    uv = table(lines.uv, 2, fill=0.0)
    materials = _libraries(lines, path.parent, notes)
    counts = np.array(lines.counts, dtype=np.int64)
    corners, coordinates = _indices(lines)
    if len(coordinates) and coordinates.max(initial=-1) >= len(uv):
        raise ValueError("has faces whose texture coordinates are not in the file")
    triangles, polygon = polygons(places, counts, corners, notes)
    builder = Builder()
    builder.vertices(places)
    for first, last, name in _runs(lines, len(counts)):
        begin, end = np.searchsorted(polygon, (first, last))
        slots = triangles[begin:end]
        if len(slots) == 0:
            continue
        if name is not None and name not in materials:
            notes.add("materials that no file describes", name)
        material = materials.get(name, _PLAIN) if name is not None else _PLAIN
        index = coordinates[slots]
        moved = None
        if len(uv) and (index >= 0).any():
            moved = np.where((index >= 0)[..., None], material.moved(uv[index]), np.nan)
            moved[(index < 0).any(axis=1)] = np.nan
        faces = corners[slots]
        colours = None if vertex_colours is None else vertex_colours[faces]
        builder.triangles(faces, material.surface, moved, colours)
    return builder.soup(split=vertex_colours is not None)


_PLAIN = Material()


@dataclass
class _Lines:
    """The lines of a file, by what they say.

    Attributes:
        counts: how many corners each face has; `corners` are those of all, as the file has them.
        vertices_before, uv_before: how many there were before each face.
        uses: (the face where it begins, the name of the material).
    """

    vertices: list[str] = field(default_factory=list)
    uv: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    corners: list[str] = field(default_factory=list)
    vertices_before: list[int] = field(default_factory=list)
    uv_before: list[int] = field(default_factory=list)
    uses: list[tuple[int, str]] = field(default_factory=list)
    libraries: list[str] = field(default_factory=list)
    others: set[str] = field(default_factory=set)

    def take(self, text: str) -> None:
        for line in text.split("\n"):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            key = words[0]
            if key == "v":
                self.vertices.append(line.partition(key)[2].partition("#")[0])
            elif key in ("f", "fo"):
                self._face(line.partition(key)[2].partition("#")[0].split())
            elif key == "vt":
                self.uv.append(line.partition(key)[2].partition("#")[0])
            elif key == "usemtl":
                self.uses.append((len(self.counts), line.strip()[6:].strip()))
            elif key == "mtllib":
                self.libraries.append(line.strip()[6:].strip())
            else:
                self.others.add(key)

    def _face(self, words: list[str]) -> None:
        self.counts.append(len(words))
        self.corners += words
        self.vertices_before.append(len(self.vertices))
        self.uv_before.append(len(self.uv))


def _indices(lines: _Lines) -> tuple[ndarray, ndarray]:
    """(N,) the vertex and the texture coordinate of each corner, from 0; -1 is none."""
    words = lines.corners
    slashes = {word.count("/") for word in words}
    text = " ".join(words)
    full = "//" not in text and "/ " not in f"{text} "  # a number on each side of every slash
    if len(slashes) == 1 and "-" not in text and full:
        width = slashes.pop() + 1
        numbers = np.array(text.replace("/", " ").split(), dtype=np.int64).reshape(-1, width)
        if not (numbers[:, :2] == 0).any():
            none = np.full(len(words), -1)
            return numbers[:, 0] - 1, numbers[:, 1] - 1 if width > 1 else none
    found = []
    before = (np.repeat(b, lines.counts).tolist() for b in (lines.vertices_before, lines.uv_before))
    for word, vertices, coordinates in zip(words, *before, strict=True):
        vertex, _, rest = word.partition("/")
        uv = rest.partition("/")[0]
        found.append((_index(vertex, vertices), _index(uv, coordinates) if uv else -1))
    both = np.array(found, dtype=np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _index(word: str, count: int) -> int:
    index = int(word)
    if index == 0:
        raise ValueError("has a face with vertex 0; OBJ files count from 1")
    found = index - 1 if index > 0 else count + index
    if found < 0:
        raise ValueError(f"has a face of vertex {index}, where there are {count} so far")
    return found


def _decoded(data: bytes) -> str:
    for mark, encoding in ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if data.startswith(mark):
            text = data.decode(encoding)
            break
    else:
        text = data.decode("utf-8-sig", errors="surrogateescape")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.replace("\\\n", " ")


def _vertices(rows: list[str]) -> tuple[ndarray, ndarray | None]:
    """Places (V, 3), and colours (V, 3) if any vertex has one; those without are white."""
    widths = {len(row.split()) for row in rows}
    if widths and min(widths) < 3:
        raise ValueError("has vertices of fewer than three numbers")
    if max(widths, default=0) < 6:
        return table(rows, 3), None
    values = table(rows, 6, fill=float("nan"))
    words = [word for row in rows for word in row.split()[3:6]]
    colours = fractions(values[:, 3:], whole_words(words))
    given = ~np.isnan(colours)
    return values[:, :3], np.where(given.all(axis=1, keepdims=True), colours, 1.0)


def _libraries(lines: _Lines, folder: Path, notes: Notes) -> dict[str, Material]:
    found: dict[str, Material] = {}
    for names in lines.libraries:
        whole = images.find_beside(folder, names)
        for name in [names] if whole is not None else names.split():
            path = images.find_beside(folder, name)
            if path is None:
                if lines.uses:
                    notes.add("files of materials that are not there", name)
                continue
            found |= read_materials(_decoded(path.read_bytes()), path.parent, notes)
    return found


def _runs(lines: _Lines, count: int) -> list[tuple[int, int, str | None]]:
    """(first face, last face + 1, material) in the file's order."""
    starts = [(0, None), *lines.uses]
    ends = [start for start, _ in lines.uses] + [count]
    return [(first, last, name) for (first, name), last in zip(starts, ends, strict=True)]


def write(path: Path, mesh: Mesh, notes: Notes) -> Written:
    """The file, with its material and image beside it if the mesh has a texture."""
    rows = split_corners(mesh, uv=False)
    places = mesh.vertices.detach().cpu().numpy()[rows.vertex]
    columns = [decimals(places)]
    if mesh.colours is not None and rows.colour is not None:
        colours = mesh.colours.detach().cpu().numpy()[rows.colour]
        if colours.shape[1] == 4:
            notes.add("the opacity of colours")
        columns.append(decimals(colours[:, :3].clip(0, 1), point=True))
    out = [" ".join(("v", *parts)) for parts in zip(*columns, strict=True)]
    faces = (rows.faces + 1).astype(str)
    beside = Beside(path)
    if mesh.uv is None:
        out += [f"f {a} {b} {c}" for a, b, c in faces]
        return beside.written("\n".join([*out, ""]).encode())
    head = ["# written by taichi_raster"]
    if mesh.texture is not None:
        image = beside.add(".png", images.encoded(mesh.texture))
        clamp = "-clamp on " if mesh.wrap == "clamp" else ""
        text = f"# {beside.mark}\nnewmtl textured\nKd 1 1 1\nmap_Kd {clamp}{image}\n"
        library = beside.add(".mtl", text.encode())
        head += [f"mtllib {library}"]
    uv_index = mesh.faces if mesh.uv_faces is None else mesh.uv_faces
    pairs = np.char.add(np.char.add(faces, "/"), (uv_index.cpu().numpy() + 1).astype(str))
    out += [f"vt {row}" for row in decimals(mesh.uv.detach().cpu().numpy())]
    if mesh.texture is not None:
        out.append("usemtl textured")
    out += [f"f {a} {b} {c}" for a, b, c in pairs]
    return beside.written("\n".join([*head, *out, ""]).encode())
