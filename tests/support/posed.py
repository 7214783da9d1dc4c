"""An object in a known pose, and its mask and photo, for tests of poses."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

import taichi_raster as tr

SIZE = (96, 128)


def body(scale: float = 1.0, shift: float = 0.0) -> tr.Mesh:
    """Two boxes of different sizes: no turn maps it onto itself."""
    one, two = tr.box(0.8, 0.5, 0.35), tr.box(0.3, 0.25, 0.5)
    vertices = torch.cat([one.vertices, two.vertices + torch.tensor([0.35, 0.3, 0.2])])
    faces = torch.cat([one.faces, two.faces + len(one.vertices)])
    return tr.Mesh((vertices * scale + shift).float(), faces)


def camera() -> tr.PinholeCamera:
    view = torch.eye(4, dtype=torch.float64)[None]
    return tr.PinholeCamera(view, focal=(2.6, 2.5), principal=(0.1, -0.05))


def truth(scale: float = 1.0, shift: float = 0.0) -> tr.Pose:
    rotation = tr.Pose.from_rotation_vector([0.9, -0.6, 0.4], [0.0, 0.0, 0.0]).rotation[0].double()
    place = scale * torch.tensor([0.15, -0.1, 3.0]).double()
    origin = torch.full((3,), shift, dtype=torch.float64)
    return tr.Pose(rotation, place - rotation @ origin)


def mask_of(mesh: tr.Mesh, pose: tr.Pose, size: tuple[int, int] = SIZE) -> Tensor:
    seen = replace(camera(), view=pose.view.double()).project(mesh.vertices[None].double())
    unit = float(seen[..., 2].median())
    seen = torch.cat([seen[..., :2], seen[..., 2:] / unit], dim=-1).float()
    faces = tr.gather_faces(seen, mesh.faces)
    return tr.sampled_picture(faces, None, size, 8, near=0.1, far=10.0)[0, ..., 0]


def off(fit: tr.PoseFit, pose: tr.Pose, mesh: tr.Mesh) -> tuple[float, float]:
    """(degrees, distance of the centres as a share of that from the eye)."""
    centre = tr.centre_and_size(mesh.vertices.double())[0][0]
    one, two = (
        p.rotation[0].double() @ centre + p.translation[0].double() for p in (fit.pose, pose)
    )
    return float(fit.pose.angle_to(pose)), float((one - two).norm() / two.norm())


def painted(mesh: tr.Mesh) -> tr.Mesh:
    fine = tr.subdivide(tr.subdivide(tr.subdivide(mesh)))
    p = fine.vertices
    waves = [torch.sin(9 * p[:, i] + 5 * p[:, (i + 1) % 3]) for i in range(3)]
    return tr.Mesh(p, fine.faces, colours=0.5 + 0.4 * torch.stack(waves, dim=1))


CLOSE = (144, 192)
"""Pixels of a photo from nearby."""


def near_truth() -> tr.Pose:
    pose = truth()
    return tr.Pose(pose.rotation, pose.translation - torch.tensor([0.2, -0.1, 1.2]).double())


def photo_of(mesh: tr.Mesh, pose: tr.Pose) -> Tensor:
    """Of another exposure, with noise, and with something before a corner of it."""
    seen = replace(camera(), view=pose.view.double()).project(mesh.vertices[None].double()).float()
    assert mesh.colours is not None
    faces, colours = (tr.gather_faces(x, mesh.faces) for x in (seen, mesh.colours[None]))
    image = tr.sampled_picture(faces, colours, CLOSE, 8, 0.3, near=0.1, far=10.0)[0, ..., :3]
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    image = 0.1 + 0.7 * image + 0.01 * noise
    image[60:72, 90:102] = 0.9
    return image
