"""Files that appear whole or not at all, with others beside them that are named after them."""

from __future__ import annotations

import glob
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from taichi_raster.scene.mesh import Mesh

Written = dict[Path, bytes]
"""What to write where; the mesh itself comes last."""


class Corners(NamedTuple):
    """A mesh whose vertices are split so that each has one colour, and one texture coordinate.

    Attributes:
        vertex, uv, colour: (N,) the mesh's own index of each vertex, in the order of the mesh's
            vertices; None where the mesh has no such values.
        faces: (F, 3) into those.
    """

    vertex: ndarray
    uv: ndarray | None
    colour: ndarray | None
    faces: ndarray


def split_corners(mesh: Mesh, uv: bool = True, colours: bool = True) -> Corners:
    """Vertices split no more than needed for uv and colours to have their index."""
    faces = np.asarray(mesh.faces.cpu())
    columns, lengths = [faces], {len(mesh.vertices)}
    places: dict[str, int] = {}
    for name, values, own, wanted in (
        ("uv", mesh.uv, mesh.uv_faces, uv),
        ("colour", mesh.colours, mesh.colour_faces, colours),
    ):
        if values is not None and wanted:
            places[name] = len(columns)
            columns.append(faces if own is None else np.asarray(own.cpu()))
            lengths.add(len(values))
    keys = np.stack(columns, axis=-1).reshape(-1, len(columns))
    if len(lengths) == 1 and (keys == keys[:, :1]).all():
        # One index for all, in which vertices without faces may stay.
        rows = np.arange(len(mesh.vertices))[:, None].repeat(len(columns), axis=1)
        index = faces
    else:
        code, first = np.zeros(len(keys), dtype=np.int64), keys[:0]
        for column in keys.T:  # sorted by vertex first, then by the others
            code = code * (int(column.max()) + 1) + column
            _, first, code = np.unique(code, return_index=True, return_inverse=True)
        rows, index = keys[first], code
    found = {name: rows[:, at] for name, at in places.items()}
    return Corners(rows[:, 0], found.get("uv"), found.get("colour"), index.reshape(faces.shape))


@dataclass
class Beside:
    """Files beside a mesh's, named after it; a file of that name that is not the mesh's stays.

    A file is the mesh's if it bears `mark`, or if one beside it that bears the mark names it.
    """

    path: Path
    files: Written = field(default_factory=dict)

    @property
    def mark(self) -> str:
        """What is written into files that belong to the mesh."""
        return f"written by taichi_raster for {self.path.name}"

    def add(self, suffix: str, data: bytes) -> str:
        """Write `data` beside the mesh; the name that it gets."""
        number = 0
        while True:
            name = f"{self.path.stem}{f'_{number}' if number else ''}{suffix}"
            path = self.path.parent / name
            if path not in (self.path, *self.files) and (not path.exists() or self._is_own(path)):
                self.files[path] = data
                return name
            number += 1

    def _is_own(self, path: Path) -> bool:
        if not path.is_file():
            return False
        if self._marked(path) is not None:
            return True
        libraries = self.path.parent.glob(f"{glob.escape(self.path.stem)}*.mtl")
        return any(
            f" {path.name}\n" in (self._marked(other) or "") for other in (self.path, *libraries)
        )

    def _marked(self, path: Path) -> str | None:
        """The beginning of a file that bears the mark."""
        if not path.is_file():
            return None
        with path.open("rb") as file:
            head = file.read(4096).decode("utf-8", errors="replace")
        return head if f"{self.mark}\n" in head else None

    def written(self, data: bytes) -> Written:
        """The files beside the mesh, and the mesh."""
        return {**self.files, self.path: data}


def write_together(files: Written) -> None:
    """Write files so that a failure leaves all as they were: under other names, then renamed."""
    staged: dict[Path, Path] = {}
    before: dict[Path, bytes | None] = {}
    try:
        for path, data in files.items():
            staged[path] = _staged(path, data)
        for path in files:
            old = path.read_bytes() if len(files) > 1 and path.is_file() else None
            os.replace(staged[path], path)
            del staged[path]
            before[path] = old
    except BaseException:
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)
        for path, old in before.items():
            if old is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(old)
        raise


def _staged(path: Path, data: bytes) -> Path:
    """The data in a file of another name in the same folder."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o666 & ~_umask())
    except BaseException:
        os.unlink(temporary)
        raise
    return Path(temporary)


def _umask() -> int:
    """The process's permission mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
