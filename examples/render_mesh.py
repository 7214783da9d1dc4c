"""Render a mesh, sharply and softly: the smallest program with this library.

    python examples/render_mesh.py                    # a torus knot; ten seconds
    python examples/render_mesh.py bunny.obj          # any mesh file that trimesh reads
    python examples/render_mesh.py --arch vulkan      # or cuda, or auto

A soft renderer spreads every triangle's edge over some distance, its scale, so that a pixel near
an edge knows which way the edge would have to move. Into `out/render_mesh/` go:

    sharp.png, soft.png   the mesh with alpha, as renderers give it
    sheet.png             the same view by edge softness, depth softness, light and texture
    turntable.gif         the mesh turns, from sharp to soft and back
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from matplotlib.figure import Figure
from PIL import Image
from rich.progress import track
from torch import Tensor
from tyro.conf import Positional

import taichi_raster as tr

NEAR, FAR = 1.5, 4.5  # what lies outside this range of depths is not drawn
FOV = 42.0  # degrees
DISTANCE = 3.2  # of the camera from a mesh of radius 1
ELEVATION, AZIMUTH = 40.0, 30.0  # degrees: how high, and from where, the camera looks down
LIGHTS = (tr.AmbientLight(0.35), tr.DirectionalLight((0.5, 1.0, 0.6), 0.75))
SHINY = tr.Material(specular=0.4, shininess=40.0)


@dataclass(frozen=True)
class Options:
    """Render a mesh, sharply and softly; see the top of the file.

    Args:
        mesh: a mesh file; without it, a torus knot made here.
        out: folder of the pictures.
        arch: backend: cpu, vulkan, cuda, or auto.
        size: pixels on a side.
        frames: of the turntable.
    """

    mesh: Positional[Path | None] = None
    out: Path = Path("out/render_mesh")
    arch: Literal["cpu", "vulkan", "cuda", "auto"] = "cpu"
    size: int = 192
    frames: int = 20

    def __post_init__(self) -> None:
        for name in ("size", "frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name}: must be at least 1")


def main(options: Options) -> None:
    # 1. Choose the backend, once, before anything is rendered.
    tr.init(arch=options.arch)

    # 2. A mesh is vertices (V, 3) and faces (F, 3), and may have a texture or colours.
    mesh = tr.torus_knot() if options.mesh is None else tr.load_mesh(options.mesh)
    mesh = tr.normalise(mesh, radius=1.0)
    vertices = mesh.vertices[None]  # a batch of one

    # 3. A camera puts the vertices into the picture; a face then is the (x, y, z) of its corners.
    camera = tr.PerspectiveCamera(tr.orbit(DISTANCE, ELEVATION, AZIMUTH), FOV)
    faces = tr.gather_faces(camera.project(vertices), mesh.faces)  # (1, F, 3, 3)

    # 4. What the faces show: here colours at their corners (1, F, 3, 3), lit there.
    colours = tr.shade_gouraud(vertices, mesh.faces, plain(mesh), LIGHTS, camera.eye, SHINY)

    # 5. Render: (1, H, W, 4), red, green, blue and alpha.
    sharp = tr.SharpRasterizer(options.size, near=NEAR, far=FAR)
    soft = soft_renderer(options.size, scale=0.01)
    options.out.mkdir(parents=True, exist_ok=True)
    to_pillow(unmixed(sharp(faces, colours))[0]).save(options.out / "sharp.png")
    to_pillow(soft(faces, colours)[0]).save(options.out / "soft.png")

    # 6. And all of it in other ways.
    draw_sheet(options, mesh, camera, faces, colours)
    draw_turntable(options, mesh)
    print(f"wrote sharp.png, soft.png, sheet.png and turntable.gif into {options.out}/")


def soft_renderer(size: int, scale: float, gamma: float = 0.03) -> tr.SoftRasterizer:
    """Edges spread over `scale` in NDC (a picture is 2 wide), depths over `gamma` of the range.

    The background is infinitely far behind (background_z = 0): colours are the surface's up to the
    rim, where alpha alone fades.
    """
    edge = tr.Distribution("logistic", scale=scale)
    depth = tr.SoftmaxDepth(gamma, background_z=0.0)
    return tr.SoftRasterizer(size, edge, depth, near=NEAR, far=FAR, threshold=1e-4)


def plain(mesh: tr.Mesh) -> Tensor:
    """Colours (1, F, 3, 3): the mesh's own at its corners, or one for all of them."""
    if mesh.colours is not None or mesh.texture is not None:
        faces = torch.arange(len(mesh.faces)).repeat_interleave(3)
        corners = torch.eye(3).repeat(len(mesh.faces), 1)
        return mesh.colour_at(faces, corners)[:, :3].reshape(1, -1, 3, 3)
    return torch.tensor([0.45, 0.68, 0.9]).expand(1, len(mesh.faces), 3, 3)


def textured(mesh: tr.Mesh, corners: Tensor | None = None) -> tr.UVTexture | None:
    """The mesh's own texture, or a checkerboard; None without texture coordinates.

    `corners` are further channels that are to follow the texture's.
    """
    if mesh.uv is None:
        return None
    if mesh.texture is not None:
        picture = mesh.uv_texture().image[0, ..., :3]
    else:
        squares = (torch.arange(64)[:, None] // 16 + torch.arange(640) // 16) % 2
        cream, red = torch.tensor([0.96, 0.88, 0.7]), torch.tensor([0.75, 0.2, 0.25])
        picture = torch.where(squares[..., None] == 1, cream, red)
    return tr.UVTexture(mesh.corner_uv(), picture[None], mesh.wrap, corners)


def draw_sheet(
    options: Options, mesh: tr.Mesh, camera: tr.PerspectiveCamera, faces: Tensor, colours: Tensor
) -> None:
    """Two rows of labelled pictures of one view."""
    sharp = tr.SharpRasterizer(options.size, near=NEAR, far=FAR)
    vertices = mesh.vertices[None]
    surface = textured(mesh) or plain(mesh).contiguous()

    def soft(scale: float, gamma: float = 0.03) -> Tensor:
        return over_white(soft_renderer(options.size, scale, gamma)(faces, colours))

    def silhouette(scale: float) -> Tensor:
        alpha = soft_renderer(options.size, scale).silhouette(faces)
        return 1 - alpha[..., None].expand(-1, -1, -1, 3)

    def lit() -> Tensor:
        """Phong shading: render colours, normals and places first, then light every pixel."""
        normals_and_places = tr.surface_attributes(vertices, mesh.faces)
        channels: Tensor | tr.UVTexture | None = textured(mesh, normals_and_places)
        if channels is None:
            channels = torch.cat([plain(mesh), normals_and_places], dim=-1)
        drawn = sharp(faces, channels)
        return tr.shade_image(drawn, LIGHTS, camera.eye, SHINY, background=1.0)[..., :3]

    panels = {
        "sharp": lambda: over_white(unmixed(sharp(faces, colours))),
        "edge scale 0.003": lambda: soft(0.003),
        "edge scale 0.01": lambda: soft(0.01),
        "edge scale 0.03": lambda: soft(0.03),
        "alpha alone, edge scale 0.01": lambda: silhouette(0.01),
        "depth softness γ = 0.2": lambda: soft(0.003, gamma=0.2),
        "texture, no light" if mesh.uv is not None else "colours, no light": lambda: over_white(
            unmixed(sharp(faces, surface))
        ),
        "light in every pixel": lit,
    }
    figure = Figure(figsize=(11, 5.9), layout="constrained")
    for axis, (label, draw) in zip(
        figure.subplots(2, 4).flat, track(panels.items(), "sheet"), strict=True
    ):
        axis.imshow(draw()[0].clamp(0, 1).numpy())
        axis.set_title(label, fontsize=10)
        axis.axis("off")
    figure.savefig(options.out / "sheet.png", dpi=100)


def draw_turntable(options: Options, mesh: tr.Mesh) -> None:
    """One picture for each view; the scale goes from sharp to soft and back."""
    vertices = mesh.vertices[None]
    pictures = []
    for frame in track(range(options.frames), "turntable"):
        u = frame / options.frames
        scale = 0.002 * 15 ** (0.5 - 0.5 * math.cos(2 * math.pi * u))
        camera = tr.PerspectiveCamera(tr.orbit(DISTANCE, ELEVATION, AZIMUTH + 360 * u), FOV)
        faces = tr.gather_faces(camera.project(vertices), mesh.faces)
        colours = tr.shade_gouraud(vertices, mesh.faces, plain(mesh), LIGHTS, camera.eye, SHINY)
        image = over_white(soft_renderer(options.size, scale)(faces, colours))
        pictures.append(to_pillow(image[0]).quantize(128, dither=Image.Dither.NONE))
    pictures[0].save(
        options.out / "turntable.gif",
        save_all=True,
        append_images=pictures[1:],
        duration=90,
        loop=0,
    )


def unmixed(image: Tensor) -> Tensor:
    """A sharp picture's colour is mixed with the background, here black: take that out again."""
    return torch.cat([image[..., :3] / image[..., 3:].clamp(min=1e-6), image[..., 3:]], dim=-1)


def over_white(image: Tensor) -> Tensor:
    """(B, H, W, 3) on a white page, by alpha."""
    colour, alpha = image[..., :3], image[..., 3:]
    return colour * alpha + 1 - alpha


def to_pillow(image: Tensor) -> Image.Image:
    """From (H, W, 3 or 4) in [0, 1]."""
    return Image.fromarray((image.clamp(0, 1) * 255).round().byte().cpu().numpy())


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except (ValueError, OSError, RuntimeError) as error:
        raise SystemExit(f"render_mesh: {error}") from error
