"""Bare 3 x 4 projection matrices: what camera each is, of any sign, scale, skew and handedness."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from taichi_raster import checks
from taichi_raster.runtime.precision import product


@dataclass(frozen=True, eq=False)
class Decomposition:
    """Projection matrices as intrinsics and poses.

    Attributes:
        intrinsics: (B, 3, 3), upper triangular, focal lengths positive, 1 in the corner.
        rotation, translation: (B, 3, 3) and (B, 3), world to camera in OpenCV's axes.
        mirrored: whether the matrices' world is left-handed. If so, this is a right-handed one in
            which z has the other sign.
    """

    intrinsics: Float[Tensor, "B 3 3"]
    rotation: Float[Tensor, "B 3 3"]
    translation: Float[Tensor, "B 3"]
    mirrored: bool


def decompose(matrices: Float[Tensor, "B 3 4"], left_handed: bool | None = None) -> Decomposition:
    """Intrinsics and poses of matrices that take a world point to pixels (u, v, w).

    A matrix and its negative say the same; so the sign has to come from what the cameras look at,
    and the handedness with it. Without `left_handed`, that is the point nearest to the axes of all,
    which has to lie before every camera, as it does where photos were taken around an object. Where
    it does not, or for one matrix, the world is taken for right-handed.

    Differentiable. See Hartley and Zisserman, Multiple View Geometry, 2nd edition, section 6.2.

    Args:
        matrices: (B, 3, 4) of any scale.
        left_handed: whether their world is; None to find out.

    Raises:
        ValueError: for another shape, NaN, or a matrix without a centre.
    """
    checks.floats("matrices", matrices)
    if matrices.ndim != 3 or matrices.shape[1:] != (3, 4):
        raise ValueError(f"matrices: must be (B, 3, 4), got {tuple(matrices.shape)}")
    checks.finite("NaN or infinite entries", "matrices", matrices)
    rows = matrices[:, :, :3]
    size = rows.detach().norm(dim=(1, 2)) ** 3
    determinant = torch.linalg.det(rows.detach())
    if not bool((determinant.abs() > 1e-14 * size).all()):
        i = int((determinant.abs() / size).argmin())
        raise ValueError(
            f"matrices: number {i} is of no camera with a centre: its first three columns are "
            "dependent (an affine camera, or all 0)"
        )
    # In a right-handed world, each camera's rotation makes this determinant positive.
    signed = matrices * determinant.sign()[:, None, None]
    if left_handed is None:
        left_handed = bool((_depths(signed.detach()) < 0).all())
    if left_handed:
        # With z mirrored, -P of a left-handed world has a positive determinant again.
        signed = -signed * matrices.new_tensor([1.0, 1.0, -1.0, 1.0])
    return Decomposition(*_parts(signed), mirrored=left_handed)


def _depths(matrices: Tensor) -> Tensor:
    """How far before each camera the point lies that is nearest to the axes of all."""
    rows = matrices[:, :, :3]
    centres = -torch.linalg.solve(rows, matrices[:, :, 3])
    axes = rows[:, 2] / rows[:, 2].norm(dim=-1, keepdim=True)
    across = torch.eye(3).to(axes) - axes[:, :, None] * axes[:, None]
    system, right = across.sum(0), product(across, centres[..., None]).sum(0)[:, 0]
    sizes = torch.linalg.eigvalsh(system)
    if sizes[0] < 1e-6 * sizes[-1]:  # one camera, or parallel axes
        return torch.ones(len(matrices))
    point = torch.linalg.solve(system, right)
    depths: Tensor = ((point - centres) * axes).sum(-1)
    return depths


def _parts(matrices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """By Gram and Schmidt from the last row upwards; determinants are positive."""
    unit = matrices / matrices[:, 2:, :3].norm(dim=-1, keepdim=True)
    first, second, third = unit[:, :, :3].unbind(1)

    def along(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(-1, keepdim=True)

    cy = along(second, third)
    second = second - cy * third
    fy = second.norm(dim=-1, keepdim=True)
    second = second / fy
    cx, skew = along(first, third), along(first, second)
    first = first - cx * third - skew * second
    fx = first.norm(dim=-1, keepdim=True)
    first = first / fx
    a, b, tz = unit[:, :, 3:].unbind(1)
    ty = (b - cy * tz) / fy
    tx = (a - skew * ty - cx * tz) / fx
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    intrinsics = torch.cat([fx, skew, cx, zero, fy, cy, zero, zero, one], dim=-1)
    rotation = torch.stack([first, second, third], dim=1)
    return intrinsics.unflatten(-1, (3, 3)), rotation, torch.cat([tx, ty, tz], dim=-1)
