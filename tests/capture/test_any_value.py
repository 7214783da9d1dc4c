"""Whatever stands in a file of cameras, an error names the file; nothing else is ever raised."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import captures
import taichi_raster as tr
from capture_files import bop, nerfstudio, opencv, projections, transforms, write_json

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

ODD: list[Any] = [
    None,
    0,
    -1,
    1e300,
    10**400,
    "x",
    "",
    "\0",
    "n" * 300,
    True,
    [],
    [[1], [2, 3]],
    {},
    {"a": 1},
]


def of_nerfstudio(folder: Path) -> dict[str, Any]:
    nerfstudio(folder)
    captures.write_masks(folder / "parts")
    data = transforms(camera_model="OPENCV", k1=-0.1, k2=0.01, p1=0.001, p2=0.002)
    data["frames"] = data["frames"][:2]
    for frame in data["frames"]:
        frame["mask_path"] = "parts/" + Path(frame["file_path"]).name
    write_json(folder / "transforms.json", data)
    return {"transforms.json": data}


def of_nerf(folder: Path) -> dict[str, Any]:
    """One photo, a fisheye, by the angle of its view."""
    nerfstudio(folder)
    data = {"camera_angle_x": 0.8, "camera_angle_y": 0.7, "is_fisheye": True, "k1": 0.01}
    data |= {"frames": transforms()["frames"][:1]}
    write_json(folder / "transforms.json", data)
    return {"transforms.json": data}


def of_bop(folder: Path) -> dict[str, Any]:
    bop(folder, (5,))
    names = ("scene_camera.json", "scene_gt.json")
    return {name: json.loads((folder / name).read_text()) for name in names}


def of_matrices(folder: Path) -> dict[str, Any]:
    captures.write_photos(folder / "photos")
    names = [view.name for view in captures.views()]
    data = {"P": projections((1,) * 4), "image_size": list(captures.SIZE), "names": names}
    data |= {"first_centre": 0.5, "left_handed": False}
    write_json(folder / "cameras.json", data)
    return {"cameras.json": data}


def of_opencv(folder: Path) -> dict[str, Any]:
    path = opencv(folder, "json")
    return {path.name: json.loads(path.read_text()) | {"fisheye_model": 0}}


MADE = {
    "nerfstudio": of_nerfstudio,
    "NeRF": of_nerf,
    "BOP": of_bop,
    "matrices": of_matrices,
    "OpenCV": of_opencv,
}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of all values within one; of long lists, the first two and the last."""
    yield path
    if isinstance(value, dict):
        for key, part in value.items():
            yield from places(part, (*path, key))
    elif isinstance(value, list):
        for i in sorted({0, 1, len(value) - 1} & set(range(len(value)))):
            yield from places(value[i], (*path, i))


def replaced(data: Any, place: tuple[Any, ...], odd: Any) -> Any:
    if not place:
        return odd
    found = copy.deepcopy(data)
    inner = found
    for part in place[:-1]:
        inner = inner[part]
    inner[place[-1]] = odd
    return found


def cameras_of(path: Path) -> object:
    return tr.load_capture(path).camera


def refusal(read: Callable[[Path], object], path: Path) -> str | None:
    """What the error says, of the kinds that are meant for users."""
    try:
        read(path)
    except (ValueError, FileNotFoundError) as error:
        return str(error)
    return None


@pytest.mark.parametrize("kind", MADE)
def test_any_value_in_any_place_of_a_json_file(kind: str, tmp_path: Path) -> None:
    files = MADE[kind](tmp_path)
    refused = 0
    for name, data in files.items():
        for place in places(data):
            for odd in ODD:
                write_json(tmp_path / name, replaced(data, place, odd))
                where = f"{odd!r:.20} at {place}"
                path = tmp_path if kind != "OpenCV" else tmp_path / name
                said = refusal(cameras_of, path)
                assert said is None or str(tmp_path) in said, (where, said)
                refused += said is not None
        write_json(tmp_path / name, data)
    assert refused > 100


@pytest.mark.parametrize("suffix", ["yml", "json"])
def test_any_value_in_a_calibration_alone(suffix: str, tmp_path: Path) -> None:
    path = opencv(tmp_path, "json")
    data = json.loads(path.read_text()) | {"distortion_model": "plumb_bob"}
    path = path.with_suffix(f".{suffix}")
    for place in places(data):
        for odd in ODD:
            changed = replaced(data, place, odd)
            path.write_text(yaml.safe_dump(changed) if suffix == "yml" else json.dumps(changed))
            said = refusal(tr.load_camera, path)
            assert said is None or str(path) in said, (odd, place, said)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
@pytest.mark.parametrize("kind", MADE)
def test_a_json_file_in_another_encoding(kind: str, encoding: str, tmp_path: Path) -> None:
    for name, data in MADE[kind](tmp_path).items():
        text = json.dumps({**data, "ü": 0}, ensure_ascii=False)
        (tmp_path / name).write_text(text, encoding=encoding)
        with pytest.raises(ValueError, match=rf"{name}: cannot be read as JSON: .*utf-8"):
            tr.load_capture(tmp_path / name)
        write_json(tmp_path / name, data)


@pytest.mark.parametrize("value", [0, -0.5, 3.2, 1e9])
@pytest.mark.parametrize("axis", "xy")
def test_an_angle_that_no_camera_sees(axis: str, value: float, tmp_path: Path) -> None:
    data = of_nerf(tmp_path)["transforms.json"]
    write_json(tmp_path / "transforms.json", data | {f"camera_angle_{axis}": value})
    message = rf"transforms.json: .*camera_angle_{axis}: must lie between 0 and pi, got {value}"
    with pytest.raises(ValueError, match=message):
        tr.load_capture(tmp_path)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("x", r"'1'\[0\]: must be an object with obj_id"),
        ({"obj_id": []}, r"'1'\[0\].obj_id: must be a whole number, got \[\]"),
        ({"obj_id": "5"}, r"'1'\[0\].obj_id: must be a whole number, got '5'"),
    ],
)
def test_an_entry_of_bop_that_is_none(entry: Any, message: str, tmp_path: Path) -> None:
    truth = of_bop(tmp_path)["scene_gt.json"]
    write_json(tmp_path / "scene_gt.json", {**truth, "1": [entry]})
    with pytest.raises(ValueError, match=rf"scene_gt.json: {message}"):
        tr.load_capture(tmp_path)


def test_photos_of_bop_have_numbers(tmp_path: Path) -> None:
    made = of_bop(tmp_path)
    for key in ("left", "-1", "1.0", "9" * 5000):
        for name, data in made.items():
            write_json(tmp_path / name, {**data, key: data["1"]})
        with pytest.raises(
            ValueError, match=r"scene_camera.json: '.*': must be the number of a ph"
        ):
            tr.load_capture(tmp_path)
    with pytest.raises(TypeError, match=r"^object_id: expected a whole number, got '5'"):
        tr.load_capture(tmp_path, object_id="5")  # type: ignore[arg-type]
