"""The elements of PLY files (Turk, 1994): the header, and rows as text or binary."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy import ndarray

from taichi_raster.scene.files.soup import fractions, rgba

TYPES = {
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
_COLOURS = (
    ("red", "green", "blue", "alpha"),
    ("diffuse_red", "diffuse_green", "diffuse_blue", "diffuse_alpha"),
    ("r", "g", "b", "a"),
)


@dataclass(frozen=True)
class Property:
    """A number of each row, or a list: then `length` is the type of the list's length."""

    name: str
    kind: str
    length: str | None = None


@dataclass
class Element:
    """A kind of rows, and what was read of them.

    Attributes:
        numbers: (N,) by property.
        lists: (lengths (N,), all values one after another) by property.
    """

    name: str
    count: int
    properties: list[Property] = field(default_factory=list)
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
            kinds = {p.name: TYPES[p.kind] for p in self.properties}
            kind = np.dtype(kinds[names[0]])
            if kind.kind in "ui":
                return rgba(found / np.iinfo(kind).max)
            whole = bool((found == np.round(found)).all())
            return rgba(fractions(found, whole))
        return None


def elements_of(data: bytes) -> tuple[list[Element], list[str]]:
    """The elements of a file with their rows, and the images that its comments name.

    Raises:
        ValueError: if the header is not one, or the file ends before its last element.
    """
    form, elements, textures, body = _header(data)
    if form == "ascii":
        _take_text(body, elements)
    else:
        _take_binary(body, elements, "<" if form == "binary_little_endian" else ">")
    return elements, textures


def _header(data: bytes) -> tuple[str, list[Element], list[str], bytes]:
    """The form, the elements, the textures that comments name, and the rest."""
    found = re.search(rb"^[ \t]*end_header[ \t]*(\r\n|\n|\r)", data[: 1 << 20], re.MULTILINE)
    if not data.startswith(b"ply") or found is None:
        # A head whose lines end in \r alone has no line starts for re.
        found = re.search(rb"[\r\n]end_header[ \t]*(\r\n|\n|\r)", data[: 1 << 20])
    if not data.startswith(b"ply") or found is None:
        raise ValueError("has no PLY header")
    form = ""
    elements: list[Element] = []
    textures = []
    for line in re.split(r"[\r\n]+", data[: found.start()].decode("utf-8", errors="replace")):
        words = line.split()
        if words[:1] == ["format"]:
            form = words[1]
        elif words[:1] == ["element"]:
            elements.append(Element(words[1], int(words[2])))
        elif words[:2] == ["property", "list"]:
            elements[-1].properties.append(Property(words[4], words[3], words[2]))
        elif words[:1] == ["property"]:
            elements[-1].properties.append(Property(words[2], words[1]))
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
        if not set(kinds) <= set(TYPES):
            raise ValueError(f"has a property of unknown type in its element {element.name}")
    return form, elements, textures, body


# Rows ---------------------------------------------------------------------------------------------


def _take_text(body: bytes, elements: list[Element]) -> None:
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


def _same_width(words: ndarray, at: int, element: Element) -> int | None:
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


def _take_binary(body: bytes, elements: list[Element], order: str) -> None:
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


def _row_type(body: bytes, at: int, element: Element, order: str) -> np.dtype[Any] | None:
    """The layout of the first row; None if there is none."""
    layout: list[tuple[Any, ...]] = []
    size = 0
    for i, kind in enumerate(element.properties):
        if kind.length is None:
            layout.append((f"p{i}", order + TYPES[kind.kind]))
        else:
            number = np.dtype(order + TYPES[kind.length])
            if element.count == 0 or at + size + number.itemsize > len(body):
                return None
            length = int(np.frombuffer(body, number, 1, at + size)[0])
            if not 0 <= length <= len(body):
                return None
            layout += [
                (f"n{i}", number),
                (f"p{i}", order + TYPES[kind.kind], (length,)),
            ]
        size = np.dtype(layout).itemsize
    return np.dtype(layout)


def _take_rows(body: bytes, at: int, element: Element, order: str) -> int:
    """Rows of any lengths, one by one; where they end."""
    codes = {kind: np.dtype(code).char for kind, code in TYPES.items()}
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


def _by_column(element: Element, rows: ndarray) -> None:
    found, at = [], 0
    for kind in element.properties:
        length = 1
        if kind.length is not None:
            length = int(rows[0, at]) if len(rows) else 0
            at += 1
        found.append((np.full(len(rows), length), rows[:, at : at + length].reshape(-1)))
        at += length
    _keep(element, found)


def _keep(element: Element, found: list[tuple[ndarray, ndarray]]) -> None:
    for kind, (lengths, values) in zip(element.properties, found, strict=True):
        if kind.length is None:
            element.numbers[kind.name] = values
        else:
            element.lists[kind.name] = (lengths, values)
