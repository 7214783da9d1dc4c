"""What `save_capture` writes is read again, and what was there already stays, and stays apart."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import captures
import taichi_raster as tr
from capture_files import nerfstudio
from taichi_raster.capture.writers import cameras

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
KINDS = ("nerfstudio", "colmap", "colmap-text")
every_kind = pytest.mark.parametrize("kind", KINDS)


def given(folder: Path) -> tr.Capture:
    """A capture whose photos and masks are files."""
    nerfstudio(folder)
    captures.write_masks(folder / "masks")
    return tr.load_capture(folder)


def made(names: tuple[str, ...] = ("0.png", "1.png"), masks: bool = True) -> tr.Capture:
    """One whose photos are tensors, each with a mask of its own."""
    photos = []
    for i, name in enumerate(names):
        mask = torch.zeros(captures.SIZE)
        mask[5 : 10 + i, 5 : 20 + 3 * i] = 1
        camera = tr.PinholeCamera(tr.orbit(3.0, 10.0, 30.0 * i).double(), (2.0, 2.0))
        picture = mask[..., None].expand(*mask.shape, 3) * 0.6 + i / 51
        photos.append(tr.Photo(name, camera, captures.SIZE, picture, mask if masks else None))
    return tr.Capture(tuple(photos))


def tree(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def same(a: tr.Capture, b: tr.Capture) -> None:
    assert len(a) == len(b)
    torch.testing.assert_close(a.camera.view, b.camera.view)
    torch.testing.assert_close(a.images(), b.images(), atol=0.5 / 255, rtol=0)
    assert a.has_masks == b.has_masks
    if a.has_masks:
        torch.testing.assert_close(a.masks(), b.masks())


def refused(folder: Path, capture: tr.Capture, kind: str, message: str) -> None:
    """Without a change of anything."""
    before, places = tree(folder), everything(folder)
    with pytest.raises(FileExistsError, match=message):
        tr.save_capture(folder, capture, kind)
    assert tree(folder) == before and everything(folder) == places


@every_kind
@pytest.mark.parametrize("names", [("1.png", "0.png"), ("1.png", "9.png")])
def test_photos_under_the_names_of_others_in_their_own_folder(
    names: tuple[str, ...], kind: str, tmp_path: Path
) -> None:
    tr.save_capture(tmp_path, made(), kind)
    capture = tr.load_capture(tmp_path)
    pairs = zip(capture, names, strict=True)
    renamed = replace(capture, photos=tuple(replace(p, name=name) for p, name in pairs))
    refused(tmp_path, renamed, kind, r"images/1.png: is there already, and is not what would be")
    same(tr.load_capture(tmp_path), capture)


def test_one_photo_is_not_written_over_another(tmp_path: Path) -> None:
    capture = given(tmp_path)
    Image.new("RGB", (64, 48), "red").save(tmp_path / "images" / "0001.png")
    one = replace(capture, photos=(replace(capture[0], name="0001.png"),))
    refused(tmp_path, one, "nerfstudio", "images/0001.png: is there already, and is not what would")


@every_kind
def test_the_same_capture_may_be_written_again(kind: str, tmp_path: Path) -> None:
    for capture in (made(), given(tmp_path / "given")):
        folder = tmp_path / f"made {len(capture)}"
        tr.save_capture(folder, capture, kind)
        before = tree(folder)
        tr.save_capture(folder, capture, kind)
        assert tree(folder) == before
        same(tr.load_capture(folder), capture)
        changed = replace(capture, photos=capture.photos[:1])
        refused(folder, changed, kind, "is there already, and is not what would be written")


def test_transforms_json_may_be_added_to_a_model_of_colmap(tmp_path: Path) -> None:
    """In the photos' own folder: photos and masks stay, byte by byte."""
    tr.save_capture(tmp_path, made(("0.jpg", "1.jpg")), "colmap")
    for path in (tmp_path / "masks").iterdir():
        path.rename(path.with_name(path.name.replace(".png.png", ".png")))
    capture = tr.load_capture(tmp_path)
    before = tree(tmp_path)
    tr.save_capture(tmp_path, capture, "nerfstudio")
    after = tree(tmp_path)
    assert set(after) - set(before) == {"transforms.json"}
    assert {name: after[name] for name in before} == before
    same(tr.load_capture(tmp_path / "transforms.json"), capture)


def test_photos_that_differ_in_their_suffix_keep_their_masks(tmp_path: Path) -> None:
    capture = made(("x.jpg", "x.png", "y/x.png"))
    names = ("x.jpg", "x.png", "y.png")
    for photo, name in zip(capture, names, strict=True):
        pixels = (photo.image() * 255).round().byte().numpy()
        Image.fromarray(pixels).save(tmp_path / name)
    photos = [replace(p, picture=tmp_path / n) for p, n in zip(capture, names, strict=True)]
    capture = tr.Capture(tuple(photos))
    for kind in KINDS:
        tr.save_capture(tmp_path / kind, capture, kind)
        again = tr.load_capture(tmp_path / kind)
        assert len({photo.silhouette for photo in again}) == 3
        torch.testing.assert_close(again.masks(), capture.masks())


# Used folders -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("name", ["transforms.json", "transforms_train.json"])
def test_cameras_that_would_be_read_first(name: str, kind: str, tmp_path: Path) -> None:
    tr.save_capture(tmp_path, made(), "nerfstudio")
    (tmp_path / "transforms.json").rename(tmp_path / name)
    refused(
        tmp_path, made(), kind, rf"{name}: is of an earlier capture, and would be read in place"
    )


@every_kind
def test_cameras_that_would_replace_others(kind: str, tmp_path: Path) -> None:
    cameras.write(tmp_path, made())
    refused(tmp_path, made(), kind, r"cameras.json: is of an earlier capture, and would be read")
    (tmp_path / "cameras.json").write_text('{"of": "another program"}')
    tr.save_capture(tmp_path, made(), kind)
    same(tr.load_capture(tmp_path), made())


def test_models_of_colmap_are_not_mixed(tmp_path: Path) -> None:
    for first, second in (KINDS[1:], KINDS[:0:-1]):
        folder = tmp_path / first
        tr.save_capture(folder, made(), first)
        refused(folder, made(), second, r"sparse/0/\w+\.\w+: is of an earlier capture")
    for name in ("rigs.bin", "frames.txt"):
        folder = tmp_path / name
        (folder / "sparse" / "0").mkdir(parents=True)
        (folder / "sparse" / "0" / name).write_text("")
        refused(folder, made(), "colmap", rf"sparse/0/{name}: is of an earlier capture")


@every_kind
def test_masks_of_an_earlier_capture(kind: str, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.zeros(captures.SIZE, np.uint8)).save(tmp_path / "masks" / "1.tif")
    bare = made(masks=False)
    refused(
        tmp_path, bare, kind, r"masks: is there already, .* that have none, such as images/0.png"
    )
    if kind == "nerfstudio":  # which names its masks
        tr.save_capture(tmp_path, made(), kind)
        same(tr.load_capture(tmp_path), made())
    else:
        refused(
            tmp_path, made(), kind, r"masks/1.tif: is there already, and would be read as the ma"
        )
        (tmp_path / "masks" / "1.tif").rename(tmp_path / "masks" / "other.tif")
        tr.save_capture(tmp_path, made(), kind)
        same(tr.load_capture(tmp_path), made())


@every_kind
def test_other_files_may_be_in_the_folder(kind: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("of the day")
    tr.save_capture(tmp_path, made(masks=False), kind)
    assert (tmp_path / "notes.txt").read_text() == "of the day"
    same(tr.load_capture(tmp_path), made(masks=False))


@every_kind
def test_files_where_folders_belong(kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(FileExistsError, match=r"file: is a file; give a folder"):
        tr.save_capture(tmp_path / "file", made(), kind)
    for name in ("images", "masks"):
        (tmp_path / name).write_text("text")
        refused(tmp_path, made(), kind, rf"{name}: is there already, and is not what would be")
        (tmp_path / name).unlink()
    (tmp_path / "images" / "1.png").mkdir(parents=True)
    refused(tmp_path, made(), kind, r"images/1.png: is there already, and is not what would be")
    shutil.rmtree(tmp_path / "images")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.png").symlink_to(tmp_path / "nowhere")
    refused(tmp_path, made(), kind, r"images/0.png: is there already, and is not what would be")


# All or nothing -----------------------------------------------------------------------------------


def without_mask(capture: tr.Capture) -> tr.Capture:
    broken = replace(capture[1], silhouette=torch.zeros(captures.SIZE))
    return replace(capture, photos=(capture[0], broken))


def of_another_size(capture: tr.Capture) -> tr.Capture:
    broken = replace(capture[1], picture=torch.zeros(4, 4, 3))
    return replace(capture, photos=(capture[0], broken))


def too_bright(capture: tr.Capture) -> tr.Capture:
    broken = replace(capture[1], picture=torch.full((*captures.SIZE, 3), 200.0))
    return replace(capture, photos=(capture[0], broken))


def with_skew(capture: tr.Capture) -> tr.Capture:
    broken = replace(capture[1], camera=replace(capture[1].camera, skew=0.1))
    return replace(capture, photos=(capture[0], broken))


def without_file(capture: tr.Capture) -> tr.Capture:
    return replace(capture, photos=(capture[0], replace(capture[1], picture=Path("nowhere.png"))))


@every_kind
@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (without_mask, "1.png: the mask is empty"),
        (of_another_size, "1.png: has 4 x 4 pixels"),
        (too_bright, "1.png: picture: must lie in"),
        (with_skew, "1.png: camera.skew"),
        (without_file, "nowhere.png"),
    ],
)
def test_a_photo_that_cannot_be_written(
    broken: Callable[[tr.Capture], tr.Capture],
    message: str,
    used: bool,
    kind: str,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "some" / "folder"
    if used:
        tr.save_capture(folder, made(("0.png", "other.png")), kind)
    before, places = tree(tmp_path), everything(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        tr.save_capture(folder, broken(made()), kind)
    assert tree(tmp_path) == before and everything(tmp_path) == places


@every_kind
def test_a_photo_that_was_replaced_by_one_of_another_size(kind: str, tmp_path: Path) -> None:
    capture = given(tmp_path / "given")
    Image.new("RGB", (32, 24)).save(tmp_path / "given" / "images" / "0002.png")
    with pytest.raises(ValueError, match=r"0002.png: has 24 x 32 pixels"):
        tr.save_capture(tmp_path / "made", capture, kind)
    assert not (tmp_path / "made").exists()


@every_kind
@pytest.mark.parametrize("at", range(7))
def test_a_disk_that_fails_leaves_the_folder_as_it_was(
    at: int, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.txt").write_text("of the day")
    places = everything(tmp_path)
    calls = 0

    def failing(source: Any, target: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > at:
            raise OSError(28, "No space left on device")
        os.rename(source, target)

    monkeypatch.setattr(os, "replace", failing)
    if at >= (5 if kind == "nerfstudio" else 7):
        tr.save_capture(tmp_path, made(), kind)
        return
    with pytest.raises(OSError, match="No space left"):
        tr.save_capture(tmp_path, made(), kind)
    assert everything(tmp_path) == places


@every_kind
def test_the_file_that_makes_a_capture_comes_last(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a folder whose writing was broken off has no cameras."""
    order: list[str] = []

    def noted(source: Any, target: Any) -> None:
        order.append(Path(target).relative_to(tmp_path).parts[0])
        os.rename(source, target)

    monkeypatch.setattr(os, "replace", noted)
    tr.save_capture(tmp_path, made(), kind)
    last = ["transforms.json"] if kind == "nerfstudio" else ["sparse"] * 3
    assert order == ["images"] * 2 + ["masks"] * 2 + last
