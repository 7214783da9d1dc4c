"""A painted body that moves through a few frames, drawn by plain samples."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

import taichi_raster as tr

SIZE = (120, 160)


def painted() -> tr.Mesh:
    """A box whose colours are not symmetric."""
    mesh = tr.box(1.0, 0.7, 0.4)
    for _ in range(4):
        mesh = tr.subdivide(tr.Mesh(mesh.vertices, mesh.faces))
    x, y, z = (7 * mesh.vertices.float()).unbind(1)
    waves = [
        torch.sin(2 * x + y - z) * torch.cos(3 * y),
        torch.sin(x - 3 * z + 1),
        torch.cos(x * y),
    ]
    return tr.Mesh(mesh.vertices.float(), mesh.faces, colours=0.5 + 0.45 * torch.stack(waves, 1))


def camera() -> tr.PinholeCamera:
    view = torch.eye(4, dtype=torch.float64)[None]
    return tr.PinholeCamera(view, focal=(2.4, 2.4), principal=(0.05, -0.03))


def poses(count: int) -> list[tr.Pose]:
    """A smooth motion: a turn of 2 degrees and a shift of 2 pixels a frame."""
    found = []
    for i in range(count):
        turn = torch.tensor([[0.5 + 0.03 * i, -0.6 + 0.02 * i, 0.2]]).double()
        place = torch.tensor([[-0.25 + 0.04 * i, 0.1 - 0.01 * i, 3.2]]).double()
        found.append(tr.Pose.from_rotation_vector(turn, place))
    return found


def drawn(mesh: tr.Mesh, pose: tr.Pose) -> Tensor:
    """(H, W, 3) before a background, in another exposure than the mesh's colours."""
    seen = replace(camera(), view=pose.view).project(mesh.vertices[None].double()).float()
    assert mesh.colours is not None
    colours = tr.gather_faces(mesh.colours[None], mesh.faces)
    image = tr.sampled_picture(tr.gather_faces(seen, mesh.faces), colours, SIZE, 3)[0]
    generator = torch.Generator().manual_seed(1)
    behind = torch.rand(6, 8, 3, generator=generator).permute(2, 0, 1)[None]
    behind = torch.nn.functional.interpolate(behind, SIZE, mode="bilinear")[0].permute(1, 2, 0)
    cover = image[..., 3:]
    return 0.1 + 0.7 * image[..., :3] + (1 - cover) * 0.7 * behind
