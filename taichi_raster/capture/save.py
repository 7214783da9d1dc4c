"""From a `Capture` to a folder that other programs read."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from taichi_raster import checks
from taichi_raster.capture.capture import Capture, Photo
from taichi_raster.capture.mask_files import find_mask
from taichi_raster.capture.readers import nerfstudio as nerfstudio_files
from taichi_raster.capture.readers import projections
from taichi_raster.capture.writers import colmap, nerfstudio
from taichi_raster.capture.writers.parameters import Plan, write_mask, write_picture


def save_capture(path: str | os.PathLike[str], capture: Capture, kind: str = "nerfstudio") -> None:
    """Write photos, masks and cameras into a folder; `load_capture` reads all of them again.

    Photos that are files are copied; others, and masks, become PNGs of 8 bits. The world is the
    capture's: where the one it was read from is left-handed, z has the other sign.

    Files that are there already are never changed, and never mixed with what is written. So the
    folder may have files of an earlier capture only as far as those would be written again alike.
    If anything fails, the folder is left as it was.

    Args:
        path: the folder, which is made if need be.
        capture: to be written.
        kind: "nerfstudio" (`transforms.json`), "colmap" (binary) or "colmap-text".

    Raises:
        FileExistsError: if the folder has other photos, masks or cameras in the way.
        ValueError: if a camera has skew, or a lens that the files do not hold; or what `Photo.mask`
            and `Photo.pixels` raise.
    """
    path = checks.path("path", path)
    checks.instance("capture", capture, Capture)
    checks.choice("kind", kind, "nerfstudio", "colmap", "colmap-text")
    plan = (
        nerfstudio.plan(capture) if kind == "nerfstudio" else colmap.plan(capture, kind == "colmap")
    )
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{path}: is a file; give a folder")
    _check_others(path, plan)
    made = _make_folders(path)
    staged = Path(tempfile.mkdtemp(dir=path, prefix=".saving-"))
    try:
        _write(staged, path, plan)
        _move(staged, path)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        _remove_folders(made)
        raise
    shutil.rmtree(staged, ignore_errors=True)


def _check_others(folder: Path, plan: Plan) -> None:
    """That nothing in the folder would be read instead of what is to be written, or with it."""
    others = [folder / name for name in plan.stale if name not in plan.cameras]
    if "transforms.json" not in plan.cameras:
        others += [folder / name for name in nerfstudio_files.NAMES]
    own = projections.find(folder)
    if own is not None and projections.is_one(own):
        others.append(own)
    for other in others:
        if other.exists():
            raise FileExistsError(
                f"{other}: is of an earlier capture, and would be read in place of what is to be "
                "written; give another folder"
            )
    bare = [name for name, photo in plan.pictures.items() if photo.silhouette is None]
    if bare and (folder / "masks").is_dir():
        raise FileExistsError(
            f"{folder / 'masks'}: is there already, and would be read as the masks of photos that "
            f"have none, such as {bare[0]}; give another folder"
        )
    if not plan.masks_are_named:
        for name in plan.pictures:
            mask = find_mask(folder / "masks", name.partition("/")[2])
            if mask is not None and mask.relative_to(folder).as_posix() not in plan.masks:
                raise FileExistsError(
                    f"{mask}: is there already, and would be read as the mask of {name}; give "
                    "another folder"
                )


def _write(staged: Path, folder: Path, plan: Plan) -> None:
    """Write all files that are not there already into `staged`, and check those that are."""
    writers: tuple[tuple[dict[str, Photo], str, Callable[[Path, Photo], None]], ...] = (
        (plan.pictures, "picture", write_picture),
        (plan.masks, "silhouette", write_mask),
    )
    for files, field, write in writers:
        for name, photo in files.items():
            source = getattr(photo, field)
            if source is None:
                continue
            is_itself = isinstance(source, Path) and _is_same(folder / name, source)
            if not is_itself:
                write(staged / name, photo)
                _keep_if_new(staged / name, folder, name)
    for name, data in plan.cameras.items():
        (staged / name).parent.mkdir(parents=True, exist_ok=True)
        (staged / name).write_bytes(data)
        _keep_if_new(staged / name, folder, name)


def _is_same(path: Path, source: Path) -> bool:
    return path.exists() and source.exists() and path.samefile(source)


def _keep_if_new(staged: Path, folder: Path, name: str) -> None:
    """Drop a file that is in the folder already; FileExistsError if that is another."""
    target = folder / name
    between = [folder / parent for parent in Path(name).parents]
    blocked = next((p for p in between if os.path.lexists(p) and not p.is_dir()), None)
    if blocked is None and os.path.lexists(target):
        same = target.is_file() and target.stat().st_size == staged.stat().st_size
        blocked = None if same and target.read_bytes() == staged.read_bytes() else target
        staged.unlink()
    if blocked is not None:
        raise FileExistsError(
            f"{blocked}: is there already, and is not what would be written; give another folder"
        )


def _move(staged: Path, folder: Path) -> None:
    """Move all files to their places, those of cameras last; all of them or none."""
    files = [path for path in staged.rglob("*") if path.is_file()]
    files.sort(
        key=lambda path: (path.relative_to(staged).parts[0] not in ("images", "masks"), path)
    )
    moved: list[Path] = []
    made: list[Path] = []
    try:
        for path in files:
            target = folder / path.relative_to(staged)
            made = _make_folders(target.parent) + made
            os.replace(path, target)
            moved.append(target)
    except BaseException:
        for target in moved:
            target.unlink(missing_ok=True)
        _remove_folders(made)
        raise


def _make_folders(path: Path) -> list[Path]:
    """Make a folder and all above it; those that were not there, innermost first."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    return missing


def _remove_folders(made: list[Path]) -> None:
    for folder in made:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
