"""Files of cameras in every format, written by its documentation, for the photos of `captures`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

import captures
import colmap_files

HEIGHT, WIDTH = captures.SIZE
FX, FY, CX, CY = captures.MATRIX[[0, 1, 0, 1], [0, 1, 2, 2]].tolist()
LENS = (-0.2, 0.05, 0.002, -0.001)  # k1, k2, p1, p2
FISHEYE = (-0.03, 0.01, -0.004, 0.0007)


def transforms(**changes: Any) -> dict[str, Any]:
    frames = []
    for view in captures.views():
        to_world = np.linalg.inv(view.matrix) @ np.diag([1.0, -1.0, -1.0, 1.0])
        frames.append({"file_path": f"images/{view.name}", "transform_matrix": to_world.tolist()})
    camera = {"w": WIDTH, "h": float(HEIGHT), "fl_x": FX, "fl_y": FY, "cx": CX, "cy": CY}
    return {**camera, "frames": frames, **changes}


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def nerfstudio(folder: Path, **changes: Any) -> None:
    captures.write_photos(folder / "images")
    write_json(folder / "transforms.json", transforms(**changes))


COLMAP = {
    "SIMPLE_PINHOLE": ("PINHOLE", (FX, CX, CY)),
    "PINHOLE": ("PINHOLE", (FX, FY, CX, CY)),
    "SIMPLE_RADIAL": ("OPENCV", (FX, CX, CY, LENS[0])),
    "RADIAL": ("OPENCV", (FX, CX, CY, *LENS[:2])),
    "OPENCV": ("OPENCV", (FX, FY, CX, CY, *LENS)),
    "FULL_OPENCV": ("OPENCV", (FX, FY, CX, CY, *LENS, 0.0, 0.0, 0.0, 0.0)),
    "OPENCV_FISHEYE": ("OPENCV_FISHEYE", (FX, FY, CX, CY, *FISHEYE)),
}


def colmap(folder: Path, write: Callable[..., None], model: str = "PINHOLE") -> None:
    _, params = COLMAP[model]
    camera = colmap_files.Camera(7, model, WIDTH, HEIGHT, params)
    images = [
        colmap_files.Image(
            10 - i, v.wxyz, tuple(v.translation.tolist()), 7, v.name, ((1.5, 2.5, -1),) * i
        )
        for i, v in enumerate(captures.views())
    ]
    points = [
        colmap_files.Point(3, (1.0, 2.0, 3.0), ((10, 0), (9, 1))),
        colmap_files.Point(9, (0.0, 0.5, -1.0)),
    ]
    write(folder / "sparse" / "0", [camera], images, points)
    captures.write_photos(folder / "images")


def bop(folder: Path, objects: tuple[int, ...] = (5,)) -> None:
    """In millimetres; whole coordinates at the pixels' centres."""
    matrix = captures.MATRIX - np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    cameras, truth = {}, {}
    for i, view in enumerate(captures.views()):
        cameras[str(i)] = {"cam_K": matrix.flatten().tolist(), "depth_scale": 1.0}
        pose = {
            "cam_R_m2c": view.rotation.flatten().tolist(),
            "cam_t_m2c": (1000 * view.translation).tolist(),
        }
        elsewhere = {**pose, "cam_t_m2c": [0.0, 0.0, 9000.0]}
        truth[str(i)] = [{**(elsewhere if o != 5 else pose), "obj_id": o} for o in objects]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "scene_camera.json", cameras)
    write_json(folder / "scene_gt.json", truth)
    captures.write_photos(folder / "rgb")
    for photo in (folder / "rgb").iterdir():
        photo.rename(photo.with_name(f"{int(photo.stem):06d}.png"))
    for i, view in enumerate(captures.views()):
        at = objects.index(5)
        path = folder / "mask_visib" / f"{i:06d}_{at:06d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(captures.pixels(view)[..., 3]).save(path)


def numbers(values: Any) -> str:
    return ", ".join(f"{value:.17e}" for value in np.ravel(values))


def matrix(values: Any, kind: str) -> str:
    rows, columns = np.atleast_2d(values).shape
    if kind == "xml":
        data = numbers(values).replace(",", "\n  ")
        head = f"<rows>{rows}</rows><cols>{columns}</cols><dt>d</dt>"
        return f' type_id="opencv-matrix">{head}<data>{data}</data>'
    head = f"rows: {rows}\n   cols: {columns}\n   dt: d"
    return f" !!opencv-matrix\n   {head}\n   data: [ {numbers(values)} ]\n"


def opencv(folder: Path, kind: str) -> Path:
    """As OpenCV's sample calibration.cpp writes it."""
    poses = [
        [*Rotation.from_matrix(v.rotation).as_rotvec(), *v.translation] for v in captures.views()
    ]
    whole = captures.MATRIX - np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    matrices = {
        "camera_matrix": whole,
        "distortion_coefficients": np.array([[*LENS, 0.0]]).T,
        "extrinsic_parameters": np.array(poses),
    }
    captures.write_photos(folder)
    path = folder / f"calibration.{kind}"
    if kind == "xml":
        body = f"<image_width>{WIDTH}</image_width>\n<image_height>\n{HEIGHT}</image_height>\n"
        body += "".join(f"<{n}{matrix(v, kind)}</{n}>\n" for n, v in matrices.items())
        path.write_text(f'<?xml version="1.0"?>\n<opencv_storage>\n{body}</opencv_storage>\n')
    elif kind == "json":
        stored = {
            n: {
                "type_id": "opencv-matrix",
                "rows": len(v),
                "cols": v.shape[1],
                "dt": "d",
                "data": v.flatten().tolist(),
            }
            for n, v in matrices.items()
        }
        write_json(path, {"image_width": WIDTH, "image_height": HEIGHT, **stored})
    else:
        body = f"image_width: {WIDTH}\nimage_height: {HEIGHT}\nflags: 2\n"
        body += "".join(f"{n}:{matrix(v, kind)}" for n, v in matrices.items())
        path.write_text(f"%YAML:1.0\n---\n{body}")
    return path


def projections(scales: Any, mirror: float = 1.0, skew: float = 0.0) -> list[list[list[float]]]:
    whole = captures.MATRIX - np.array([[0, -skew, 0.5], [0, 0, 0.5], [0, 0, 0]])
    flip = np.diag([1.0, 1.0, mirror, 1.0])
    views = captures.views()
    return [(s * whole @ v.matrix[:3] @ flip).tolist() for s, v in zip(scales, views, strict=True)]
