"""Checkpoints of descents: files that are whole or not there, of which nothing is executed."""

from __future__ import annotations

import os
import pickle
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch

from taichi_raster import checks

_FORMAT = "taichi_raster descent 1"
_DAMAGED = (
    zipfile.BadZipFile,
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
)


def checked(path: Any) -> Path:
    """The path, if it names a file, there or not, in a folder that there is."""
    found = checks.path("checkpoint", path)
    if not found.parent.is_dir():
        raise FileNotFoundError(f"checkpoint: no folder at {found.parent}")
    if found.is_dir():
        raise ValueError(f"checkpoint: {found} is a folder")
    return found


def write(path: Path, state: dict[str, Any]) -> None:
    """Replace the file by one that holds `state`: tensors, numbers, texts, and lists of them."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        temporary = Path(folder) / path.name
        with temporary.open("wb") as file:
            torch.save({"format": _FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)


def read(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What `write` wrote, if it is of these settings.

    Raises ValueError, naming the file, if it is not, or damaged.
    """
    try:
        with zipfile.ZipFile(path):  # else torch would try formats of long ago
            state = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGED as error:
        raise ValueError(f"checkpoint: {path} is damaged, or no checkpoint") from error
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise ValueError(f"checkpoint: {path} is no checkpoint of a descent")
    saved = state.get("settings")
    saved = saved if isinstance(saved, dict) else {}
    different = [
        f"{name} was {saved.get(name)!r}, is {value!r}"
        for name, value in settings.items()
        if saved.get(name) != value
    ]
    if different:
        raise ValueError(f"checkpoint: {path} is of another descent: {'; '.join(different)}")
    found: dict[str, Any] = state
    return found
