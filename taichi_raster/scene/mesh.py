"""Triangle meshes, with texture coordinates, a texture or colours where they have them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from taichi_raster import checks
from taichi_raster.scene.attributes import UVTexture
from taichi_raster.scene.faces import check_faces, gather_faces
from taichi_raster.scene.movable import Movable


@dataclass(frozen=True, eq=False)
class Mesh(Movable):
    """A triangle mesh.

    Attributes:
        vertices: (V, 3) finite positions in world units, float32 or float64.
        faces: (F, 3) indices into `vertices`, F >= 1, counter-clockwise from outside: int64, made
            from a tensor or an array of NumPy's, of any integer type, or from lists.
        uv: (T, 2) texture coordinates, u right and v up, or None.
        uv_faces: (F, 3) indices into `uv`; where there is `uv` alone, the faces' own.
        texture: (H, W, C) an image in [0, 1], row 0 on top, or None.
        colours: (V, C) of vertices, in [0, 1], or None.

    Raises:
        ValueError: for other shapes, values that are not finite, or indices out of range.
        TypeError: if `vertices` is not a tensor of floats, or `faces` does not hold integers.
    """

    vertices: Float[Tensor, "V 3"]
    faces: Int[Tensor, "F 3"]
    uv: Float[Tensor, "T 2"] | None = None
    uv_faces: Int[Tensor, "F 3"] | None = None
    texture: Float[Tensor, "H W C"] | None = None
    colours: Float[Tensor, "V C"] | None = None

    def __post_init__(self) -> None:
        checks.floats("vertices", self.vertices)
        if self.vertices.ndim != 2 or self.vertices.shape[1] != 3:
            raise ValueError(f"vertices: must be (V, 3), got {tuple(self.vertices.shape)}")
        if not bool(self.vertices.isfinite().all()):
            raise ValueError("vertices: must be finite, got NaN or infinite positions")
        object.__setattr__(self, "faces", check_faces(self.faces, len(self.vertices)))
        self._check_texture()
        if self.colours is not None:
            checks.floats("colours", self.colours)
            shape = tuple(self.colours.shape)
            if self.colours.ndim != 2 or shape[0] != len(self.vertices) or shape[1] == 0:
                raise ValueError(f"colours: must be (V, C), V = {len(self.vertices)}, got {shape}")

    def _check_texture(self) -> None:
        if self.uv is None:
            if self.uv_faces is not None:
                raise ValueError("uv_faces: needs uv")
            return
        checks.floats("uv", self.uv)
        if self.uv.ndim != 2 or self.uv.shape[1] != 2 or not bool(self.uv.isfinite().all()):
            raise ValueError(f"uv: must be (T, 2) and finite, got {tuple(self.uv.shape)}")
        index = check_faces(
            self.faces if self.uv_faces is None else self.uv_faces, len(self.uv), "uv_faces"
        )
        if index.shape != self.faces.shape:
            raise ValueError(
                f"uv_faces: must be {tuple(self.faces.shape)}, got {tuple(index.shape)}"
            )
        if self.uv_faces is not None:
            object.__setattr__(self, "uv_faces", index)
        if self.texture is not None and checks.floats("texture", self.texture).ndim != 3:
            raise ValueError(f"texture: must be (H, W, C), got {tuple(self.texture.shape)}")

    def corner_uv(self) -> Float[Tensor, "1 F 3 2"]:
        """Texture coordinates at face corners.

        Raises:
            ValueError: if the mesh has none.
        """
        if self.uv is None:
            raise ValueError("mesh: has no texture coordinates")
        return gather_faces(self.uv[None], self.faces if self.uv_faces is None else self.uv_faces)

    def uv_texture(self, wrap: str = "repeat") -> UVTexture:
        """The mesh's texture as the renderer takes it.

        Raises:
            ValueError: if the mesh has no texture.
        """
        if self.texture is None:
            raise ValueError("mesh: has no texture")
        return UVTexture(self.corner_uv(), self.texture[None], wrap)

    def corner_colours(self) -> Float[Tensor, "1 F 3 C"]:
        """Colours at face corners.

        Raises:
            ValueError: if the mesh has none.
        """
        if self.colours is None:
            raise ValueError("mesh: has no colours")
        return gather_faces(self.colours[None], self.faces)


def normalise(mesh: Mesh, radius: float | None = None, half_extent: float | None = None) -> Mesh:
    """The mesh with its bounding box centred at the origin, scaled to a size (radius 1 by default).

    Args:
        radius: distance from the origin to the farthest vertex; or
        half_extent: half the longest side of the bounding box.

    Raises:
        ValueError: if both are given, one is not positive, or all vertices are in one place.
    """
    if radius is not None and half_extent is not None:
        raise ValueError("radius, half_extent: give one of them, not both")
    name, size = ("half_extent", half_extent) if half_extent is not None else ("radius", radius)
    checks.instance("mesh", mesh, Mesh)
    size = 1.0 if size is None else checks.positive(name, size)
    low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
    centred = mesh.vertices - (low + high) / 2
    present = centred.abs().amax() if name == "half_extent" else centred.norm(dim=1).amax()
    if not bool(present > 0):
        raise ValueError("mesh: all its vertices are in one place, so it has no size to scale")
    return replace(mesh, vertices=centred * (size / present))


def subdivide(mesh: Mesh) -> Mesh:
    """The same surface in four times as many triangles: each is cut at the midpoints of its edges.

    The old vertices come first, so `vertices[:V]` is unchanged; winding is kept.
    """
    checks.instance("mesh", mesh, Mesh)
    edges = mesh.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2).sort(dim=1).values
    unique, index = edges.unique(dim=0, return_inverse=True)
    midpoints = mesh.vertices[unique].mean(dim=1)
    a, b, c = mesh.faces.unbind(1)
    ab, bc, ca = (index.reshape(-1, 3) + len(mesh.vertices)).unbind(1)
    quarters = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    faces = torch.stack([torch.stack(corner, dim=1) for corner in quarters], dim=1)
    return Mesh(torch.cat([mesh.vertices, midpoints]), faces.reshape(-1, 3))
