"""From photos to a mesh with its texture, and a film of how it comes about.

    python examples/photos_to_mesh.py                        # of a toy duck; about a minute
    python examples/photos_to_mesh.py photos_of_mine         # any folder that tr.load_capture reads
    python examples/photos_to_mesh.py photos_of_mine --key auto    # masks by colour

Without a folder, it makes one first: photos of a toy duck with their masks and cameras, as
nerfstudio writes them. They are drawn by plain samples, which share nothing with the fit.
`taichi-raster fit out/photos_to_mesh/duck_photos --out out/duck` takes them, too.

Into `out/photos_to_mesh/` go:

    duck_photos/  photos, masks and transforms.json, if they were made here
    mesh.glb      what was found, for any program that shows glTF
    fit.gif       the photos beside the fit: the hull, the steps, the texture, all round
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import torch
import tyro
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from torch import Tensor
from tyro.conf import Positional

import taichi_raster as tr

LIGHTS = (tr.AmbientLight(0.55), tr.DirectionalLight((0.6, 1.0, 0.5), 0.5))
WALL = (0.30, 0.48, 0.72)
PAPER = 0.96  # behind the fit
YELLOW, ORANGE, DARK = (1.0, 0.82, 0.18), (0.98, 0.5, 0.1), (0.08, 0.08, 0.1)
COLOURS = 80  # of the film
FONT = str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf")
RED, WHITE = (0.82, 0.13, 0.16), (0.97, 0.96, 0.93)


@dataclass(frozen=True)
class Options:
    """From photos to a mesh with its texture; see the top of the file.

    Args:
        folder: photos with their cameras; without it, those of a toy duck, made here.
        out: folder of the results.
        key: the background's colour, to make masks by: "auto", or a name or #rrggbb.
        photos: of the duck, how many.
        size: of the duck's photos, in pixels.
        steps: of the fit of silhouettes.
        face_count: faces of the mesh, at most.
        cells: of the visual hull, along its longest side.
        film: side of each half of the film, in pixels.
    """

    folder: Positional[Path | None] = None
    out: Path = Path("out/photos_to_mesh")
    key: str | None = None
    photos: int = 24
    size: int = 320
    steps: int = 120
    face_count: int = 8000
    cells: int = 96
    film: int = 200


def main(options: Options, console: Console | None = None) -> float:
    """Write the results; the mean IoU of masks and silhouettes."""
    console = console or Console()
    tr.init(arch="cpu")
    torch.set_num_threads(1)  # torch's idle threads would take the cores from the kernels
    begin = time.perf_counter()
    folder = options.folder
    if folder is None:
        folder = options.out / "duck_photos"
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier run
        with console.status("photos of a duck"):
            tr.save_capture(folder, photos_of(duck(), options.photos, options.size))

    # The whole of it: photos, shape, texture, file.
    capture = tr.load_capture(folder, key=options.key)
    with console.status("shape"):
        shape = tr.fit_mesh(capture, options.face_count, options.steps, options.cells)
    with console.status("texture"):
        fit = tr.fit_texture(shape.mesh, capture)
    options.out.mkdir(parents=True, exist_ok=True)
    tr.save_mesh(options.out / "mesh.glb", capture.given_world(fit.mesh))

    took, iou = time.perf_counter() - begin, float(shape.ious.mean())
    console.print(f"{len(capture)} photos, {took:.0f} s, mean IoU {iou:.3f}", highlight=False)
    with console.status("film"):
        film(options, capture, shape.mesh, fit.mesh).save(options.out / "fit.gif")
    console.print(f"mesh.glb and fit.gif are in {options.out}/")
    return iou


# Photos that anyone may show ----------------------------------------------------------------------


def photos_of(mesh: tr.Mesh, count: int, size: int) -> tr.Capture:
    """Photos before a wall, in three rings around a mesh, and their masks."""
    assert mesh.colours is not None
    colours = tr.gather_faces(mesh.colours[None], mesh.faces)
    colours = tr.shade_gouraud(mesh.vertices[None], mesh.faces, colours, LIGHTS)
    photos = []
    for i in range(count):
        view = tr.orbit(4.2, elevation=(12.0, 42.0, -22.0)[i % 3], azimuth=360.0 * i / count)
        camera = tr.PinholeCamera(view.double(), focal=(3.6, 3.6))
        picture = drawn(mesh, camera, colours, size, WALL).clamp(0, 1)
        photo = tr.Photo(f"{i:02d}.png", camera, (size, size), picture[..., :3], picture[..., 3])
        photos.append(photo)
    return tr.Capture(tuple(photos))


def duck() -> tr.Mesh:
    """A toy duck with a striped scarf, of painted parts."""
    scarf = tr.torus(0.36, 0.1, sides=24, sectors=96)
    stripe = torch.sin(9 * torch.atan2(scarf.vertices[:, 0], scarf.vertices[:, 2])) > 0
    stripes = torch.where(stripe[:, None], torch.tensor(RED), torch.tensor(WHITE))
    parts = [
        ball((0.0, 0.0, 0.0), (0.95, 0.58, 0.68), YELLOW),
        ball((-0.78, 0.28, 0.0), (0.42, 0.2, 0.3), YELLOW, tilt=-0.7),
        ball((0.48, 0.78, 0.0), (0.44, 0.43, 0.42), YELLOW),
        ball((0.93, 0.7, 0.0), (0.24, 0.08, 0.2), ORANGE),
        replace(scarf, vertices=scarf.vertices + torch.tensor([0.42, 0.4, 0.0]), colours=stripes),
    ]
    for side in (-1.0, 1.0):
        parts += [
            ball((0.75, 0.92, 0.23 * side), (0.09, 0.11, 0.09), DARK),
            ball((0.815, 0.955, 0.26 * side), (0.03, 0.03, 0.03), WHITE),
            ball((-0.12, 0.1, 0.6 * side), (0.5, 0.28, 0.16), ORANGE, tilt=-0.35),
        ]
    mesh = tr.join([replace(part, uv=None, uv_faces=None) for part in parts])
    return tr.normalise(mesh, radius=1.0)


def ball(
    centre: tuple[float, float, float],
    radii: tuple[float, float, float],
    colour: tuple[float, float, float],
    tilt: float = 0.0,
) -> tr.Mesh:
    """An ellipsoid that is turned about z by `tilt`, in radians."""
    mesh = tr.icosphere(4)
    angle = torch.tensor(tilt)
    turn = torch.eye(3)
    turn[0, 0], turn[1, 1] = angle.cos(), angle.cos()
    turn[0, 1], turn[1, 0] = angle.sin(), -angle.sin()
    vertices = mesh.vertices * torch.tensor(radii) @ turn.T + torch.tensor(centre)
    return replace(mesh, vertices=vertices, colours=torch.tensor(colour).expand(len(vertices), 3))


# The film -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Film:
    """Frames that show a photo, the fit, and a word on each."""

    frames: list[Image.Image]
    milliseconds: list[int]

    def save(self, path: Path) -> None:
        """Write a GIF of one palette that runs for ever."""
        width, height = self.frames[0].size
        some = self.frames[:: max(len(self.frames) // 6, 1)]
        together = Image.new("RGB", (width, height * len(some)))
        for i, frame in enumerate(some):
            together.paste(frame, (0, i * height))
        palette = together.quantize(COLOURS)
        frames = [
            frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in self.frames
        ]
        frames[0].save(
            path,
            save_all=True,
            append_images=frames[1:],
            duration=self.milliseconds,
            loop=0,
            optimize=True,
        )


def film(options: Options, capture: tr.Capture, shape: tr.Mesh, textured: tr.Mesh) -> Film:
    """The hull of ever more photos, the fitted shape, the texture, and a turn."""
    found = Film([], [])
    side, eye = options.film, capture[0]

    def add(photo: tr.Photo, mesh: tr.Mesh, camera: tr.PinholeCamera, text: str, ms: int) -> None:
        left = photo.image(sized(photo, side))
        right = drawn(mesh, camera, appearance(mesh, camera), sized(photo, side), (PAPER,) * 3)
        right = right[..., :3]
        found.frames.append(beside(left, right, photo.name, text))
        found.milliseconds.append(ms)

    count = len(capture)
    order = [(7 * i) % count if count % 7 else i for i in range(count)]  # from all sides at once
    for used in [k for k in (2, 3, 4, 5, 6, 8, 10, 13, 17) if k < count] + [count]:
        hull = tr.visual_hull(capture.only(sorted(order[:used])), cells=options.cells)
        photo = capture[order[used - 1]]
        add(photo, hull, eye.camera, f"hull of {used} photos", 350)
    add(eye, shape, eye.camera, "its outlines fitted", 900)
    add(eye, textured, eye.camera, "its texture", 900)
    for photo in [*capture, eye]:
        add(photo, textured, photo.camera, "from all sides", 220)
    return found


def sized(photo: tr.Photo, side: int) -> tuple[int, int]:
    """(height, width) of a photo whose longer side has that many pixels."""
    height, width = photo.image_size
    return round(height * side / max(height, width)), round(width * side / max(height, width))


def beside(left: Tensor, right: Tensor, name: str, text: str) -> Image.Image:
    """Two pictures (H, W, 3), each with a line of text under it."""
    picture = Image.fromarray(torch.cat([left, right], 1).mul(255).round().byte().numpy())
    width, height = picture.size
    sheet = Image.new("RGB", (width, height + 20), "white")
    sheet.paste(picture, (0, 0))
    pen, font = ImageDraw.Draw(sheet), ImageFont.truetype(FONT, 12)
    pen.text((6, height + 2), f"photo {Path(name).stem}", "black", font)
    pen.text((width // 2 + 6, height + 2), text, "black", font)
    return sheet


def drawn(
    mesh: tr.Mesh,
    camera: tr.PinholeCamera,
    shown: Tensor | tr.UVTexture,
    size: int | tuple[int, int],
    background: tuple[float, float, float],
) -> Tensor:
    """A picture (H, W, 4) by 4 x 4 samples in a pixel; the last channel is what is covered."""
    seen = camera.project(mesh.vertices[None].to(camera.view.dtype))
    unit = float(seen[..., 2].median())  # the world may be in any unit
    seen = torch.cat([seen[..., :2], seen[..., 2:] / unit], dim=-1).float()
    faces = tr.gather_faces(seen, mesh.faces)
    return tr.sampled_picture(faces, shown, size, 4, background, near=0.05, far=20.0)[0]


def appearance(mesh: tr.Mesh, camera: tr.PinholeCamera) -> Tensor | tr.UVTexture:
    """The mesh's texture; without one, grey under a lamp beside the camera."""
    if mesh.texture is not None:
        return mesh.uv_texture()
    vertices = mesh.vertices[None].double()
    lamp = camera.eye[0] - vertices[0].mean(0)
    lights = (tr.AmbientLight(0.25), tr.DirectionalLight(lamp.tolist(), 0.75))
    grey = torch.full((1, len(mesh.faces), 3, 3), 0.8, dtype=torch.float64)
    return tr.shade_gouraud(vertices, mesh.faces, grey, lights).float()


if __name__ == "__main__":
    main(tyro.cli(Options))
