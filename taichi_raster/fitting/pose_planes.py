"""The planes of the faces that pixels see, and where one hides another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from taichi_raster.fitting.texture_pixels import barycentrics

_JUMP = 0.02
"""Of the scene's unit: steps of depth that are no edge behind which something hides."""


@dataclass(frozen=True, eq=False)
class SeenPlanes:
    """Pixels on the planes of the faces that they see.

    Attributes:
        row, column, face: (n,)
        weights: (n, 3) of the face's corners, over their z.
        z: (n,)
        slope: (n, 2) of z along x and y of NDC.
    """

    row: Tensor
    column: Tensor
    face: Tensor
    weights: Tensor
    z: Tensor
    slope: Tensor

    @staticmethod
    def of(corners: Tensor, seen: Tensor, where: Tensor) -> SeenPlanes:
        """Of pixels `where`, from which faces are `seen`, whose corners are in NDC and z."""
        row, column = where.nonzero().unbind(1)
        face = seen[row, column]
        own = corners[face]
        at = barycentrics(own.numpy(), row.numpy(), column.numpy(), *seen.shape)
        inverse = 1 / own[..., 2]
        weights = torch.from_numpy(at) * inverse
        z = 1 / weights.sum(-1)
        edges = own[:, 1:, :2] - own[:, :1, :2]
        rise = inverse[:, 1:] - inverse[:, :1]  # 1 / z is linear in the picture
        flat = torch.linalg.det(edges).abs() < 1e-12
        edges = torch.where(flat[:, None, None], torch.eye(2).to(edges), edges)
        slope = -z.square()[:, None] * torch.linalg.solve(edges, rise)
        return SeenPlanes(row, column, face, weights, z, slope)

    def within(self, where: Bool[Tensor, "H W"]) -> SeenPlanes:
        """Some of the pixels."""
        at = where[self.row, self.column]
        parts = self.row, self.column, self.face, self.weights, self.z, self.slope
        return SeenPlanes(*(x[at] for x in parts))

    def beside_a_jump(self, size: tuple[int, int], margin: int) -> Bool[Tensor, "H W"]:
        """Pixels so near to one whose neighbour is farther away than either's plane explains."""
        z = torch.full(size, torch.nan, dtype=torch.float64)
        rise = torch.zeros(2, *size, dtype=torch.float64)
        z[self.row, self.column] = self.z
        rise[:, self.row, self.column] = self.slope.abs().T * 2 / min(size)
        found = torch.zeros(size, dtype=torch.bool)
        for axis, steep in ((1, rise[0]), (0, rise[1])):
            one, two = z.narrow(axis, 0, size[axis] - 1), z.narrow(axis, 1, size[axis] - 1)
            steeper = torch.maximum(
                steep.narrow(axis, 0, size[axis] - 1), steep.narrow(axis, 1, size[axis] - 1)
            )
            jump = (one - two).abs() > _JUMP + 1.5 * steeper  # never where one sees nothing
            found.narrow(axis, 0, size[axis] - 1).logical_or_(jump)
            found.narrow(axis, 1, size[axis] - 1).logical_or_(jump)
        near = torch.nn.functional.max_pool2d(found[None].float(), 2 * margin - 1, 1, margin - 1)
        return near[0].bool()
