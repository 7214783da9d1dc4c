"""Scenes of the BOP benchmark: scene_camera.json, scene_gt.json, rgb/, mask_visib/.

See https://github.com/thodan/bop_toolkit/blob/master/docs/bop_datasets_format.md. Poses take the
object to the camera, in OpenCV's axes and millimetres. Pixels have whole coordinates at their
centres, as the toolkit's own projections have it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy import ndarray

from taichi_raster.capture.readers.reading import (
    Intrinsics,
    Reading,
    Shot,
    find_picture,
    json_object,
    numbers,
    rigid,
    wrong,
)


def find(folder: Path) -> Path | None:
    """The file of cameras in a folder."""
    path = folder / "scene_camera.json"
    return path if path.is_file() else None


def read(path: Path, object_id: int | None = None) -> Reading:
    """The photos of a scene, in the frame of one object, or of the scene where none is known.

    Raises:
        ValueError: naming the file and the field; also if a scene has several objects and
            `object_id` names none of them.
    """
    cameras = json_object(path)
    truth_path = path.parent / "scene_gt.json"
    truth = json_object(truth_path) if truth_path.is_file() else None
    if truth is None and object_id is not None:
        raise wrong(
            truth_path, "", f"there is no such file, so that object {object_id} has no pose"
        )
    if truth is not None:
        object_id = _object(truth_path, truth, object_id)
    shots = []
    for key in sorted(cameras, key=_number):
        field = f"{key!r}"
        camera = cameras[key]
        if not isinstance(camera, dict):
            raise wrong(path, field, "must be an object with cam_K")
        matrix = _matrix(path, f"{field}.cam_K", camera.get("cam_K"))
        if matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
            raise wrong(path, f"{field}.cam_K", "focal lengths must be positive")
        mask = None
        if truth is not None and object_id is not None:
            at, entry = _instance(truth_path, key, truth.get(key), object_id)
            if entry is None:  # not in this photo
                continue
            where = f"{field}[{at}]"
            pose = _pose(truth_path, where, entry, "cam_R_m2c", "cam_t_m2c")
            mask = _mask(path.parent, _number(key), at)
        else:
            pose = _pose(path, field, camera, "cam_R_w2c", "cam_t_w2c")
        name = f"{_number(key):06d}"
        image = find_picture([path.parent / part for part in ("rgb", "gray")], name)
        shots.append(Shot(name, field, Intrinsics(matrix, None, 0.0), pose, image, mask))
    if not shots:
        raise wrong(path, "", "has no photos" if object_id is None else f"no photo has {object_id}")
    return Reading(path, shots)


def _number(key: str) -> int:
    return int(key) if key.isdecimal() else 0


def _object(path: Path, truth: dict[str, Any], wanted: int | None) -> int:
    """The object whose frame is the world."""
    found = {
        entry.get("obj_id")
        for entries in truth.values()
        if isinstance(entries, list)
        for entry in entries
        if isinstance(entry, dict)
    }
    names = ", ".join(sorted(map(str, found)))
    if wanted is None and len(found) == 1:
        wanted = found.pop()
        if not isinstance(wanted, int):
            raise wrong(path, "obj_id", f"must be a whole number, got {wanted!r}")
        return wanted
    if wanted is None:
        raise wrong(path, "obj_id", f"the scene has several objects, {names}: give object_id")
    if wanted not in found:
        raise wrong(path, "obj_id", f"there is no object {wanted}; there: {names}")
    return wanted


def _instance(path: Path, key: str, entries: Any, wanted: int) -> tuple[int, Any]:
    """(place, entry) of the object in one photo; None if it is not there."""
    if not isinstance(entries, list):
        raise wrong(path, f"{key!r}", "must be a list of the objects in this photo")
    found = [(i, entry) for i, entry in enumerate(entries) if entry.get("obj_id") == wanted]
    if len(found) > 1:
        raise wrong(path, f"{key!r}", f"has {len(found)} of object {wanted}: a capture takes one")
    return found[0] if found else (0, None)


def _matrix(path: Path, field: str, value: Any) -> ndarray:
    return numbers(path, field, value, (9,), (3, 3)).reshape(3, 3)


def _pose(path: Path, field: str, entry: Any, rotation: str, translation: str) -> ndarray:
    return rigid(
        path,
        f"{field}.{rotation}",
        _matrix(path, f"{field}.{rotation}", entry.get(rotation)),
        numbers(path, f"{field}.{translation}", entry.get(translation), (3,)),
    )


def _mask(folder: Path, image: int, instance: int) -> Path | None:
    name = f"{image:06d}_{instance:06d}"
    return find_picture([folder / part for part in ("mask_visib", "mask")], name)
