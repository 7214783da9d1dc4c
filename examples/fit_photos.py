"""From a folder of photos to a mesh with its texture, and a page that shows both.

    python examples/fit_photos.py                        # photos that it makes itself
    python examples/fit_photos.py toy                    # a folder with photos, cameras and masks
    python examples/fit_photos.py toy --hold-out 4 13

`tr.load_capture` reads the folder, whatever program wrote it (docs/photos.md says which).
`tr.fit_mesh` finds the shape whose silhouettes are the masks, and `tr.fit_texture` the texture that
the photos show of it. Photos that are held out judge both. The command `taichi-raster fit` does the
same, and more.

Without a folder, it first makes one as a photographer would: it paints a body, draws it from
cameras all round, and writes photos, masks and cameras.

Into `out/fit_photos/` go mesh.glb, which any viewer opens; report.html, which shows the photos over
the result, and the result to turn; and `drawn_photos/`, if it made them.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import tyro
from rich.console import Console
from torch import Tensor
from tyro.conf import Positional

import taichi_raster as tr


@dataclass(frozen=True)
class Options:
    """From a folder of photos to a mesh with its texture; see the top of the file."""

    folder: Positional[Path | None] = None
    """Photos with cameras and masks; without it, some are made."""
    out: Path = Path("out/fit_photos")
    """Folder of the results."""
    hold_out: tuple[int, ...] = (3, 10)
    """Photos that only judge, by number from 0."""
    photos: int = 24
    """How many are made, without a folder."""
    size: int = 192
    """Of the photos that are made, in pixels."""
    faces: int = 4000
    """Of the mesh, at most."""
    steps: int = 60
    """Of the fit of silhouettes."""
    arch: str = "cpu"
    """Backend: cpu, vulkan, cuda or auto."""


def main(options: Options) -> dict[str, float]:
    """Returns the numbers that the report shows."""
    torch.set_num_threads(1)  # torch's idle threads spin, and take the cores away from Taichi's
    tr.init(arch=options.arch)
    console = Console()
    options.out.mkdir(parents=True, exist_ok=True)
    folder = options.folder
    if folder is None:
        folder = options.out / "drawn_photos"
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier run
        make_photos(folder, options.photos, options.size)
    capture = tr.load_capture(folder)
    training, held = capture.without(options.hold_out), capture.only(options.hold_out)
    with console.status("shape") as status:
        shape = tr.fit_mesh(
            training,
            face_count=options.faces,
            steps=options.steps,
            done=lambda step, steps, loss: status.update(f"step {step} of {steps}: {loss:.4f}"),
        )
    with console.status("texture") as status:
        fit = tr.fit_texture(shape.mesh, training, done=status.update)
    pictures = [drawn(fit.mesh, photo.camera, photo.image_size) for photo in held]
    numbers = {
        "held-out IoU": mean([tr.outline_iou(fit.mesh, p.camera, p.mask()) for p in held]),
        "held-out PSNR within the mask, dB": mean(
            [
                psnr(picture, photo.image(), photo.mask())
                for picture, photo in zip(pictures, held, strict=True)
            ]
        ),
    }
    tr.save_mesh(options.out / "mesh.glb", capture.given_world(fit.mesh))
    views = [
        tr.ReportView(photo.name, photo.image(), picture, "held out")
        for photo, picture in zip(held, pictures, strict=True)
    ]
    page = options.out / "report.html"
    settings = {name: str(value) for name, value in asdict(options).items()}
    tr.write_report(page, "A mesh from photos", views, fit.mesh, numbers, settings)
    for name, value in numbers.items():
        console.print(f"{name}: {value:.3f}")
    console.print(f"results in {options.out}/: report.html, mesh.glb")
    return numbers


def make_photos(folder: Path, count: int, size: int) -> Path:
    """A capture of a painted body, from two rings of cameras."""
    blob = tr.normalise(tr.blob(seed=1, subdivisions=5), radius=0.6)
    wave = (14 * blob.vertices).sin()
    paint = 0.5 + 0.3 * wave + 0.15 * (23 * blob.vertices.flip(1)).cos()
    body = tr.Mesh(blob.vertices, blob.faces, colours=paint.clamp(0, 1))
    photos = []
    for i in range(count):
        view = tr.orbit(3.0, elevation=(-25.0, 30.0)[i % 2], azimuth=360.0 * i / count)
        camera = tr.PinholeCamera(view.double(), focal=(3.6, 3.6))
        shown = drawn(body, camera, (size, size))
        photos.append(tr.Photo(f"{i:02d}.png", camera, (size, size), shown[..., :3], shown[..., 3]))
    tr.save_capture(folder, tr.Capture(tuple(photos)), "nerfstudio")
    return folder


def drawn(mesh: tr.Mesh, camera: tr.Camera, size: tuple[int, int]) -> Tensor:
    """(H, W, 4): what a camera sees of a mesh with a texture or colours."""
    corners = tr.gather_faces(camera.project(mesh.vertices[None].double()).float(), mesh.faces)
    look: Tensor | tr.UVTexture
    if mesh.uv is not None and mesh.texture is not None:
        index = mesh.faces if mesh.uv_faces is None else mesh.uv_faces
        look = tr.UVTexture(tr.gather_faces(mesh.uv[None], index), mesh.texture[None])
    else:
        assert mesh.colours is not None
        look = tr.gather_faces(mesh.colours[None], mesh.faces)
    near, far = 0.5 * float(corners[..., 2].min()), 2 * float(corners[..., 2].max())
    return tr.sampled_picture(corners, look, size, samples=4, near=near, far=far)[0]


def psnr(picture: Tensor, photo: Tensor, mask: Tensor) -> float:
    """In dB, over the mask."""
    error = (picture[..., :3] - photo)[mask > 0.5].square().mean()
    return float(-10 * error.clamp(min=1e-10).log10())


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        raise SystemExit(f"fit_photos: {error}") from error
