"""Normals of faces and vertices, differentiable twice; a triangle without area has normal zero."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from taichi_raster import checks
from taichi_raster.scene.faces import as_indices, gather_faces


def face_normals(corners: Float[Tensor, "B F 3 3"]) -> Float[Tensor, "B F 3"]:
    """Unit normals of triangles, towards those who see them counter-clockwise.

    Args:
        corners: (B, F, 3, 3) in world space, from `gather_faces`.

    A triangle without area has normal 0, and no gradient.
    """
    return unit(_double_areas(checks.floats("corners", corners)))


def vertex_normals(
    vertices: Float[Tensor, "B V 3"], faces: Int[Tensor, "F 3"], weighting: str = "area"
) -> Float[Tensor, "B V 3"]:
    """Unit normals at vertices: of the mean of their faces' normals.

    Args:
        vertices: (B, V, 3) in world space.
        faces: (F, 3).
        weighting: ``"area"`` weighs faces by area; ``"angle"`` by their angle at the vertex
            (Thuermer and Wuethrich, J. Graphics Tools 3 (1998)), which does not depend on how a
            flat surface is cut into triangles.

    Raises:
        ValueError: for another weighting, or shapes that `gather_faces` refuses.
    """
    checks.choice("weighting", weighting, "area", "angle")
    faces = as_indices("faces", faces)
    corners = gather_faces(vertices, faces)
    normals = _double_areas(corners)[:, :, None].expand_as(corners)
    if weighting == "angle":
        normals = unit(normals) * _angles(corners)[..., None]
    # Padding counts as vertex 0, to which it adds nothing.
    lead = 1 if faces.ndim == 2 else len(faces)
    index = faces.clamp(min=0).reshape(lead, -1, 1).to(vertices.device)
    flat = normals.reshape(len(vertices), -1, 3)
    total = torch.zeros_like(vertices).scatter_add(1, index.expand_as(flat), flat)
    return unit(total)


def unit(vectors: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
    """Vectors of length 1; 0, without gradient, where the length is (almost) 0."""
    square = vectors.square().sum(-1, keepdim=True)
    some = square > torch.finfo(vectors.dtype).tiny ** 0.5
    length = torch.where(some, square, torch.ones_like(square)).sqrt()
    return torch.where(some, vectors / length, torch.zeros_like(vectors))


def _double_areas(corners: Tensor) -> Tensor:
    a, b, c = corners.unbind(-2)
    normals: Tensor = torch.linalg.cross(b - a, c - a)
    return normals


def _angles(corners: Tensor) -> Tensor:
    """(B, F, 3): of each triangle at each corner."""
    forth = unit(corners.roll(-1, dims=-2) - corners)
    back = unit(corners.roll(1, dims=-2) - corners)
    cosine = (forth * back).sum(-1)
    sine = torch.linalg.cross(forth, back)
    square = sine.square().sum(-1)
    some = square > 0
    return torch.where(
        some,
        torch.atan2(torch.where(some, square, torch.ones_like(square)).sqrt(), cosine),
        torch.zeros_like(square),
    )
