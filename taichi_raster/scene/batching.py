"""Meshes of different sizes in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from taichi_raster import checks
from taichi_raster.scene.mesh import Mesh
from taichi_raster.scene.movable import Movable


@dataclass(frozen=True, eq=False)
class MeshBatch(Movable):
    """Meshes padded to the largest.

    Attributes:
        vertices: (B, V, 3), padded with zeros.
        faces: (B, F, 3), padded with -1, which `gather_faces` and `Camera.project_faces` take: the
            renderer does not draw such faces.
        vertex_counts, face_counts: (B,) sizes of the meshes themselves.

    Example:
        >>> batch = collate([box(), torus()])
        >>> faces = gather_faces(camera.project(batch.vertices), batch.faces)
    """

    vertices: Float[Tensor, "B V 3"]
    faces: Int[Tensor, "B F 3"]
    vertex_counts: Int[Tensor, " B"]
    face_counts: Int[Tensor, " B"]

    def __len__(self) -> int:
        return len(self.vertices)

    def mesh(self, index: int) -> Mesh:
        """One of the meshes, without padding."""
        vertices = self.vertices[index, : int(self.vertex_counts[index])]
        return Mesh(vertices, self.faces[index, : int(self.face_counts[index])])


def collate(meshes: Sequence[Mesh]) -> MeshBatch:
    """Meshes of any sizes as one batch; gradients flow back to each mesh's vertices.

    Raises:
        ValueError: if there is none, or they differ in dtype or device.
    """
    for mesh in meshes:
        checks.instance("meshes", mesh, Mesh)
    if len(meshes) == 0:
        raise ValueError("meshes: expected at least one")
    kinds = {(mesh.vertices.dtype, mesh.vertices.device) for mesh in meshes}
    if len(kinds) > 1:
        raise ValueError(f"meshes: must agree in dtype and device, got {sorted(map(str, kinds))}")
    return MeshBatch(
        torch.nn.utils.rnn.pad_sequence([mesh.vertices for mesh in meshes], batch_first=True),
        torch.nn.utils.rnn.pad_sequence(
            [mesh.faces for mesh in meshes], batch_first=True, padding_value=-1
        ),
        torch.tensor([len(mesh.vertices) for mesh in meshes]),
        torch.tensor([len(mesh.faces) for mesh in meshes]),
    )
