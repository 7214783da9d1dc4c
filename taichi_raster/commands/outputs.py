"""Where a command writes: a place that can be written to, and nothing that the command reads."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import unquote

from taichi_raster.capture.capture import Capture


def check_folder(out: Path, names: Iterable[str], read: Mapping[str, Path | None]) -> None:
    """Before anything slow: that files of these names can be written into a folder, --out.

    `read` are the files that the command reads, by their options.

    Raises:
        ValueError: if `out` is no folder, cannot be written to, or has a folder of such a name; or
            if a file of such a name is one that is read.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out: {out} is a file; give a folder")
    _check_writable("--out", out)
    for name in names:
        _check_file("--out", out / name, read)


def made(out: Path) -> None:
    """Make the folder --out, if need be; ValueError if that fails."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out: {out} cannot be made: {error.strerror}") from error


def check_file(
    option: str, out: Path, suffixes: tuple[str, ...], read: Mapping[str, Path | None]
) -> None:
    """The same for one file, which must have one of the suffixes.

    A mesh that is read stands for the files that it names, too: its materials and textures.
    """
    if out.suffix.lower() not in suffixes:
        *some, last = suffixes
        known = f"{', '.join(some)} or {last}" if some else last
        raise ValueError(f"{option}: must end in {known}, got {out.name!r}")
    if not out.parent.is_dir():
        raise ValueError(f"{option}: there is no folder {out.parent}")
    _check_writable(option, out.parent)
    _check_file(option, out, read)


def check_apart(out: Path, folder: Path, capture: Capture) -> None:
    """ValueError if --out is a folder that photos, masks or cameras are read from."""
    places = {folder if folder.is_dir() else folder.parent}
    places |= {folder / "sparse", folder / "sparse" / "0"}  # COLMAP's
    for photo in capture:
        files = (photo.picture, photo.silhouette)
        places |= {file.parent for file in files if isinstance(file, Path)}
    if out.resolve() in {place.resolve() for place in places}:
        raise ValueError(
            f"--out: photos, masks or cameras are read from {out}, and are never overwritten; give "
            "another folder"
        )


def _check_writable(option: str, folder: Path) -> None:
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise ValueError(f"{option}: {there} is a file; give a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{option}: {there} cannot be written to")


def _check_file(option: str, out: Path, read: Mapping[str, Path | None]) -> None:
    if not out.exists():
        return
    if out.is_dir():
        raise ValueError(f"{option}: {out} is a folder, where a file is to be written")
    for what, path in read.items():
        if path is not None and path.is_file() and (path.samefile(out) or _names(path, out)):
            raise ValueError(
                f"{option}: {out} is what {what} reads, and would be overwritten; give another "
                "place"
            )


def _names(path: Path, other: Path) -> bool:
    """Whether a mesh's file names another, or a library of materials that does."""
    if path.suffix.lower() not in (".obj", ".mtl", ".ply", ".gltf", ".glb", ".dae"):
        return False
    text = unquote(path.read_bytes().decode("utf-8", errors="replace"))
    beside = os.path.relpath(other.resolve(), path.resolve().parent)
    for name in (beside, beside.replace("/", "\\"), str(other.resolve())):
        if re.search(rf"(?<![\w./\\-])(\.[/\\])?{re.escape(name)}(?![\w.-])", text):
            return True
    libraries = re.findall(r"^mtllib[ \t]+(.*\S)", text, re.MULTILINE)
    files = [path.parent / name.replace("\\", "/") for name in libraries]
    return any(file.is_file() and _names(file, other) for file in files if file != path)
