"""How far a picture agrees with a textured mesh in a pose."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor

from taichi_raster.fitting.photometric import appearance
from taichi_raster.fitting.window import Window
from taichi_raster.render.sampled import sampled_picture
from taichi_raster.scene.faces import gather_faces
from taichi_raster.scene.mesh import Mesh
from taichi_raster.scene.pose import Pose
from taichi_raster.scene.resampling import area_average

BLOCK = 8
"""The side of a block, in pixels."""

ALIKE = 0.5
"""The correlation from which a block agrees."""

FAINT = 0.02
"""The standard deviation of colours up to which a block has no texture."""


def agreement_of(window: Window, mesh: Mesh, pose: Pose) -> tuple[float, Bool[Tensor, "h w"]]:
    """The share of blocks with a texture whose pixels correlate; (h, w), without the others."""
    known = torch.ones(window.picture.shape[:2], dtype=torch.bool)
    shown = _shown(window, mesh, pose)
    if shown is None:
        return math.nan, known
    ours, inside = shown
    one, two, cover = (_blocks(x) for x in (ours, window.picture, inside[..., None].float()))
    total = cover.sum(1, keepdim=True)
    means = ((cover * x).sum(1, keepdim=True) / total.clamp(min=1) for x in (one, two))
    one, two = (cover * (x - mean) for x, mean in zip((one, two), means, strict=True))
    own, other = (x.square().sum(dim=(1, 2)) for x in (one, two))
    strong = own / total[:, 0, 0].clamp(min=1) / 3 > FAINT**2
    counted = strong & (total[:, 0, 0] > 0.6 * BLOCK**2)
    if int(counted.sum()) < 4:
        return math.nan, known
    alike = (one * two).sum(dim=(1, 2)) / (own * other).sqrt().clamp(min=1e-9) > ALIKE
    rows, columns = (size // BLOCK for size in known.shape)
    good = (alike | ~counted).reshape(rows, columns)
    good = good.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
    known[: good.shape[0], : good.shape[1]] = good
    return float(alike[counted].float().mean()), known


def correlation(window: Window, mesh: Mesh, pose: Pose) -> float:
    """Of all of the object's pixels with the window's."""
    shown = _shown(window, mesh, pose)
    if shown is None or int(shown[1].sum()) < 64:
        return math.nan
    ours, theirs = (x[shown[1]] for x in (shown[0], window.picture))
    ours, theirs = (x - x.mean(0) for x in (ours, theirs))
    scale = (ours.square().sum() * theirs.square().sum()).sqrt()
    return float((ours * theirs).sum() / scale.clamp(min=1e-9))


def with_texels(mesh: Mesh, texels: int) -> Mesh:
    """With a texture of about so many texels on its shorter side, or of fewer as it is."""
    if mesh.texture is None:
        return mesh
    step = min(mesh.texture.shape[:2]) // texels
    if step < 2:
        return mesh
    size = mesh.texture.shape[0] // step, mesh.texture.shape[1] // step
    return replace(mesh, texture=area_average(mesh.texture.detach().float()[None], size)[0])


def _shown(window: Window, mesh: Mesh, pose: Pose) -> tuple[Tensor, Tensor] | None:
    """(h, w, 3) of the mesh in a window, and (h, w) where it covers pixels wholly."""
    problem = window.problem
    corners = gather_faces(problem.points(pose, mesh).float(), mesh.faces)
    near, far = problem.depths(pose)
    if not bool((corners[..., 2] > near).all(-1).any()):
        return None
    size = window.picture.shape[0], window.picture.shape[1]
    drawn = sampled_picture(corners, appearance(mesh), size, 2, near=near, far=far)[0]
    return drawn[..., :3], drawn[..., 3] > 0.999


def _blocks(picture: Tensor) -> Tensor:
    """(n, 64, C): the whole blocks of a picture (h, w, C)."""
    height, width = (BLOCK * (size // BLOCK) for size in picture.shape[:2])
    rows, columns = height // BLOCK, width // BLOCK
    tiles = picture[:height, :width].reshape(rows, BLOCK, columns, BLOCK, picture.shape[2])
    return tiles.transpose(1, 2).reshape(rows * columns, BLOCK * BLOCK, picture.shape[2])
