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
    return unit(_normals_by_area(checks.floats("corners", corners), of=(2, 3)))


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
    normals = _normals_by_area(corners, of=(1, 2, 3))[:, :, None].expand_as(corners)
    if weighting == "angle":
        normals = unit(normals) * _angles(corners)[..., None]
    # Padding counts as vertex 0, to which it adds nothing.
    lead = 1 if faces.ndim == 2 else len(faces)
    index = faces.clamp(min=0).reshape(lead, -1, 1).to(vertices.device)
    flat = normals.reshape(len(vertices), -1, 3)
    total = torch.zeros_like(vertices).scatter_add(1, index.expand_as(flat), flat)
    return unit(total)


def unit(vectors: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
    """Vectors of length 1, whatever their unit of length; 0, without gradient, where it is 0."""
    some, scaled = about_one(vectors, dim=(-1,))
    length = torch.where(some, scaled, torch.ones_like(scaled)).square().sum(-1, keepdim=True)
    return torch.where(some, scaled / length.sqrt(), torch.zeros_like(vectors))


def about_one(values: Tensor, dim: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Where there is any number but 0 along `dim`, and the numbers by the largest of them.

    So squares and products neither vanish nor overflow. The divisor counts as a constant: use what
    is returned only where it does not matter.
    """
    largest = values.detach().abs().amax(dim, keepdim=True)
    some = largest > torch.finfo(values.dtype).tiny
    return some, values / torch.where(some, largest, torch.ones_like(largest))


def _normals_by_area(corners: Tensor, of: tuple[int, ...]) -> Tensor:
    """(B, F, 3): of lengths as areas; in one unit within the dimensions `of` (B, F, 2, 3) sides."""
    _, sides = about_one(corners[:, :, 1:] - corners[:, :, :1], of)
    normals: Tensor = torch.linalg.cross(*sides.unbind(2))
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
