"""Checks of what is known of a pose."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from taichi_raster import checks
from taichi_raster.fitting import inputs
from taichi_raster.scene.mesh import Mesh
from taichi_raster.scene.pose import Pose


def check(
    mask: Tensor | None,
    photo: Tensor | None,
    depth: Tensor | None,
    unknown: Tensor | None,
    meshes: Sequence[Mesh],
    where: str = "",
) -> tuple[int, int]:
    """The size in pixels of what is given, which must be that of all of it.

    `where` is put behind the argument's name, as the number of a photo.
    """
    if unknown is not None and (not isinstance(unknown, Tensor) or unknown.dtype != torch.bool):
        raise TypeError(f"unknown{where}: must be a tensor of bool, True where unknown")
    given = {f"photo{where}": photo, f"depth{where}": depth, f"mask{where}": mask}
    for name, value in given.items():
        if value is not None and value is not depth:
            inputs.floats(name, value)
    if depth is not None:
        checks.floats(f"depth{where}", depth)
    if photo is not None:
        _check_photo(f"photo{where}", photo, meshes)
    sizes = {name: tuple(x.shape[:2]) for name, x in given.items() if x is not None}
    (first, size), *rest = sizes.items()
    if unknown is not None:
        rest.append((f"unknown{where}", tuple(unknown.shape)))
    for name, other in rest:
        if other != size:
            what = first.replace(where, "") if where else first
            raise ValueError(f"{name}: must be as large as the {what}, {size}, got {other}")
    if depth is not None:
        _check_depth(f"depth{where}", depth)
    if mask is not None:
        _check_mask(f"mask{where}", mask, unknown)
    return size[0], size[1]


def has_colours(mesh: Mesh) -> bool:
    """Whether a mesh has colours of its vertices or a texture."""
    return mesh.colours is not None or (mesh.texture is not None and mesh.uv is not None)


def check_start(start: Pose, mesh: Mesh) -> None:
    """One pose, with the middle of the mesh before the camera."""
    if len(checks.instance("start", start, Pose)) != 1:
        raise ValueError(f"start: expected one pose, got {len(start)}")
    vertices = mesh.vertices.detach().double().cpu()
    middle = (vertices.amin(0) + vertices.amax(0)) / 2
    forward = start.opencv[0, 2].detach().double().cpu()
    depth = float((forward[:3] * middle).sum() + forward[3])
    if not depth > 0:
        raise ValueError(
            f"start: the object is behind the camera, at a depth of {depth:.4g}; a pose is object "
            "to camera, and OpenCV's z points forward"
        )


def _check_photo(name: str, photo: Tensor, meshes: Sequence[Mesh]) -> None:
    if photo.ndim != 3 or photo.shape[2] != 3 or min(photo.shape[:2]) < 24:
        raise ValueError(f"{name}: must be (H, W, 3), 24 or more each, got {tuple(photo.shape)}")
    inputs.picture(name, photo)
    for mesh in meshes:
        if not has_colours(mesh):
            raise ValueError(f"{name}: needs a mesh with a texture or colours")


def _check_depth(name: str, depth: Tensor) -> None:
    if depth.ndim != 2 or min(depth.shape) < 16:
        raise ValueError(f"{name}: must be (H, W), 16 or more each, got {tuple(depth.shape)}")
    known = torch.isfinite(depth) & (depth != 0)
    if bool(torch.isinf(depth).any()) or bool((depth[known] < 0).any()):
        raise ValueError(f"{name}: must be positive; 0 or NaN where there is none")
    if int(known.sum()) < 12:
        raise ValueError(f"{name}: has no distances: it is 0 or NaN nearly everywhere")


def _check_mask(name: str, mask: Tensor, unknown: Tensor | None) -> None:
    if mask.ndim != 2 or min(mask.shape) < 16:
        raise ValueError(f"{name}: must be (H, W), 16 or more each, got {tuple(mask.shape)}")
    told = torch.ones_like(mask, dtype=torch.bool)
    if unknown is not None and unknown.shape == mask.shape:
        told = ~unknown.bool().to(mask.device)
    inputs.picture(name, mask, told)
    inside = (mask > 0.5) & told
    if int(inside.sum()) < 9:
        raise ValueError(f"{name}: is empty; it must be 1 where the photo shows the object")
    border = torch.cat([inside[0], inside[-1], inside[:, 0], inside[:, -1]])
    if float(border.float().mean()) > 0.9:
        raise ValueError(f"{name}: is 1 along the border; it may be inverted")
