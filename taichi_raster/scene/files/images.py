"""Images of textures: decoded with all their channels and bits, and found where files put them."""

from __future__ import annotations

import io
import os
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from numpy import ndarray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from taichi_raster.scene.files.soup import Notes


def decoded(data: bytes, upright: bool = False) -> ndarray:
    """(H, W, 3 or 4): uint8, uint16 or floats in [0, 1]; 4 channels if the image has alpha.

    As stored, or turned as its EXIF orientation asks for.

    Raises:
        OSError, ValueError: if Pillow cannot read it.
    """
    try:
        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
            picture: Image.Image = ImageOps.exif_transpose(opened) if upright else opened
    except UnidentifiedImageError as error:
        raise ValueError("it is of no format that Pillow knows") from error
    if picture.mode.startswith("I"):  # 16 bits of grey, which Pillow may hold in 32
        grey = np.asarray(picture).astype(np.int64).clip(0, 65535).astype(np.uint16)
        return grey[..., None].repeat(3, axis=-1)
    if picture.mode == "F":
        grey = np.asarray(picture, dtype=np.float64).clip(0, 1)
        return grey[..., None].repeat(3, axis=-1)
    alpha = "A" in picture.getbands() or "a" in picture.getbands()
    alpha = alpha or "transparency" in picture.info
    return np.asarray(picture.convert("RGBA" if alpha else "RGB"))


def values(image: ndarray) -> ndarray:
    """The image in [0, 1], float64."""
    return image / np.iinfo(image.dtype).max if image.dtype.kind == "u" else image.astype(float)


def encoded(texture: Tensor) -> bytes:
    """A texture (H, W, 1, 3 or 4) in [0, 1] as PNG, 8 bits a channel."""
    picture = as_bytes(texture)
    out = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(out, "PNG")
    return out.getvalue()


def as_bytes(values: Tensor) -> ndarray:
    """[0, 1] as uint8."""
    return np.asarray((values.detach().cpu().double().clamp(0, 1) * 255).round().byte())


def read_beside(folder: Path, name: str, notes: Notes) -> ndarray | None:
    """An image that a file in `folder` names; None, with a note, if there is none to read."""
    path = find_beside(folder, name)
    if path is None:
        notes.add("textures that are not there", name)
        return None
    return read_bytes(path.read_bytes(), name, notes)


def read_bytes(data: bytes, name: str, notes: Notes) -> ndarray | None:
    """An image; None, with a note, if it cannot be read."""
    try:
        return decoded(data)
    except Exception as error:  # noqa: BLE001  # Pillow's readers raise anything
        notes.add("textures that cannot be read", f"{name}: {error}")
        return None


def find_beside(folder: Path, name: str) -> Path | None:
    """A file that one in `folder` names, as any program may have written that name.

    Names may be quoted, have backslashes, other capitals, or the path of another machine; of that,
    the last part alone is looked for.
    """
    name = name.strip().strip("\"'").replace("\\", "/").strip()
    if not name:
        return None
    last = name.rpartition("/")[2]
    for tried in dict.fromkeys((name, unquote(name), last, unquote(last))):
        path = _in_any_capitals(folder, tried)
        if path is not None:
            return path
    return None


def _in_any_capitals(folder: Path, name: str) -> Path | None:
    try:
        path = folder / name
        if path.is_file():
            return path
        entries = os.listdir(path.parent) if path.parent.is_dir() else []
    except (OSError, ValueError):  # a name that no file can have
        return None
    for entry in sorted(entries):
        if entry.lower() == path.name.lower() and (path.parent / entry).is_file():
            return path.parent / entry
    return None


def is_shown(values: Tensor) -> bool:
    """Whether 8 bits a channel hold `values` but for rounding: they lie in [0, 1]."""
    known = values.detach()
    return bool(((known > -0.5 / 255) & (known < 255.5 / 255)).all())


def is_whole(values: Tensor) -> bool:
    """Whether 8 bits a channel hold `values` in [0, 1], up to the rounding of their own type."""
    scaled = values.detach().double() * 255
    return bool(((scaled - scaled.round().clamp(0, 255)).abs() < 1e-3).all())
