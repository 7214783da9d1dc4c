"""Broken captures are refused at once, by file and field."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import captures
import colmap_files
import taichi_raster as tr
from capture_files import bop, colmap, nerfstudio, opencv, projections, transforms, write_json
from taichi_raster.capture.masks import read_photo

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
HEIGHT, WIDTH = captures.SIZE


def refused(path: Path, message: str, kind: type[Exception] = ValueError, **options: Any) -> None:
    with pytest.raises(kind, match=message):
        tr.load_capture(path, **options)


def test_what_is_not_there(tmp_path: Path) -> None:
    refused(tmp_path / "nothing", "nothing: there is no such", FileNotFoundError)
    refused(
        tmp_path,
        r"has no cameras. Looked for: transforms.json or .*; a model of",
        FileNotFoundError,
    )
    (tmp_path / "cameras.xyz").write_text("")
    refused(tmp_path / "cameras.xyz", "is no file of cameras")
    nerfstudio(tmp_path)
    (tmp_path / "images" / "0001.png").unlink()
    message = r"transforms.json: frames\[1\] \(images/0001.png\): the photo .* is not there"
    refused(tmp_path, message, FileNotFoundError)
    capture = tr.load_capture(tmp_path, pictures=False)
    with pytest.raises(ValueError, match=r"images/0001.png: there is no picture"):
        capture[1].image()


@pytest.mark.parametrize("kind", ["nerfstudio", "colmap"])
def test_photos_of_another_size_than_their_cameras(kind: str, tmp_path: Path) -> None:
    if kind == "nerfstudio":
        nerfstudio(tmp_path)
    else:
        colmap(tmp_path, colmap_files.write_binary)
    Image.new("RGB", (32, 24)).save(tmp_path / "images" / "0002.png")
    refused(tmp_path, r"0002.png: has 32 x 24 pixels \(width x height\), and its camera .* 64 x 48")
    (tmp_path / "images" / "0002.png").write_bytes(b"no picture")
    refused(tmp_path, r"0002.png: cannot be read as a picture")
    with pytest.raises(ValueError, match=r"0002.png: .* it is of no format that Pillow knows$"):
        read_photo(tmp_path / "images" / "0002.png")


def test_a_photo_that_is_replaced_later_is_noticed(tmp_path: Path) -> None:
    nerfstudio(tmp_path)
    capture = tr.load_capture(tmp_path)
    Image.new("RGB", (32, 24)).save(tmp_path / "images" / "0002.png")
    with pytest.raises(ValueError, match=r"0002.png: has 24 x 32 pixels"):
        capture.images()


def oriented(path: Path, orientation: int) -> None:
    """The photo with an EXIF tag that asks viewers to turn it."""
    with Image.open(path) as opened:
        opened.load()
        exif = Image.Exif()
        exif[0x0112] = orientation
        opened.save(path, exif=exif)


@pytest.mark.parametrize("turned", [False, True])
def test_a_photo_with_an_orientation_is_read_as_its_camera_has_it(
    turned: bool, tmp_path: Path
) -> None:
    """COLMAP takes pixels as stored, OpenCV turns them: the camera's size says which it was."""
    nerfstudio(tmp_path)
    plain = tr.load_capture(tmp_path)[2].image()
    path = tmp_path / "images" / "0002.png"
    if turned:
        with Image.open(path) as opened:
            sideways = opened.transpose(Image.Transpose.ROTATE_90)
        sideways.save(path)
    oriented(path, 6)  # to be turned clockwise by 90 degrees
    assert torch.equal(tr.load_capture(tmp_path)[2].image(), plain)


def test_an_orientation_that_says_too_little_is_refused(tmp_path: Path) -> None:
    nerfstudio(tmp_path)
    oriented(tmp_path / "images" / "0002.png", 3)  # upside down: of one size in both ways
    refused(tmp_path, r"0002.png: EXIF orientation: is 3, and nothing says .* turn its pixels")
    (tmp_path / "bare").mkdir()
    captures.write_photos(tmp_path / "bare" / "photos")
    oriented(tmp_path / "bare" / "photos" / "0001.png", 8)
    write_json(tmp_path / "bare" / "cameras.json", {"P": projections((1,) * 4)})
    refused(tmp_path / "bare", r"0001.png: EXIF orientation: is 8, and nothing says")


def test_one_photo_under_two_names(tmp_path: Path) -> None:
    data = transforms()
    data["frames"][3]["file_path"] = "./images/0000.png"
    captures.write_photos(tmp_path / "images")
    write_json(tmp_path / "transforms.json", data)
    refused(tmp_path, r"frames\[3\].* is the same photo as frames\[0\]")


def changed(place: tuple[Any, ...], value: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: Any) -> None:
        *path, last = place
        for part in path:
            data = data[part]
        if value is None:
            del data[last]
        else:
            data[last] = value

    return change


MIRROR = np.diag([1.0, 1.0, -1.0, 1.0]).tolist()
POSE = ("frames", 2, "transform_matrix")
BROKEN: dict[str, tuple[Callable[[Any], None], str]] = {
    "no frames": (changed(("frames",), None), r"frames: must be a list"),
    "empty": (changed(("frames",), []), r"frames: must be a list of at least one"),
    "no name": (changed(("frames", 1), {}), r"frames\[1\]: must be an object with a file_path"),
    "NaN": (changed((*POSE, 0, 3), math.nan), r"frames\[2\] \(.*\).transform_matrix: holds NaN"),
    "no pose": (changed(POSE, None), r"frames\[2\].*transform_matrix: must"),
    "3 x 3": (changed(POSE, [[1, 0, 0]] * 3), r"transform_matrix: must have the shape \(4, 4\)"),
    "text": (changed(POSE, "east"), r"transform_matrix: must hold numbers"),
    "a mirror": (changed(POSE, MIRROR), r"transform_matrix: mirrors"),
    "a scale": (changed(POSE, (2 * np.eye(4)).tolist()), r"transform_matrix: is no rotation"),
    "no focal length": (changed(("fl_x",), None), r"fl_x: is missing, and so is camera_angle_x"),
    "focal length": (changed(("fl_x",), -3.0), r"fl_x: focal lengths must be positive"),
    "size": (changed(("w",), 64.5), r"w, h: must be whole positive pixels"),
    "lens": (changed(("k4",), 0.1), r"k4: must be 0 unless the camera is a fisheye"),
    "model": (changed(("camera_model",), "EQUIRECTANGULAR"), r"camera_model: unknown"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_broken_transforms(how: str, tmp_path: Path) -> None:
    change, message = BROKEN[how]
    data = transforms()
    change(data)
    captures.write_photos(tmp_path / "images")
    write_json(tmp_path / "transforms.json", data)
    refused(tmp_path, f"transforms.json: .*{message}")


def test_json_that_is_cut_off(tmp_path: Path) -> None:
    for text in (json.dumps(transforms())[:-40], "[1, 2]"):
        (tmp_path / "transforms.json").write_text(text)
        refused(tmp_path, r"transforms.json: (cannot be read as JSON|must hold an object)")


# COLMAP -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stem", ["cameras", "images", "points3D"])
def test_a_binary_file_that_is_cut_off_anywhere(stem: str, tmp_path: Path) -> None:
    colmap(tmp_path, colmap_files.write_binary, "OPENCV")
    path = tmp_path / "sparse" / "0" / f"{stem}.bin"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        refused(tmp_path, rf"{stem}.bin: .*(is cut off|is {len(whole)})")
    path.write_bytes(b"\xff" * 64)
    refused(tmp_path, rf"{stem}.bin: the number of .* more than 64 bytes can hold")


def rewritten(folder: Path, stem: str, old: str, new: str) -> None:
    path = folder / "sparse" / "0" / f"{stem}.txt"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("stem", "old", "new", "message"),
    [
        ("cameras", "PINHOLE", "FOV", r"line 2.model: FOV is not one of .*image_undistorter"),
        ("cameras", "23.5", "", r"line 2.params: must have the 4 numbers fx, fy, cx, cy"),
        ("cameras", "70.0", "nan", r"line 2.params: holds NaN"),
        ("cameras", "70.0", "-1", r"line 2.params: focal lengths must be positive"),
        ("cameras", "7 PIN", "x PIN", r"line 2: must be CAMERA_ID, MODEL"),
        ("images", " 7 0000", " 8 0000", r"image 10 \(0000.png\).CAMERA_ID: there is no camera 8"),
        ("images", "2.5 7 0000", "nan 7 0000", r"image 10 \(0000.png\).TX..TZ: holds NaN"),
        ("images", "2.5 7 0000.png", "2.5", r"line 3: must be IMAGE_ID, QW"),
        ("points3D", "1.0 2.0 3.0 10", "1.0 two 3.0 10", r"line 2: must be POINT3D_ID"),
    ],
)
def test_broken_text_of_colmap(stem: str, old: str, new: str, message: str, tmp_path: Path) -> None:
    colmap(tmp_path, colmap_files.write_text)
    rewritten(tmp_path, stem, old, new)
    refused(tmp_path, rf"{stem}.txt: {message}")


@pytest.mark.parametrize("kept", [(), (1,), (0, 3)])
def test_colmaps_empty_lines_may_be_left_out(kept: tuple[int, ...], tmp_path: Path) -> None:
    """Images without points have an empty second line, which editors and scripts take out."""
    camera = colmap_files.Camera(1, "PINHOLE", WIDTH, HEIGHT, (70.0, 70.0, 32.0, 24.0))
    images = [
        colmap_files.Image(
            i + 1,
            (1, 0, 0, 0),  # whole numbers, as in lines of points
            (i, 0, 2),
            1,
            f"the photo {view.name}",  # with it, a line has as many words as four points
            ((1.5, 2.5, 7), (3.0, 4.0, -1)) if i in kept else (),
        )
        for i, view in enumerate(captures.views())
    ]
    colmap_files.write_text(tmp_path / "sparse", [camera], images, [])
    whole = tr.load_capture(tmp_path, pictures=False)
    path = tmp_path / "sparse" / "images.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if line.strip()) + "\n")
    capture = tr.load_capture(tmp_path, pictures=False)
    assert capture.names == whole.names and len(capture) == 4
    assert torch.equal(capture.camera.view, whole.camera.view)


@pytest.mark.parametrize("line", ["1.5 2.5", "a line of text", "1.0 2.0 3.5 4.0 5.0 6"])
def test_a_line_of_colmap_that_is_neither_image_nor_points(line: str, tmp_path: Path) -> None:
    colmap(tmp_path, colmap_files.write_text)
    path = tmp_path / "sparse" / "0" / "images.txt"
    lines = path.read_text().splitlines()
    at = next(i for i, text in enumerate(lines) if text.startswith("1.5 2.5"))
    lines[at] = line
    path.write_text("\n".join(lines))
    refused(tmp_path, rf"images.txt: line {at + 1}: must be X, Y, POINT3D_ID of each point, or IMA")


@pytest.mark.parametrize("write", [colmap_files.write_text, colmap_files.write_binary])
def test_a_point_of_colmap_that_is_none(write: Callable[..., None], tmp_path: Path) -> None:
    colmap(tmp_path, write)
    camera = colmap_files.Camera(7, "PINHOLE", WIDTH, HEIGHT, (70.0, 70.0, 32.0, 24.0))
    image = colmap_files.Image(1, (1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 2.0), 7, "0000.png")
    point = colmap_files.Point(3, (1.0, math.nan, 3.0))
    write(tmp_path / "sparse" / "0", [camera], [image], [point])
    refused(tmp_path, r"points3D.(txt: line 2: must be POINT3D_ID|bin: point 0 .* holds NaN)")


def test_colmap_that_registered_nothing(tmp_path: Path) -> None:
    colmap_files.write_binary(tmp_path / "sparse", [], [], [])
    refused(tmp_path, r"images.bin: has no images")
    colmap(tmp_path, colmap_files.write_binary)
    (tmp_path / "sparse" / "0" / "cameras.bin").unlink()
    refused(
        tmp_path / "sparse" / "0" / "images.bin", r"cameras.bin: there is no", FileNotFoundError
    )


def test_a_quaternion_that_is_none(tmp_path: Path) -> None:
    camera = colmap_files.Camera(1, "PINHOLE", WIDTH, HEIGHT, (70.0, 70.0, 32.0, 24.0))
    image = colmap_files.Image(1, (0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 1.0), 1, "0000.png")
    colmap_files.write_text(tmp_path / "sparse", [camera], [image], [])
    refused(tmp_path, r"QW..QZ: must be a unit quaternion, has length 0")


# The others ---------------------------------------------------------------------------------------


def edited(path: Path, change: Callable[[Any], None]) -> None:
    data = json.loads(path.read_text())
    change(data)
    write_json(path, data)


@pytest.mark.parametrize(
    ("file", "place", "value", "message"),
    [
        ("scene_camera", ("0", "cam_K"), None, r"scene_camera.json: '0'.cam_K: must"),
        ("scene_camera", ("1", "cam_K", 0), -1.0, r"'1'.cam_K: focal lengths must be positive"),
        ("scene_gt", ("2", 0, "cam_R_m2c", 0), math.nan, r"gt.json: '2'\[0\].cam_R_m2c: holds NaN"),
        ("scene_gt", ("2", 0, "cam_t_m2c"), [1.0], r"cam_t_m2c: must have the shape \(3,\)"),
        ("scene_gt", ("2",), {}, r"gt.json: '2': must be a list"),
    ],
)
def test_broken_scenes_of_bop(
    file: str, place: tuple[Any, ...], value: Any, message: str, tmp_path: Path
) -> None:
    bop(tmp_path)
    edited(tmp_path / f"{file}.json", changed(place, value))
    refused(tmp_path, message)


def test_objects_that_a_scene_of_bop_does_not_have(tmp_path: Path) -> None:
    bop(tmp_path)
    refused(tmp_path, r"obj_id: there is no object 9; there: 5", object_id=9)
    nerfstudio(tmp_path / "other")
    refused(tmp_path / "other", r"^object_id: is for scenes of BOP", object_id=9)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("camera_matrix", "something", r"calibration.yml: camera_matrix: is missing"),
        ("rows: 3", "rows: 4", r"camera_matrix: is no matrix of 4 x 3 numbers"),
        ("extrinsic_parameters", "else", r"extrinsic_parameters: is missing"),
        ("image_width: 64", "image_width: -64", r"image_width, image_height: must be whole"),
        ("cols: 6", "cols: 3", r"extrinsic_parameters: is no matrix|must have the shape"),
    ],
)
def test_broken_calibrations(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = opencv(tmp_path, "yml")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    refused(path, message)


def test_calibrations_and_photos_must_agree_in_number(tmp_path: Path) -> None:
    path = opencv(tmp_path, "yml")
    shutil.copy(tmp_path / "0000.png", tmp_path / "copy.png")
    refused(path, r"extrinsic_parameters: has 4 poses, and there are 5 photos")
    with pytest.raises(ValueError, match=r"image_width: is for \(48, 64\), not image_size"):
        tr.load_camera(path, image_size=(64, 48))
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        tr.load_camera(tmp_path / "none.yml")
    shutil.copy(path, tmp_path / "again.yml")
    refused(tmp_path, r"has several calibrations, again.yml, calibration.yml")


WRONG_MATRICES = {
    "transposed": ([70, 0, 0, 0, 70, 0, 32, 24, 1], r"must be \[\[fx, s, cx\].*; it is transposed"),
    "with a shear": ([70, 0, 32, 5, 70, 24, 0, 0, 1], r"must be \[\[fx, s, cx\]"),
    "of another scale": ([140, 0, 64, 0, 140, 48, 0, 0, 2], r"must be \[\[fx, s, cx\]"),
    "in two dimensions": ([70, 0, 32, 0, 70, 24, 0, 0, 0], r"must be \[\[fx, s, cx\]"),
    "behind": ([-70, 0, 32, 0, -70, 24, 0, 0, 1], "focal lengths must be positive"),
    "flat": ([70, 0, 32, 0, 0, 24, 0, 0, 1], "focal lengths must be positive"),
}


@pytest.mark.parametrize("how", WRONG_MATRICES)
def test_a_matrix_that_is_of_no_camera(how: str, tmp_path: Path) -> None:
    """In every format that has one."""
    matrix, message = WRONG_MATRICES[how]
    bop(tmp_path / "bop")
    edited(tmp_path / "bop" / "scene_camera.json", changed(("2", "cam_K"), matrix))
    refused(tmp_path / "bop", rf"scene_camera.json: '2'.cam_K: {message}")
    path = opencv(tmp_path, "json")
    edited(path, changed(("camera_matrix", "data"), matrix))
    refused(path, rf"calibration.json: camera_matrix: {message}")
    with pytest.raises(ValueError, match=rf"calibration.json: camera_matrix: {message}"):
        tr.load_camera(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed(("P",), None), r"cameras.json: P: must be a list"),
        (changed(("P", 1), [[1.0, 2.0]]), r"P\[1\]: must have the shape \(3, 4\)"),
        (changed(("P", 1, 0, 0), math.nan), r"P\[1\]: holds NaN"),
        (changed(("P", 1, 2), [0.0, 0.0, 0.0, 1.0]), r"P: number 1 is of no camera with a centre"),
        (changed(("P", 1), None), r"P: has 3 matrices, and .*photos has 4 photos"),
        (changed(("names",), ["a"]), r"names: has 1 where P has 4"),
        (changed(("names",), [1, 2, 3, 4]), r"names: must be a list of file names"),
        (changed(("image_size",), [48, 63]), r"0000.png: has 64 x 48 .* is for 63 x 48"),
    ],
)
def test_broken_projection_matrices(
    change: Callable[[Any], None], message: str, tmp_path: Path
) -> None:
    captures.write_photos(tmp_path / "photos")
    data = {"P": projections((1,) * 4), "image_size": [HEIGHT, WIDTH]}
    change(data)
    write_json(tmp_path / "cameras.json", data)
    refused(tmp_path, message)


# Made by code -------------------------------------------------------------------------------------


def test_captures_made_by_code_are_checked() -> None:
    camera = tr.PinholeCamera(tr.orbit(3.0, 0.0, 0.0))
    photo = tr.Photo("a", camera, (4, 6))
    fisheye = tr.Photo("b", tr.PinholeCamera(camera.view, lens=tr.KannalaBrandtLens()), (4, 4))
    with pytest.raises(ValueError, match=r"^photos: must be at least one"):
        tr.Capture(())
    with pytest.raises(TypeError, match=r"^photos: expected a Photo"):
        tr.Capture((3,))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^photos: several have the name 'a'"):
        tr.Capture((photo, photo))
    both = tr.Capture((photo, fisheye))
    with pytest.raises(ValueError, match=r"^photos: have several sizes"):
        both.images()
    with pytest.raises(ValueError, match=r"^photos: some have a fisheye lens"):
        both.camera  # noqa: B018
    with pytest.raises(ValueError, match=r"^a: has no mask"):
        photo.mask()
    wrong = tr.Photo("a", camera, (4, 6), torch.zeros(4, 5, 3))
    with pytest.raises(ValueError, match=r"^a: has 4 x 5 pixels"):
        wrong.image()
    with pytest.raises(TypeError, match=r"^capture: expected a Capture"):
        tr.save_capture("nowhere", photo)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^kind: unknown 'ply'"):
        tr.save_capture("nowhere", both, "ply")
