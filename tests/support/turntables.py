"""Captures of meshes, made by code: cameras all round, plain samples as photos and masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

import taichi_raster as tr

FOCAL = 3.0


def camera(elevation: float, azimuth: float, distance: float = 3.0) -> tr.PinholeCamera:
    view = tr.orbit(distance, elevation, azimuth).double()
    return tr.PinholeCamera(view, focal=(FOCAL, FOCAL), principal=(0.05, -0.03))


def mask_of(mesh: tr.Mesh, eye: tr.Camera, size: tuple[int, int], samples: int = 4) -> Tensor:
    faces = tr.gather_faces(eye.project(mesh.vertices[None].double()).float(), mesh.faces)
    return tr.sampled_picture(faces, None, size, samples, near=0.5, far=10.0)[0, ..., 0]


def capture_of(
    mesh: tr.Mesh,
    angles: Sequence[tuple[float, float]],
    size: tuple[int, int] = (72, 96),
    scale: float = 1.0,
) -> tr.Capture:
    """Photos (brown on black) and masks from (elevation, azimuth); the world in other units."""
    photos = []
    colour = torch.tensor([0.8, 0.5, 0.3])
    for i, (elevation, azimuth) in enumerate(angles):
        eye = camera(elevation, azimuth)
        mask = mask_of(mesh, eye, size)
        view = eye.view.clone()
        view[:, :3, 3] *= scale
        photos.append(
            tr.Photo(f"{i:02d}", replace(eye, view=view), size, mask[..., None] * colour, mask)
        )
    return tr.Capture(tuple(photos))


ALL_ROUND = [(e, a) for e in (-35.0, 0.0, 35.0) for a in (0.0, 60.0, 120.0, 180.0, 240.0, 300.0)]
