"""``taichi-raster fit``: a mesh with its texture from a folder of photos."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import torch
from rich.console import Console
from tyro.conf import Positional

from taichi_raster.capture.capture import Capture, Photo
from taichi_raster.capture.load import load_capture
from taichi_raster.capture.writers import cameras
from taichi_raster.commands import fingerprints, outputs, views
from taichi_raster.commands.kept import Kept, plain
from taichi_raster.commands.options import SEED, TEXELS, Within
from taichi_raster.fitting.progress import progress_bar
from taichi_raster.fitting.refinement import refine_cameras
from taichi_raster.fitting.report import ReportView, write_report
from taichi_raster.fitting.shape import fit_mesh, outline_iou
from taichi_raster.fitting.texture import fit_texture
from taichi_raster.runtime.device import init
from taichi_raster.scene.files.writing import write_together
from taichi_raster.scene.mesh import Mesh
from taichi_raster.scene.mesh_files import save_mesh

SHOWN = 8
"""Photos in the report, held-out ones first."""

LONGEST = 720
"""Of the report's pictures, in pixels."""

RESULTS = ("mesh.glb", "mesh.obj", "report.html", "turntable.gif", "numbers.json")
"""Files in OUT."""

REFINED = ("cameras.json", "transforms.json")
"""Files in OUT, of which there is one if cameras are refined."""


@dataclass(frozen=True)
class Fit:
    """Find a mesh with its texture from photos whose cameras are known.

    OUT gets mesh.glb and mesh.obj, in the world of the cameras as they were given; report.html,
    which shows the photos beside the result; turntable.gif; and numbers.json. What is found is kept
    in cameras.pt, shape.pt and texture.pt at once, for --resume.
    """

    folder: Positional[Path]
    """Photos with cameras: COLMAP, transforms.json, BOP, OpenCV, or cameras.json of matrices."""
    out: Path
    """Folder of the results."""
    hold_out: tuple[int, ...] = ()
    """Photos that shape and texture do not see, by number from 0: they judge both."""
    masks: str | None = None
    """A folder of masks, or "alpha"; by default those that the capture has."""
    key: str | None = None
    """The background's colour, to make masks by: "auto", or a name or #rrggbb."""
    face_count: Annotated[int, Within(8, 10_000_000)] = 10_000
    """Faces of the mesh, at most."""
    steps: Annotated[int, Within(0, 1_000_000)] = 120
    """Of the fit of silhouettes."""
    cells: Annotated[int, Within(8, 1024)] = 128
    """Of the visual hull, along its longest side."""
    texture: bool = True
    """Find the texture, too."""
    texture_size: Annotated[int | None, TEXELS] = None
    """Texels on a side; by default about one for each pixel of the best photo."""
    seed: Annotated[int, SEED] = 0
    """Of the order of the photos."""
    refine_cameras: bool = False
    """Find the poses of all cameras, too, beginning at those given; OUT gets them."""
    camera_uncertainty: Annotated[float | None, Within(0.01, 90)] = None
    """For --refine-cameras: degrees by which the given poses are off, about; 1 by default."""
    resume: bool = False
    """Take cameras, shape and texture from OUT as far as an earlier run has come."""

    def run(self) -> None:
        """Do it."""
        _check_packages(self.texture)
        self._check_options()
        console = Console()
        capture = load_capture(self.folder, self.masks, self.key)
        outputs.check_apart(self.out, self.folder, capture)
        held, training = self._split(capture)
        if not training.has_masks:
            raise ValueError(
                f"{self.folder}: the photos have no masks; give --masks, or --key and the colour "
                "behind the object"
            )
        for photo in capture:
            # What is wrong with any of them is said before the long part.
            photo.mask()
            photo.image()
        outputs.made(self.out)
        init("cpu")
        torch.set_num_threads(1)  # torch's idle threads would take the cores from the kernels
        text = f"{len(training)} photos" + (f", {len(held)} held out" if held else "")
        console.print(f"{self.folder}: {text}")
        clock = _Clock()
        kept = Kept(self.out, self.resume, plain(self), console)
        if self.refine_cameras:
            capture = self._cameras(capture, kept, console, clock)
            held, training = self._split(capture)
            console.print(f"cameras: {cameras.write(self.out, capture)}")
        mesh = self._shape(training, kept, console, clock)
        if self.texture:
            mesh = self._textured(mesh, training, kept, console, clock)
        with clock.part("pictures"), console.status("pictures and report"):
            numbers = self._judged(mesh, training, held) | clock.numbers
            self._write(mesh, capture, numbers, clock)
        for name, value in numbers.items():
            shown = str(value) if isinstance(value, int) else f"{value:.4g}"
            console.print(f"{name}: {shown}", highlight=False)
        console.print(f"results in {self.out}/: mesh.glb, mesh.obj, report.html, turntable.gif")

    def _check_options(self) -> None:
        """What can be said before anything is read."""
        if self.masks is not None and self.key is not None:
            raise ValueError("--masks, --key: give one of them")
        if self.texture_size is not None and not self.texture:
            raise ValueError("--texture-size: is of the texture, and --no-texture finds none")
        if self.camera_uncertainty is not None and not self.refine_cameras:
            raise ValueError("--camera-uncertainty: is for --refine-cameras")
        outputs.check_folder(self.out, (*RESULTS, *REFINED), {})

    def _split(self, capture: Capture) -> tuple[list[Photo], Capture]:
        wrong = [i for i in self.hold_out if not 0 <= i < len(capture)]
        if wrong:
            raise ValueError(
                f"--hold-out: there is no photo {wrong[0]}; they are 0 to {len(capture) - 1}"
            )
        if len(set(self.hold_out)) > len(capture) - 2:
            raise ValueError("--hold-out: leaves fewer than two photos to fit to")
        return [capture[i] for i in sorted(set(self.hold_out))], capture.without(self.hold_out)

    def _cameras(self, capture: Capture, kept: Kept, console: Console, clock: _Clock) -> Capture:
        """The photos with refined cameras; held-out ones, too, as they could not judge without."""
        given = fingerprints.of_capture(capture)
        found = kept.read("cameras", given)
        if found is None:
            with clock.part("cameras"), console.status("cameras") as status:
                degrees = 1.0 if self.camera_uncertainty is None else self.camera_uncertainty
                refined = refine_cameras(capture, degrees, self.seed, status.update)
            kept.write("cameras", {"views": [photo.camera.view for photo in refined]}, given)
        else:
            pairs = zip(capture, found["views"], strict=True)
            refined = replace(
                capture,
                photos=tuple(replace(p, camera=replace(p.camera, view=v)) for p, v in pairs),
            )
        turns = [a.pose.angle_to(b.pose) for a, b in zip(capture, refined, strict=True)]
        clock.numbers["cameras turned by, mean, degrees"] = float(torch.cat(turns).mean())
        clock.numbers["cameras turned by, at most, degrees"] = float(torch.cat(turns).max())
        return refined

    def _shape(self, training: Capture, kept: Kept, console: Console, clock: _Clock) -> Mesh:
        given = fingerprints.of_capture(training, pictures=False)
        found = kept.read("shape", given)
        if found is not None:
            return Mesh(found["vertices"], found["faces"])
        with clock.part("shape"), progress_bar(console) as bar:
            task = bar.add_task("shape", total=max(self.steps, 1), note="visual hull")

            def done(step: int, _steps: int, loss: float) -> None:
                bar.update(task, completed=step, note=f"loss {loss:.4f}")

            fit = fit_mesh(
                training,
                self.face_count,
                self.steps,
                self.cells,
                seed=self.seed,
                done=done,
            )
        kept.write("shape", {"vertices": fit.mesh.vertices, "faces": fit.mesh.faces}, given)
        return fit.mesh

    def _textured(
        self, mesh: Mesh, training: Capture, kept: Kept, console: Console, clock: _Clock
    ) -> Mesh:
        names = ("vertices", "faces", "uv", "uv_faces", "texture")
        given = fingerprints.of_capture(training) | fingerprints.of_shape(mesh)
        found = kept.read("texture", given)
        if found is None:
            with clock.part("texture"), console.status("texture") as status:
                fit = fit_texture(mesh, training, self.texture_size, done=status.update)
            assert fit.mesh.texture is not None
            texture = (fit.mesh.texture * 255).round() / 255  # as in files
            mesh = replace(fit.mesh, texture=texture)
            found = {name: getattr(mesh, name) for name in names}
            kept.write("texture", {**found, "seen": fit.seen}, given)
            found["seen"] = fit.seen
        clock.numbers["texels on a side"] = len(found["seen"])
        clock.numbers["texels seen"] = float(found["seen"].float().mean())
        return Mesh(**{name: found[name] for name in names}, wrap="clamp")

    def _judged(self, mesh: Mesh, training: Capture, held: list[Photo]) -> dict[str, float]:
        numbers: dict[str, float] = {"faces": len(mesh.faces)}
        for name, photos in (("held-out", held), ("training", list(training))):
            if not photos:
                continue
            half = [_half(photo) for photo in photos]
            numbers[f"{name} IoU, half size"] = _mean(
                outline_iou(mesh, p.camera, p.mask(size))
                for p, size in zip(photos, half, strict=True)
            )
            if self.texture and name == "held-out":
                for where, sizes in (("half", half), ("full", [p.image_size for p in photos])):
                    numbers[f"{name} PSNR within the mask, {where} size, dB"] = _mean(
                        views.psnr(mesh, p, size) for p, size in zip(photos, sizes, strict=True)
                    )
        return numbers

    def _write(
        self, mesh: Mesh, capture: Capture, numbers: dict[str, float], clock: _Clock
    ) -> None:
        chosen = [i for i in range(len(capture)) if i in self.hold_out]
        rest = [i for i in range(len(capture)) if i not in self.hold_out]
        count = max(SHOWN - len(chosen), 0)
        chosen += [rest[len(rest) * k // count] for k in range(min(count, len(rest)))]
        shown = []
        for i in chosen[:SHOWN]:
            photo, size = capture[i], _at_most(capture[i], LONGEST)
            iou = outline_iou(mesh, photo.camera, photo.mask(_half(photo)))
            note = f"IoU {iou:.3f}" + (", held out" if i in self.hold_out else "")
            image = views.picture(mesh, photo.camera, size, background=0.93)[..., :3]
            shown.append(ReportView(photo.name, photo.image(size), image, note))
        up = views.up_of(capture)
        views.turntable(mesh, up, self.out / "turntable.gif")
        given = capture.given_world(mesh)
        save_mesh(self.out / "mesh.obj", given)
        save_mesh(self.out / "mesh.glb", given)
        write_together(
            {self.out / "numbers.json": json.dumps(numbers | clock.seconds, indent=2).encode()}
        )
        write_report(
            self.out / "report.html",
            f"{self.folder.resolve().name}: a mesh from photos",
            shown,
            mesh,
            {**numbers, **clock.seconds},
            plain(self),
            "Drag across a picture to go from the photo to the result.",
            up=up,
            eye=capture[chosen[0]].camera.eye[0] - mesh.vertices.double().mean(0),
        )


def _check_packages(texture: bool) -> None:
    """What is not installed is said before the long part."""
    wanted = {"skimage": "scikit-image", "fast_simplification": "fast-simplification"}
    if texture:
        wanted["xatlas"] = "xatlas"
    missing = [name for module, name in wanted.items() if find_spec(module) is None]
    if missing:
        raise ImportError(
            f"fit needs {', '.join(missing)}: pip install 'taichi-raster[photos]'"
            + ("" if missing != ["xatlas"] else ", or --no-texture")
        )


class _Clock:
    """How long the parts of a run took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.numbers: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Times what is within."""
        begin = time.perf_counter()
        yield
        self.seconds[f"{name}, s"] = time.perf_counter() - begin


def _half(photo: Photo) -> tuple[int, int]:
    return max(photo.image_size[0] // 2, 1), max(photo.image_size[1] // 2, 1)


def _at_most(photo: Photo, longest: int) -> tuple[int, int]:
    shrink = min(1.0, longest / max(photo.image_size))
    return round(photo.image_size[0] * shrink), round(photo.image_size[1] * shrink)


def _mean(values: Iterator[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
