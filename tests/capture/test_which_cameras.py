"""Which file of cameras is read where a folder has several, and what is taken from each."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import captures
import colmap_files
import taichi_raster as tr
from capture_files import bop, colmap, nerfstudio, opencv, projections, transforms, write_json
from taichi_raster.capture.writers import cameras

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
POINTS = torch.tensor(np.random.default_rng(0).uniform(-0.4, 0.4, (20, 3)))


def of_nerfstudio(folder: Path) -> None:
    nerfstudio(folder)
    captures.write_masks(folder / "parts")
    data = transforms()
    for frame in data["frames"]:
        frame["mask_path"] = "parts/" + Path(frame["file_path"]).name
    write_json(folder / "transforms.json", data)


def of_colmap(folder: Path) -> None:
    colmap(folder, colmap_files.write_binary)
    captures.write_masks(folder / "masks")


MADE = {"nerfstudio": of_nerfstudio, "colmap": of_colmap, "bop": bop}


def moved(capture: tr.Capture) -> tr.Capture:
    """With other cameras: all are turned a little, and have no lens."""
    turn = torch.tensor([[0.01, -0.02, 0.03, 0.0, 0.0, 0.01]], dtype=torch.float64)
    photos = []
    for photo in capture:
        view = photo.pose.moved(turn, torch.zeros(3).double(), 1.0).view
        photos.append(replace(photo, camera=replace(photo.camera, view=view, lens=None)))
    return replace(capture, photos=tuple(photos))


def same(a: tr.Capture, b: tr.Capture) -> None:
    assert a.names == b.names and a.mirrored == b.mirrored
    for one, other in zip(a, b, strict=True):
        torch.testing.assert_close(one.camera.view, other.camera.view)
        assert (one.camera.lens is None) == (other.camera.lens is None)
        assert one.silhouette == other.silhouette
        assert one.picture is not None and other.picture is not None
        assert Path(str(one.picture)).samefile(str(other.picture))


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("held", [(), (1,)])
def test_cameras_json_beside_another_file_has_the_last_word(
    kind: str, held: tuple[int, ...], tmp_path: Path
) -> None:
    """Photos that it names get its cameras. Masks stay as they were, and so do other photos."""
    MADE[kind](tmp_path)
    given = tr.load_capture(tmp_path)
    better = moved(given)
    path = cameras.write(tmp_path, better.without(held))
    assert path.name == "cameras.json"
    others = {"colmap": "images.bin", "bop": "scene_camera.json"}
    message = (
        rf"cameras.json: the cameras of {4 - len(held)} of 4 photos are taken from it, and "
        rf"everything else from .*{others.get(kind, 'transforms.json')}"
    )
    with pytest.warns(UserWarning, match=message) as noted:
        again = tr.load_capture(tmp_path)
    assert noted[0].filename == __file__
    photos = [(given if i in held else better)[i] for i in range(4)]
    same(again, replace(given, photos=tuple(photos)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(tr.load_capture(path, masks="none")) == 4 - len(
            held
        )  # alone, if it is asked for


def test_cameras_json_is_read_before_a_calibration(tmp_path: Path) -> None:
    opencv(tmp_path, "yml")
    better = moved(tr.load_capture(tmp_path))
    cameras.write(tmp_path, better)
    same(tr.load_capture(tmp_path), better)


@pytest.mark.parametrize("kind", ["nerfstudio", "colmap"])
def test_cameras_with_a_lens_are_used_beside_the_photos(kind: str, tmp_path: Path) -> None:
    MADE[kind](tmp_path)
    given = tr.load_capture(tmp_path)
    lens = tr.BrownConradyLens((-0.1,))
    photos = [replace(p, camera=replace(p.camera, lens=lens)) for p in moved(given)]
    better = replace(given, photos=tuple(photos))
    assert cameras.write(tmp_path, better).name == "transforms.json"
    same(tr.load_capture(tmp_path), better)


def outwards(folder: Path) -> None:
    """Cameras that look away from one another."""
    nerfstudio(folder)
    data = transforms()
    for frame in data["frames"]:
        turned = np.array(frame["transform_matrix"]) @ np.diag([-1.0, 1.0, -1.0, 1.0])
        frame["transform_matrix"] = turned.tolist()
    write_json(folder / "transforms.json", data)


def test_cameras_that_look_outwards_stay_in_their_world(tmp_path: Path) -> None:
    outwards(tmp_path)
    given = tr.load_capture(tmp_path)
    cameras.write(tmp_path, given)
    with pytest.warns(UserWarning, match="4 of 4"):
        same(tr.load_capture(tmp_path), given)


def test_cameras_json_of_another_program_is_no_file_of_cameras(tmp_path: Path) -> None:
    nerfstudio(tmp_path)
    given = tr.load_capture(tmp_path)
    other: Any
    for other in ([{"id": 0, "img_name": "0000"}], {"cameras": []}):
        write_json(tmp_path / "cameras.json", other)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            same(tr.load_capture(tmp_path), given)


def edited(folder: Path, **changes: object) -> None:
    path = folder / "cameras.json"
    write_json(path, {**json.loads(path.read_text()), **changes})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "cameras.json").write_text('{"P": ['), "cannot be read as JSON"),
        (
            lambda folder: edited(folder, names=[f"images/000{i}.png" for i in (0, 1, 2, 2)]),
            r"P\[3\]: has the photo images/0002.png a second time",
        ),
        (
            lambda folder: edited(folder, names=[f"images/000{i}.png" for i in (0, 1, 2, 7)]),
            r"P\[3\]: the photo images/0007.png is not in .*transforms.json",
        ),
        (lambda folder: edited(folder, left_handed=1), "left_handed: must be true or false, got 1"),
    ],
)
def test_a_broken_cameras_json_is_not_passed_over(
    change: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    nerfstudio(tmp_path)
    cameras.write(tmp_path, tr.load_capture(tmp_path))
    change(tmp_path)
    with pytest.raises(ValueError, match=rf"cameras.json: {message}"):
        tr.load_capture(tmp_path)


def test_cameras_of_two_worlds_are_not_mixed(tmp_path: Path) -> None:
    nerfstudio(tmp_path)
    names = [f"images/{view.name}" for view in captures.views()]
    mirrored: dict[str, Any] = {"P": projections((1,) * 4, mirror=-1.0), "names": names}
    write_json(tmp_path / "cameras.json", mirrored)
    with pytest.warns(UserWarning, match="4 of 4"):
        assert tr.load_capture(tmp_path).mirrored  # all are of that world
    write_json(tmp_path / "cameras.json", {"P": mirrored["P"][:3], "names": names[:3]})
    with pytest.raises(ValueError, match=r"cameras.json: P: their world is left-handed, and that"):
        tr.load_capture(tmp_path)


def test_left_handed_worlds_may_be_said_to_be(tmp_path: Path) -> None:
    captures.write_photos(tmp_path / "photos")
    data: dict[str, Any] = {"P": projections((1,) * 4, mirror=-1.0), "left_handed": True}
    write_json(tmp_path / "cameras.json", data)
    assert tr.load_capture(tmp_path).mirrored
    write_json(tmp_path / "cameras.json", {**data, "P": data["P"][:1]})  # one cannot tell
    for path in sorted((tmp_path / "photos").iterdir())[1:]:
        path.unlink()
    assert tr.load_capture(tmp_path).mirrored


def test_nerfs_scenes_are_read_by_the_photos_to_train_with(tmp_path: Path) -> None:
    angle = 2 * np.arctan(captures.SIZE[1] / 2 / 70)
    for i, part in enumerate(("test", "val", "train")):
        captures.write_photos(tmp_path / part, alpha=True)
        frames = transforms()["frames"][i:]
        for frame in frames:
            frame["file_path"] = f"./{part}/{Path(frame['file_path']).stem}"
        data = {"camera_angle_x": angle, "frames": frames}
        write_json(tmp_path / f"transforms_{part}.json", data)
        capture = tr.load_capture(tmp_path)
        assert capture.has_masks and len(capture) == 4 - i
        assert all(name.startswith(f"{part}/") for name in capture.names)
    shutil.copy(tmp_path / "transforms_val.json", tmp_path / "transforms.json")
    assert tr.load_capture(tmp_path).names[0].startswith("val/")
    assert tr.load_capture(tmp_path / "transforms_test.json").names[0].startswith("test/")


def test_photos_may_be_in_a_folder_that_transforms_json_does_not_name(tmp_path: Path) -> None:
    nerfstudio(tmp_path)
    data = transforms()
    for frame in data["frames"]:
        frame["file_path"] = Path(frame["file_path"]).name
    write_json(tmp_path / "transforms.json", data)
    assert len(tr.load_capture(tmp_path)) == 4
