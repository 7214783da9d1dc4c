"""OpenCV's chessboard as a mesh, and poses away from where it is."""

from __future__ import annotations

import math

import torch

import taichi_raster as tr


def chessboard() -> tr.Mesh:
    """OpenCV's board of 10 x 7 squares of 25 mm, its first inner corner at the origin; a margin."""
    side, margin, pixels = 0.025, 0.5, 16
    squares = (torch.arange(7)[:, None] + torch.arange(10)) % 2
    image = (0.05 + 0.95 * squares).repeat_interleave(pixels, 0).repeat_interleave(pixels, 1)
    edge = round(margin * pixels)
    image = torch.nn.functional.pad(image, (edge, edge, edge, edge), value=1.0)
    x, y = torch.linspace(-1.5, 9.5, 23), torch.linspace(-1.5, 6.5, 17)
    at = torch.stack(torch.meshgrid(x, y, indexing="ij"), dim=-1).reshape(-1, 2)
    uv = torch.stack([(at[:, 0] + 1.5) / 11, 1 - (at[:, 1] + 1.5) / 8], dim=1)
    first = (torch.arange(22)[:, None] * 17 + torch.arange(16)).reshape(-1, 1)
    faces = torch.cat([first + torch.tensor([0, 17, 18]), first + torch.tensor([0, 18, 1])])
    corners = torch.nn.functional.pad(side * at, (0, 1))
    return tr.Mesh(corners, faces, uv, None, image[..., None].expand(-1, -1, 3), wrap="clamp")


def away(pose: tr.Pose, mesh: tr.Mesh, seed: int) -> tr.Pose:
    """A pose 8 degrees and 12 mm from another, in random directions."""
    generator = torch.Generator().manual_seed(seed)
    turn, shift = torch.nn.functional.normalize(torch.randn(2, 3, generator=generator), dim=1)
    unknowns = torch.cat([math.radians(8) * turn, torch.zeros(3)])[None].double()
    turned = pose.moved(unknowns, *tr.centre_and_size(mesh.vertices.double()))
    return tr.Pose(turned.rotation, turned.translation + 0.012 * shift)
