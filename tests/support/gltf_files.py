"""glTF files made of plain arrays, for tests of reading them."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray
from PIL import Image

COMPONENTS = {"f4": 5126, "u1": 5121, "u2": 5123, "u4": 5125}
TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}


class Gltf:
    """A file in the making: add accessors, images and primitives, then write it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.json: dict[str, Any] = {"asset": {"version": "2.0"}, "scene": 0}
        for name in ("accessors", "bufferViews", "meshes", "nodes", "materials", "textures"):
            self.json[name] = []
        self.json |= {"images": [], "samplers": []}

    def view(self, data: bytes) -> int:
        self.data += b"\0" * (-len(self.data) % 4)
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data)}
        self.json["bufferViews"].append(view)
        self.data += data
        return len(self.json["bufferViews"]) - 1

    def accessor(self, values: Any, kind: str = "f4", **more: Any) -> int:
        array = np.asarray(values).astype(f"<{kind}")
        width = 1 if array.ndim == 1 else array.shape[1]
        self.json["accessors"].append(
            {
                "bufferView": self.view(array.tobytes()),
                "componentType": COMPONENTS[kind],
                "count": len(array),
                "type": TYPES[width],
                **more,
            }
        )
        return len(self.json["accessors"]) - 1

    def texture(self, pixels: ndarray, **sampler: int) -> dict[str, Any]:
        """A texture of (H, W, 3 or 4) bytes; what a material calls it."""
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "PNG")
        self.json["images"].append(
            {"bufferView": self.view(out.getvalue()), "mimeType": "image/png"}
        )
        self.json["samplers"].append(sampler)
        number = len(self.json["images"]) - 1
        self.json["textures"].append({"source": number, "sampler": number})
        return {"index": number}

    def material(self, texture: dict[str, Any] | None = None, **more: Any) -> int:
        """`factor` is the baseColorFactor; others go into the material itself."""
        pbr: dict[str, Any] = {} if texture is None else {"baseColorTexture": texture}
        if "factor" in more:
            pbr["baseColorFactor"] = more.pop("factor")
        self.json["materials"].append({"pbrMetallicRoughness": pbr, **more})
        return len(self.json["materials"]) - 1

    def part(
        self,
        places: Any,
        faces: Any,
        material: int | None = None,
        node: dict[str, Any] | None = None,
        mode: int = 4,
        **attributes: int,
    ) -> None:
        """A mesh of one primitive, at a node of its own."""
        primitive: dict[str, Any] = {
            "attributes": {"POSITION": self.accessor(places), **attributes},
            "mode": mode,
        }
        if faces is not None:
            primitive["indices"] = self.accessor(np.asarray(faces).reshape(-1), "u4")
        if material is not None:
            primitive["material"] = material
        self.json["meshes"].append({"primitives": [primitive]})
        self.json["nodes"].append({"mesh": len(self.json["meshes"]) - 1, **(node or {})})

    def done(self, roots: Sequence[int] | None = None) -> dict[str, Any]:
        nodes = list(range(len(self.json["nodes"]))) if roots is None else list(roots)
        found = {key: value for key, value in self.json.items() if value != []}
        return {**found, "scenes": [{"nodes": nodes}]}

    def write(self, path: Path, roots: Sequence[int] | None = None) -> Path:
        """As .glb, or as .gltf with its data in it."""
        described = self.done(roots)
        buffer: dict[str, Any] = {"byteLength": len(self.data)}
        if path.suffix == ".gltf":
            body = base64.b64encode(bytes(self.data)).decode()
            buffer["uri"] = f"data:application/octet-stream;base64,{body}"
        path.write_bytes(packed({**described, "buffers": [buffer]}, bytes(self.data), path.suffix))
        return path


def packed(described: dict[str, Any], data: bytes, suffix: str = ".glb") -> bytes:
    """The bytes of a file of this JSON and this binary chunk."""
    head = json.dumps(described).encode()
    if suffix == ".gltf":
        return head
    head += b" " * (-len(head) % 4)
    data += b"\0" * (-len(data) % 4)
    chunks = len(head).to_bytes(4, "little") + b"JSON" + head
    chunks += len(data).to_bytes(4, "little") + b"BIN\0" + data
    return b"glTF" + (2).to_bytes(4, "little") + (12 + len(chunks)).to_bytes(4, "little") + chunks
