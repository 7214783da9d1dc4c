"""STL, text and binary: triangles without indices; colours as Magics and VisCAM write them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray

from taichi_raster.scene.files.soup import Builder, Notes, Soup, Surface, rgba
from taichi_raster.scene.files.writing import Written
from taichi_raster.scene.mesh import Mesh

_RECORD = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("colour", "<u2")])
_VERTEX = re.compile(rb"\bvertex\s+(\S+)\s+(\S+)\s+(\S+)", re.IGNORECASE)


def read(path: Path, notes: Notes) -> Soup:
    """The file's triangles, in its order."""
    data = path.read_bytes()
    colours = None
    announced = int.from_bytes(data[80:84], "little") if len(data) >= 84 else -1
    if announced >= 0 and len(data) == 84 + _RECORD.itemsize * announced:
        corners, colours = _binary(data, announced)
    elif data.lstrip()[:5].lower() == b"solid" and _VERTEX.search(data):
        found = np.array(_VERTEX.findall(data), dtype=np.float64)
        if len(found) % 3 or not re.search(rb"endsolid", data, re.IGNORECASE):
            raise ValueError("ends within a triangle, or without endsolid")
        corners = found.reshape(-1, 3, 3)
    elif announced >= 0 and len(data) > 84 + _RECORD.itemsize * announced:
        corners, colours = _binary(data, announced)
        notes.add(f"{len(data) - 84 - _RECORD.itemsize * announced} bytes after the triangles")
    else:
        raise ValueError(
            f"is no STL: {len(data)} bytes, which are neither text nor {announced} triangles"
        )
    if not np.isfinite(corners).all():
        raise ValueError("has vertices that are NaN or infinite")
    builder = Builder()
    builder.vertices(corners)
    faces = np.arange(3 * len(corners)).reshape(-1, 3)
    builder.triangles(faces, Surface(), None, colours)
    return builder.soup(split=True)


def _binary(data: bytes, count: int) -> tuple[ndarray, ndarray | None]:
    """Corners (F, 3, 3), and colours of them (F, 3, 4) if the file has any."""
    records = np.frombuffer(data, _RECORD, count, 84)
    bits = records["colour"]
    fifths = [((bits >> shift) & 31) / 31 for shift in (0, 5, 10)]
    marked = (bits & 0x8000) != 0
    head = data[:80]
    at = head.find(b"COLOR=")
    if at >= 0 and len(head) >= at + 10:  # Magics: red lowest; a mark means the whole body's
        body = np.frombuffer(head, np.uint8, 4, at + 6) / 255
        own = np.stack([*fifths, np.ones(count)], axis=-1)
        by_face = np.where(marked[:, None], body, own)
    elif marked.any():  # VisCAM: blue lowest; a mark means that there is a colour
        own = np.stack([*fifths[::-1], np.ones(count)], axis=-1)
        by_face = np.where(marked[:, None], own, np.nan)
    else:
        return records["corners"].astype(np.float64), None
    return records["corners"].astype(np.float64), rgba(by_face[:, None].repeat(3, axis=1))


def write(path: Path, mesh: Mesh, notes: Notes) -> Written:
    """Binary."""
    if mesh.colours is not None:
        notes.add("colours")
    if mesh.uv is not None:
        notes.add("texture coordinates" if mesh.texture is None else "the texture")
    if not torch.equal(mesh.vertices.float().to(mesh.vertices.dtype), mesh.vertices):
        notes.add("the mesh's digits beyond float32")
    index = mesh.faces.cpu()
    _, first = np.unique(index.numpy(), return_index=True)
    if (np.diff(first) < 0).any():
        notes.add("the order of vertices, as STL lists triangles alone")
    places = mesh.vertices.detach().cpu()
    records = np.zeros(len(index), _RECORD)
    records["corners"] = places[index].to(torch.float32).numpy()
    a, b, c = places[index].double().unbind(1)
    normal = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=1)
    records["normal"] = normal.to(torch.float32).numpy()
    head = b"written by taichi_raster".ljust(80)
    return {path: head + len(records).to_bytes(4, "little") + records.tobytes()}
