"""The containers of glTF 2.0: JSON, buffers and accessors, of .gltf and .glb files."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

import numpy as np
from numpy import ndarray

from taichi_raster.scene.files import images

_COMPONENTS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
_JSON, _BINARY = 0x4E4F534A, 0x004E4942

Json = dict[str, Any]


class Document:
    """The JSON of a file, and the bytes that it refers to.

    Raises:
        ValueError: if the file is cut off, or is not glTF 2.
    """

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        self.folder = path.parent
        self.chunk: bytes | None = None
        if data[:4] == b"glTF":
            data = self._unpacked(data)
        try:
            self.json: Json = json.loads(data.decode("utf-8-sig"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"is not JSON: {error}") from error
        if not isinstance(self.json, dict) or "asset" not in self.json:
            raise ValueError("is not glTF")
        version = str(self.json["asset"].get("version", ""))
        if not version.startswith("2"):
            raise ValueError(f"is glTF {version or 'of no version'}; only glTF 2 can be read")
        self._buffers: dict[int, bytes] = {}
        self._values: dict[int, ndarray] = {}

    def _unpacked(self, data: bytes) -> bytes:
        """The JSON chunk; keeps the binary one."""
        version, length = np.frombuffer(data, "<u4", 2, 4).tolist() if len(data) >= 12 else (0, 0)
        if len(data) >= 12 and version != 2:
            raise ValueError(f"is glTF {version}; only glTF 2 can be read")
        if len(data) < 12 or length > len(data):
            raise ValueError(f"is cut off: {len(data)} bytes of {length or 'a header of 12'}")
        at, found = 12, None
        while at + 8 <= length:
            size, kind = np.frombuffer(data, "<u4", 2, at).tolist()
            chunk = data[at + 8 : at + 8 + size]
            if len(chunk) < size:
                raise ValueError("is cut off within a chunk")
            if kind == _JSON and found is None:
                found = chunk
            elif kind == _BINARY and self.chunk is None:
                self.chunk = chunk
            at += 8 + size
        if found is None:
            raise ValueError("has no JSON chunk")
        return found

    def items(self, name: str) -> list[Json]:
        """A list of the file's, empty if it has none."""
        found = self.json.get(name, [])
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise ValueError(f"has {name} that are not a list of objects")
        return found

    def item(self, name: str, index: Any) -> Json:
        """One of a list.

        Raises:
            ValueError: if there is none of that number.
        """
        found = self.items(name)
        if not isinstance(index, int) or not 0 <= index < len(found):
            raise ValueError(f"refers to {name}[{index}], of {len(found)}")
        return found[index]

    def view(self, index: Any) -> tuple[bytes, int]:
        """The bytes of a buffer view, and its stride (0 if packed)."""
        view = self.item("bufferViews", index)
        data = self._buffer(view.get("buffer"))
        start, length = int(view.get("byteOffset", 0)), int(view["byteLength"])
        if start < 0 or length < 0 or start + length > len(data):
            raise ValueError(f"has a buffer view of bytes that are not there ({index})")
        return data[start : start + length], int(view.get("byteStride", 0))

    def _buffer(self, index: Any) -> bytes:
        buffer = self.item("buffers", index)
        if index not in self._buffers:
            uri = buffer.get("uri")
            if uri is None:
                if self.chunk is None or index != 0:
                    raise ValueError(f"has a buffer without data ({index})")
                self._buffers[index] = self.chunk
            else:
                self._buffers[index] = self.resource(uri)
        return self._buffers[index]

    def resource(self, uri: str) -> bytes:
        """What a URI stands for: data in it, or a file beside this one.

        Raises:
            ValueError: if there is no such file.
        """
        if uri.startswith("data:"):
            head, _, body = uri.partition(",")
            if head.endswith(";base64"):
                return base64.b64decode(unquote(body))
            return unquote_to_bytes(body)
        path = images.find_beside(self.folder, unquote(uri)) or images.find_beside(self.folder, uri)
        if path is None:
            raise ValueError(f"needs the file {uri}, which is not there")
        return path.read_bytes()

    def accessor(self, index: Any) -> ndarray:
        """(N, width) numbers, as floats if they are normalised.

        Raises:
            ValueError: if the file has not so many bytes.
        """
        if isinstance(index, int) and index in self._values:
            return self._values[index]
        found = self._accessor(self.item("accessors", index))
        self._values[index] = found
        return found

    def _accessor(self, accessor: Json) -> ndarray:
        try:
            kind = np.dtype(_COMPONENTS[accessor["componentType"]])
            width, count = _WIDTHS[accessor["type"]], int(accessor["count"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError("has an accessor of unknown type") from error
        sparse = accessor.get("sparse")
        if "bufferView" in accessor:
            values = self._read(accessor["bufferView"], accessor, kind, width, count)
        elif count > 1 << 24:
            raise ValueError(f"has an accessor of {count} elements and no data")
        else:
            values = np.zeros((count, width), kind)
        if sparse:
            few = int(sparse["count"])
            kind_of = np.dtype(_COMPONENTS[sparse["indices"]["componentType"]])
            at = self._read(sparse["indices"]["bufferView"], sparse["indices"], kind_of, 1, few)
            new = self._read(sparse["values"]["bufferView"], sparse["values"], kind, width, few)
            if few and int(at.max()) >= count:
                raise ValueError("has a sparse accessor with indices beyond its end")
            values = values.copy()
            values[at[:, 0].astype(np.int64)] = new
        if accessor.get("normalized") and kind.kind in "ui":
            return np.asarray((values / np.iinfo(kind).max).clip(min=-1))
        return values

    def _read(self, view: Any, where: Json, kind: np.dtype[Any], width: int, count: int) -> ndarray:
        data, stride = self.view(view)
        start, size = int(where.get("byteOffset", 0)), kind.itemsize * width
        stride = stride or size
        if count < 0 or start < 0 or (count and start + stride * (count - 1) + size > len(data)):
            raise ValueError(f"announces {count} elements where {len(data)} bytes are")
        if count == 0:
            return np.zeros((0, width), kind)
        found: ndarray = np.ndarray((count, width), kind, data, start, (stride, kind.itemsize))
        return found
