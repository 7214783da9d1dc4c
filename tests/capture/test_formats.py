"""Every format of cameras, written by its documentation, is read as the same photos."""

from __future__ import annotations

import json
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
from capture_files import (
    COLMAP,
    CX,
    CY,
    FISHEYE,
    FX,
    FY,
    HEIGHT,
    LENS,
    WIDTH,
    bop,
    colmap,
    nerfstudio,
    numbers,
    opencv,
    projections,
    transforms,
    write_json,
)
from taichi_raster.capture.writers import cameras

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
F64 = torch.float64
POINTS = torch.tensor(np.random.default_rng(0).uniform(-0.4, 0.4, (20, 3)))


def bent(x: Any, y: Any, model: str, lens: tuple[float, ...]) -> tuple[Any, Any]:
    """OpenCV's formulas."""
    r2 = x * x + y * y
    k1, k2, p1, p2 = lens
    if model == "OPENCV_FISHEYE":
        r = np.sqrt(r2)
        theta = np.arctan(r)
        scale = theta * (1 + sum(k * theta ** (2 * i + 2) for i, k in enumerate(FISHEYE))) / r
        return scale * x, scale * y
    if model == "OPENCV":
        g = 1 + k1 * r2 + k2 * r2**2
        return (
            g * x + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            g * y + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        )
    return x, y


def expected(model: str = "PINHOLE", lens: tuple[float, ...] = LENS, fy: float = FY) -> np.ndarray:
    """(photos, points, 2): pixels, the first one's centre at 0.5."""
    found = []
    for view in captures.views():
        x, y, z = (POINTS.numpy() @ view.rotation.T + view.translation).T
        x, y = bent(x / z, y / z, model, lens)
        found.append(np.stack([FX * x + CX, fy * y + CY], -1))
    return np.array(found)


def seen(capture: tr.Capture) -> np.ndarray:
    """The same, by our cameras."""
    world = POINTS * torch.tensor([1.0, 1.0, -1.0 if capture.mirrored else 1.0])
    x, y, _ = capture.camera.project(world[None].expand(len(capture), -1, -1)).unbind(-1)
    short = min(HEIGHT, WIDTH)
    return torch.stack([(x * short + WIDTH) / 2, (HEIGHT - y * short) / 2], -1).numpy()


def same(capture: tr.Capture, model: str = "PINHOLE", **other: Any) -> None:
    np.testing.assert_allclose(seen(capture), expected(model, **other), atol=1e-6)
    assert capture.image_size == captures.SIZE
    for photo, view in zip(capture, captures.views(), strict=True):
        pixels = captures.pixels(view)
        np.testing.assert_array_equal((photo.image() * 255).round(), pixels[..., :3])
        assert Path(photo.name).stem == Path(view.name).stem


# nerfstudio ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["PINHOLE", "OPENCV", "OPENCV_FISHEYE"])
def test_transforms_json(model: str, tmp_path: Path) -> None:
    names = ("k1", "k2", "k3", "k4") if "FISH" in model else ("k1", "k2", "p1", "p2")
    values = {"OPENCV": LENS, "OPENCV_FISHEYE": FISHEYE}.get(model, (0.0,) * 4)
    nerfstudio(tmp_path, camera_model=model, **dict(zip(names, values, strict=True)))
    for path in (tmp_path, tmp_path / "transforms.json", str(tmp_path)):
        same(tr.load_capture(path), model)


def test_transforms_json_of_instant_ngp_says_fisheye_by_a_flag(tmp_path: Path) -> None:
    k = {f"k{i}": value for i, value in enumerate(FISHEYE, 1)}
    nerfstudio(tmp_path, is_fisheye=True, **k)
    same(tr.load_capture(tmp_path), "OPENCV_FISHEYE")


def test_transforms_json_may_have_a_camera_for_each_photo(tmp_path: Path) -> None:
    captures.write_photos(tmp_path / "images")
    data = transforms()
    camera = {key: data.pop(key) for key in ("w", "h", "fl_x", "fl_y", "cx", "cy")}
    data["frames"] = [{**frame, **camera} for frame in data["frames"]]
    write_json(tmp_path / "transforms.json", data)
    same(tr.load_capture(tmp_path))


def test_transforms_json_of_nerf_has_an_angle_and_no_suffixes(tmp_path: Path) -> None:
    captures.write_photos(tmp_path / "train", alpha=True)
    frames = transforms()["frames"]
    for frame in frames:
        frame["file_path"] = "./train/" + Path(frame["file_path"]).stem
    angle = 2 * np.arctan(WIDTH / 2 / FX)
    write_json(tmp_path / "transforms.json", {"camera_angle_x": angle, "frames": frames})
    capture = tr.load_capture(tmp_path)
    middle = np.array([WIDTH / 2, HEIGHT / 2])
    plain = (expected() - [CX, CY]) / [FX, FY] * FX + middle
    np.testing.assert_allclose(seen(capture), plain, atol=1e-6)
    assert capture.has_masks  # by alpha
    wanted = torch.tensor(captures.pixels(captures.views()[0])[..., 3] / 255).float()
    torch.testing.assert_close(capture[0].mask(), wanted)


@pytest.mark.parametrize("given", [{}, {"fl_x": FX}, {"fl_x": FX, "fl_y": FY}])
def test_transforms_json_may_have_an_angle_for_each_axis(
    given: dict[str, float], tmp_path: Path
) -> None:
    """As instant-ngp writes and reads it; focal lengths go before angles, which are then unused."""
    captures.write_photos(tmp_path / "images")
    angles = {
        "camera_angle_x": 0.0 if "fl_x" in given else 2 * np.arctan(WIDTH / 2 / FX),
        "camera_angle_y": 0.0 if "fl_y" in given else 2 * np.arctan(HEIGHT / 2 / FY),
    }
    camera = {"cx": CX, "cy": CY, **angles, **given}
    write_json(tmp_path / "transforms.json", {**camera, "frames": transforms()["frames"]})
    same(tr.load_capture(tmp_path))


# COLMAP -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [colmap_files.write_text, colmap_files.write_binary])
@pytest.mark.parametrize("model", COLMAP)
def test_colmaps_models(model: str, write: Callable[..., None], tmp_path: Path) -> None:
    colmap(tmp_path, write, model)
    capture = tr.load_capture(tmp_path)
    formula, params = COLMAP[model]
    coefficients = {"SIMPLE_RADIAL": 1, "RADIAL": 2}.get(model, 4)
    lens = (*LENS[:coefficients], *(0.0,) * (4 - coefficients))
    same(capture, formula, lens=lens, fy=FX if params[1] == CX else FY)
    assert capture.points is not None
    assert capture.points.tolist() == [[1.0, 2.0, 3.0], [0.0, 0.5, -1.0]]
    for path in (tmp_path / "sparse" / "0", next((tmp_path / "sparse" / "0").glob("images.*"))):
        assert tr.load_capture(path).names == capture.names


def test_colmaps_names_may_have_folders_and_spaces(tmp_path: Path) -> None:
    camera = colmap_files.Camera(1, "PINHOLE", WIDTH, HEIGHT, (FX, FY, CX, CY))
    views = captures.views()
    images = [
        colmap_files.Image(i + 1, v.wxyz, tuple(v.translation.tolist()), 1, f"left cam/{v.name}")
        for i, v in enumerate(views)
    ]
    captures.write_photos(tmp_path / "images" / "left cam")
    for write in (colmap_files.write_text, colmap_files.write_binary):
        write(tmp_path / "sparse", [camera], images, [])
        same(tr.load_capture(tmp_path))


# BOP ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objects", [(5,), (3, 5)])
def test_bop_scenes(objects: tuple[int, ...], tmp_path: Path) -> None:
    bop(tmp_path, objects)
    capture = tr.load_capture(tmp_path, object_id=5 if len(objects) > 1 else None)
    pose = tr.Pose.from_view(capture.camera.view)
    metres = replace(capture.camera, view=tr.Pose(pose.rotation, pose.translation / 1000).view)
    x, y, _ = metres.project(POINTS[None].expand(4, -1, -1)).unbind(-1)
    found = torch.stack([(x * HEIGHT + WIDTH) / 2, (HEIGHT - y * HEIGHT) / 2], -1)
    np.testing.assert_allclose(found.numpy(), expected(), atol=1e-6)
    assert capture.has_masks and capture[1].mask().mean() > 0.05
    if len(objects) > 1:
        with pytest.raises(ValueError, match=r"scene_gt.json: obj_id: the scene has several.*3, 5"):
            tr.load_capture(tmp_path)


def test_bop_scenes_without_objects_are_in_the_frame_of_the_scene(tmp_path: Path) -> None:
    bop(tmp_path)
    (tmp_path / "scene_gt.json").unlink()
    cameras = json.loads((tmp_path / "scene_camera.json").read_text())
    for camera, view in zip(cameras.values(), captures.views(), strict=True):
        camera |= {"cam_R_w2c": view.rotation.flatten().tolist()}
        camera |= {"cam_t_w2c": view.translation.tolist()}
    write_json(tmp_path / "scene_camera.json", cameras)
    np.testing.assert_allclose(seen(tr.load_capture(tmp_path)), expected(), atol=1e-6)


# OpenCV -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["yml", "xml", "json"])
def test_calibrations_of_opencv(kind: str, tmp_path: Path) -> None:
    path = opencv(tmp_path, kind)
    same(tr.load_capture(path), "OPENCV")
    if kind != "json":
        same(tr.load_capture(tmp_path), "OPENCV")
    camera = tr.load_camera(path)
    torch.testing.assert_close(
        replace(camera, view=tr.load_capture(path)[2].camera.view).project(POINTS[None]),
        tr.load_capture(path)[2].camera.project(POINTS[None]),
    )


def test_calibrations_of_ros_and_fisheyes(tmp_path: Path) -> None:
    path = tmp_path / "camera.yaml"
    path.write_text(
        f"image_width: {WIDTH}\nimage_height: {HEIGHT}\ndistortion_model: equidistant\n"
        f"camera_matrix:\n  rows: 3\n  cols: 3\n  data: [{numbers(captures.MATRIX)}]\n"
        f"distortion_coefficients:\n  rows: 1\n  cols: 4\n  data: [{numbers(FISHEYE)}]\n"
    )
    camera = tr.load_camera(path)
    assert isinstance(camera.lens, tr.KannalaBrandtLens)
    assert camera.lens.rows().flatten().tolist() == pytest.approx(FISHEYE)
    with pytest.raises(ValueError, match="extrinsic_parameters: is missing"):
        tr.load_capture(path)


# Projection matrices ------------------------------------------------------------------------------


@pytest.mark.parametrize("mirror", [1.0, -1.0])
@pytest.mark.parametrize("scales", [(1, 1, 1, 1), (-2, -2, -2, -2), (0.01, -30, 5, -1)])
def test_projection_matrices_of_any_sign_scale_and_handedness(
    scales: Any, mirror: float, tmp_path: Path
) -> None:
    captures.write_photos(tmp_path / "photos")
    data = {"P": projections(scales, mirror), "image_size": [HEIGHT, WIDTH]}
    write_json(tmp_path / "cameras.json", data)
    capture = tr.load_capture(tmp_path)
    assert capture.mirrored == (mirror < 0)
    if capture.mirrored:  # `seen` turns z for the mirrored world, which these points are not of
        capture = replace(capture, mirrored=False)
    same(capture)
    assert (torch.linalg.det(capture.camera.view[:, :3, :3]) < 0).all()  # x right, y up, z forward


@pytest.mark.parametrize("skew", [0.0, 4.0])
def test_projections_are_a_differentiable_convention(skew: float) -> None:
    given = torch.tensor(projections((2, 1, -3, 1), skew=skew), dtype=F64)
    camera, mirrored = tr.conventions.from_projections(given, captures.SIZE)
    assert not mirrored
    homogeneous = torch.cat([POINTS, torch.ones(20, 1)], 1) @ given.mT
    u, v = (homogeneous[..., :2] / homogeneous[..., 2:]).unbind(-1)
    x, y, z = camera.project(POINTS[None].expand(4, -1, -1)).unbind(-1)
    torch.testing.assert_close((x * HEIGHT + WIDTH - 1) / 2, u)
    torch.testing.assert_close((HEIGHT - 1 - y * HEIGHT) / 2, v)
    assert (z > 0).all()

    def project(matrices: torch.Tensor) -> torch.Tensor:
        camera, _ = tr.conventions.from_projections(matrices, captures.SIZE)
        return camera.project(POINTS[None, :2].expand(2, -1, -1))

    some = given[:2].clone().requires_grad_()
    assert torch.autograd.gradcheck(project, [some])
    assert torch.autograd.gradgradcheck(project, [some])


def test_handedness_may_be_told() -> None:
    given = torch.tensor(projections((1, 1, 1, 1), mirror=-1.0), dtype=F64)
    assert tr.conventions.from_projections(given[:1], captures.SIZE)[1] is False  # one cannot tell
    camera, mirrored = tr.conventions.from_projections(given[:1], captures.SIZE, left_handed=True)
    assert mirrored
    other, _ = tr.conventions.from_projections(given, captures.SIZE)
    torch.testing.assert_close(camera.view, other.view[:1])


def test_names_and_first_centre_may_be_in_the_file(tmp_path: Path) -> None:
    captures.write_photos(tmp_path / "photos")
    names = [view.name for view in captures.views()]
    data = {"P": projections((1,) * 4)[::-1], "names": names[::-1], "first_centre": 0.5}
    write_json(tmp_path / "cameras.json", data)
    capture = tr.load_capture(tmp_path)
    assert capture.names == tuple(names[::-1])
    np.testing.assert_allclose(seen(capture)[::-1], expected() - 0.5, atol=1e-6)
    later = tr.load_capture(tmp_path, first_centre=0.0)
    np.testing.assert_allclose(seen(later)[::-1], expected(), atol=1e-6)


# Writing ------------------------------------------------------------------------------------------

LENSES = {
    "none": None,
    "brown": tr.BrownConradyLens((-0.2, 0.05, 0.01), (0.002, -0.001)),
    "rational": tr.BrownConradyLens((-0.2, 0.05, 0.01, 0.1, 0.02, 0.01), (0.002, -0.001)),
    "fisheye": tr.KannalaBrandtLens(FISHEYE),
}


@pytest.mark.parametrize("kind", ["nerfstudio", "colmap", "colmap-text"])
@pytest.mark.parametrize("lens", LENSES)
def test_what_is_written_is_read_again(lens: str, kind: str, tmp_path: Path) -> None:
    nerfstudio(tmp_path / "given")
    captures.write_masks(tmp_path / "given" / "masks")
    capture = tr.load_capture(tmp_path / "given")
    photos = [replace(p, camera=replace(p.camera, lens=LENSES[lens])) for p in capture]
    photos[1] = replace(photos[1], picture=photos[1].image(), silhouette=photos[1].mask())
    capture = tr.Capture(tuple(photos), points=POINTS if kind != "nerfstudio" else None)
    if kind == "nerfstudio" and lens == "rational":
        with pytest.raises(ValueError, match=r"0000.png: camera.lens: its k4 to k6"):
            tr.save_capture(tmp_path / "made", capture, kind)
        assert not (tmp_path / "made").exists()
        return
    tr.save_capture(tmp_path / "made", capture, kind)
    again = tr.load_capture(tmp_path / "made")
    points = POINTS[None].expand(4, -1, -1)
    torch.testing.assert_close(again.camera.project(points), capture.camera.project(points))
    torch.testing.assert_close(again.images(), capture.images())
    torch.testing.assert_close(again.masks(), capture.masks())
    if kind != "nerfstudio":
        torch.testing.assert_close(again.points, POINTS)


@pytest.mark.parametrize("mirror", [1.0, -1.0])
def test_cameras_alone_are_written_in_their_own_world(mirror: float, tmp_path: Path) -> None:
    """Matrices stay those of the file, but for their scale; skew and handedness with them."""
    captures.write_photos(tmp_path / "photos")
    given = projections((2, 1, -3, 1), mirror, skew=3.0)
    write_json(tmp_path / "cameras.json", {"P": given, "image_size": [HEIGHT, WIDTH]})
    capture = tr.load_capture(tmp_path)
    (tmp_path / "out").mkdir()
    path = cameras.write(tmp_path / "out", capture)
    again = torch.tensor(json.loads(path.read_text())["P"], dtype=F64)
    wanted = torch.tensor(given, dtype=F64)
    scale = wanted[:, 2:3, :3].norm(dim=-1, keepdim=True)
    wanted = wanted / scale * torch.sign((wanted * again).sum((1, 2)))[:, None, None]
    torch.testing.assert_close(again, wanted)
    path.replace(tmp_path / "cameras.json")
    assert tr.load_capture(tmp_path).names == capture.names


def test_cameras_with_a_lens_are_written_with_it(tmp_path: Path) -> None:
    nerfstudio(tmp_path)
    capture = tr.load_capture(tmp_path)
    photos = [replace(p, camera=replace(p.camera, lens=LENSES["brown"])) for p in capture]
    capture = replace(capture, photos=tuple(photos))
    (tmp_path / "out").mkdir()
    path = cameras.write(tmp_path / "out", capture)
    assert path.name == "transforms.json"
    path.replace(tmp_path / "transforms.json")
    again = tr.load_capture(tmp_path)
    points = POINTS[None].expand(4, -1, -1)
    torch.testing.assert_close(again.camera.project(points), capture.camera.project(points))
    assert again.names == capture.names


def test_a_camera_with_skew_is_not_written(tmp_path: Path) -> None:
    captures.write_photos(tmp_path / "photos")
    write_json(tmp_path / "cameras.json", {"P": projections((1,) * 4, skew=3.0)})
    with pytest.raises(ValueError, match=r"0000.png: camera.skew: is 3 pixels, which COLMAP's"):
        tr.save_capture(tmp_path / "made", tr.load_capture(tmp_path), "colmap")


def test_in_a_mirrored_world_meshes_go_back_with_their_winding() -> None:
    mesh = tr.box()
    capture = tr.Capture((tr.Photo("a", tr.PinholeCamera(tr.orbit(3.0, 0.0, 0.0)), (4, 4)),))
    assert capture.given_world(mesh) is mesh
    back = replace(capture, mirrored=True).given_world(mesh)
    assert torch.equal(back.vertices[:, 2], -mesh.vertices[:, 2])
    # Outwards in a viewer, which takes any world for right-handed.
    torch.testing.assert_close(
        tr.volume(back.vertices[None], back.faces), tr.volume(mesh.vertices[None], mesh.faces)
    )


def test_parts_of_a_capture(tmp_path: Path) -> None:
    nerfstudio(tmp_path)
    capture = tr.load_capture(tmp_path)
    assert capture.only([2, 0]).names == ("images/0002.png", "images/0000.png")
    assert capture.without([0, -1]).names == capture.names[1:3]
    assert [photo.name for photo in capture] == list(capture.names)
    assert capture.images((24, 32)).shape == (4, 24, 32, 3)
    torch.testing.assert_close(capture[0].pose.opencv[0], torch.tensor(captures.views()[0].matrix))
