"""Writing glTF 2.0 in one binary file (.glb)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import ndarray

from taichi_raster.scene.files import images
from taichi_raster.scene.files.soup import Notes
from taichi_raster.scene.files.writing import Written, split_corners
from taichi_raster.scene.mesh import Mesh

_FLOAT, _UINT = 5126, 5125
_VERTICES, _INDICES = 34962, 34963


def write(path: Path, mesh: Mesh, notes: Notes) -> Written:
    """One mesh of one primitive, with colours as COLOR_0 and the texture as a PNG within."""
    _note_losses(mesh, notes)
    rows = split_corners(mesh)
    out = _Chunk()
    places = mesh.vertices.detach().cpu().numpy()[rows.vertex].astype("<f4")
    attributes = {"POSITION": out.accessor(places, _VERTICES, bounds=True)}
    if mesh.uv is not None and rows.uv is not None:
        uv = mesh.uv.detach().cpu().double().numpy()[rows.uv]
        uv = np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1)
        attributes["TEXCOORD_0"] = out.accessor(uv.astype("<f4"), _VERTICES)
    if mesh.colours is not None and rows.colour is not None:
        colours = mesh.colours.detach().cpu().numpy()[rows.colour].clip(0, 1)
        attributes["COLOR_0"] = out.accessor(colours.astype("<f4"), _VERTICES)
    index = out.accessor(rows.faces.reshape(-1).astype("<u4"), _INDICES)
    material: dict[str, Any] = {"metallicFactor": 0, "roughnessFactor": 1}
    top: dict[str, Any] = {}
    channels = [] if mesh.colours is None else [mesh.colours.shape[1]]
    if mesh.texture is not None and mesh.uv is not None:
        material["baseColorTexture"] = {"index": 0}
        view = out.view(images.encoded(mesh.texture))
        wrap = 33071 if mesh.wrap == "clamp" else 10497
        top["textures"] = [{"source": 0, "sampler": 0}]
        top["samplers"] = [{"wrapS": wrap, "wrapT": wrap, "magFilter": 9729, "minFilter": 9987}]
        top["images"] = [{"bufferView": view, "mimeType": "image/png"}]
        channels.append(mesh.texture.shape[2])
    primitive: dict[str, Any] = {"attributes": attributes, "indices": index}
    # Without a material, trimesh shows colours of vertices; with one, it does not.
    if mesh.texture is not None or 4 in channels:
        described: dict[str, Any] = {"pbrMetallicRoughness": material, "doubleSided": True}
        if 4 in channels:
            described["alphaMode"] = "BLEND"
        top["materials"] = [described]
        primitive["material"] = 0
    return {path: out.file({"meshes": [{"primitives": [primitive]}], **top})}


def _note_losses(mesh: Mesh, notes: Notes) -> None:
    for values in (mesh.vertices, mesh.uv, mesh.colours):
        if values is not None and not torch.equal(values.float().to(values.dtype), values):
            notes.add("the mesh's digits beyond float32")


class _Chunk:
    """Buffer views and accessors of one buffer."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, int]] = []
        self.accessors: list[dict[str, Any]] = []

    def view(self, data: bytes, target: int | None = None) -> int:
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data)}
        self.views.append(view if target is None else {**view, "target": target})
        self.data += data + b"\0" * (-len(data) % 4)
        return len(self.views) - 1

    def accessor(self, values: ndarray, target: int, bounds: bool = False) -> int:
        width = 1 if values.ndim == 1 else values.shape[1]
        found: dict[str, Any] = {
            "bufferView": self.view(values.tobytes(), target),
            "componentType": _FLOAT if values.dtype.kind == "f" else _UINT,
            "count": len(values),
            "type": "SCALAR" if width == 1 else f"VEC{width}",
        }
        if bounds:
            found["min"], found["max"] = values.min(0).tolist(), values.max(0).tolist()
        self.accessors.append(found)
        return len(self.accessors) - 1

    def file(self, top: dict[str, Any]) -> bytes:
        described = {
            "asset": {"version": "2.0", "generator": "taichi_raster"},
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0}],
            **top,
            "accessors": self.accessors,
            "bufferViews": self.views,
            "buffers": [{"byteLength": len(self.data)}],
        }
        head = json.dumps(described, separators=(",", ":")).encode()
        head += b" " * (-len(head) % 4)
        body = bytes(self.data)
        chunks = (
            len(head).to_bytes(4, "little") + b"JSON" + head
            + len(body).to_bytes(4, "little") + b"BIN\0" + body
        )  # fmt: skip
        return (
            b"glTF" + (2).to_bytes(4, "little") + (12 + len(chunks)).to_bytes(4, "little") + chunks
        )
