"""From a folder or a file to a `Capture`, whatever program wrote it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from taichi_raster import checks
from taichi_raster.capture.capture import Capture, Photo
from taichi_raster.capture.mask_files import chosen_masks
from taichi_raster.capture.masks import AlphaChannel, ColourKey
from taichi_raster.capture.readers import bop, colmap, nerfstudio, opencv, projections
from taichi_raster.capture.readers.reading import (
    Intrinsics,
    Reading,
    Shot,
    size_of_picture,
    wrong,
)
from taichi_raster.scene.camera import PinholeCamera
from taichi_raster.scene.conventions import from_opencv

_FINDERS: Sequence[tuple[Callable[[Path], Path | None], str]] = (
    (nerfstudio.find, "transforms.json or transforms_train.json"),
    (colmap.find, "a model of COLMAP (cameras and images, .bin or .txt, in sparse/0, sparse or .)"),
    (bop.find, "scene_camera.json"),
    (projections.find, "cameras.json"),
    (opencv.find, "a calibration of OpenCV (.yml or .xml)"),
)
"""Gone through in this order: the first that finds its file in the folder reads it. If that is
before cameras.json, and there is one, it replaces cameras of the other."""


def load_capture(
    path: str | os.PathLike[str],
    masks: str | os.PathLike[str] | None = None,
    key: str | Sequence[float] | None = None,
    *,
    pictures: bool = True,
    object_id: int | None = None,
    first_centre: float | None = None,
) -> Capture:
    """Read photos with their cameras: lenses, poses, names and masks.

    | in the folder | written by |
    | --- | --- |
    | `transforms.json`, or `transforms_train.json` | nerfstudio, instant-ngp, NeRF's scenes |
    | `sparse/0/` (or `sparse/`, or the folder itself) with `cameras` and `images` | COLMAP |
    | `scene_camera.json` and `scene_gt.json` | the BOP benchmark |
    | `cameras.json` of 3 x 4 matrices, and `photos/` | anybody |
    | a calibration with the photos' poses, .yml or .xml | OpenCV's sample calibration |

    If `cameras.json` is beside `transforms.json`, a model of COLMAP or a scene of BOP, the photos
    that it names get their cameras from it. All else is as in the other file; a warning says so.

    Everything is checked before it returns: that each photo is there and as large as its camera
    says, that each mask is there and as large as its photo, that no pose is NaN. Pixels are read
    when they are asked for.

    Args:
        path: the folder, or the file of cameras itself.
        masks: a folder of masks named after the photos; "alpha" for the photos' alpha channel; or
            "none". Without it: those that the file names, a folder `masks` beside it, or the
            photos' alpha channels.
        key: the colour behind the object, to make masks by: "auto" for that of the photos' border,
            a name or #rrggbb as in CSS, or (r, g, b) in [0, 1].
        pictures: False to read cameras alone; the photos need not be there.
        object_id: of BOP, the object whose frame is the world, where a scene has several.
        first_centre: u and v of the first pixel's centre, where it is not the format's: 0.5 for
            nerfstudio's and COLMAP's, 0 for the others.

    Raises:
        FileNotFoundError: if there is no such folder, or a photo is missing, or one photo has no
            mask and others have.
        ValueError: for anything wrong in a file; it names the file and the field.
    """
    path = checks.path("path", path)
    if masks is not None and key is not None:
        raise ValueError("key: give masks or key, not both")
    rule = None if key is None else ColourKey.of(key)
    pictures = checks.flag("pictures", pictures)
    if not pictures and (rule is not None or masks not in (None, "none")):
        raise ValueError("pictures: False reads cameras alone, without masks; leave masks, key out")
    if object_id is not None:
        object_id = checks.whole("object_id", object_id, 0)
    reading = _read(path, object_id)
    if first_centre is not None:
        reading = _centred(reading, checks.number("first_centre", first_centre))
    if pictures:
        _check_photos(reading)
    places = chosen_masks(reading, masks if pictures else "none", rule)
    photos = [_photo(reading, shot, mask) for shot, mask in zip(reading.shots, places, strict=True)]
    points = None if reading.points is None else torch.tensor(reading.points)
    return Capture(tuple(photos), reading.mirrored, points)


def load_camera(
    path: str | os.PathLike[str], image_size: int | tuple[int, int] | None = None
) -> PinholeCamera:
    """The camera of a calibration file of OpenCV's or ROS', at the origin, with its lens.

    It looks along OpenCV's z axis; to place it, ``replace(camera, view=pose.view)``.

    Args:
        path: YAML, XML or JSON with `camera_matrix` and `distortion_coefficients`, or other names
            that are in use for them.
        image_size: of the photos, (height, width), where the file does not say; where it does, it
            must be the same.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the file and the field.
    """
    path = checks.path("path", path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    found = opencv.intrinsics(path)
    given = None if image_size is None else checks.image_size(image_size)
    if given is None and found.image_size is None:
        raise wrong(path, "image_width", "is missing; give image_size")
    if given is not None and found.image_size not in (None, given):
        raise wrong(path, "image_width", f"is for {found.image_size}, not image_size = {given}")
    return _camera(replace(found, image_size=found.image_size or given), torch.eye(4).double())


def _read(path: Path, object_id: int | None) -> Reading:
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such folder or file")
    if not path.is_dir():
        return _read_file(path, object_id)
    found = next((file for find, _ in _FINDERS if (file := find(path)) is not None), None)
    if found is None:
        looked = "; ".join(name for _, name in _FINDERS)
        raise FileNotFoundError(f"{path}: has no cameras. Looked for: {looked}")
    own = projections.find(path)
    reading = _read_file(found, object_id)
    if own is None or own == found or not projections.is_one(own):
        return reading
    return _replaced(reading, projections.read(own))


def _replaced(reading: Reading, given: Reading) -> Reading:
    """The photos of a file, with the cameras of `cameras.json` where that has them.

    Raises:
        ValueError: if it has other photos, or is of a world of other handedness.
    """

    def place(shot: Shot) -> Path | str:
        return shot.name if shot.image is None else shot.image.resolve()

    cameras: dict[Path | str, Shot] = {}
    for shot in given.shots:
        if place(shot) in cameras:
            raise wrong(given.path, shot.field, f"has the photo {shot.name} a second time")
        cameras[place(shot)] = shot
    shots = []
    for shot in reading.shots:
        found = cameras.pop(place(shot), None)
        if found is not None:
            size = found.intrinsics.image_size or shot.intrinsics.image_size
            intrinsics = replace(found.intrinsics, image_size=size)
            shot = replace(shot, pose=found.pose, intrinsics=intrinsics)
        shots.append(shot)
    if cameras:
        shot = next(iter(cameras.values()))
        raise wrong(
            given.path,
            shot.field,
            f"the photo {shot.name} is not in {reading.path}, whose cameras it replaces; give the "
            "path of the file to be read",
        )
    count = len(given.shots)
    if count < len(shots) and given.mirrored != reading.mirrored:
        raise wrong(
            given.path,
            "P",
            f"their world is left-handed, and that of {reading.path}, which has the rest of the "
            "photos, is not; give the path of the file to be read",
        )
    warnings.warn(
        f"{given.path}: the cameras of {count} of {len(shots)} photos are taken from it, and "
        f"everything else from {reading.path}",
        stacklevel=4,
    )
    points = reading.points if given.mirrored == reading.mirrored else None  # of another world
    return replace(reading, shots=shots, mirrored=given.mirrored, points=points)


def _read_file(path: Path, object_id: int | None) -> Reading:
    name = path.name.lower()
    if name.startswith("scene_camera"):
        return bop.read(path, object_id)
    if object_id is not None:
        raise ValueError(f"object_id: is for scenes of BOP, and {path} is none")
    if path.stem.lower() in ("cameras", "images", "points3d") and path.suffix in (".bin", ".txt"):
        return colmap.read(path)
    if path.suffix.lower() == ".json":
        return _json(path)
    if path.suffix.lower() in (".yml", ".yaml", ".xml"):
        return opencv.read(path)
    raise ValueError(f"{path}: is no file of cameras that is known here")


def _json(path: Path) -> Reading:
    """By its name, or else by what is in the file."""
    if path.name.startswith("transforms"):
        return nerfstudio.read(path)
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    if '"frames"' in text:
        return nerfstudio.read(path)
    if "opencv-matrix" in text:
        return opencv.read(path)
    return projections.read(path)


def _centred(reading: Reading, first_centre: float) -> Reading:
    shots = [
        replace(shot, intrinsics=replace(shot.intrinsics, first_centre=first_centre))
        for shot in reading.shots
    ]
    return replace(reading, shots=shots)


def _check_photos(reading: Reading) -> None:
    """That each photo is there, once, and of the size that its camera says."""
    missing = [shot for shot in reading.shots if shot.image is None]
    if missing:
        first = missing[0]
        others = f", nor are {len(missing) - 1} others" if len(missing) > 1 else ""
        raise FileNotFoundError(
            f"{reading.path}: {first.field}: the photo {first.name} is not there{others}; with "
            "pictures=False, cameras alone are read"
        )
    seen: dict[Path, Shot] = {}
    for shot in reading.shots:
        assert shot.image is not None
        if shot.image in seen:
            raise wrong(reading.path, shot.field, f"is the same photo as {seen[shot.image].field}")
        seen[shot.image] = shot
        wanted = shot.intrinsics.image_size
        size = size_of_picture(shot.image, wanted)
        if wanted is not None and size != wanted:
            raise wrong(
                shot.image,
                "",
                f"has {size[1]} x {size[0]} pixels (width x height), and its camera in "
                f"{reading.path} is for {wanted[1]} x {wanted[0]}; take the photos that it was "
                "measured with, or scale its numbers",
            )


def _photo(reading: Reading, shot: Shot, mask: Path | AlphaChannel | ColourKey | None) -> Photo:
    intrinsics = shot.intrinsics
    if intrinsics.image_size is None:
        if shot.image is None:
            raise wrong(
                reading.path,
                shot.field,
                "its size in pixels is not in the file, and there is no photo to measure",
            )
        intrinsics = replace(intrinsics, image_size=size_of_picture(shot.image))
    assert intrinsics.image_size is not None
    camera = _camera(intrinsics, torch.tensor(shot.pose))
    return Photo(shot.name, camera, intrinsics.image_size, shot.image, mask)


def _camera(intrinsics: Intrinsics, pose: torch.Tensor) -> PinholeCamera:
    assert intrinsics.image_size is not None
    return from_opencv(
        pose[None, :3, :3],
        pose[None, :3, 3],
        torch.tensor(intrinsics.matrix),
        intrinsics.image_size,
        intrinsics.first_centre,
        intrinsics.lens,
    )
