"""Which mask a photo gets: what the user gives wins, and no photo is left without one silently."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import captures
import colmap_files
import taichi_raster as tr
from capture_files import bop, colmap, nerfstudio, transforms, write_json

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
TRUTH = [captures.pixels(view)[..., 3] > 0 for view in captures.views()]
NAMES = [view.name for view in captures.views()]


def named(folder: Path, without: tuple[int, ...] = ()) -> None:
    """A file of cameras that names the masks in `parts/`, but for some photos."""
    nerfstudio(folder)
    captures.write_masks(folder / "parts")
    data = transforms()
    for i, frame in enumerate(data["frames"]):
        if i not in without:
            frame["mask_path"] = "parts/" + Path(frame["file_path"]).name
    write_json(folder / "transforms.json", data)


def square() -> np.ndarray:
    found = np.zeros(captures.SIZE, np.uint8)
    found[10:20, 10:30] = 255
    return found


@pytest.mark.parametrize("make", [named, bop])
def test_the_masks_that_are_given_win(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path)
    given = tmp_path / "given"
    given.mkdir()
    for photo in tr.load_capture(tmp_path):
        Image.fromarray(square()).save(given / f"{Path(photo.name).stem}.png")
    for photo in tr.load_capture(tmp_path, masks=given):
        np.testing.assert_array_equal(photo.mask().numpy() * 255, square())
    (given / "0001.png" if make is named else given / "000001.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"given: there is no mask of the photo .*0*1"):
        tr.load_capture(tmp_path, masks=given)


def test_masks_that_are_given_may_have_the_names_in_the_file(tmp_path: Path) -> None:
    bop(tmp_path)
    whole = tmp_path / "mask"
    whole.mkdir()
    for path in (tmp_path / "mask_visib").iterdir():
        Image.fromarray(square()).save(whole / path.name)
    for photo in tr.load_capture(tmp_path, masks=whole):
        np.testing.assert_array_equal(photo.mask().numpy() * 255, square())


def test_masks_that_are_named_need_not_be_there_if_others_are_given(tmp_path: Path) -> None:
    named(tmp_path)
    (tmp_path / "parts").rename(tmp_path / "elsewhere")
    message = r"frames\[0\] .*mask_path: there is no .*parts/0000.png; masks='none' does without"
    with pytest.raises(FileNotFoundError, match=message):
        tr.load_capture(tmp_path)
    options: dict[str, Any]
    for options in ({"masks": tmp_path / "elsewhere"}, {"key": "blue"}):
        for photo, truth in zip(tr.load_capture(tmp_path, **options), TRUTH, strict=True):
            np.testing.assert_array_equal(photo.mask().numpy() > 0.5, truth)
    for options in ({"masks": "none"}, {"pictures": False}):
        assert not tr.load_capture(tmp_path, **options).has_masks


def test_masks_are_not_dropped_with_the_photos(tmp_path: Path) -> None:
    named(tmp_path)
    for options in ({"masks": tmp_path / "parts"}, {"masks": "alpha"}, {"key": "blue"}):
        with pytest.raises(ValueError, match=r"^pictures: False reads cameras alone"):
            tr.load_capture(tmp_path, pictures=False, **options)
    assert not tr.load_capture(tmp_path, "none", pictures=False).has_masks


def test_a_photo_whose_mask_is_not_named(tmp_path: Path) -> None:
    named(tmp_path, without=(2,))
    message = (
        r"transforms.json: frames\[2\] .*0002.png has no mask, and 3 others have, such as .*0000"
    )
    with pytest.raises(FileNotFoundError, match=message):
        tr.load_capture(tmp_path)
    assert not tr.load_capture(tmp_path, masks="none").has_masks
    (tmp_path / "masks").mkdir()
    Image.fromarray(square()).save(tmp_path / "masks" / "0002.png")  # fills the gap
    capture = tr.load_capture(tmp_path)
    np.testing.assert_array_equal(capture[2].mask().numpy() * 255, square())
    np.testing.assert_array_equal(capture[3].mask().numpy() > 0.5, TRUTH[3])


def test_a_photo_of_bop_without_its_mask(tmp_path: Path) -> None:
    bop(tmp_path)
    shutil.copytree(tmp_path / "mask_visib", tmp_path / "mask")
    (tmp_path / "mask_visib" / "000002_000000.png").unlink()
    message = r"'2': the photo 000002 has no mask, and 3 others have, such as .*mask_visib"
    with pytest.raises(FileNotFoundError, match=message):  # and not the one of the whole object
        tr.load_capture(tmp_path)
    shutil.rmtree(tmp_path / "mask_visib")
    assert "mask/000002" in str(tr.load_capture(tmp_path)[2].silhouette)


def test_a_photo_without_alpha_among_those_that_have_it(tmp_path: Path) -> None:
    nerfstudio(tmp_path)
    captures.write_photos(tmp_path / "images", alpha=True)
    Image.open(tmp_path / "images" / "0001.png").convert("RGB").save(tmp_path / "images/0001.png")
    with pytest.raises(ValueError, match=r"0001.png: has no alpha .*3 of the photos have one"):
        tr.load_capture(tmp_path)
    assert not tr.load_capture(tmp_path, masks="none").has_masks


def in_two_folders(folder: Path) -> tuple[str, ...]:
    """Photos left/0.png, right/0.png, left/1.png, right/1.png."""
    camera = colmap_files.Camera(1, "PINHOLE", captures.SIZE[1], captures.SIZE[0], (70, 70, 32, 24))
    names = [f"{side}/{i}.png" for i in (0, 1) for side in ("left", "right")]
    images = []
    for i, (view, name) in enumerate(zip(captures.views(), names, strict=True), 1):
        place = tuple(view.translation.tolist())
        images.append(colmap_files.Image(i, view.wxyz, place, 1, name))
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(captures.pixels(view)[..., :3]).save(path)
    colmap_files.write_text(folder / "sparse" / "0", [camera], images, [])
    return tuple(names)


def test_one_mask_is_not_that_of_two_photos(tmp_path: Path) -> None:
    names = in_two_folders(tmp_path)
    (tmp_path / "masks").mkdir()
    for i in (0, 1):
        Image.fromarray(square()).save(tmp_path / "masks" / f"{i}.png")
    message = r"masks/0.png: would be the mask of two photos, left/0.png and right/0.png"
    with pytest.raises(ValueError, match=message):
        tr.load_capture(tmp_path)
    shutil.rmtree(tmp_path / "masks")
    for name in names:
        path = tmp_path / "masks" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(square()).save(path)
    silhouettes = [photo.silhouette for photo in tr.load_capture(tmp_path)]
    assert len(set(silhouettes)) == 4


def test_photos_that_differ_in_their_suffix_have_masks_of_their_own(tmp_path: Path) -> None:
    nerfstudio(tmp_path)
    data = transforms()
    Image.open(tmp_path / "images" / "0001.png").save(tmp_path / "images" / "0000.jpg")
    data["frames"][1]["file_path"] = "images/0000.jpg"
    write_json(tmp_path / "transforms.json", data)
    captures.write_masks(tmp_path / "masks")
    with pytest.raises(
        ValueError, match=r"0000.png: would be .* images/0000.png and images/0000.j"
    ):
        tr.load_capture(tmp_path)
    shutil.copy(tmp_path / "masks" / "0001.png", tmp_path / "masks" / "0000.jpg.png")
    capture = tr.load_capture(tmp_path)
    np.testing.assert_array_equal(capture[1].mask().numpy() > 0.5, TRUTH[1])


@pytest.mark.parametrize("suffix", [".PNG", ".Png", ".gif", ".GIF", ".png.PNG", ".pgm", ".TIFF"])
def test_masks_of_any_format_and_capitals_are_found(suffix: str, tmp_path: Path) -> None:
    nerfstudio(tmp_path)
    (tmp_path / "masks").mkdir()
    for truth, name in zip(TRUTH, NAMES, strict=True):
        path = tmp_path / "masks" / (Path(name).stem + suffix)
        Image.fromarray(truth.astype(np.uint8) * 255).save(path)
    for photo, truth in zip(tr.load_capture(tmp_path), TRUTH, strict=True):
        np.testing.assert_array_equal(photo.mask().numpy() > 0.5, truth)


def test_photos_of_any_capitals_are_found_by_names_without_suffix(tmp_path: Path) -> None:
    nerfstudio(tmp_path)
    data = transforms()
    for name, frame in zip(NAMES, data["frames"], strict=True):
        (tmp_path / "images" / name).rename(tmp_path / "images" / f"{Path(name).stem}.PNG")
        frame["file_path"] = f"images/{Path(name).stem}"
    write_json(tmp_path / "transforms.json", data)
    captures.write_masks(tmp_path / "masks")
    assert tr.load_capture(tmp_path)[3].mask().sum() == TRUTH[3].sum()


@pytest.mark.parametrize("how", ["absolute", "up"])
def test_a_photo_is_not_its_own_mask(how: str, tmp_path: Path) -> None:
    """Names that lead out of the folder of masks are looked for within it."""
    nerfstudio(tmp_path)
    data = transforms()
    (tmp_path / "cameras").mkdir()
    for frame in data["frames"]:
        where = tmp_path if how == "absolute" else Path("..")
        frame["file_path"] = (where / frame["file_path"]).as_posix()
    write_json(tmp_path / "cameras" / "transforms.json", data)
    masks = tmp_path / "given"
    captures.write_masks(masks)
    for photo, truth in zip(tr.load_capture(tmp_path / "cameras", masks=masks), TRUTH, strict=True):
        np.testing.assert_array_equal(photo.mask().numpy() > 0.5, truth)
    (masks / "0003.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"given: there is no mask of .*0003.png"):
        tr.load_capture(tmp_path / "cameras", masks=masks)


def test_masks_beside_colmaps_photos_without_suffix_keep_their_folders(tmp_path: Path) -> None:
    colmap(tmp_path, colmap_files.write_text)
    text = (tmp_path / "sparse" / "0" / "images.txt").read_text()
    for i, name in enumerate(NAMES):
        text = text.replace(name, f"{'ab'[i % 2]}/{i // 2}")
        path = tmp_path / "images" / "ab"[i % 2] / f"{i // 2}.png"
        path.parent.mkdir(exist_ok=True)
        (tmp_path / "images" / name).rename(path)
        mask = tmp_path / "masks" / "ab"[i % 2] / f"{i // 2}.png"
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(captures.pixels(captures.views()[i])[..., 3]).save(mask)
    (tmp_path / "sparse" / "0" / "images.txt").write_text(text)
    capture = tr.load_capture(tmp_path)
    truth = {f"{'ab'[i % 2]}/{i // 2}": TRUTH[i] for i in range(4)}
    for photo in capture:
        np.testing.assert_array_equal(photo.mask().numpy() > 0.5, truth[photo.name])


def test_the_name_of_a_mask_is_a_text(tmp_path: Path) -> None:
    named(tmp_path)
    data = json.loads((tmp_path / "transforms.json").read_text())
    data["frames"][1]["mask_path"] = 3
    write_json(tmp_path / "transforms.json", data)
    with pytest.raises(ValueError, match=r"frames\[1\] .*mask_path: must be the name of a file"):
        tr.load_capture(tmp_path)
