"""Where an object stands, from one photo: first by its mask, then by its texture.

    python examples/pose_from_photo.py                       # a photo that is made here
    python examples/pose_from_photo.py toy.glb photo.jpg mask.png --focal 1200

The mask alone finds a pose without a guess. The texture, if the mesh has one, makes it exact, and
tells poses apart that have one silhouette. What comes out, in `out/pose_from_photo/`: overlay.png,
the photo beside the same with the mesh drawn over every other square, and pose.json.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image
from torch import Tensor
from tyro.conf import Positional

import taichi_raster as tr


@dataclass(frozen=True)
class Options:
    """See the top of the file."""

    mesh: Positional[Path | None] = None
    """With a texture or colours, or without."""
    photo: Positional[Path | None] = None
    """Of the object."""
    mask: Positional[Path | None] = None
    """White where the photo shows it."""
    focal: float = 400.0
    """Of the camera, in pixels."""
    size: int = 240
    """Of the photo that is made here: its shorter side."""
    out: Path = Path("out/pose_from_photo")
    """Folder of the results."""


def main(options: Options) -> tr.PoseFit:
    if (options.mesh is None) != (options.photo is None) or (options.mesh and not options.mask):
        raise ValueError("mesh, photo, mask: give all three, or none")
    tr.init("cpu")
    if options.mesh and options.photo and options.mask:
        mesh, photo = tr.load_mesh(options.mesh), read(options.photo)
        mask = read(options.mask)[..., 0].round()
        camera = pinhole(options.focal, (photo.shape[0], photo.shape[1]))
    else:
        size = options.size, options.size * 4 // 3
        mesh, camera = painted_body(), pinhole(1.6 * options.size, size)
        turn, place = [[0.7, -0.5, 0.2]], [[0.1, -0.05, 3.0]]
        truth = tr.Pose.from_rotation_vector(torch.tensor(turn), torch.tensor(place))
        drawn = seen(mesh, camera, truth, size)
        mask = drawn[..., 3]
        photo = 0.1 + 0.7 * over(drawn, landscape(size))  # another exposure than the mesh's colours
    has_texture = mesh.colours is not None or mesh.texture is not None
    fit = tr.fit_pose(mesh, camera, mask, photo=photo if has_texture else None)
    print(f"converged: {fit.converged}, mismatch {fit.mismatch:.4f}, R and t of OpenCV's camera:")
    print(fit.pose.opencv[0, :3].numpy().round(3))
    if options.mesh is None:
        print(f"off by {float(fit.pose.angle_to(truth)):.3f} degrees")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "pose.json").write_text(json.dumps(fit.pose.to_dict()[0], indent=2) + "\n")
    drawn = seen(mesh, camera, fit.pose, (photo.shape[0], photo.shape[1]))
    squares = drawn * chessboard(photo.shape[0], photo.shape[1])
    save(options.out / "overlay.png", torch.cat([photo, over(squares, photo)], dim=1))
    return fit


def pinhole(focal: float, size: tuple[int, int]) -> tr.PinholeCamera:
    """A camera with a focal length in pixels that looks through the middle of the picture."""
    view = torch.eye(4, dtype=torch.float64)[None]
    return tr.PinholeCamera(view, focal=(2 * focal / min(size), 2 * focal / min(size)))


def painted_body() -> tr.Mesh:
    """Two boxes of which no turn looks like another, with waves of colour."""
    small = tr.box(0.35, 0.3, 0.55)
    corner = torch.tensor([0.35, 0.3, 0.25])
    mesh = tr.join([tr.box(1.1, 0.7, 0.45), replace(small, vertices=small.vertices + corner)])
    mesh = tr.Mesh(mesh.vertices, mesh.faces)
    for _ in range(4):
        mesh = tr.subdivide(mesh)
    x, y, z = (7 * mesh.vertices.float()).unbind(1)
    waves = [torch.sin(2 * x + y - z) * torch.cos(2 * y), torch.sin(x - 3 * z), torch.cos(x + y)]
    return tr.Mesh(mesh.vertices.float(), mesh.faces, colours=0.5 + 0.4 * torch.stack(waves, 1))


def seen(mesh: tr.Mesh, camera: tr.Camera, pose: tr.Pose, size: tuple[int, int]) -> Tensor:
    """(H, W, 4): the mesh in a pose, and its coverage."""
    placed = replace(camera, view=pose.view.double()).project(mesh.vertices[None].double()).float()
    corners = tr.gather_faces(placed, mesh.faces)
    colours: Tensor | tr.UVTexture = torch.full((*corners.shape[:3], 3), 0.7)
    if mesh.texture is not None and mesh.uv is not None:
        index = mesh.faces if mesh.uv_faces is None else mesh.uv_faces
        texture = mesh.texture[None, ..., :3].float()
        colours = tr.UVTexture(tr.gather_faces(mesh.uv[None].float(), index), texture)
    elif mesh.colours is not None:
        index = mesh.faces if mesh.colour_faces is None else mesh.colour_faces
        colours = tr.gather_faces(mesh.colours[None, :, :3].float(), index)
    depth = float(placed[..., 2].max())
    return tr.sampled_picture(corners, colours, size, 3, near=depth / 1e3, far=2 * depth)[0]


def landscape(size: tuple[int, int]) -> Tensor:
    """(H, W, 3): something to stand before."""
    coarse = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(3))
    smooth = torch.nn.functional.interpolate(coarse, size, mode="bicubic")[0]
    return (0.35 + 0.3 * smooth).clamp(0, 1).permute(1, 2, 0)


def over(drawn: Tensor, behind: Tensor) -> Tensor:
    return drawn[..., :3] + (1 - drawn[..., 3:]) * behind


def chessboard(height: int, width: int) -> Tensor:
    """(H, W, 1): where the mesh is drawn over the photo, so that edges are seen to meet."""
    side = max(min(height, width) // 12, 1)
    row, column = torch.arange(height) // side, torch.arange(width) // side
    return ((row[:, None] + column) % 2).float()[..., None]


def read(path: Path) -> Tensor:
    return torch.from_numpy(np.asarray(Image.open(path).convert("RGB")).copy()).float() / 255


def save(path: Path, picture: Tensor) -> None:
    Image.fromarray((picture.clamp(0, 1) * 255).round().byte().numpy()).save(path)


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except (ValueError, OSError) as error:
        raise SystemExit(f"pose_from_photo: {error}") from error
