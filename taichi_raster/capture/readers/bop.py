"""Scenes of the BOP benchmark: scene_camera.json, scene_gt.json, rgb/, mask_visib/.

See https://github.com/thodan/bop_toolkit/blob/master/docs/bop_datasets_format.md. Poses take the
object to the camera, in OpenCV's axes and millimetres. Pixels have whole coordinates at their
centres, as the toolkit's own projections have it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy import ndarray

from taichi_raster import checks
from taichi_raster.capture.readers.reading import (
    Intrinsics,
    Reading,
    Shot,
    find_picture,
    intrinsics_matrix,
    json_object,
    numbers,
    pictures_in,
    rigid,
    wrong,
)

_DIGITS = 9
"""Of a photo's number, at most."""


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
    masks = _mask_folder(path.parent)
    for key in sorted(cameras, key=lambda key: _number(path, key)):
        field = f"{key!r}"
        camera = cameras[key]
        if not isinstance(camera, dict):
            raise wrong(path, field, "must be an object with cam_K")
        matrix = intrinsics_matrix(path, f"{field}.cam_K", camera.get("cam_K"))
        name, mask = f"{_number(path, key):06d}", None
        if truth is not None and object_id is not None:
            at, entry = _instance(truth_path, key, truth, object_id)
            if entry is None:  # not in this photo
                continue
            where = f"{field}[{at}]"
            pose = _pose(truth_path, where, entry, "cam_R_m2c", "cam_t_m2c")
            mask = None if masks is None else find_picture([masks], f"{name}_{at:06d}")
        else:
            pose = _pose(path, field, camera, "cam_R_w2c", "cam_t_w2c")
        image = find_picture([path.parent / part for part in ("rgb", "gray")], name)
        shots.append(Shot(name, field, Intrinsics(matrix, None, 0.0), pose, image, mask))
    if not shots:
        raise wrong(path, "", "has no photos" if object_id is None else f"no photo has {object_id}")
    return Reading(path, shots)


def _number(path: Path, key: str) -> int:
    if not key.isdecimal() or len(key) > _DIGITS:
        raise wrong(path, f"{key[:80]!r}", "must be the number of a photo")
    return int(key)


def _object(path: Path, truth: dict[str, Any], wanted: int | None) -> int:
    """The object whose frame is the world."""
    found = {_object_of(path, key, i, e) for key in truth for i, e in _entries(path, key, truth)}
    names = ", ".join(map(str, sorted(found)))
    if not found:
        raise wrong(path, "obj_id", "there are no objects in any photo")
    if wanted is None and len(found) == 1:
        return found.pop()
    if wanted is None:
        raise wrong(path, "obj_id", f"the scene has several objects, {names}: give object_id")
    if wanted not in found:
        raise wrong(path, "obj_id", f"there is no object {wanted}; there: {names}")
    return wanted


def _entries(path: Path, key: str, truth: dict[str, Any]) -> list[tuple[int, Any]]:
    """The objects in one photo, with their places."""
    entries = truth.get(key)
    if not isinstance(entries, list):
        raise wrong(path, f"{key!r}", "must be a list of the objects in this photo")
    return list(enumerate(entries))


def _object_of(path: Path, key: str, at: int, entry: Any) -> int:
    """The number of the object of one entry."""
    if not isinstance(entry, dict):
        raise wrong(path, f"{key!r}[{at}]", "must be an object with obj_id, cam_R_m2c, cam_t_m2c")
    if not checks.is_whole(entry.get("obj_id")):
        found = entry.get("obj_id")
        raise wrong(path, f"{key!r}[{at}].obj_id", f"must be a whole number, got {found!r}")
    return int(entry["obj_id"])


def _instance(path: Path, key: str, truth: dict[str, Any], wanted: int) -> tuple[int, Any]:
    """(place, entry) of the object in one photo; None if it is not there."""
    found = [(i, e) for i, e in _entries(path, key, truth) if _object_of(path, key, i, e) == wanted]
    if len(found) > 1:
        raise wrong(path, f"{key!r}", f"has {len(found)} of object {wanted}: a capture takes one")
    return found[0] if found else (0, None)


def _pose(path: Path, field: str, entry: Any, rotation: str, translation: str) -> ndarray:
    matrix = numbers(path, f"{field}.{rotation}", entry.get(rotation), (9,), (3, 3)).reshape(3, 3)
    return rigid(
        path,
        f"{field}.{rotation}",
        matrix,
        numbers(path, f"{field}.{translation}", entry.get(translation), (3,)),
    )


def _mask_folder(scene: Path) -> Path | None:
    """Of the visible parts; of whole objects, only where the scene has no other masks."""
    folders = [scene / part for part in ("mask_visib", "mask")]
    return next((folder for folder in folders if pictures_in(folder)), None)
