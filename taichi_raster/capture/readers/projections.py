"""`cameras.json` of bare projection matrices, beside a folder of photos.

`P` holds 3 x 4 matrices, homogeneous world point to homogeneous pixel (u right, v down), one a
photo in the order of their names; `image_size` is [height, width]. Three more may be there:
`names` of the photos, `first_centre`, u and v of the first pixel's centre (0 without it), and
`left_handed`, whether the world is (found out without it).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from taichi_raster.capture.readers.reading import (
    FOLDERS,
    Intrinsics,
    Reading,
    Shot,
    find_picture,
    json_object,
    json_value,
    numbers,
    pictures_in,
    size_in_file,
    wrong,
)
from taichi_raster.scene.projection_matrices import decompose


def find(folder: Path) -> Path | None:
    """The file in a folder."""
    path = folder / "cameras.json"
    return path if path.is_file() else None


def is_one(path: Path) -> bool:
    """Whether a file named so is one of these: other programs' cameras.json have no `P`.

    Raises:
        ValueError: naming the file, if it cannot be read as JSON.
    """
    found = json_value(path)
    return isinstance(found, dict) and "P" in found


def read(path: Path) -> Reading:
    """The photos of a file.

    Raises:
        ValueError: naming the file and the field.
    """
    data = json_object(path)
    given = data.get("P")
    if not isinstance(given, list) or not given:
        raise wrong(path, "P", "must be a list of 3 x 4 projection matrices, one a photo")
    matrices = np.stack([numbers(path, f"P[{i}]", each, (3, 4)) for i, each in enumerate(given)])
    size = None
    if data.get("image_size") is not None:
        height, width = numbers(path, "image_size", data["image_size"], (2,))
        size = size_in_file(path, "image_size", width, height)
    first = float(numbers(path, "first_centre", data.get("first_centre", 0.0), ()))
    left_handed = data.get("left_handed")
    if not isinstance(left_handed, bool | None):
        raise wrong(path, "left_handed", f"must be true or false, got {left_handed!r:.80}")
    try:
        parts = decompose(torch.tensor(matrices), left_handed)
    except ValueError as error:
        raise wrong(path, "P", str(error).partition(": ")[2]) from error
    photos = _photos(path, data.get("names"), len(matrices))
    shots = []
    for i, (name, photo) in enumerate(photos):
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = parts.rotation[i].numpy(), parts.translation[i].numpy()
        camera = Intrinsics(parts.intrinsics[i].numpy(), size, first)
        shots.append(Shot(name, f"P[{i}]", camera, pose, photo))
    return Reading(path, shots, mirrored=parts.mirrored)


def _photos(path: Path, names: object, count: int) -> list[tuple[str, Path | None]]:
    folders = [path.parent / name for name in FOLDERS]
    if names is not None:
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise wrong(path, "names", "must be a list of file names")
        if len(names) != count:
            raise wrong(path, "names", f"has {len(names)} where P has {count} matrices")
        return [(name, find_picture([*folders, path.parent], name)) for name in names]
    found = next((pictures for folder in folders if (pictures := pictures_in(folder))), [])
    if not found:
        return [(f"photo {i}", None) for i in range(count)]
    if len(found) != count:
        raise wrong(
            path, "P", f"has {count} matrices, and {found[0].parent} has {len(found)} photos"
        )
    return [(photo.name, photo) for photo in found]
