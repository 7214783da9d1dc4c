"""Which mask belongs to which photo: a file that is named, one in a folder, or a rule."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from PIL import Image

from taichi_raster import checks
from taichi_raster.capture.masks import AlphaChannel, ColourKey
from taichi_raster.capture.readers.reading import (
    PICTURES,
    Reading,
    Shot,
    first_there,
    is_file,
    size_of_picture,
    wrong,
)

SUFFIXES = (*PICTURES, ".gif", ".pgm", ".pbm")
"""That masks may have."""

Masks = list[Path | AlphaChannel | ColourKey | None]
"""One for each photo."""


def chosen_masks(reading: Reading, masks: object, key: ColourKey | None) -> Masks:
    """The masks of all photos, whose files are there and as large as the photos.

    Args:
        reading: its photos are there.
        masks: a folder, "alpha", "none", or None for those that the capture has.
        key: the colour to make masks by, or None.

    Raises:
        FileNotFoundError: if there is no such folder, or one photo has no mask and others have.
        ValueError: if a mask differs in size from its photo, would belong to two photos, or cannot
            be read; or if one photo has no alpha channel and others have.
    """
    count = len(reading.shots)
    if masks == "none":
        return [None] * count
    if key is not None:
        return [key] * count
    if masks == "alpha":
        return [AlphaChannel()] * count
    if masks is None:
        found = _of_the_capture(reading)
    else:
        folder = checks.path("masks", masks)
        if not folder.is_dir():
            raise FileNotFoundError(f"masks: there is no folder {folder}")
        found = _in_folder(folder, reading.shots)
    if found is None:
        return [AlphaChannel() if _all_have_alpha(reading) else None] * count
    _check_sizes(reading, found)
    return list(found)


def find_mask(folder: Path, name: str) -> Path | None:
    """The mask of a photo in a folder: of its name, with any suffix, or one more (COLMAP's).

    Suffixes may have any capitals. The name may have folders: those are looked into first, then
    all but the first of them, then `folder` itself.
    """
    whole = PurePosixPath(name.replace("\\", "/"))
    parts = [part for part in whole.parts if part not in ("/", "//", "..")]  # stays in the folder
    for some in (parts, parts[1:], parts[-1:]):
        if some:
            base = str(Path(*some))
            suffix = Path(base).suffix
            stems = [base, base.removesuffix(suffix)] if suffix.lower() in PICTURES else [base]
            found = first_there(folder, [base, *(stem + s for stem in stems for s in SUFFIXES)])
            if found is not None:
                return found
    return None


def _of_the_capture(reading: Reading) -> Sequence[Path] | None:
    """Those that the file of cameras names, or else those in the folder `masks`."""
    for shot in reading.shots:
        if shot.mask is not None and not is_file(shot.mask):
            where = f"{reading.path}: {shot.field}.mask_path"
            raise FileNotFoundError(f"{where}: there is no {shot.mask}; masks='none' does without")
    rest = [shot for shot in reading.shots if shot.mask is None]
    named = [shot.mask for shot in reading.shots if shot.mask is not None]
    folder = _mask_folder(reading) if rest else None
    if folder is not None:
        others = dict(zip([shot.field for shot in rest], _in_folder(folder, rest), strict=True))
        return [shot.mask or others[shot.field] for shot in reading.shots]
    if rest and named:
        raise FileNotFoundError(
            f"{reading.path}: {rest[0].field}: the photo {rest[0].name} has no mask, and "
            f"{len(named)} others have, such as {named[0]}; masks='none' does without"
        )
    return named or None


def _in_folder(folder: Path, shots: Sequence[Shot]) -> list[Path]:
    """The masks of photos in a folder."""
    found: dict[Path, Shot] = {}
    for shot in shots:
        mask = find_mask(folder, _mask_name(shot))
        if mask is None and shot.mask is not None:  # as BOP's, named in a way of its own
            mask = first_there(folder, [shot.mask.name])
        if mask is None:
            raise FileNotFoundError(
                f"{folder}: there is no mask of the photo {shot.name}; masks='none' does without"
            )
        if mask in found:
            raise wrong(
                mask,
                "",
                f"would be the mask of two photos, {found[mask].name} and {shot.name}; give masks "
                "the photos' whole names, with their folders, and .png after that",
            )
        found[mask] = shot
    return list(found)


def _mask_name(shot: Shot) -> str:
    if shot.image is None or Path(shot.name).suffix.lower() in PICTURES:
        return shot.name
    return str(Path(shot.name).with_name(shot.image.name))


def _mask_folder(reading: Reading) -> Path | None:
    """`masks` beside the file of cameras or, for COLMAP, above it."""
    above = [reading.path.parent, *reading.path.resolve().parents[1:3]]
    near = [shot.image.parent.parent for shot in reading.shots if shot.image is not None][:1]
    folders = above[:1] + near + (above[1:] if reading.path.stem == "images" else [])
    return next((folder / "masks" for folder in folders if (folder / "masks").is_dir()), None)


def _check_sizes(reading: Reading, masks: Sequence[Path]) -> None:
    """That each mask is as large as its photo."""
    for shot, mask in zip(reading.shots, masks, strict=True):
        assert shot.image is not None
        wanted = size_of_picture(shot.image, shot.intrinsics.image_size)
        size = size_of_picture(mask, wanted)
        if size != wanted:
            raise wrong(
                mask,
                "",
                f"the mask has {size[1]} x {size[0]} pixels (width x height), and its photo "
                f"{shot.image.name} {wanted[1]} x {wanted[0]}",
            )


def _all_have_alpha(reading: Reading) -> bool:
    """Whether the photos have alpha channels; ValueError if some have and others not."""
    having: list[Shot] = []
    lacking: list[Shot] = []
    for shot in reading.shots:
        assert shot.image is not None
        with Image.open(shot.image) as picture:
            alpha = "A" in picture.getbands() or "transparency" in picture.info
        (having if alpha else lacking).append(shot)
    if having and lacking:
        raise ValueError(
            f"{lacking[0].image}: has no alpha channel to be its mask, and {len(having)} of the "
            f"photos have one, such as {having[0].name}; masks='none' does without"
        )
    return bool(having)
