"""``taichi-raster pose``: where an object stands before the camera, from a photo and its mask."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from rich.console import Console
from tyro.conf import Positional

from taichi_raster.capture.capture import Photo
from taichi_raster.capture.masks import AlphaChannel, ColourKey, read_photo
from taichi_raster.commands import outputs, views
from taichi_raster.commands.cameras import chosen_camera
from taichi_raster.commands.options import FOCAL, SEED, Within
from taichi_raster.fitting.pose import PoseFit, fit_pose
from taichi_raster.fitting.pose_inputs import has_colours
from taichi_raster.fitting.report import ReportView, write_report
from taichi_raster.runtime.device import init
from taichi_raster.scene.camera import PinholeCamera
from taichi_raster.scene.files.writing import write_together
from taichi_raster.scene.mesh import Mesh
from taichi_raster.scene.mesh_files import load_mesh
from taichi_raster.scene.pose import Pose as Placed


@dataclass(frozen=True)
class Pose:
    """Find the pose of a mesh in a photo.

    OUT/pose.json gets `rotation` (3 x 3) and `translation`: object to camera, in OpenCV's axes
    and the mesh's units; `covariance` (6 x 6) of a turn in radians and a shift of the centre;
    `converged` and `mismatch`. OUT/report.html shows the photo and the mesh.
    """

    mesh: Positional[Path]
    """The object."""
    photo: Positional[Path]
    """The photo."""
    out: Path
    """Folder of the results."""
    camera: Path | None = None
    """A calibration of OpenCV's or ROS'; without, give --focal."""
    focal: Annotated[float | None, FOCAL] = None
    """The focal length in pixels, for a camera without a lens that looks through the middle."""
    mask: Path | None = None
    """An image that is white on the object; without, give --key, or a photo with alpha."""
    key: str | None = None
    """The background's colour, to make the mask by."""
    texture: bool = False
    """Go by the mesh's texture or colours, too; with --start, a mask is then not needed."""
    start: Path | None = None
    """A pose.json to start at."""
    starts: Annotated[int | None, Within(1, 10_000)] = None
    """How many starts are tried."""
    seed: Annotated[int, SEED] = 0
    """Of the starts."""

    def run(self) -> int:
        """Do it; 2 if no pose was found that fits."""
        console = Console()
        read = {
            "MESH": self.mesh,
            "PHOTO": self.photo,
            "--camera": self.camera,
            "--mask": self.mask,
            "--start": self.start,
        }
        outputs.check_folder(self.out, ("pose.json", "report.html"), read)
        if self.mask is not None and self.key is not None:
            raise ValueError("--mask, --key: give one of them")
        mesh = load_mesh(self.mesh)
        if self.texture and not has_colours(mesh):
            raise ValueError(f"--texture: {self.mesh} has no texture and no colours")
        if not self.photo.is_file():
            raise FileNotFoundError(f"{self.photo}: there is no such photo")
        pixels = torch.from_numpy(read_photo(self.photo))
        size = int(pixels.shape[0]), int(pixels.shape[1])
        camera = chosen_camera(self.camera, self.focal, size)
        rule: Path | AlphaChannel | ColourKey | None = None
        if self.mask is not None:
            rule = self.mask
        elif self.key is not None:
            rule = ColourKey.of(self.key)
        elif pixels.shape[2] == 4:
            rule = AlphaChannel()
        elif not (self.texture and self.start is not None):
            raise ValueError(f"{self.photo}: has no alpha channel; give --mask, or --key")
        elif self.starts is not None:
            raise ValueError("--starts: are for masks; without one, --start is the only start")
        shot = Photo(str(self.photo), camera, size, pixels, rule)  # upright, as it was read
        mask = None if rule is None else shot.mask()
        start = None if self.start is None else read_pose(self.start)
        outputs.made(self.out)
        init("cpu")
        torch.set_num_threads(1)
        with console.status("pose") as status:
            fit = fit_pose(
                mesh,
                camera,
                mask,
                start,
                self.starts,
                self.seed,
                pixels[..., :3] if self.texture else None,
                status.update,
            )
        self._write(mesh, camera, pixels, fit)
        console.print(
            f"{'found' if fit.converged else 'not found'}: {_said(fit)}; "
            f"{self.out}/pose.json, {self.out}/report.html"
        )
        return 0 if fit.converged else 2

    def _write(self, mesh: Mesh, camera: PinholeCamera, pixels: torch.Tensor, fit: PoseFit) -> None:
        found = {
            "rotation": fit.pose.rotation[0].tolist(),
            "translation": fit.pose.translation[0].tolist(),
            "covariance": fit.covariance.tolist(),
            "converged": fit.converged,
            "mismatch": _number(fit.mismatch),
            "correlation": _number(fit.correlation),
            "frame": "OpenCV: x right, y down, z forward; camera = rotation * object + translation",
        }
        write_together({self.out / "pose.json": (json.dumps(found, indent=2) + "\n").encode()})
        seen = replace(camera, view=fit.pose.view.to(camera.view))
        size = int(pixels.shape[0]), int(pixels.shape[1])
        shown = views.picture(mesh, seen, size, background=0.93)[..., :3]
        turn, shift = fit.covariance.diagonal().sqrt().split(3)
        numbers: dict[str, Any] = {
            "mismatch of the silhouette": fit.mismatch,
            "correlation of the texture": fit.correlation,
            "converged": fit.converged,
            "standard deviation of the turn, degrees": float(torch.rad2deg(turn.norm())),
            "standard deviation of the place, the mesh's units": float(shift.norm()),
            "translation": [round(v, 5) for v in fit.pose.translation[0].tolist()],
        }
        settings = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(self).items()}
        write_report(
            self.out / "report.html",
            f"{self.mesh.stem} in {self.photo.name}",
            [ReportView(self.photo.name, pixels[..., :3], shown, _said(fit))],
            numbers=numbers,
            settings=settings,
            text="Drag across the picture to go from the photo to the mesh in its pose.",
        )


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON has no NaN


def _said(fit: PoseFit) -> str:
    parts = {"mismatch": fit.mismatch, "correlation": fit.correlation}
    return ", ".join(f"{name} {v:.4f}" for name, v in parts.items() if math.isfinite(v))


def read_pose(path: Path) -> Placed:
    """A pose.json.

    Raises:
        FileNotFoundError, ValueError: naming the file and the field.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        content = json.loads(path.read_text())
        rotation, translation = content["rotation"], content["translation"]
    except (json.JSONDecodeError, TypeError) as error:
        raise ValueError(f"{path}: is no JSON of a pose: {error}") from error
    except KeyError as error:
        raise ValueError(f"{path}: {error.args[0]} is missing") from error
    try:
        return Placed(
            torch.tensor(rotation, dtype=torch.float64),
            torch.tensor(translation, dtype=torch.float64),
        )
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error
